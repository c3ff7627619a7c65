"""The forms in which a gradient graph holds a map, and the nodes that make one form of another."""

from collections.abc import Mapping, Sequence
from enum import Enum, auto
from typing import Any

import numpy as np
import numpy.typing as npt
from onnx import NodeProto, helper

from birdsonnx.model.edits import Editor
from birdsonnx.passes.blocked.block_size import BLOCKED_DOMAIN

SMALL = 64
"""Positions of a map up to which photos are stacked; 14 x 14 gains nothing by it."""


class Form(Enum):
    """How the values of a map `[batch, channels, height, width]` lie in memory.

    Small maps are stacked. A 1 x 1 convolution then has one long row of positions, and a kernel's gradient is
    summed over the photos inside one matrix product. Wider kernels take the photos side by side, with columns
    of zeros between them: the runtime's kernel computes six columns at a time, and has remainders and padding
    on each side to pay for. Measured at 7 x 7, 16 photos, per photo: 3 x 3 convolutions 1.6 -> 1.2 ms, 1 x 1
    0.62 -> 0.52 ms, their weight gradients 1.7 -> 1.4 and 0.69 -> 0.60 ms.
    """

    PLAIN = auto()
    """As ONNX has it."""
    PHOTOS = auto()
    """Blocks of channels, photo by photo: `[batch, channels / block, height, width, block]`."""
    STACKED = auto()
    """Blocks of channels, the photos below each other: `[channels / block, batch, height, width, block]`,
    declared as one photo `[1, channels, batch * height, width]`."""
    SPLIT = auto()
    """The same, declared with these five dimensions."""
    BESIDE = auto()
    """Blocks of channels, the photos side by side, a gap of zeros after each:
    `[channels / block, height, batch, width + gap, block]`, declared as one photo
    `[1, channels, height, batch * (width + gap)]`."""
    STACKED_PLAIN = auto()
    """That one photo without blocks: `[1, channels, batch * height, width]`."""
    BESIDE_PLAIN = auto()
    """The same with the photos side by side: `[1, channels, height, batch * (width + gap)]`."""


