"""Gradient graphs in the layout that the runtime's convolutions are fastest in.

For a network with constant weights ONNX Runtime itself rearranges activations and weights into blocks of
channels (`com.microsoft.nchwc`: `[batch, channels / block, height, width, block]`). Weights that are inputs
keep it from doing so, and convolutions then cost 1.5 x as much. Here the same is done to the graph that the
gradient builder made, with rearranged weights as further inputs (`DerivedWeight`). Measured on full ResNet50
training, per photo and core (AVX-512):

- convolutions forward: 58 -> 47 ms; their input gradients, which become forward convolutions with
  transposed, turned kernels instead of matrix product and scatter: 72 -> 42 ms;
- ReluGrad, which the runtime does not vectorise, as a product with a mask: 17 -> 11 ms;
- the sum at a block's end and the activation ride in the convolution: 5 -> 0 ms.

Every rewrite keeps the values up to the order of float32 summation.
"""

import functools
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from onnx import ModelProto, NodeProto, TensorProto, helper

from birdsonnx.errors import ModelError
from birdsonnx.model.graph import Graph, attribute, integers, pads_are_given, redirect, set_constant
from birdsonnx.runtime.sessions import Session

Weight = npt.NDArray[np.float32]
Shapes = Mapping[str, tuple[int, ...]]

BLOCKED_DOMAIN = "com.microsoft.nchwc"
LARGEST_FLOAT32 = float(np.finfo(np.float32).max)

SMALL = 64
"""Positions of a map up to which photos are stacked; 14 x 14 gains nothing by it."""

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
"""Operations that do not care where in a tensor an element lies, if all their tensors agree."""


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


@dataclass(frozen=True)
class BlockedGraph:
    """A graph, and the inputs that it has besides those of the original."""

    model: ModelProto
    derived: tuple[DerivedWeight, ...]


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


