"""A gradient graph written anew, node by node, with convolutions on blocks of channels.

Three rewrites, each of which keeps the values up to the order of float32 sums:

- `y = W * x`: the same sum over blocks, `y[O] = sum over I of W[O, I] * x[I]`, with kernels blocked alike.
- The gradient with respect to the input is a convolution too: `dx = W' * dy`, where W' has inputs and outputs
  swapped and is turned by 180 degrees, with as much padding as the kernel reaches less what the forward one
  had.
- Where no axis is left out or mixed, an operation on each value commutes with any order of the values.
"""

from collections import Counter
from collections.abc import Mapping, Sequence

from onnx import NodeProto, helper

from birdsonnx.model.edits import Editor, copy_of
from birdsonnx.model.graph import attribute, integers, pads_are_given
from birdsonnx.passes.blocked.block_size import BLOCKED_DOMAIN
from birdsonnx.passes.blocked.forms import Form, Tensors
from birdsonnx.passes.blocked.kernels import (
    Arrange,
    DerivedWeight,
    Kernels,
    block_channels,
    block_outputs,
    block_transposed,
)
from birdsonnx.passes.rewriting import Report

ELEMENTWISE = frozenset(
    [
        "Abs",
        "Add",
        "Clip",
        "Div",
        "Erf",
        "Exp",
        "HardSigmoid",
        "Identity",
        "LeakyRelu",
        "Mul",
        "Neg",
        "Pow",
        "Relu",
        "Sigmoid",
        "SigmoidGrad",
        "Sqrt",
        "Sub",
        "Sum",
        "Tanh",
        "TanhGrad",
    ]
)
"""Operations on each value, wherever it lies, if all their tensors lie alike."""

COMPUTED = "its kernel or its padding is computed"
GROUPS = "it has groups of several channels"
NOT_FULL_BLOCKS = "its channels do not fill blocks"
STRIDES = "it has strides"
WIDE_PADS = "its padding is wider than its kernel reaches"


