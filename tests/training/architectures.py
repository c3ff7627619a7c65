"""The blocks of well-known architectures, each as a network of a few layers for photos of 16 x 16."""

from collections.abc import Callable

import numpy as np
from onnx import NodeProto, TensorProto, helper, numpy_helper

from birdsonnx.model.metadata import Dropout, Layer, Metadata, Parameters
from birdsonnx.model.model_file import BirdModel
from birdsonnx.model.preprocessing import of_mode
from birdsonnx.passes.uint8_input import take_uint8

SIZE, CLASSES = 16, 3
WIDTH = 16
"""Channels: fast kernels want multiples of 16."""


class Sketch:
    """A network that grows; every method gives the name of its result."""

    def __init__(self) -> None:
        self._generator = np.random.default_rng(0)
        self._nodes: list[NodeProto] = []
        self._constants: dict[str, np.ndarray] = {}
        self._channels = {"input": 3}
        self._layers: list[Layer] = []
        self._dropouts: list[Dropout] = []

    def add(self, kind: str, name: str, *sources: str, channels: int | None = None, **options: object) -> str:
        self._nodes.append(helper.make_node(kind, list(sources), [name], f"{name}/{kind}", **options))
        self._channels[name] = channels or self._channels[sources[0]]
        return name

    def constant(self, name: str, value: np.ndarray) -> str:
        self._constants[name] = value
        return name

    def conv(
        self, name: str, source: str, out: int = WIDTH, side: int = 3, groups: int = 1, bias: bool = True,
        **options: object,
    ) -> str:  # fmt: skip
        shape = (out, self._channels[source] // groups, side, side)
        # The first one reads pixels around 0 of up to 128.
        spread = np.sqrt(2 / np.prod(shape[1:])) / (64 if source == "input" else 1)
        kernel = self._generator.normal(0, spread, shape).astype(np.float32)
        weights = [self.constant(f"{name}/kernel", kernel)]
        if bias:
            value = self._generator.normal(0, 0.1, out).astype(np.float32)
            weights.append(self.constant(f"{name}/bias", value))
        self._layers.append(Layer(name, "Conv2D", out, True))
        options = {"pads": [side // 2] * 4, "group": groups, **options}
        return self.add("Conv", name, source, *weights, channels=out, **options)

    def norm(self, name: str, source: str) -> str:
        """A BatchNormalization that is folded into no convolution."""
        shape = (self._channels[source], 1, 1)
        scale = self._generator.normal(1, 0.1, shape).astype(np.float32)
        shift = self._generator.normal(0, 0.1, shape).astype(np.float32)
        self._layers.append(Layer(name, "BatchNormalization", None, True))
        scaled = self.add("Mul", f"{name}/scaled", source, self.constant(f"{name}/scale", scale))
        return self.add("Add", name, scaled, self.constant(f"{name}/shift", shift))

    def relu(self, source: str) -> str:
        return self.add("Relu", f"{source}/relu", source)

    def relu6(self, source: str) -> str:
        bounds = [self.constant(name, np.float32(bound)) for name, bound in (("zero", 0), ("six", 6))]
        return self.add("Clip", f"{source}/relu6", source, *bounds)

    def swish(self, source: str) -> str:
        gate = self.add("Sigmoid", f"{source}/gate", source)
        return self.add("Mul", f"{source}/swish", source, gate)

    def dropout(self, name: str, source: str, shape: tuple[int, ...], rate: float = 0.25) -> str:
        ratio = self.constant(f"{name}/ratio", np.float32(rate))
        self._dropouts.append(Dropout(f"{name}/Dropout", rate, shape))
        return self.add("Dropout", name, source, ratio)

    def model(self, last: str) -> BirdModel:
        """With a head: global average, dense, log_softmax."""
        channels = self._channels[last]
        self.add("GlobalAveragePool", "mean", last)
        self.add("Squeeze", "flat", "mean", self.constant("axes", np.array([2, 3], np.int64)))
        dense = self._generator.normal(0, 0.25, (channels, CLASSES)).astype(np.float32)
        bias = self.constant("dense/bias", np.zeros(CLASSES, np.float32))
        self._layers.append(Layer("dense", "Dense", CLASSES, True))
        self.add("Gemm", "dense", "flat", self.constant("dense/kernel", dense), bias)
        self.add("LogSoftmax", "log_probs", "dense", axis=-1)
        graph = helper.make_graph(
            self._nodes,
            "sketch",
            [helper.make_tensor_value_info("input", TensorProto.FLOAT, ["batch", 3, SIZE, SIZE])],
            [helper.make_tensor_value_info("log_probs", TensorProto.FLOAT, ["batch", CLASSES])],
            [numpy_helper.from_array(np.asarray(value), name) for name, value in self._constants.items()],
        )
        proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
        before = of_mode("caffe", 3)
        take_uint8(proto.graph, before)
        metadata = Metadata(
            preprocessing=before,
            layers=tuple(self._layers),
            trainable=tuple(layer.name for layer in self._layers),
            parameters=Parameters(0, 0, 0),
            classes=None,
            source={"file": "sketch"},
            versions={"birdsonnx": "test"},
            dropout=tuple(self._dropouts),
        )
        return BirdModel(proto, metadata, "sketch")


def resnet() -> BirdModel:
    """Bottlenecks, the second one strided with a projection; the maximum after the stem."""
    to = Sketch()
    x = to.relu(to.conv("stem", "input", side=5, strides=[2, 2]))
    x = to.add("MaxPool", "pool", x, kernel_shape=[3, 3], strides=[1, 1], pads=[1] * 4)
    for name, stride in (("a", 1), ("b", 2)):
        y = to.relu(to.conv(f"{name}1", x, side=1, strides=[stride] * 2))
        y = to.relu(to.conv(f"{name}2", y))
        y = to.conv(f"{name}3", y, side=1, out=2 * WIDTH)
        shortcut = to.conv(f"{name}0", x, side=1, out=2 * WIDTH, strides=[stride] * 2)
        x = to.relu(to.add("Add", f"{name}_sum", shortcut, y))
    y = to.conv("c2", to.relu(to.conv("c1", x, side=1)), out=2 * WIDTH)
    return to.model(to.relu(to.add("Add", "c_sum", x, y)))


def resnet_v2() -> BirdModel:
    """Norms and activations first; shortcuts that are thinned out."""
    to = Sketch()
    x = to.conv("stem", "input", strides=[2, 2])
    for name, stride in (("a", 1), ("b", 2)):
        y = to.relu(to.norm(f"{name}_norm", x))
        y = to.relu(to.conv(f"{name}1", y, strides=[stride] * 2, bias=False))
        y = to.conv(f"{name}2", y)
        if stride > 1:
            x = to.add("MaxPool", f"{name}_thin", x, kernel_shape=[1, 1], strides=[2, 2])
        x = to.add("Add", f"{name}_sum", x, y)
    return to.model(to.relu(to.norm("last", x)))


def vgg() -> BirdModel:
    to = Sketch()
    x = "input"
    for block in ("1", "2"):
        x = to.relu(to.conv(f"a{block}", x))
        x = to.relu(to.conv(f"b{block}", x))
        x = to.add("MaxPool", f"pool{block}", x, kernel_shape=[2, 2], strides=[2, 2])
    return to.model(x)


def mobilenet() -> BirdModel:
    """Depthwise convolutions, also strided ones with the margin on one side; bottlenecks without an
    activation; a Dropout of whole channels."""
    to = Sketch()
    x = to.relu6(to.conv("stem", "input", strides=[2, 2], pads=[0, 0, 1, 1]))
    for name, stride in (("a", 1), ("b", 2)):
        y = to.relu6(to.conv(f"{name}1", x, 2 * WIDTH, side=1))
        pads = {"pads": [0, 0, 1, 1]} if stride > 1 else {}
        y = to.relu6(to.conv(f"{name}2", y, 2 * WIDTH, groups=2 * WIDTH, strides=[stride] * 2, **pads))
        y = to.conv(f"{name}3", y, side=1)
        x = to.add("Add", f"{name}_sum", x, y) if stride == 1 else y
    return to.model(to.dropout("drop", x, (WIDTH, 1, 1)))


def densenet() -> BirdModel:
    to = Sketch()
    x = to.conv("stem", "input", strides=[2, 2], bias=False)
    for name in "ab":
        y = to.conv(f"{name}1", to.relu(to.norm(f"{name}_norm", x)), side=1)
        y = to.conv(f"{name}2", to.relu(y), bias=False)
        x = to.add("Concat", f"{name}_join", x, y, axis=1, channels=WIDTH * (2 if name == "a" else 3))
    x = to.conv("transition", to.relu(to.norm("last", x)), side=1)
    return to.model(to.add("AveragePool", "halved", x, kernel_shape=[2, 2], strides=[2, 2]))


def efficientnet() -> BirdModel:
    """Swish, squeeze and excite, kernels of 5 x 5, and a Dropout of the whole block."""
    to = Sketch()
    x = to.swish(to.conv("stem", "input", strides=[2, 2]))
    y = to.swish(to.conv("expand", x, 2 * WIDTH, side=1))
    y = to.swish(to.conv("depthwise", y, 2 * WIDTH, side=5, groups=2 * WIDTH))
    gate = to.swish(to.conv("reduce", to.add("GlobalAveragePool", "squeeze", y), side=1))
    gate = to.add("Sigmoid", "excite", to.conv("widen", gate, 2 * WIDTH, side=1))
    y = to.conv("project", to.add("Mul", "excited", y, gate), side=1)
    x = to.add("Add", "sum", to.dropout("drop", y, (1, 1, 1)), x)
    return to.model(to.swish(to.conv("top", x, side=1)))


def inception() -> BirdModel:
    """Branches of different reach that are joined; means that leave the margin out."""
    to = Sketch()
    x = to.relu(to.conv("stem", "input", strides=[2, 2]))
    one = to.relu(to.conv("one", x, side=1))
    two = to.relu(to.conv("two_b", to.relu(to.conv("two_a", x, side=1)), side=5))
    mean = to.add("AveragePool", "near", x, kernel_shape=[3, 3], strides=[1, 1], pads=[1] * 4)
    three = to.relu(to.conv("three", mean, side=1))
    x = to.add("Concat", "join", one, two, three, axis=1, channels=3 * WIDTH)
    pooled = to.add("MaxPool", "pool", x, kernel_shape=[3, 3], strides=[2, 2])
    strided = to.relu(to.conv("strided", x, strides=[2, 2], pads=[0] * 4))
    return to.model(to.add("Concat", "join_2", strided, pooled, axis=1, channels=4 * WIDTH))


ARCHITECTURES: dict[str, Callable[[], BirdModel]] = {
    each.__name__: each for each in (resnet, resnet_v2, vgg, mobilenet, densenet, efficientnet, inception)
}
