"""Each operation and its derivative rule: float32 against central differences of float64 forward passes,
bfloat16 against float32."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pytest
from onnx import NodeProto

from birdsonnx.onednn.descriptors import BF16, F32
from birdsonnx.onednn.rules import RULES
from tests.onednn.trunks import (
    Found,
    computed,
    drawn,
    graph_of,
    needs_bfloat16,
    needs_onednn,
    node,
    result_of,
)

pytestmark = needs_onednn

PHOTOS = 2
SMOOTH = 2**-6
"""Distance of bfloat16 from float32, as a share of the norm. Each rounding moves a number by up to 2^-9 of
itself, and values and gradients are rounded a few times one after the other."""
KINKED = 2**-3
"""Where rounding also decides on which side of a kink a value falls: that changes the derivative of one value
in a hundred by as much as the derivative itself, and the norm by a tenth."""


@dataclass
class Case:
    nodes: Sequence[NodeProto]
    weights: Mapping[str, Sequence[int]]
    """Shapes of all that is trained."""
    frozen: Mapping[str, np.ndarray] = field(default_factory=dict)
    given: Mapping[str, Sequence[int]] = field(default_factory=lambda: {"x": (8, 7, 6)})
    far: float = SMOOTH


def conv(*names: str, **options: object) -> NodeProto:
    """`source, kernel[, bias], result`."""
    return node("Conv", list(names[:-1]), [names[-1]], **options)


def scaled(*rest: NodeProto) -> list[NodeProto]:
    """`x` times trained numbers is `a`: what follows is then passed on the way back."""
    return [node("Mul", ["x", "by"], ["a"]), *rest]


SIX = [1, 1, 1, 1]
BY = {"by": (8, 1, 1)}
INTS = np.int64

CONVOLUTIONS = {
    "3 x 3": Case([conv("x", "k", "b", "y", pads=SIX)], {"k": (5, 8, 3, 3), "b": (5,)}),
    "no bias": Case([conv("x", "k", "y")], {"k": (4, 8, 3, 3)}),
    "asymmetric padding": Case([conv("x", "k", "y", pads=[0, 1, 2, 3])], {"k": (4, 8, 3, 3)}),
    "not square": Case([conv("x", "k", "y", strides=[1, 2], pads=[0, 1, 1, 0])], {"k": (4, 8, 3, 2)}),
    "dilated": Case([conv("x", "k", "y", dilations=[2, 1], pads=[2, 1, 2, 1])], {"k": (4, 8, 3, 3)}),
    "strided": Case([conv("x", "k", "b", "y", strides=[2, 2], pads=SIX)], {"k": (4, 8, 3, 3), "b": (4,)}),
    "1 x 1": Case([conv("x", "k", "b", "y")], {"k": (16, 8, 1, 1), "b": (16,)}),
    "1 x 1 strided": Case([conv("x", "k", "b", "y", strides=[2, 2])], {"k": (16, 8, 1, 1), "b": (16,)}),
    "groups": Case([conv("x", "k", "b", "y", group=2, pads=SIX)], {"k": (6, 4, 3, 3), "b": (6,)}),
    "groups, strided": Case([conv("x", "k", "y", group=4, strides=[2, 2])], {"k": (8, 2, 3, 3)}),
    "depthwise": Case([conv("x", "k", "b", "y", group=8, pads=SIX)], {"k": (8, 1, 3, 3), "b": (8,)}),
    "depthwise, strided": Case(
        [conv("x", "k", "y", group=8, strides=[2, 2], pads=[0, 0, 1, 1])], {"k": (8, 1, 3, 3)}
    ),
    "depthwise 5 x 5": Case(
        [conv("x", "k", "b", "y", group=8, pads=[2] * 4)], {"k": (8, 1, 5, 5), "b": (8,)}
    ),
    "depthwise 5 x 5, strided": Case(
        [conv("x", "k", "y", group=8, strides=[2, 2], pads=[1, 1, 2, 2])], {"k": (8, 1, 5, 5)}
    ),
    "two per group": Case([conv("x", "k", "y", group=8, pads=SIX)], {"k": (16, 1, 3, 3)}),
    "bias trained alone": Case([conv("x", "k", "b", "y")], {"b": (4,)}, {"k": drawn(4, 8, 3, 3, seed=5)}),
    "kernel trained alone": Case([conv("x", "k", "b", "y")], {"k": (4, 8, 3, 3)}, {"b": drawn(4, seed=5)}),
    "frozen after trained": Case(
        [conv("x", "k", "a"), conv("a", "frozen", "b", "y")],
        {"k": (8, 8, 1, 1)},
        {"frozen": drawn(4, 8, 3, 3, seed=5), "b": drawn(4, seed=6)},
    ),
    "kernel used twice": Case(
        [conv("x", "k", "b", "a", pads=SIX), conv("a", "k", "c", "y")],
        {"k": (8, 8, 3, 3), "b": (8,), "c": (8,)},
    ),
    "bias used twice": Case(
        [conv("x", "k", "b", "a"), conv("a", "l", "b", "y")],
        {"k": (8, 8, 3, 3), "l": (8, 8, 1, 1), "b": (8,)},
    ),
    "grouped kernel used twice": Case(
        [conv("x", "k", "a", group=2, pads=SIX), conv("a", "k", "y", group=2)], {"k": (8, 4, 3, 3)}
    ),
    "sum and Relu": Case(
        [
            conv("x", "k", "b", "c", pads=SIX),
            node("Mul", ["x", "by"], ["a"]),
            node("Add", ["a", "c"], ["s"]),
            node("Relu", ["s"], ["y"]),
        ],
        {"k": (8, 8, 3, 3), "b": (8,), **BY},
        far=KINKED,
    ),
    "shortcut of its own source": Case(
        [
            *scaled(conv("a", "k", "b", "c", pads=SIX), node("Add", ["c", "a"], ["s"])),
            node("Relu", ["s"], ["y"]),
        ],
        {"k": (8, 8, 3, 3), "b": (8,), **BY},
        far=KINKED,
    ),
    "sum of two convolutions": Case(
        [conv("x", "k", "a"), conv("x", "l", "b", strides=[1, 1]), node("Add", ["a", "b"], ["y"])],
        {"k": (4, 8, 3, 3), "l": (4, 8, 3, 3)},
    ),
    "two sums one after the other": Case(
        [
            conv("x", "k", "a", pads=SIX),
            node("Add", ["a", "x"], ["b"]),
            conv("b", "l", "c", pads=SIX),
            node("Add", ["c", "b"], ["d"]),
            node("Add", ["d", "x"], ["y"]),
        ],
        {"k": (8, 8, 3, 3), "l": (8, 8, 3, 3)},
    ),
}

POOLS = {
    "largest": Case(
        scaled(node("MaxPool", ["a"], ["y"], kernel_shape=[3, 3], strides=[2, 2])), BY, far=KINKED
    ),
    "largest, overlapping and padded": Case(
        scaled(node("MaxPool", ["a"], ["y"], kernel_shape=[3, 2], strides=[1, 2], pads=[1, 0, 1, 1])),
        BY,
        far=KINKED,
    ),
    "largest, rounded up": Case(
        scaled(node("MaxPool", ["a"], ["y"], kernel_shape=[2, 3], strides=[2, 2], ceil_mode=1)),
        BY,
        far=KINKED,
    ),
    "thinning MaxPool": Case(scaled(node("MaxPool", ["a"], ["y"], kernel_shape=[1, 1], strides=[2, 2])), BY),
    "thinning Slice": Case(
        scaled(node("Slice", ["a", "starts", "ends", "axes", "steps"], ["y"])),
        BY,
        {
            "starts": np.array([0, 0], INTS),
            "ends": np.array([2**31, 6], INTS),
            "axes": np.array([2, 3], INTS),
            "steps": np.array([3, 2], INTS),
        },
    ),
    "mean": Case(scaled(node("AveragePool", ["a"], ["y"], kernel_shape=[2, 2], strides=[2, 2])), BY),
    "mean without padding": Case(
        scaled(node("AveragePool", ["a"], ["y"], kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1])), BY
    ),
    "mean with padding": Case(
        scaled(
            node("AveragePool", ["a"], ["y"], kernel_shape=[3, 3], pads=[1, 1, 1, 1], count_include_pad=1)
        ),
        BY,
    ),
    "mean, rounded up": Case(
        scaled(node("AveragePool", ["a"], ["y"], kernel_shape=[2, 2], strides=[2, 2], ceil_mode=1)), BY
    ),
    "margin": Case(
        scaled(node("Pad", ["a", "pads"], ["p"]), conv("p", "k", "y", strides=[2, 2])),
        {"k": (4, 8, 3, 3), **BY},
        {"pads": np.array([0, 0, 1, 0, 0, 0, 2, 3], INTS)},
    ),
}

ARITHMETIC = {
    "factor": Case([node("Mul", ["x", "by"], ["y"])], BY),
    "summand": Case([node("Add", ["plus", "x"], ["y"])], {"plus": (1, 8, 1, 1)}),
    "factor and summand": Case(
        [node("Mul", ["x", "by"], ["a"]), node("Add", ["a", "plus"], ["y"])], {"plus": (8, 1, 1), **BY}
    ),
    "frozen factor": Case(
        scaled(node("Mul", ["a", "frozen"], ["m"]), node("Add", ["m", "plus"], ["y"])),
        {"plus": (8, 1, 1), **BY},
        {"frozen": drawn(8, 1, 1, seed=5)},
    ),
    "frozen number": Case(
        scaled(node("Mul", ["a", "two"], ["y"])), BY, {"two": np.array([2.5], np.float32)}
    ),
    "factor used twice": Case(
        [node("Mul", ["x", "by"], ["a"]), node("Sigmoid", ["a"], ["b"]), node("Mul", ["b", "by"], ["y"])], BY
    ),
    "factor that is the summand": Case(scaled(node("Add", ["a", "by"], ["y"])), BY),
    "x + x": Case(scaled(node("Add", ["a", "a"], ["y"])), BY),
    "x * x": Case(scaled(node("Mul", ["a", "a"], ["y"])), BY),
    "sum with what is frozen": Case(
        scaled(node("Add", ["a", "other"], ["y"])), BY, given={"x": (8, 7, 6), "other": (8, 7, 6)}
    ),
    "product of maps": Case(
        [*scaled(node("Tanh", ["a"], ["t"])), node("Mul", ["t", "a"], ["y"])], BY
    ),
    "product with a full mask": Case(
        scaled(node("Mul", ["a", "mask"], ["y"])), BY, given={"x": (8, 7, 6), "mask": (8, 7, 6)}
    ),
    "product with a number of each photo": Case(
        scaled(node("Mul", ["a", "mask"], ["y"])), BY, given={"x": (8, 7, 6), "mask": (1, 1, 1)}
    ),
    "read by three": Case(
        scaled(
            node("Tanh", ["a"], ["b"]), node("Sigmoid", ["a"], ["c"]), conv("a", "k", "d", pads=SIX),
            node("Add", ["b", "c"], ["e"]), node("Add", ["e", "d"], ["y"]),
        ),
        {"k": (8, 8, 3, 3), **BY},
    ),
    "squeeze and excite": Case(
        scaled(
            node("GlobalAveragePool", ["a"], ["m"]),
            conv("m", "down", "bd", "d"),
            node("Sigmoid", ["d"], ["g"]),
            node("Mul", ["d", "g"], ["swish"]),
            conv("swish", "up", "bu", "u"),
            node("Sigmoid", ["u"], ["gate"]),
            node("Mul", ["a", "gate"], ["y"]),
        ),
        {"down": (2, 8, 1, 1), "bd": (2,), "up": (8, 2, 1, 1), "bu": (8,), **BY},
    ),
    "squeeze and excite, the gate first": Case(
        scaled(
            node("GlobalAveragePool", ["a"], ["m"]),
            conv("m", "k", "b", "u"),
            node("Sigmoid", ["u"], ["gate"]),
            node("Mul", ["gate", "a"], ["y"]),
        ),
        {"k": (8, 8, 1, 1), "b": (8,), **BY},
    ),
    "joined": Case(
        scaled(
            conv("a", "k", "b", pads=SIX), node("Concat", ["b", "a", "other"], ["j"], axis=1),
            conv("j", "l", "y"),
        ),
        {"k": (3, 8, 3, 3), "l": (4, 15, 1, 1), **BY},
        given={"x": (8, 7, 6), "other": (4, 7, 6)},
    ),
    "joined with itself": Case(
        scaled(node("Concat", ["a", "a"], ["j"], axis=-3), conv("j", "l", "y")), {"l": (4, 16, 1, 1), **BY}
    ),
}  # fmt: skip

FUNCTIONS = {
    "Clip": ({}, {"low": np.float32(-0.7), "high": np.float32(0.9)}, ["low", "high"], KINKED),
    "Elu": ({"alpha": 0.7}, {}, [], SMOOTH),
    "HardSigmoid": ({"alpha": 0.3, "beta": 0.4}, {}, [], KINKED),
    "HardSwish": ({}, {}, [], SMOOTH),
    "LeakyRelu": ({"alpha": 0.3}, {}, [], SMOOTH),
    "Relu": ({}, {}, [], SMOOTH),
    "Sigmoid": ({}, {}, [], SMOOTH),
    "Tanh": ({}, {}, [], SMOOTH),
}
"""Attributes, bounds, their names."""


def activations() -> dict[str, Case]:
    found = {}
    for kind, (options, frozen, names, far) in FUNCTIONS.items():
        alone = scaled(node(kind, ["a", *names], ["y"], **options))
        found[kind] = Case(alone, BY, frozen, far=far)
        after = [conv("x", "k", "b", "c"), node(kind, ["c", *names], ["d"], **options), conv("d", "l", "y")]
        shapes = {"k": (4, 8, 3, 3), "b": (4,), "l": (4, 4, 1, 1)}
        found[f"{kind} of a convolution"] = Case(after, shapes, frozen, far=max(far, KINKED))
    swish = scaled(node("Sigmoid", ["a"], ["g"]), node("Mul", ["g", "a"], ["y"]))
    return {**found, "swish": Case(swish, BY)}


CASES = {**CONVOLUTIONS, **POOLS, **ARITHMETIC, **activations()}


def setting(case: Case) -> tuple:
    weights = {name: drawn(*shape, seed=number) for number, (name, shape) in enumerate(case.weights.items())}
    feeds = {name: drawn(PHOTOS, *shape, seed=9 + len(name)) for name, shape in case.given.items()}
    model = graph_of(case.nodes, {**weights, **case.frozen}, case.given)
    gradient = drawn(*result_of(model, feeds).shape, seed=7)
    return model, weights, feeds, gradient


def test_no_rule_is_forgotten():
    tested = {each.op_type for case in CASES.values() for each in case.nodes}
    assert tested == set(RULES)


@pytest.mark.parametrize("name", CASES)
def test_float32_against_central_differences(name):
    """Along random directions, which see every number of an array."""
    model, weights, feeds, gradient = setting(CASES[name])
    found = computed(model, weights, feeds, gradient, F32)
    wanted = result_of(model, feeds)
    assert np.abs(found.result - wanted).max() <= 3e-6 * np.abs(wanted).max()
    arrays = {name: value.astype(np.float64) for name, value in {**weights, **feeds}.items()}
    assert set(found.gradients) == set(arrays)
    step = 1e-6
    for key, value in arrays.items():
        generator = np.random.default_rng(len(key))
        by = found.gradients[key].astype(np.float64)
        if by.shape != value.shape:  # a number of each photo is given once for each channel
            by = by.sum(1, keepdims=True)
        assert np.linalg.norm(by) > 0
        for _ in range(2):
            direction = generator.normal(size=value.shape)
            direction /= np.linalg.norm(direction)
            sums = [
                (result_of(model, {**arrays, key: value + sign * step * direction}) * gradient).sum()
                for sign in (1, -1)
            ]
            difference = (sums[0] - sums[1]) / (2 * step)
            assert (by * direction).sum() == pytest.approx(difference, abs=1e-5 * np.linalg.norm(by)), key


@needs_bfloat16
@pytest.mark.parametrize("name", CASES)
def test_bfloat16_beside_float32(name):
    case = CASES[name]
    model, weights, feeds, gradient = setting(case)
    exact = computed(model, weights, feeds, gradient, F32)
    found = computed(model, weights, feeds, gradient, BF16)
    assert distance(found.result, exact.result) <= SMOOTH
    for key, value in exact.gradients.items():
        assert distance(found.gradients[key], value) <= case.far, key
    assert_same(computed(model, weights, feeds, gradient, BF16), found)


@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_turned_kernels_have_the_same_gradients(name):
    """The same numbers, but for the order in which a kernel adds them up."""
    model, weights, feeds, gradient = setting(CASES[name])
    found = computed(model, weights, feeds, gradient, F32, turned=True)
    assert_same(found, computed(model, weights, feeds, gradient, F32))


def distance(found: np.ndarray, wanted: np.ndarray) -> float:
    return float(np.linalg.norm(found - wanted) / np.linalg.norm(wanted))


def assert_same(found: Found, other: Found) -> None:
    np.testing.assert_array_equal(found.result, other.result)
    for name, value in other.gradients.items():
        np.testing.assert_array_equal(found.gradients[name], value, err_msg=name)
