"""The rewritten gradient graph against the one that the runtime's builder made."""

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import ModelProto, TensorProto, helper, numpy_helper

from birdsonnx.errors import ModelError
from birdsonnx.passes.blocked.block_size import BLOCKED_DOMAIN, block_size
from birdsonnx.passes.blocked.graph import BlockedGraph, blocked, shapes_in
from birdsonnx.passes.gradient_forms.preparing import prepare
from birdsonnx.training.losses import Loss
from birdsonnx.training.session_kernels import gradient_graph
from tests.conftest import needs_training_runtime
from tests.graphs import outputs_of

CLASSES = 3
BLOCK = block_size()
needs_blocks = pytest.mark.skipif(BLOCK == 1, reason="this processor has no blocked kernels")


class Network:
    """A graph from `x`, float32 `[batch, channels, size, size]`, written down layer by layer."""

    def __init__(self, channels: int, size: int) -> None:
        self.input = (channels, size, size)
        self.channels = {"x": channels}
        self.nodes: list[onnx.NodeProto] = []
        self.constants: dict[str, np.ndarray] = {}
        self.trained: list[str] = []
        self.generator = np.random.default_rng(0)

    def constant(self, *shape: int, trained: bool = False) -> str:
        name = f"{'w' if trained else 'k'}{len(self.constants)}"
        fan_in = max(1, int(np.prod(shape[1:])))
        value = self.generator.normal(0, np.sqrt(2 / fan_in), shape)
        self.constants[name] = value.astype(np.float32)
        if trained:
            self.trained.append(name)
        return name

    def then(self, operation: str, *sources: str, **attributes: Any) -> str:
        name = f"{operation}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(operation, sources, [name], name, **attributes))
        self.channels[name] = max(self.channels.get(source, 0) for source in sources)
        return name

    def conv(
        self,
        source: str,
        out: int,
        kernel: int | tuple[int, int] = 3,
        trained: bool = True,
        bias: bool = True,
        group: int = 1,
        **attributes: Any,
    ) -> str:
        size = [kernel, kernel] if isinstance(kernel, int) else list(kernel)
        weights = [self.constant(out, self.channels[source] // group, *size, trained=trained)]
        if bias:
            weights.append(self.constant(out, trained=trained))
        name = self.then("Conv", source, *weights, kernel_shape=size, group=group, **attributes)
        self.channels[name] = out
        return name

    def same(self, source: str, out: int, kernel: int = 3, **attributes: Any) -> str:
        reach = kernel // 2 * attributes.get("dilations", [1])[0]
        return self.conv(source, out, kernel, pads=[reach] * 4, **attributes)

    def model(self, last: str) -> ModelProto:
        """Ends in an average, a Gemm and `log_probs`."""
        mean = self.then("GlobalAveragePool", last)
        flat = self.then("Flatten", mean)
        logits = self.then(
            "Gemm",
            flat,
            self.constant(self.channels[last], CLASSES, trained=True),
            self.constant(CLASSES, trained=True),
        )
        self.nodes.append(helper.make_node("LogSoftmax", [logits], ["log_probs"], "log_softmax", axis=-1))
        graph = helper.make_graph(
            self.nodes,
            "test",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", *self.input])],
            [helper.make_tensor_value_info("log_probs", TensorProto.FLOAT, ["batch", CLASSES])],
            [numpy_helper.from_array(value, name) for name, value in self.constants.items()],
        )
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


# --- Networks -------------------------------------------------------------------------------------------


def bottleneck(net: Network) -> str:
    """Two of them: the second's gradient joins the first's at the sum."""
    x = net.then("Relu", net.conv("x", 32, 1))
    for _ in range(2):
        y = net.then("Relu", net.conv(x, 16, 1))
        y = net.then("Relu", net.same(y, 16))
        x = net.then("Relu", net.then("Add", net.conv(y, 32, 1), x))
    return x


def projected(net: Network) -> str:
    """The shortcut is a convolution too: both summands could do the sum."""
    y = net.then("Relu", net.conv("x", 16, 1, strides=[2, 2]))
    y = net.same(y, 32)
    return net.then("Relu", net.then("Add", net.conv("x", 32, 1, strides=[2, 2]), y))


def strides_in_3x3(net: Network) -> str:
    y = net.then("Relu", net.same("x", 16))
    return net.then("Relu", net.same(net.then("Relu", net.same(y, 32, strides=[2, 2])), 16))


def keras_same(net: Network) -> str:
    """Keras' `same` pads an even map only at its end when it goes in steps of 2."""
    y = net.then("Relu", net.conv("x", 16, strides=[2, 2], pads=[0, 0, 1, 1]))
    return net.then("Relu", net.conv(y, 16, 3, pads=[0, 0, 1, 1]))


def asymmetric(net: Network) -> str:
    y = net.then("Relu", net.conv("x", 16, 3, pads=[0, 0, 2, 2]))
    y = net.then("Relu", net.conv(y, 16, 3, pads=[2, 2, 0, 0]))
    return net.then("Relu", net.conv(y, 32, (3, 4), pads=[1, 2, 1, 1]))


def dilated(net: Network) -> str:
    y = net.then("Relu", net.same("x", 16))
    y = net.then("Relu", net.same(y, 16, dilations=[2, 2]))
    return net.then("Relu", net.conv(y, 16, dilations=[2, 1], pads=[2, 1, 2, 1]))


def valid(net: Network) -> str:
    y = net.then("Relu", net.same("x", 16))
    y = net.then("Relu", net.conv(y, 32, 3))
    return net.then("Relu", net.conv(y, 16, 2))


def wide_pads(net: Network) -> str:
    """Maps that grow, and pads beyond the kernel, whose gradient cannot be a convolution."""
    y = net.then("Relu", net.conv("x", 16, 3, pads=[2, 2, 2, 2]))
    return net.then("Relu", net.conv(net.conv(y, 16, 1, pads=[1, 1, 1, 1]), 16, 1))


def oblong(net: Network) -> str:
    y = net.then("Relu", net.conv("x", 16, (1, 5), pads=[0, 2, 0, 2]))
    y = net.then("Relu", net.conv(y, 16, (5, 1), pads=[2, 0, 2, 0]))
    return net.then("Relu", net.conv(y, 16, 5, pads=[2, 2, 2, 2]))


def without_kernel_shape(net: Network) -> str:
    """An attribute that need not be given."""
    y = net.then("Relu", net.same("x", 16))
    y = net.then("Relu", net.conv(y, 16, 3))
    y = net.then("Relu", net.same(y, 16))
    for item in net.nodes:
        for attribute in [each for each in item.attribute if each.name == "kernel_shape"]:
            item.attribute.remove(attribute)
    return y


def depthwise(net: Network) -> str:
    y = net.then("Relu", net.conv("x", 32, 1))
    y = net.then("Relu", net.same(y, 32, group=32))
    y = net.then("Relu", net.same(y, 32, group=32, strides=[2, 2]))
    return net.conv(net.same(y, 32, group=2), 16, 1)


def odd_channels(net: Network) -> str:
    y = net.then("Relu", net.same("x", 12))
    y = net.then("Relu", net.same(y, 16))
    return net.then("Relu", net.conv(net.then("Relu", net.conv(y, 20, 1)), 32, 1))


def normalised(net: Network) -> str:
    """What BatchNormalization becomes: constants and trained values that are the same everywhere."""
    y = net.then("Mul", net.same("x", 16), net.constant(1, 16, 1, 1))
    y = net.then("Relu", net.then("Add", y, net.constant(1, 16, 1, 1)))
    y = net.then("Mul", net.same(y, 16, bias=False), net.constant(1, 16, 1, 1, trained=True))
    return net.then("Relu", net.then("Add", net.constant(1, 16, 1, 1, trained=True), y))


def partly_frozen(net: Network) -> str:
    y = net.then("Relu", net.same("x", 16))
    y = net.then("Relu", net.same(y, 32, trained=False))
    y = net.then("Relu", net.conv(y, 32, 1, trained=False, bias=False))
    return net.then("Add", net.same(y, 16), net.same("x", 16, trained=False))


def concatenated(net: Network) -> str:
    a = net.then("Relu", net.same("x", 16))
    b = net.then("Relu", net.conv("x", 32, 1))
    pooled = net.then("MaxPool", a, kernel_shape=[3, 3], pads=[1, 1, 1, 1])
    joined = net.then("Concat", a, b, pooled, axis=1)
    net.channels[joined] = 64
    y = net.then("Relu", net.same(joined, 16))
    return net.then("Relu", net.same(net.then("MaxPool", y, kernel_shape=[2, 2], strides=[2, 2]), 16))


def gated(net: Network) -> str:
    """Squeeze and excite: maps of one position, and a product with them."""
    y = net.same("x", 16)
    y = net.then("Mul", y, net.then("Sigmoid", y))
    gate = net.then("Relu", net.conv(net.then("GlobalAveragePool", y), 16, 1))
    y = net.then("Mul", y, net.then("Sigmoid", net.conv(gate, 16, 1)))
    return net.then("Add", net.conv(y, 16, 1), y)


def activations(net: Network) -> str:
    def scalar(value: float) -> str:
        name = net.constant()
        net.constants[name] = np.array(value, np.float32)
        return name

    y = net.then("Clip", net.same("x", 16), scalar(0), scalar(6))
    y = net.then("LeakyRelu", net.same(y, 16), alpha=0.2)
    y = net.then("Tanh", net.then("Mul", net.same(y, 16), scalar(0.5)))
    z = net.same(y, 16)
    bell = net.then("Exp", net.then("Neg", net.then("Mul", z, z)))
    z = net.then("Mul", z, net.then("Add", net.then("Erf", z), scalar(1)))
    z = net.then("Sub", z, net.then("Div", bell, net.then("Sqrt", net.then("Add", bell, scalar(1)))))
    return net.then("Identity", net.then("Pow", net.same(z, 16), scalar(2)))


def doubled(net: Network) -> str:
    """Sums that no convolution may do, or one of several: of one tensor twice, of tensors read elsewhere."""
    y = net.same("x", 16)
    y = net.then("Relu", net.then("Add", y, y))
    z = net.same(y, 16)
    z = net.then("Add", net.then("Add", z, y), net.then("Relu", z))
    return net.then("Add", net.then("Add", net.same(z, 16), net.conv(z, 16, 1)), net.conv(y, 16, 1))


def shared(net: Network) -> str:
    """One kernel in two convolutions."""
    y = net.then("Relu", net.same("x", 16))
    z = net.then("Relu", net.same(y, 16))
    kernel = net.nodes[-2].input[1]
    return net.then("Add", z, net.then("Conv", z, kernel, kernel_shape=[3, 3], pads=[1, 1, 1, 1]))


NETWORKS: dict[str, tuple[Callable[[Network], str], int, int]] = {
    "bottleneck, 7 x 7": (bottleneck, 32, 7),
    "bottleneck, 12 x 12": (bottleneck, 32, 12),
    "bottleneck, 8 x 8": (bottleneck, 16, 8),
    "projected, 7 x 7": (projected, 32, 7),
    "projected, 14 x 14": (projected, 32, 14),
    "projected, 20 x 20": (projected, 32, 20),
    "strides in 3 x 3, 7 x 7": (strides_in_3x3, 16, 7),
    "strides in 3 x 3, 12 x 12": (strides_in_3x3, 32, 12),
    "stem of 3 channels": (strides_in_3x3, 3, 20),
    "stem of 1 channel": (bottleneck, 1, 7),
    "Keras' same, 8 x 8": (keras_same, 16, 8),
    "Keras' same, 20 x 20": (keras_same, 3, 20),
    "asymmetric pads, 7 x 7": (asymmetric, 16, 7),
    "asymmetric pads, 12 x 12": (asymmetric, 16, 12),
    "dilations, 7 x 7": (dilated, 16, 7),
    "dilations, 12 x 12": (dilated, 16, 12),
    "valid, 7 x 7": (valid, 16, 7),
    "valid, 9 x 9": (valid, 16, 9),
    "wide pads, 5 x 5": (wide_pads, 16, 5),
    "wide pads, 9 x 9": (wide_pads, 16, 9),
    "oblong, 7 x 7": (oblong, 16, 7),
    "oblong, 12 x 12": (oblong, 16, 12),
    "without kernel_shape, 7 x 7": (without_kernel_shape, 16, 7),
    "without kernel_shape, 12 x 12": (without_kernel_shape, 16, 12),
    "depthwise, 7 x 7": (depthwise, 16, 7),
    "depthwise, 12 x 12": (depthwise, 16, 12),
    "odd channels, 7 x 7": (odd_channels, 16, 7),
    "odd channels, 12 x 12": (odd_channels, 20, 12),
    "normalised, 7 x 7": (normalised, 16, 7),
    "normalised, 12 x 12": (normalised, 16, 12),
    "partly frozen, 7 x 7": (partly_frozen, 16, 7),
    "partly frozen, 12 x 12": (partly_frozen, 16, 12),
    "concatenated, 7 x 7": (concatenated, 16, 7),
    "concatenated, 16 x 16": (concatenated, 16, 16),
    "gated, 7 x 7": (gated, 16, 7),
    "gated, 12 x 12": (gated, 16, 12),
    "activations, 7 x 7": (activations, 16, 7),
    "activations, 12 x 12": (activations, 16, 12),
    "doubled, 7 x 7": (doubled, 16, 7),
    "doubled, 12 x 12": (doubled, 16, 12),
    "shared, 7 x 7": (shared, 16, 7),
    "1 x 1": (bottleneck, 16, 1),
}


def photos(network: Network, count: int) -> dict[str, np.ndarray]:
    generator = np.random.default_rng(count)
    return {
        "x": generator.normal(size=(count, *network.input)).astype(np.float32),
        "targets": generator.random((count, CLASSES), np.float32),
    }


@needs_training_runtime
@pytest.mark.parametrize("block", [1, pytest.param(BLOCK, marks=needs_blocks, id="blocks")])
@pytest.mark.parametrize(("build", "channels", "size"), NETWORKS.values(), ids=NETWORKS)
def test_loss_and_gradients_are_those_of_the_raw_graph(build, channels, size, block):
    network = Network(channels, size)
    model = network.model(build(network))
    weights = {name: network.constants[name] for name in network.trained}
    prepare(model, weights, [], "net")
    raw = gradient_graph(Loss(np.ones(CLASSES, np.float32), 0, 0).append_to(model), list(weights))
    shapes = shapes_in(raw, {**photos(network, 2), **weights})
    rewritten = blocked(raw, shapes, block)
    assert len(rewritten.derived) == len({derived.name for derived in rewritten.derived})
    arranged = {derived.name: np.full(derived.shape, np.nan, np.float32) for derived in rewritten.derived}
    for derived in rewritten.derived:
        derived.write(weights[derived.source], arranged[derived.name])
    known = {value.name for value in rewritten.model.graph.input}
    for count in (1, 2, 5):
        feeds = {**photos(network, count), **weights}
        expected = outputs_of(raw, feeds)
        found = outputs_of(
            rewritten.model, {name: value for name, value in {**feeds, **arranged}.items() if name in known}
        )
        assert set(expected) == {"loss", *(f"{name}_grad" for name in weights)}
        assert set(found) == set(expected)
        for name, value in expected.items():
            assert found[name].shape == value.shape
            largest = np.abs(value).max()
            assert largest > 0
            np.testing.assert_allclose(found[name], value, rtol=0, atol=1e-5 * largest, err_msg=name)


def rewritten(build: Callable[[Network], str], channels: int, size: int, block: int) -> BlockedGraph:
    network = Network(channels, size)
    model = network.model(build(network))
    weights = {name: network.constants[name] for name in network.trained}
    raw = gradient_graph(Loss(np.ones(CLASSES, np.float32), 0, 0).append_to(model), list(weights))
    return blocked(raw, shapes_in(raw, {**photos(network, 2), **weights}), block)


def of_type(graph: BlockedGraph, operation: str) -> list[onnx.NodeProto]:
    return [node for node in graph.model.graph.node if node.op_type == operation]


@needs_training_runtime
@needs_blocks
@pytest.mark.parametrize(
    ("size", "beside", "stacked"), [(7, True, True), (8, True, True), (12, False, False)]
)
def test_small_maps_are_held_together(size, beside, stacked):
    graph = rewritten(bottleneck, 32, size, BLOCK)
    names = {node.name for node in graph.model.graph.node}
    assert any(name.endswith("/beside") for name in names) == beside
    assert any(name.endswith("/stack") for name in names) == stacked


@needs_training_runtime
@needs_blocks
def test_a_bottleneck_is_blocked_throughout():
    graph = rewritten(bottleneck, 32, 12, BLOCK)
    convolutions = of_type(graph, "Conv")
    # 7 forward, and 6 that carry the gradient back: not through the first.
    assert [node.domain for node in convolutions] == [BLOCKED_DOMAIN] * 13
    # 2 sums at a block's end, and where the gradients of a block's two ways meet.
    assert sum(len(node.input) == 4 for node in convolutions) == 4
    assert sum(any(item.name == "activation" for item in node.attribute) for node in convolutions) == 7
    assert not of_type(graph, "Relu")
    assert not of_type(graph, "ReluGrad")


@needs_training_runtime
@needs_blocks
def test_frozen_kernels_are_rearranged_once_and_for_all():
    sources = {derived.source for derived in rewritten(partly_frozen, 16, 7, BLOCK).derived}
    network = Network(16, 7)
    partly_frozen(network)
    assert sources
    assert sources <= set(network.trained)


@needs_training_runtime
def test_without_blocks_only_the_mask_is_new():
    graph = rewritten(bottleneck, 32, 7, 1)
    assert graph.derived == ()
    assert {node.domain for node in graph.model.graph.node} <= {"", "com.microsoft"}
    assert not of_type(graph, "ReluGrad")


def then(operation: str, *inputs: str, output: str = "y") -> onnx.NodeProto:
    return helper.make_node(operation, inputs, [output])


def test_nodes_may_come_in_any_order_but_not_in_a_circle():
    shapes = dict.fromkeys("xzy", (2,))
    value = helper.make_tensor_value_info("x", TensorProto.FLOAT, [2])
    output = helper.make_tensor_value_info("y", TensorProto.FLOAT, [2])

    def model(first: str) -> ModelProto:
        nodes = [then("Neg", "z"), then("Exp", first, output="z")]
        return helper.make_model(helper.make_graph(nodes, "test", [value], [output]))

    assert [node.op_type for node in blocked(model("x"), shapes, 16).model.graph.node] == ["Exp", "Neg"]
    with pytest.raises(ModelError, match="cycle"):
        blocked(model("y"), shapes, 16)
