"""The plain NumPy that the self-check compares with, beside the forward passes of the tests and central
differences of those."""

import numpy as np
import pytest

from birdsonnx.onednn import plain
from birdsonnx.onednn.primitives import AVERAGE_OF_ALL, AVERAGE_OF_REAL, MAX, Window
from tests.onednn.forward import NODES

WINDOWS = [
    Window((3, 3), (1, 1), (0, 0), (1, 1), (1, 1)),
    Window((3, 2), (2, 1), (0, 0), (0, 1), (2, 1)),
    Window((2, 3), (1, 2), (1, 0), (1, 0), (1, 2)),
    Window((1, 1), (2, 3), (0, 0), (0, 0), (0, 0)),
]
POOLS = {
    MAX: ("MaxPool", {}),
    AVERAGE_OF_REAL: ("AveragePool", {}),
    AVERAGE_OF_ALL: ("AveragePool", {"count_include_pad": 1}),
}


def options(window: Window) -> dict:
    return {
        "strides": window.strides,
        "dilations": [gap + 1 for gap in window.gaps],
        "pads": [*window.before, *window.after],
        "kernel_shape": window.kernel,
    }


def difference(function, gradient, value, direction):
    sums = [(function(value + sign * 1e-6 * direction) * gradient).sum() for sign in (1, -1)]
    return (sums[0] - sums[1]) / 2e-6


@pytest.mark.parametrize("window", WINDOWS)
@pytest.mark.parametrize("groups", [1, 2, 6])
def test_convolution(window, groups):
    generator = np.random.default_rng(0)
    source = generator.normal(size=(2, 6, 5, 7))
    kernel = generator.normal(size=(6, 6 // groups, *window.kernel))
    how = {**options(window), "group": groups}
    wanted = NODES["Conv"](how, source, kernel)
    gradient = generator.normal(size=wanted.shape)
    result, by_source, by_kernel = plain.convolution(source, kernel, groups, window, gradient)
    np.testing.assert_allclose(result, wanted, atol=1e-12)
    direction = generator.normal(size=source.shape)
    found = difference(lambda x: NODES["Conv"](how, x, kernel), gradient, source, direction)
    assert (by_source * direction).sum() == pytest.approx(found, rel=1e-6)
    direction = generator.normal(size=kernel.shape)
    found = difference(lambda k: NODES["Conv"](how, source, k), gradient, kernel, direction)
    assert (by_kernel * direction).sum() == pytest.approx(found, rel=1e-6)


@pytest.mark.parametrize("window", WINDOWS)
@pytest.mark.parametrize("algorithm", POOLS)
def test_pool(window, algorithm):
    generator = np.random.default_rng(0)
    source = generator.normal(size=(2, 3, 5, 7))
    kind, more = POOLS[algorithm]
    how = {**options(window), **more}
    wanted = NODES[kind](how, source)
    gradient = generator.normal(size=wanted.shape)
    result, by_source = plain.pool(source, algorithm, window, gradient)
    np.testing.assert_allclose(result, wanted, atol=1e-12)
    direction = generator.normal(size=source.shape)
    found = difference(lambda x: NODES[kind](how, x), gradient, source, direction)
    assert (by_source * direction).sum() == pytest.approx(found, rel=1e-6)
