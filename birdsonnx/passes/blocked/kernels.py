"""Kernels of convolutions in the order that blocked inputs want, once per step or once and for all."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from onnx import TensorProto, helper

from birdsonnx.model.edits import Editor

Weight = npt.NDArray[np.float32]
Arrange = Callable[[Weight, int], Weight]
"""A kernel and the size of a block -> a view in another order."""


@dataclass(frozen=True)
class DerivedWeight:
    """A graph input computed from a weight once per step, float32."""

    name: str
    source: str
    shape: tuple[int, ...]
    rearrange: Callable[[Weight], Weight]
    """The weight as a (strided) view in the order of the input."""

    def write(self, weight: Weight, out: Weight) -> None:
        """Fill `out`, of `shape`."""
        view = self.rearrange(weight)
        np.copyto(out.reshape(view.shape), view)


def block_channels(weight: Weight, block: int) -> Weight:
    """`[out, in, height, width]` as the runtime wants the kernels of blocked inputs: `[out / block,
    in / block, height, width, block (in), block (out)]`. A view."""
    out, inputs, height, width = weight.shape
    split = weight.reshape(out // block, block, inputs // block, block, height, width)
    return split.transpose(0, 2, 4, 5, 3, 1)


def block_outputs(weight: Weight, block: int) -> Weight:
    """The same for few input channels (a stem, a depthwise convolution), which stay as they are:
    `[out / block, in, height, width, block (out)]`. A view."""
    out, inputs, height, width = weight.shape
    return weight.reshape(out // block, block, inputs, height, width).transpose(0, 2, 3, 4, 1)


def block_transposed(weight: Weight, block: int) -> Weight:
    """The kernel that carries a gradient back to the input: inputs and outputs swapped, turned by 180
    degrees, blocked. A view."""
    return block_channels(weight.transpose(1, 0, 2, 3)[:, :, ::-1, ::-1], block)


class Kernels:
    """The kernels of a graph, each rearranged once however many convolutions have it.

    A constant becomes another constant; a weight that is trained gets a further input of the graph.
    """

    def __init__(self, graph: Editor, block: int) -> None:
        self._graph, self._block = graph, block
        self._constants: set[str] = set()
        self.derived: dict[str, DerivedWeight] = {}

    def arranged(self, weight: str, shape: tuple[int, ...], arrange: Arrange) -> str:
        """The name of a weight, float32 of this `shape`, in another order."""
        turned = arrange is block_transposed
        name = f"{weight}/{'transposed' if turned else 'blocked'}"
        if name in self.derived or name in self._constants:
            return name
        shape = (shape[1], shape[0], *shape[2:]) if turned else shape
        block = self._block

        def rearrange(value: Weight) -> Weight:
            return arrange(value, block)

        constant = self._graph.constant(weight)
        if constant is not None:
            self._graph.set_constant(name, np.ascontiguousarray(rearrange(constant)).reshape(shape))
            self._constants.add(name)
        else:
            self.derived[name] = DerivedWeight(name, weight, shape, rearrange)
            value = helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
            self._graph.proto.input.append(value)
        return name