@functools.cache
def block_size() -> int:
    """How many channels a block of this processor has, found by trying; 1 where it has no blocked kernels."""
    generator = np.random.default_rng(0)
    images = generator.standard_normal((1, 16, 3, 3)).astype(np.float32)
    kernel = generator.standard_normal((16, 16, 3, 3)).astype(np.float32)
    values = {
        name: [*shape] for name, shape in (("x", images.shape), ("w", kernel.shape), ("y", images.shape))
    }
    infos = {
        name: helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in values.items()
    }
    expected = np.zeros((16, 3, 3))
    padded = np.pad(images[0], ((0, 0), (1, 1), (1, 1)))
    for row in range(3):
        for column in range(3):
            window = padded[:, row : row + 3, column : column + 3]
            expected += np.einsum("oi,ihw->ohw", kernel[:, :, row, column], window)
    for block in (16, 8):
        node = helper.make_node("Conv", ["x", "w"], ["y"], domain=BLOCKED_DOMAIN, pads=[1, 1, 1, 1])
        graph = helper.make_graph([node], "probe", [infos["x"], infos["w"]], [infos["y"]])
        opsets = [helper.make_opsetid("", 17), helper.make_opsetid(BLOCKED_DOMAIN, 1)]
        model = helper.make_model(graph, opset_imports=opsets, ir_version=8)
        try:
            session = Session(model.SerializeToString())
            blocked = (
                images.reshape(1, 16 // block, block, 3, 3).transpose(0, 1, 3, 4, 2).reshape(images.shape)
            )
            weights = block_channels(kernel, block).reshape(kernel.shape)
            found = session.run({"x": np.ascontiguousarray(blocked), "w": np.ascontiguousarray(weights)})["y"]
        except Exception:  # the runtime has no such kernel here; whatever it raises, the plain form works
            continue
        found = found.reshape(16 // block, 3, 3, block).transpose(0, 3, 1, 2).reshape(16, 3, 3)
        if np.allclose(found, expected, atol=1e-4):
            return block
    return 1


def shapes_in(model: ModelProto, feeds: Mapping[str, npt.NDArray[Any]]) -> dict[str, tuple[int, ...]]:
    """The shape of every tensor, read off one run: no shape inference knows the gradient operations."""
    import onnxruntime

    probe = ModelProto()
    probe.CopyFrom(model)
    known = {value.name for value in probe.graph.output}
    names = [name for node in probe.graph.node for name in node.output if name]
    probe.graph.output.extend(helper.ValueInfoProto(name=name) for name in names if name not in known)
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(
        probe.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    found = session.run(names, dict(feeds))
    shapes = {name: value.shape for name, value in zip(names, found, strict=True)}
    shapes |= {name: value.shape for name, value in feeds.items()}
    return shapes | {tensor.name: tuple(tensor.dims) for tensor in model.graph.initializer}


def blocked(model: ModelProto, shapes: Shapes, block: int) -> BlockedGraph:
    """Rewrite a gradient graph whose weights are inputs; with a block of 1 only what needs no blocks.

    Raises:
        ModelError: the graph has a cycle.
    """
    proto = ModelProto()
    proto.CopyFrom(model)
    shapes = dict(shapes)
    _drop_identities(proto)
    relu_grad_as_mask(proto, shapes)
    if block == 1:
        return BlockedGraph(proto, ())
    _name_kernel_shapes(proto, shapes)
    layout = _Layout(proto, shapes, block)
    layout.rewrite()
    fuse_sums_and_activations(proto, {name for name, shape in shapes.items() if shape in ((), (1,))})
    if not any(entry.domain == BLOCKED_DOMAIN for entry in proto.opset_import):
        proto.opset_import.append(helper.make_opsetid(BLOCKED_DOMAIN, 1))
    return BlockedGraph(proto, tuple(layout.derived.values()))


def relu_grad_as_mask(proto: ModelProto, shapes: dict[str, tuple[int, ...]]) -> int:
    """`dX = dY where Y > 0 else 0` as `dY * mask`: the runtime's ReluGrad takes 3.1 ms where HardSigmoid and
    Mul take 0.5 together (800,000 elements). Returns how many; adds the masks' shapes to `shapes`.

    The mask is `min(1, max(0, Y * 3.4e38))`: 1 for every positive float32 but the subnormal ones (< 2.9e-39).
    """
    relu_of = {node.input[0]: node.output[0] for node in proto.graph.node if node.op_type == "Relu"}
    nodes: list[NodeProto] = []
    rewritten = 0
    for node in proto.graph.node:
        if node.op_type != "ReluGrad":
            nodes.append(node)
            continue
        gradient, of = node.input
        of = relu_of.get(of, of)  # positive exactly where its input is; the input need not be kept then
        mask = f"{of}/mask"
        if mask not in shapes:
            shapes[mask] = shapes[of]
            nodes.append(
                helper.make_node("HardSigmoid", [of], [mask], name=mask, alpha=LARGEST_FLOAT32, beta=0.0)
            )
        nodes.append(helper.make_node("Mul", [gradient, mask], [node.output[0]], name=node.name))
        rewritten += 1
    del proto.graph.node[:]
    proto.graph.node.extend(nodes)
    return rewritten


class _Layout:
    """One pass over the nodes in order: which tensors exist plain, which blocked, and the nodes between.

    Small maps are held stacked: `[channels / block, batch, height, width, block]`, declared as one photo
    `[1, channels, batch * height, width]`. A 1 x 1 convolution then has one long row of positions, and a
    kernel's gradient is summed over the photos inside one matrix product. Wider kernels take the photos side
    by side, columns of zeros between them: the runtime's kernel computes six columns at a time, and has
    remainders and padding on each side to pay for. Measured at 7 x 7, 16 photos, per photo: 3 x 3
    convolutions 1.6 -> 1.2 ms, 1 x 1 0.62 -> 0.52 ms, their weight gradients 1.7 -> 1.4 and 0.69 -> 0.60 ms.
    """

    def __init__(self, proto: ModelProto, shapes: Shapes, block: int) -> None:
        self.proto = proto.graph
        self.graph = Graph(proto.graph)
        self.block = block
        self.derived: dict[str, DerivedWeight] = {}
        self.shapes = shapes
        self.nodes: list[NodeProto] = []
        self.plain = {value.name for value in self.proto.input} | set(self.graph.constants)
        self.in_blocks: dict[str, str] = {}
        self.made: set[str] = set()
        """Tensors that are neither plain nor blocked: another order of one, or a weight's."""

    def rewrite(self) -> None:
        for node in _in_order(self.proto.node, self.plain):
            match node.op_type:
                case "Conv":
                    done = self._convolution(node)
                case "ConvGrad":
                    done = self._convolution_gradient(node)
                case _:
                    done = node.op_type in ELEMENTWISE and self._elementwise(node)
            if not done:
                self._keep(node)
        for output in self.proto.output:
            self._as_plain(output.name)
        del self.proto.node[:]
        self.proto.node.extend(self.nodes)

    # --- Nodes ----------------------------------------------------------------------------------------

    def _convolution(self, node: NodeProto) -> bool:
        weight = node.input[1]
        arrangement = self._arrangement(node)
        if arrangement is None:
            return False
        kernel = self._weight(weight, f"{weight}/blocked", arrangement)
        self._blocked_convolution(node, [kernel, *node.input[2:]])
        return True

    def _arrangement(self, node: NodeProto) -> Callable[[Weight, int], Weight] | None:
        """How the kernel of a convolution is blocked, or None where it cannot be."""
        data, weight = node.input[:2]
        shape = self.shapes[weight]
        group = attribute(node, "group", 1)
        if len(shape) != 4 or shape[0] % self.block or weight not in self.plain or not pads_are_given(node):
            return None
        channels = self.shapes[data][1]
        if group == 1 and channels % self.block == 0:
            return block_channels
        if group == 1 and channels < self.block:
            return block_outputs
        depthwise = group == channels == shape[0]
        return block_outputs if depthwise else None

    def _convolution_gradient(self, node: NodeProto) -> bool:
        """Take the input's gradient out of a ConvGrad, as a convolution of the output's; give the weights'
        gradient the stacked form of small maps."""
        gradient, data, weight = node.input
        shape = self.shapes[weight]
        if attribute(node, "group", 1) != 1 or len(shape) != 4 or not pads_are_given(node):
            return False
        if shape[0] % self.block or shape[1] % self.block or integers(node, "strides", 1) != [1, 1]:
            return False
        pads = integers(node, "pads", 0, 4)
        dilations = integers(node, "dilations", 1)
        reach = [dilation * (size - 1) for dilation, size in zip(dilations, shape[2:], strict=True)]
        back = [full - pad for full, pad in zip(2 * reach, pads, strict=True)]
        if node.output[0] and min(back) < 0:
            return False
        if node.output[0]:
            conv = helper.make_node("Conv", [gradient], [node.output[0]], name=f"{node.name}/input")
            conv.attribute.extend(
                helper.make_attribute(name, value)
                for name, value in (("kernel_shape", shape[2:]), ("pads", back), ("dilations", dilations))
            )
            self._blocked_convolution(conv, [self._weight(weight, f"{weight}/transposed", block_transposed)])
        if not any(node.output[1:]):
            return True
        rest = NodeProto()
        rest.CopyFrom(node)
        rest.output[0] = ""
        if self._is_small(data) and self._is_small(gradient) and self._keeps_size(rest):
            forms = [self._beside(name, rest) for name in (gradient, data)]
            plain = [
                self._apply(
                    "ReorderOutput", name, "plain", channels=self.shapes[of][1], domain=BLOCKED_DOMAIN
                )
                for name, of in zip(forms, (gradient, data), strict=True)
            ]
            rest.input[:] = [*plain, weight]
            self.nodes.append(rest)
            self.plain.update(name for name in rest.output if name)
        else:
            self._keep(rest)
        return True

    def _blocked_convolution(self, node: NodeProto, rest: Sequence[str]) -> None:
        """`node` on the blocked form of its first input; `rest` are its further inputs."""
        data, output = node.input[0], node.output[0]
        made = NodeProto()
        made.CopyFrom(node)
        made.domain = BLOCKED_DOMAIN
        small = data in self.shapes and self._is_small(data) and self.shapes[data][1] >= self.block
        if small and self._is_small(output) and self._keeps_size(node):
            made.input[:] = [self._beside(data, node), *rest]
            made.output[0] = f"{output}/blocked"
            self.nodes.append(made)
            self.in_blocks[output] = self._stacked(made.output[0], output, node)
            return
        few = self.shapes[data][1] < self.block
        made.input[:] = [self._as_plain(data) if few else self._photos(data), *rest]
        made.output[0] = f"{output}/photos" if self._is_small(output) else f"{output}/blocked"
        self.nodes.append(made)
        self.in_blocks[output] = made.output[0]
        if self._is_small(output):
            self.in_blocks[output] = self._from_photos(made.output[0], output)

    def _elementwise(self, node: NodeProto) -> bool:
        output = node.output[0]
        shape = self.shapes[output]
        tensors = [name for name in node.input if name and self.shapes[name] not in ((), (1,))]
        if len(node.output) > 1 or not any(name in self.in_blocks for name in tensors):
            return False
        if any(self.shapes[name] != shape for name in tensors):
            return False
        made = NodeProto()
        made.CopyFrom(node)
        made.input[:] = [self._as_blocked(name) if name in tensors else name for name in node.input]
        made.output[0] = self.in_blocks[output] = f"{output}/blocked"
        self.nodes.append(made)
        return True

    def _keep(self, node: NodeProto) -> None:
        kept = NodeProto()
        kept.CopyFrom(node)
        kept.input[:] = [name and self._as_plain(name) for name in node.input]
        self.nodes.append(kept)
        self.plain.update(name for name in node.output if name)

    # --- Forms of a tensor ----------------------------------------------------------------------------

    def _as_blocked(self, name: str) -> str:
        if name not in self.in_blocks:
            blocked = self._apply("ReorderInput", name, "block", domain=BLOCKED_DOMAIN)
            self.in_blocks[name] = self._from_photos(blocked, name) if self._is_small(name) else blocked
        return self.in_blocks[name]

    def _as_plain(self, name: str) -> str:
        if name not in self.plain:
            self.plain.add(name)
            source = self._photos(name)
            channels = self.shapes[name][1]
            self.nodes.append(
                helper.make_node(
                    "ReorderOutput",
                    [source],
                    [name],
                    name=f"{name}/unblock",
                    domain=BLOCKED_DOMAIN,
                    channels=channels,
                )
            )
        return name

    def _is_small(self, name: str) -> bool:
        shape = self.shapes[name]
        return len(shape) == 4 and shape[2] * shape[3] <= SMALL and shape[1] % self.block == 0

    def _keeps_size(self, node: NodeProto) -> bool:
        """Whether the convolution (or its gradient) has as many positions going out as coming in."""
        pads, dilations = integers(node, "pads", 0, 4), integers(node, "dilations", 1)
        kernel = integers(node, "kernel_shape", 1)
        reach = [dilation * (size - 1) for dilation, size in zip(dilations, kernel, strict=True)]
        same = [pads[0] + pads[2], pads[1] + pads[3]] == reach
        return same and integers(node, "strides", 1) == [1, 1] and attribute(node, "group", 1) == 1

    def _photos(self, name: str) -> str:
        """The blocked form with a batch axis."""
        blocked = self._as_blocked(name)
        if not self._is_small(name):
            return blocked
        channels, height, width = self.shapes[name][1:]
        tensor = self._reshape(blocked, "split", (channels // self.block, -1, height, width, self.block))
        tensor = self._apply("Transpose", tensor, "by_photo", perm=[1, 0, 2, 3, 4])
        return self._reshape(tensor, "join", (-1, channels, height, width))

    def _from_photos(self, tensor: str, name: str) -> str:
        """The stacked form, from the blocked one with a batch axis."""
        channels, height, width = self.shapes[name][1:]
        tensor = self._reshape(tensor, "split", (0, channels // self.block, height, width, self.block))
        tensor = self._apply("Transpose", tensor, "by_channel", perm=[1, 0, 2, 3, 4])
        return self._reshape(tensor, "stack", (1, channels, -1, width))

    def _beside(self, name: str, node: NodeProto) -> str:
        """A stacked tensor as this convolution wants it: with the photos side by side, and zeros between
        them as far as its kernel reaches; a 1 x 1 kernel takes it as it is."""
        stacked = self._as_blocked(name)
        gap = self._gap(node)
        if gap is None:
            return stacked
        channels, height, width = self.shapes[name][1:]
        tensor = self._reshape(stacked, "split", (channels // self.block, -1, height, width, self.block))
        tensor = self._apply("Pad", tensor, f"gap_{gap}", np.array([0] * 8 + [gap, 0], np.int64))
        tensor = self._apply("Transpose", tensor, "beside", perm=[0, 2, 1, 3, 4])
        return self._reshape(tensor, "join", (1, channels, height, -1))

    def _stacked(self, tensor: str, name: str, node: NodeProto) -> str:
        """Back from side by side to stacked."""
        gap = self._gap(node)
        if gap is None:
            return tensor
        channels, height, width = self.shapes[name][1:]
        tensor = self._reshape(tensor, "split", (channels // self.block, height, -1, width + gap, self.block))
        bounds = [np.array([value], np.int64) for value in (0, width, 3)]
        tensor = self._apply("Slice", tensor, "narrow", *bounds)
        tensor = self._apply("Transpose", tensor, "stacked", perm=[0, 2, 1, 3, 4])
        return self._reshape(tensor, "stack", (1, channels, -1, width))

    def _gap(self, node: NodeProto) -> int | None:
        """Columns of zeros that keep photos apart under this kernel; None for 1 x 1."""
        if integers(node, "kernel_shape", 1) == [1, 1]:
            return None
        pads = integers(node, "pads", 0, 4)
        return max(pads[1], pads[3])

    def _reshape(self, name: str, suffix: str, shape: Sequence[int]) -> str:
        return self._apply("Reshape", name, suffix, np.array(shape, np.int64))

    def _apply(
        self, operation: str, name: str, suffix: str, *by: npt.NDArray[np.int64], **attributes: Any
    ) -> str:
        """One more node behind tensor `name`, once."""
        output = f"{name}/{suffix}"
        if output not in self.made:
            self.made.add(output)
            inputs = [f"{output}/{position}" for position in range(len(by))]
            for constant, value in zip(inputs, by, strict=True):
                set_constant(self.proto, constant, value)
            self.nodes.append(
                helper.make_node(operation, [name, *inputs], [output], name=output, **attributes)
            )
        return output

    def _weight(self, weight: str, name: str, arrange: Callable[[Weight, int], Weight]) -> str:
        if name in self.made:
            return name
        self.made.add(name)
        block = self.block

        def rearrange(value: Weight) -> Weight:
            return arrange(value, block)

        constant = self.graph.constant(weight)
        shape = self.shapes[weight]
        if arrange is block_transposed:
            shape = (shape[1], shape[0], *shape[2:])
        if constant is not None:
            set_constant(self.proto, name, np.ascontiguousarray(rearrange(constant)).reshape(shape))
        else:
            self.derived[name] = DerivedWeight(name, weight, shape, rearrange)
            self.proto.input.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, shape))
        return name


def fuse_sums_and_activations(proto: ModelProto, scalars: Collection[str] = ()) -> int:
    """Let a blocked convolution add another tensor, none of `scalars`, to its result and apply Relu itself.
    Returns how many nodes that saves."""
    fused = 0
    while True:
        graph = Graph(proto.graph)
        order = {id(node): position for position, node in enumerate(proto.graph.node)}
        for node in proto.graph.node:
            conv = None if set(node.input).intersection(scalars) else _fusable(graph, order, node)
            if conv is None:
                continue
            if node.op_type == "Relu":
                conv.attribute.append(helper.make_attribute("activation", "Relu"))
            else:
                [other] = [name for name in node.input if name != conv.output[0]]
                conv.input.extend([""] * (3 - len(conv.input)) + [other])
            conv.output[0] = node.output[0]
            moved = NodeProto()
            moved.CopyFrom(conv)
            node.CopyFrom(moved)  # at the later place: the other summand may be made in between
            proto.graph.node.remove(conv)
            fused += 1
            break
        else:
            return fused


def _fusable(graph: Graph, order: Mapping[int, int], node: NodeProto) -> NodeProto | None:
    """The convolution that can do the work of this Relu, Add or Sum: the last of those that feed it."""
    if node.op_type not in ("Relu", "Add", "Sum") or len(set(node.input)) != len(node.input):
        return None
    if len(node.input) > 2:
        return None
    found: list[NodeProto] = []
    for name in node.input:
        conv = graph.producers.get(name)
        if conv is None or (conv.op_type, conv.domain) != ("Conv", BLOCKED_DOMAIN):
            continue
        only_here = graph.only_consumer(name) is node
        if attribute(conv, "activation") is not None or not only_here:
            continue
        if node.op_type == "Relu" or len(conv.input) < 4:
            found.append(conv)
    return max(found, key=lambda candidate: order[id(candidate)]) if found else None


def _drop_identities(proto: ModelProto) -> None:
    outputs = {value.name for value in proto.graph.output}
    for node in list(proto.graph.node):
        if node.op_type == "Identity" and node.output[0] not in outputs:
            redirect(proto.graph, node.output[0], node.input[0])
            proto.graph.node.remove(node)


def _name_kernel_shapes(proto: ModelProto, shapes: Shapes) -> None:
    """The attribute is optional."""
    for node in proto.graph.node:
        if node.op_type in ("Conv", "ConvGrad") and attribute(node, "kernel_shape") is None:
            weight = node.input[1 if node.op_type == "Conv" else 2]
            node.attribute.append(helper.make_attribute("kernel_shape", shapes[weight][2:]))


def _in_order(nodes: Iterable[NodeProto], known: Iterable[str]) -> list[NodeProto]:
    """Nodes after what they read; the builder does not promise that order."""
    waiting, made = list(nodes), {*known, ""}
    ordered: list[NodeProto] = []
    while waiting:
        ready = []
        rest = []
        for node in waiting:
            if made.issuperset(node.input):
                made.update(node.output)
                ready.append(node)
            else:
                rest.append(node)
        if not ready:
            raise ModelError("the gradient graph has a cycle")
        ordered += ready
        waiting = rest
    return ordered