class Tensors:
    """The tensors of a graph that is written anew, each in the forms that some node has asked for.

    Of each there is one form at home: plain, or in blocks, and then stacked if the map is small. All others
    are made from that, so that no form has to be kept for a later reader but this one.

    Args:
        graph: gets the constants of the nodes between the forms.
        shapes: of all tensors as ONNX has them.
        block: channels of a block.
    """

    def __init__(self, graph: Editor, shapes: Mapping[str, tuple[int, ...]], block: int) -> None:
        self.nodes: list[NodeProto] = []
        """The graph's nodes, in order, with those between the forms."""
        self._graph, self._shapes, self._block = graph, shapes, block
        plain = {value.name for value in graph.proto.input} | set(graph.constants)
        self._made = {(name, Form.PLAIN, 0): name for name in plain}

    def is_small(self, name: str) -> bool:
        """Whether a tensor in blocks is stacked."""
        shape = self._shapes[name]
        return len(shape) == 4 and shape[2] * shape[3] <= SMALL and shape[1] % self._block == 0

    def home(self, name: str) -> Form:
        """The form in blocks that elementwise operations compute in."""
        return Form.STACKED if self.is_small(name) else Form.PHOTOS

    def has(self, name: str, form: Form) -> bool:
        """Whether a tensor exists in a form already."""
        return (name, form, 0) in self._made

    def put(self, node: NodeProto, name: str, form: Form, gap: int = 0) -> None:
        """Add a node whose first result is the tensor `name` in this form."""
        self.nodes.append(node)
        tensor = node.output[0]
        if form is Form.PHOTOS and self.is_small(name):
            tensor, form = self._stacked_from_photos(tensor, name), Form.STACKED
        elif form is Form.BESIDE:
            tensor, form = self._stacked_from_beside(tensor, name, gap), Form.STACKED
        self._made[name, form, 0] = tensor

    def keep(self, node: NodeProto) -> None:
        """Add a node whose results are plain."""
        self.nodes.append(node)
        self._made.update({(name, Form.PLAIN, 0): name for name in node.output if name})

    def get(self, name: str, form: Form, gap: int = 0) -> str:
        """The tensor `name` in a form, by the name that it has there."""
        key = (name, form, gap)
        if key not in self._made:
            self._made[key] = self._make(name, form, gap)
        return self._made[key]

    def _make(self, name: str, form: Form, gap: int) -> str:
        match form:
            case Form.PLAIN:
                return self._plain(name)
            case Form.PHOTOS if self.is_small(name):
                return self._photos_from_stacked(name)
            case Form.PHOTOS:
                return self._step("ReorderInput", name, "block", domain=BLOCKED_DOMAIN)
            case Form.STACKED:
                blocked = self._step("ReorderInput", name, "block", domain=BLOCKED_DOMAIN)
                return self._stacked_from_photos(blocked, name)
            case Form.SPLIT:
                channels, height, width = self._shapes[name][1:]
                shape = (channels // self._block, -1, height, width, self._block)
                return self._reshape(self.get(name, Form.STACKED), "split", shape)
            case Form.BESIDE:
                return self._beside(name, gap)
            case Form.STACKED_PLAIN:
                return self._without_blocks(self.get(name, Form.STACKED), name)
            case Form.BESIDE_PLAIN:
                return self._without_blocks(self.get(name, Form.BESIDE, gap), name)

    def _plain(self, name: str) -> str:
        source, channels = self.get(name, Form.PHOTOS), self._shapes[name][1]
        attributes = {"name": f"{name}/unblock", "domain": BLOCKED_DOMAIN, "channels": channels}
        self.nodes.append(helper.make_node("ReorderOutput", [source], [name], **attributes))
        return name

    def _without_blocks(self, tensor: str, name: str) -> str:
        channels = self._shapes[name][1]
        return self._step("ReorderOutput", tensor, "plain", domain=BLOCKED_DOMAIN, channels=channels)

    def _photos_from_stacked(self, name: str) -> str:
        tensor = self._step("Transpose", self.get(name, Form.SPLIT), "by_photo", perm=[1, 0, 2, 3, 4])
        return self._reshape(tensor, "join", (-1, *self._shapes[name][1:]))

    def _stacked_from_photos(self, tensor: str, name: str) -> str:
        channels, height, width = self._shapes[name][1:]
        shape = (0, channels // self._block, height, width, self._block)
        tensor = self._reshape(tensor, "split", shape)
        tensor = self._step("Transpose", tensor, "by_channel", perm=[1, 0, 2, 3, 4])
        return self._reshape(tensor, "stack", (1, channels, -1, width))

    def _beside(self, name: str, gap: int) -> str:
        channels, height = self._shapes[name][1:3]
        columns = np.array([0] * 8 + [gap, 0], np.int64)
        tensor = self._step("Pad", self.get(name, Form.SPLIT), f"gap_{gap}", columns)
        tensor = self._step("Transpose", tensor, "beside", perm=[0, 2, 1, 3, 4])
        return self._reshape(tensor, "join", (1, channels, height, -1))

    def _stacked_from_beside(self, tensor: str, name: str, gap: int) -> str:
        channels, height, width = self._shapes[name][1:]
        shape = (channels // self._block, height, -1, width + gap, self._block)
        tensor = self._reshape(tensor, "split", shape)
        bounds = [np.array([value], np.int64) for value in (0, width, 3)]
        tensor = self._step("Slice", tensor, "narrow", *bounds)
        tensor = self._step("Transpose", tensor, "stacked", perm=[0, 2, 1, 3, 4])
        return self._reshape(tensor, "stack", (1, channels, -1, width))

    def _reshape(self, tensor: str, suffix: str, shape: Sequence[int]) -> str:
        return self._step("Reshape", tensor, suffix, np.array(shape, np.int64))

    def _step(
        self, operation: str, tensor: str, suffix: str, *by: npt.NDArray[np.int64], **attributes: Any
    ) -> str:
        """One more node; its result is called after the tensor that it reads."""
        output = f"{tensor}/{suffix}"
        inputs = [f"{output}/{position}" for position in range(len(by))]
        for constant, value in zip(inputs, by, strict=True):
            self._graph.set_constant(constant, value)
        self.nodes.append(helper.make_node(operation, [tensor, *inputs], [output], name=output, **attributes))
        return output