class Layout:
    """One walk over a graph whose nodes are in order.

    Args:
        graph: gets further inputs and constants; `nodes` holds its nodes at the end.
        shapes: of all tensors.
        block: channels of a block.
    """

    def __init__(self, graph: Editor, shapes: Mapping[str, tuple[int, ...]], block: int) -> None:
        self._graph, self._shapes, self._block = graph, shapes, block
        self._tensors = Tensors(graph, shapes, block)
        self._kernels = Kernels(graph, block)
        self._forward: Counter[str | None] = Counter()
        """Convolutions by why they stay plain; None for those in blocks."""
        self._backward: Counter[str | None] = Counter()
        """The same of gradients of convolutions' inputs."""

    def run(self) -> list[NodeProto]:
        """The graph's nodes in blocks."""
        for node in self._graph.nodes():
            match node.op_type:
                case "Conv":
                    self._convolution(node)
                case "ConvGrad":
                    self._convolution_gradient(node)
                case operation if operation in ELEMENTWISE and self._is_in_blocks(node):
                    self._elementwise(node)
                case _:
                    self._keep(node)
        for output in self._graph.proto.output:
            self._tensors.get(output.name, Form.PLAIN)
        return self._tensors.nodes

    @property
    def derived(self) -> tuple[DerivedWeight, ...]:
        """The inputs that the graph has besides those of before."""
        return tuple(self._kernels.derived.values())

    @property
    def reports(self) -> tuple[Report, Report]:
        """What is in blocks, and what stayed plain."""

        def report(done: str, subject: str, found: Counter[str | None]) -> Report:
            return Report(
                done,
                subject,
                found[None],
                {reason: count for reason, count in found.items() if reason is not None},
            )

        return (
            report("convolutions in blocks", "convolutions", self._forward),
            report("input gradients as convolutions", "gradients of convolutions", self._backward),
        )

    # --- Nodes ----------------------------------------------------------------------------------------

    def _keep(self, node: NodeProto) -> None:
        kept = copy_of(node)
        kept.input[:] = [name and self._tensors.get(name, Form.PLAIN) for name in node.input]
        self._tensors.keep(kept)

    def _is_in_blocks(self, node: NodeProto) -> bool:
        """Whether an elementwise operation has an operand in blocks, and all are of the result's shape."""
        tensors = self._operands(node)
        known = any(self._tensors.has(name, self._tensors.home(name)) for name in tensors)
        alike = all(self._shapes[name] == self._shapes[node.output[0]] for name in tensors)
        return len(node.output) == 1 and known and alike

    def _operands(self, node: NodeProto) -> list[str]:
        """What a node reads, but for single numbers."""
        return [name for name in node.input if name and self._shapes[name] not in ((), (1,))]

    def _elementwise(self, node: NodeProto) -> None:
        tensors, output = self._operands(node), node.output[0]
        form = self._tensors.home(output)
        made = copy_of(node)
        made.input[:] = [self._tensors.get(name, form) if name in tensors else name for name in node.input]
        made.output[0] = f"{output}/blocked"
        self._tensors.put(made, output, form)

    def _convolution(self, node: NodeProto) -> None:
        reason = self._check_convolution(node)
        self._forward[reason] += 1
        if reason is not None:
            self._keep(node)
            return
        weight = node.input[1]
        kernel = self._kernels.arranged(weight, self._shapes[weight], self._arrangement(node))
        self._blocked_convolution(node, [kernel, *node.input[2:]])

    def _check_convolution(self, node: NodeProto) -> str | None:
        """Why a convolution stays plain."""
        data, weight = node.input[:2]
        shape, group = self._shapes[weight], attribute(node, "group", 1)
        if not self._tensors.has(weight, Form.PLAIN) or not pads_are_given(node):
            return COMPUTED
        if len(shape) != 4 or shape[0] % self._block:
            return NOT_FULL_BLOCKS
        channels = self._shapes[data][1]
        if group != 1:
            return None if group == channels == shape[0] else GROUPS
        return None if channels % self._block == 0 or channels < self._block else NOT_FULL_BLOCKS

    def _arrangement(self, node: NodeProto) -> Arrange:
        """How the kernel of a convolution is blocked: few input channels, or one per filter, stay as they
        are."""
        channels = self._shapes[node.input[0]][1]
        whole = attribute(node, "group", 1) == 1 and channels % self._block == 0
        return block_channels if whole else block_outputs

    def _blocked_convolution(self, node: NodeProto, rest: Sequence[str]) -> None:
        """`node` on the blocked form of its first input; `rest` are its further inputs."""
        data, output, tensors = node.input[0], node.output[0], self._tensors
        made = copy_of(node)
        made.domain = BLOCKED_DOMAIN
        if tensors.is_small(data) and tensors.is_small(output) and self._keeps_size(node):
            form, gap = self._form_for(node)
            made.input[:] = [tensors.get(data, form, gap), *rest]
            made.output[0] = f"{output}/blocked"
            tensors.put(made, output, form, gap)
            return
        few = self._shapes[data][1] < self._block
        made.input[:] = [tensors.get(data, Form.PLAIN if few else Form.PHOTOS), *rest]
        made.output[0] = f"{output}/photos" if tensors.is_small(output) else f"{output}/blocked"
        tensors.put(made, output, Form.PHOTOS)

    def _convolution_gradient(self, node: NodeProto) -> None:
        """Take the input's gradient out of a ConvGrad, as a convolution of the output's; give the weights'
        gradient the stacked form of small maps."""
        gradient, data, weight = node.input
        reason = self._check_gradient(node)
        if node.output[0]:
            self._backward[reason] += 1
        if reason is not None:
            self._keep(node)
            return
        if node.output[0]:
            kernel = self._kernels.arranged(weight, self._shapes[weight], block_transposed)
            self._blocked_convolution(self._backwards(node), [kernel])
        if not any(node.output[1:]):
            return
        rest = copy_of(node)
        rest.output[0] = ""
        if self._tensors.is_small(data) and self._tensors.is_small(gradient) and self._keeps_size(rest):
            form, gap = self._form_for(rest)
            plain = Form.STACKED_PLAIN if form is Form.STACKED else Form.BESIDE_PLAIN
            rest.input[:] = [*(self._tensors.get(name, plain, gap) for name in (gradient, data)), weight]
            self._tensors.keep(rest)
        else:
            self._keep(rest)

    def _check_gradient(self, node: NodeProto) -> str | None:
        """Why the gradients of a convolution stay as the builder made them."""
        shape = self._shapes[node.input[2]]
        if attribute(node, "group", 1) != 1:
            return GROUPS
        if not pads_are_given(node):
            return COMPUTED
        if len(shape) != 4 or shape[0] % self._block or shape[1] % self._block:
            return NOT_FULL_BLOCKS
        if integers(node, "strides", 1) != [1, 1]:
            return STRIDES
        return WIDE_PADS if node.output[0] and min(_pads_back(node, shape)) < 0 else None

    def _backwards(self, node: NodeProto) -> NodeProto:
        """The convolution that makes the input's gradient; its kernel is still to be given."""
        shape = self._shapes[node.input[2]]
        conv = helper.make_node("Conv", [node.input[0]], [node.output[0]], name=f"{node.name}/input")
        conv.attribute.extend(
            helper.make_attribute(name, value)
            for name, value in (
                ("kernel_shape", shape[2:]),
                ("pads", _pads_back(node, shape)),
                ("dilations", integers(node, "dilations", 1)),
            )
        )
        return conv

    def _keeps_size(self, node: NodeProto) -> bool:
        """Whether the convolution (or its gradient) has as many positions going out as coming in."""
        pads, dilations = integers(node, "pads", 0, 4), integers(node, "dilations", 1)
        kernel = integers(node, "kernel_shape", 1)
        reach = [dilation * (size - 1) for dilation, size in zip(dilations, kernel, strict=True)]
        same = [pads[0] + pads[2], pads[1] + pads[3]] == reach
        return same and integers(node, "strides", 1) == [1, 1] and attribute(node, "group", 1) == 1

    def _form_for(self, node: NodeProto) -> tuple[Form, int]:
        """How a convolution wants small maps, and the columns of zeros that keep photos apart under its
        kernel."""
        if integers(node, "kernel_shape", 1) == [1, 1]:
            return Form.STACKED, 0
        pads = integers(node, "pads", 0, 4)
        return Form.BESIDE, max(pads[1], pads[3])


def _pads_back(node: NodeProto, shape: Sequence[int]) -> list[int]:
    """The padding of the convolution that carries a gradient back."""
    dilations, pads = integers(node, "dilations", 1), integers(node, "pads", 0, 4)
    reach = [dilation * (size - 1) for dilation, size in zip(dilations, shape[2:], strict=True)]
    return [full - pad for full, pad in zip(2 * reach, pads, strict=True)]
