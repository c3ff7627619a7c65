"""Fresh arrays against the published formulas of their initializers, and against Keras' own draws."""

import math

import numpy as np
import pytest

from birdsonnx.errors import ModelError
from birdsonnx.keras_io.reading import fresh
from birdsonnx.keras_io.reading.records import Layer
from tests.networks import keras_warns

KERNEL = (3, 3, 40, 60)
FAN_IN, FAN_OUT = 3 * 3 * 40, 3 * 3 * 60


def drawn(initializer, shape=KERNEL, role="kernel", kind="Conv2D", path="conv", seed=1, key="kernel"):
    config = {} if initializer is None else {f"{key}_initializer": initializer}
    return fresh.array(Layer("conv", kind, config, 3), role, shape, seed, path, "net.json")


def given(kind, **config):
    return {"module": "keras.initializers", "class_name": kind, "config": config, "registered_name": None}


GLOROT, HE, LECUN = 2 / (FAN_IN + FAN_OUT), 2 / FAN_IN, 1 / FAN_IN
CUT = 0.87962566103423978
"""Standard deviation of a standard normal distribution between -2 and 2."""


@pytest.mark.parametrize(
    ("initializer", "mean", "variance", "bound"),
    [
        ("glorot_uniform", 0, GLOROT, math.sqrt(3 * GLOROT)),
        (given("GlorotUniform", seed=None), 0, GLOROT, math.sqrt(3 * GLOROT)),
        (None, 0, GLOROT, math.sqrt(3 * GLOROT)),
        ("glorot_normal", 0, GLOROT, 2 * math.sqrt(GLOROT) / CUT),
        ("he_uniform", 0, HE, math.sqrt(3 * HE)),
        (given("HeNormal", seed=None), 0, HE, 2 * math.sqrt(HE) / CUT),
        ("lecun_uniform", 0, LECUN, math.sqrt(3 * LECUN)),
        ("lecun_normal", 0, LECUN, 2 * math.sqrt(LECUN) / CUT),
        (given("RandomNormal", mean=0.5, stddev=0.2, seed=3), 0.5, 0.04, math.inf),
        ("random_normal", 0, 0.05**2, math.inf),
        (given("RandomUniform", minval=-1, maxval=3), 1, 16 / 12, 3),
        ("uniform", 0, 0.1**2 / 12, 0.05),
        (given("TruncatedNormal", mean=1.0, stddev=0.5), 1, (0.5 * CUT) ** 2, 2),
        (
            given("VarianceScaling", scale=3.0, mode="fan_out", distribution="untruncated_normal"),
            0,
            3 / FAN_OUT,
            math.inf,
        ),
        (given("VarianceScaling", scale=0.5, mode="fan_avg", distribution="uniform"), 0, GLOROT / 2, None),
        (given("VarianceScaling", distribution="normal"), 0, LECUN, 2 * math.sqrt(LECUN) / CUT),
        (given("GlorotUniform", input_axes=[0], output_axes=[3]), 0, 2 / 63, math.sqrt(6 / 63)),
    ],
)
def test_moments(initializer, mean, variance, bound):
    values = drawn(initializer).astype(np.float64)
    assert values.shape == KERNEL
    spread, bound = math.sqrt(variance), bound or math.sqrt(3 * variance)
    assert abs(values.mean() - mean) < 5 * spread / math.sqrt(values.size)
    assert values.var() == pytest.approx(variance, rel=0.02)
    assert np.abs(values).max() <= bound * 1.0001
    if math.isfinite(bound):  # and it comes near to where it ends
        assert np.abs(values).max() > 0.99 * bound


def test_a_uniform_distribution_is_flat_and_a_normal_one_is_not():
    uniform = drawn("glorot_uniform").reshape(-1) / math.sqrt(3 * GLOROT)
    np.testing.assert_allclose(np.histogram(uniform, 10, (-1, 1))[0] / uniform.size, 0.1, atol=0.01)
    normal = drawn("he_normal").reshape(-1) / (math.sqrt(HE) / CUT)
    within = np.mean(np.abs(normal) < 1)  # of a normal distribution that ends at 2
    assert within == pytest.approx(math.erf(1 / math.sqrt(2)) / math.erf(math.sqrt(2)), abs=0.01)


@pytest.mark.parametrize("shape", [(3, 3, 4, 8), (6, 40), (40, 6), (2, 5, 70)])
def test_an_orthogonal_array(shape):
    matrix = drawn(given("Orthogonal", gain=2.0), shape).reshape(-1, shape[-1])
    product = matrix.T @ matrix if matrix.shape[0] >= matrix.shape[1] else matrix @ matrix.T
    np.testing.assert_allclose(product, 4 * np.eye(len(product)), atol=1e-5)


