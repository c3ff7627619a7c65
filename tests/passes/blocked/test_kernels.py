"""Rearranged kernels against plain loops."""

import numpy as np
import pytest

from birdsonnx.passes.blocked.kernels import block_channels, block_outputs, block_transposed


def kernel(out: int, inputs: int, height: int = 3, width: int = 2) -> np.ndarray:
    return np.random.default_rng(0).normal(size=(out, inputs, height, width)).astype(np.float32)


@pytest.mark.parametrize("block", [8, 16])
def test_block_channels_against_a_loop(block):
    weight = kernel(2 * block, 3 * block)
    found = block_channels(weight, block)
    assert found.shape == (2, 3, 3, 2, block, block)
    for o, i, row, column in np.ndindex(weight.shape):
        at = (o // block, i // block, row, column, i % block, o % block)
        assert found[at] == weight[o, i, row, column]
    assert np.shares_memory(found, weight)


@pytest.mark.parametrize("inputs", [1, 3])
def test_block_outputs_against_a_loop(inputs):
    weight = kernel(16, inputs)
    found = block_outputs(weight, 8)
    assert found.shape == (2, inputs, 3, 2, 8)
    for o, i, row, column in np.ndindex(weight.shape):
        assert found[o // 8, i, row, column, o % 8] == weight[o, i, row, column]
    assert np.shares_memory(found, weight)


@pytest.mark.parametrize("block", [8, 16])
def test_block_transposed_against_a_loop(block):
    weight = kernel(2 * block, 3 * block)
    found = block_transposed(weight, block)
    assert found.shape == (3, 2, 3, 2, block, block)
    for o, i, row, column in np.ndindex(weight.shape):
        at = (i // block, o // block, 2 - row, 1 - column, o % block, i % block)
        assert found[at] == weight[o, i, row, column]
    assert np.shares_memory(found, weight)
