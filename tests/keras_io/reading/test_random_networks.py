"""Small networks that Hypothesis puts together, in Keras 3's files, against Keras' own answers."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as some

from birdsonnx.keras_io.reading import graph_of, read
from birdsonnx.passes.dropout import take_out
from tests.graphs import answer
from tests.networks import keras_warns

pytestmark = keras_warns

TOLERANCE = 5e-5
"""Of float32 sums of a few hundred products, relative to the largest answer."""
EXAMPLES = 25
"""For each kind of file."""
ACTIVATIONS = ["relu", "relu6", "elu", "selu", "gelu", "silu", "tanh", "sigmoid", "softplus", "linear"]
ACTIVATIONS += ["hard_sigmoid", "leaky_relu", "mish"]
PADDING = some.sampled_from(["same", "valid"])
SMALL = some.integers(1, 3)


@some.composite
def on_maps(draw: Any) -> tuple[str, dict[str, Any]]:
    """A layer that takes maps and gives maps."""
    kernel = {"kernel_size": [draw(SMALL), draw(SMALL)], "padding": draw(PADDING)}
    common = {**kernel, "use_bias": draw(some.booleans()), "activation": draw(some.sampled_from(ACTIVATIONS))}
    if draw(some.booleans()):
        moved = {"strides": draw(SMALL)}
    else:
        moved = {"dilation_rate": draw(some.integers(1, 2))}
    filters = {"filters": 4 * draw(SMALL)}
    pool = {"pool_size": [draw(SMALL), draw(SMALL)], "strides": draw(SMALL), "padding": draw(PADDING)}
    epsilon = {"epsilon": draw(some.sampled_from([1e-5, 1e-3, 0.1]))}
    norm = {**epsilon, "center": draw(some.booleans()), "scale": draw(some.booleans())}
    sides = [[draw(some.integers(0, 2)) for _ in range(2)] for _ in range(2)]
    kinds = {
        "Conv2D": {**common, **moved, **filters, "groups": draw(some.sampled_from([1, 2, 4]))},
        "DepthwiseConv2D": {**common, "strides": draw(SMALL), "depth_multiplier": draw(some.integers(1, 2))},
        "SeparableConv2D": {**common, "strides": draw(SMALL), **filters},
        "Conv2DTranspose": {**common, "strides": draw(some.integers(1, 2)), **filters},
        "MaxPooling2D": pool,
        "AveragePooling2D": pool,
        "BatchNormalization": norm,
        "LayerNormalization": norm,
        "GroupNormalization": {**norm, "groups": draw(some.sampled_from([2, 4]))},
        "Activation": {"activation": draw(some.sampled_from([*ACTIVATIONS, "softmax", "exponential"]))},
        "ZeroPadding2D": {"padding": sides},
        "UpSampling2D": {"interpolation": draw(some.sampled_from(["nearest", "bilinear"]))},
        "PReLU": {"shared_axes": draw(some.sampled_from([[1, 2], [1], None]))},
        "Permute": {"dims": [2, 1, 3]},
        "Dense": {"units": 4 * draw(SMALL), "activation": draw(some.sampled_from(ACTIVATIONS))},
        "UnitNormalization": {},
    }
    kind = draw(some.sampled_from(sorted(kinds)))
    return kind, kinds[kind]


HEADS = ("GlobalAveragePooling2D", "GlobalMaxPooling2D", "Flatten")
MERGES = ("Add", "Multiply", "Maximum", "Average", "Concatenate", None)


recipes = some.tuples(
    some.tuples(some.integers(9, 12), some.integers(9, 12)),
    some.lists(some.tuples(on_maps(), some.booleans(), some.sampled_from(MERGES)), min_size=2, max_size=5),
    some.sampled_from(HEADS),
)


def build(keras: Any, recipe: Any) -> Any:
    """Two to five layers, at times with a branch around one of them or with one in a model of its own."""
    sides, steps, head = recipe
    layers = keras.layers
    image = keras.Input((*sides, 3))
    x = layers.Conv2D(4, 1)(image)
    for (kind, config), nested, merge in steps:
        before = x
        layer = getattr(layers, kind)(**config)
        try:
            if nested:
                inside = keras.Input(x.shape[1:])
                x = keras.Model(inside, layer(inside))(x)
            else:
                x = layer(x)
        except ValueError:  # a kernel larger than the map, groups that do not fit
            continue
        if merge and x.shape == before.shape:
            x = getattr(layers, merge)()([before, x])
    return keras.Model(image, layers.Dense(3)(getattr(layers, head)()(x)))


@pytest.mark.parametrize("suffix", [".keras", ".h5"])
def test_a_random_network_answers_as_keras_does(keras, suffix):
    @settings(max_examples=EXAMPLES, deadline=None, derandomize=True, database=None)
    @given(recipe=recipes)
    def compare(recipe: Any) -> None:
        is_answered_alike(build(keras, recipe), Path(f"network{suffix}"))

    compare()


def is_answered_alike(model: Any, path: Path, change: Callable[[Any], Any] = lambda graph: None) -> None:
    """Random weights, the file, its graph in the runtime as people use it, and Keras' own answers."""
    generator = np.random.default_rng(0)
    for variable in model.variables:
        spread = generator.uniform(0.5, 1.5, variable.shape)
        variable.assign(spread if "variance" in variable.path else spread - 1)
    model.save(path)
    photos = generator.uniform(-1, 1, (2, *model.input_shape[1:])).astype(np.float32)
    expected = model.predict_on_batch(photos)
    drawn = graph_of(read(path)).model
    change(drawn.graph)
    found = answer(drawn, photos.transpose(0, 3, 1, 2))
    assert found.shape == expected.shape
    assert np.abs(found - expected).max() <= TOLERANCE * max(1, np.abs(expected).max())


@pytest.mark.parametrize("padding", ["valid", "same"])
@pytest.mark.parametrize("size", [1, 2, 3])
@pytest.mark.parametrize("kind", ["MaxPooling2D", "AveragePooling2D"])
def test_zeros_before_a_pooling_are_values(keras, kind, size, padding):
    """The runtime would take them for the pooling's own padding."""
    layers = keras.layers
    image = keras.Input((9, 10, 3))
    x = layers.ZeroPadding2D(((2, 1), (0, 3)))(layers.Conv2D(4, 1)(image))
    x = getattr(layers, kind)(size, strides=2, padding=padding)(x)
    is_answered_alike(keras.Model(image, layers.Dense(3)(layers.Flatten()(x))), Path("network.keras"))


@pytest.mark.parametrize("kind", ["MaxPooling2D", "AveragePooling2D"])
def test_zeros_are_values_too_where_a_dropout_between_is_taken_out(keras, kind):
    layers = keras.layers
    image = keras.Input((9, 10, 3))
    x = layers.ZeroPadding2D(((2, 1), (0, 3)))(layers.Conv2D(4, 1)(image))
    x = getattr(layers, kind)(3, strides=2, padding="same")(layers.Dropout(0.3)(x))
    model = keras.Model(image, layers.Dense(3)(layers.Flatten()(x)))
    is_answered_alike(model, Path("network.keras"), take_out)