def test_values_that_are_not_drawn():
    np.testing.assert_array_equal(drawn(given("Constant", value=0.25), (2, 3)), np.full((2, 3), 0.25))
    np.testing.assert_array_equal(drawn("identity", (2, 3)), np.eye(2, 3))
    np.testing.assert_array_equal(drawn("Zeros", (4,)), np.zeros(4))
    np.testing.assert_array_equal(drawn("one", (4,)), np.ones(4))


@pytest.mark.parametrize(
    ("kind", "role", "value"),
    [
        ("BatchNormalization", "gamma", 1),
        ("BatchNormalization", "beta", 0),
        ("BatchNormalization", "moving_mean", 0),
        ("BatchNormalization", "moving_variance", 1),
        ("Normalization", "mean", 0),
        ("Normalization", "variance", 1),
        ("RMSNormalization", "scale", 1),
        ("PReLU", "alpha", 0),
        ("Dense", "bias", 0),
    ],
)
def test_defaults_of_keras(kind, role, value):
    np.testing.assert_array_equal(drawn(None, (5,), role, kind), np.full(5, value, np.float32))


def test_keys_that_are_not_called_after_the_role():
    layer = Layer("scale", "LayerScale", {"init_values": 1e-6}, 3)
    np.testing.assert_array_equal(fresh.array(layer, "gamma", (3,), 0, "s", "w"), np.float32([1e-6] * 3))
    for kind, role in (("DepthwiseConv2D", "kernel"), ("SeparableConv2D", "depthwise_kernel")):
        assert drawn("ones", (3, 3, 2, 1), role, kind, key="depthwise").min() == 1
    assert drawn("ones", (1, 1, 2, 4), "pointwise_kernel", "SeparableConv2D", key="pointwise").min() == 1
    query = drawn(None, (64, 8, 16), "query/kernel", "MultiHeadAttention")
    assert query.var() == pytest.approx(2 / (64 + 8 * 16), rel=0.05)
    out = drawn(None, (8, 16, 64), "attention_output/kernel", "MultiHeadAttention")
    assert out.var() == pytest.approx(2 / (64 + 8 * 16), rel=0.05)


def test_a_draw_depends_on_seed_path_and_role_alone():
    first = drawn("he_normal")
    np.testing.assert_array_equal(first, drawn("he_normal"))
    for other in (drawn("he_normal", path="other"), drawn("he_normal", seed=2)):
        assert abs(np.corrcoef(first.reshape(-1), other.reshape(-1))[0, 1]) < 0.02
    roles = ("kernel", "pointwise_kernel")
    one, two = (drawn(None, role=role).reshape(-1) for role in roles)
    assert abs(np.corrcoef(one, two)[0, 1]) < 0.02


@pytest.mark.parametrize(
    ("initializer", "message"),
    [
        ("glorot_uniforn", "is not Keras' own; did you mean 'glorot_uniform'"),
        (given("Mine"), "is not Keras' own"),
        (given("RandomNormal", stddev="wide"), "its stddev must be a number, got"),
        (given("VarianceScaling", mode="fan"), "its mode must be one of fan_in, fan_out, fan_avg, got"),
        (given("VarianceScaling", scale=0), "its scale must be above 0"),
        (given("GlorotUniform", input_axes=[7], output_axes=[0]), "cannot be drawn afresh"),
        ("identity", "an identity needs two axes"),
    ],
)
def test_what_is_refused(initializer, message):
    with pytest.raises(ModelError, match=r"net.json: layer 'conv' \(Conv2D\): its kernel cannot") as caught:
        drawn(initializer)
    assert message in str(caught.value)


@keras_warns
@pytest.mark.parametrize("kind", sorted(set(fresh.INITIALIZERS) - {"identity", "orthogonal"}))
def test_moments_are_those_of_keras(keras, kind):
    keras.utils.set_random_seed(0)  # else its largest value is another one each time
    classes = {name.lower(): name for name in dir(keras.initializers)}
    made = getattr(keras.initializers, classes[kind.replace("_", "")])()
    theirs = np.asarray(made(KERNEL), np.float64)
    ours = drawn(keras.initializers.serialize(made)).astype(np.float64)
    assert abs(ours.mean() - theirs.mean()) <= 8 * theirs.std() / math.sqrt(theirs.size)
    assert ours.std() == pytest.approx(theirs.std(), rel=0.02)
    ends = 0.2 if kind == "random_normal" else 0.02  # where it ends nowhere, the largest value is chance
    assert np.abs(ours).max() == pytest.approx(np.abs(theirs).max(), rel=ends)
