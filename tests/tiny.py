"""Small networks and small photos, made here, so that tests need neither Keras nor a data folder."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from onnx import NodeProto, TensorProto, helper, numpy_helper
from PIL import Image

from birdsonnx.model.metadata import Layer, Metadata, Parameters
from birdsonnx.model.model_file import BirdModel
from birdsonnx.model.preprocessing import of_mode
from birdsonnx.passes.uint8_input import take_uint8

SIZE = 32
FEATURES = 24
COLORS = ((200, 60, 50), (60, 190, 70), (50, 70, 210), (210, 200, 60), (180, 60, 190))


def tiny_model(
    num_classes: int = 3,
    names: Sequence[str] | None = None,
    seed: int = 0,
    size: int = SIZE,
    mode: str = "caffe",
    channels: int = 3,
) -> BirdModel:
    """conv1 (8 filters, 5x5/2) - relu - conv2 (24, 3x3/2) - relu - global average - dense - log_softmax."""
    generator = np.random.default_rng(seed)

    def weights(*shape: int) -> np.ndarray:
        fan_in = int(np.prod(shape[1:])) if len(shape) > 2 else shape[0]
        return generator.normal(0, np.sqrt(2 / fan_in), shape).astype(np.float32)

    constants = {
        "conv1/kernel": weights(8, channels, 5, 5) / (64 if channels == 3 else 1),
        "conv1/bias": generator.normal(0, 0.1, 8).astype(np.float32),
        "conv2/kernel": weights(FEATURES, 8, 3, 3),
        "conv2/bias": generator.normal(0, 0.1, FEATURES).astype(np.float32),
        "axes": np.array([2, 3], np.int64),
        "dense/kernel": weights(FEATURES, num_classes),
        "dense/bias": np.zeros(num_classes, np.float32),
    }
    node = helper.make_node
    nodes = [
        node("Conv", ["input", "conv1/kernel", "conv1/bias"], ["c1"], "conv1/Conv", strides=[2, 2]),
        node("Relu", ["c1"], ["r1"], "conv1/Relu"),
        node("Conv", ["r1", "conv2/kernel", "conv2/bias"], ["c2"], "conv2/Conv", strides=[2, 2]),
        node("Relu", ["c2"], ["r2"], "conv2/Relu"),
        node("GlobalAveragePool", ["r2"], ["p"], "pool"),
        node("Squeeze", ["p", "axes"], ["s"], "squeeze"),
        node("Gemm", ["s", "dense/kernel", "dense/bias"], ["logits"], "dense/Gemm"),
        node("LogSoftmax", ["logits"], ["log_probs"], "log_softmax", axis=-1),
    ]
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, ["batch", channels, size, size])],
        [helper.make_tensor_value_info("log_probs", TensorProto.FLOAT, ["batch", num_classes])],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    before = of_mode(mode, channels)
    take_uint8(proto.graph, before)
    head = FEATURES * num_classes + num_classes
    metadata = Metadata(
        preprocessing=before,
        layers=(
            Layer("conv1", "Conv2D", 8, False),
            Layer("conv2", "Conv2D", FEATURES, False),
            Layer("dense", "Dense", num_classes, True),
        ),
        trainable=("dense",),
        parameters=Parameters(sum(value.size for value in constants.values()) - 2, head, 0),
        classes=None if names is None else tuple(names),
        source={"file": "tiny"},
        versions={"birdsonnx": "test"},
    )
    return BirdModel(proto, metadata, "tiny")


def with_known(model: BirdModel, threshold: float) -> BirdModel:
    """The same with the output `known`: here the largest log-probability, which must reach `threshold`."""
    graph = model.proto.graph
    graph.node.append(helper.make_node("ReduceMax", ["log_probs"], ["known"], axes=[1], keepdims=0))
    graph.output.append(helper.make_tensor_value_info("known", TensorProto.FLOAT, ["batch"]))
    score = {"score": "largest", "threshold": threshold, "kept": 0.95, "photos": 100}
    return BirdModel(model.proto, model.metadata.having(known=score), model.where)


def residual_model(
    num_classes: int = 3, seed: int = 0, activation: str = "Relu", size: int = SIZE
) -> BirdModel:
    """stem (16 filters, 3x3/2) - block_a (16, 3x3) - block_b (16, 3x3) + stem - max pool - last (32, 1x1/2) -
    global average - dense - log_softmax: what fine-tuning meets in a ResNet, in the channel counts that its
    fastest convolutions want. `activation` is that after block_a.
    """
    generator = np.random.default_rng(seed)
    layers = {
        "stem": (16, 3, 3, 3),
        "block_a": (16, 16, 3, 3),
        "block_b": (16, 16, 3, 3),
        "last": (32, 16, 1, 1),
    }
    constants: dict[str, np.ndarray] = {"axes": np.array([2, 3], np.int64)}
    for name, shape in layers.items():
        kernel = generator.normal(0, np.sqrt(2 / np.prod(shape[1:])), shape)
        constants[f"{name}/kernel"] = (kernel / (64 if name == "stem" else 1)).astype(np.float32)
        constants[f"{name}/bias"] = generator.normal(0, 0.1, shape[0]).astype(np.float32)
    constants["dense/kernel"] = generator.normal(0, 0.25, (32, num_classes)).astype(np.float32)
    constants["dense/bias"] = np.zeros(num_classes, np.float32)
    node = helper.make_node

    def convolution(name: str, source: str, **options: list[int]) -> NodeProto:
        return node("Conv", [source, f"{name}/kernel", f"{name}/bias"], [name], f"{name}/Conv", **options)

    around = {"pads": [1, 1, 1, 1]}
    nodes = [
        convolution("stem", "input", strides=[2, 2], **around),
        node("Relu", ["stem"], ["stem/relu"], "stem/Relu"),
        convolution("block_a", "stem/relu", **around),
        node(activation, ["block_a"], ["block_a/active"], f"block_a/{activation}"),
        convolution("block_b", "block_a/active", **around),
        node("Add", ["block_b", "stem/relu"], ["sum"], "block_add/Add"),
        node("Relu", ["sum"], ["sum/relu"], "block_out/Relu"),
        node("MaxPool", ["sum/relu"], ["pooled"], "pool/MaxPool", kernel_shape=[2, 2], strides=[2, 2]),
        convolution("last", "pooled", kernel_shape=[1, 1], strides=[2, 2]),
        node("Relu", ["last"], ["last/relu"], "last/Relu"),
        node("GlobalAveragePool", ["last/relu"], ["mean"], "mean/GlobalAveragePool"),
        node("Squeeze", ["mean", "axes"], ["flat"], "mean/Squeeze"),
        node("Gemm", ["flat", "dense/kernel", "dense/bias"], ["logits"], "dense/Gemm"),
        node("LogSoftmax", ["logits"], ["log_probs"], "log_softmax", axis=-1),
    ]
    graph = helper.make_graph(
        nodes,
        "residual",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, ["batch", 3, size, size])],
        [helper.make_tensor_value_info("log_probs", TensorProto.FLOAT, ["batch", num_classes])],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    before = of_mode("caffe", 3)
    take_uint8(proto.graph, before)
    metadata = Metadata(
        preprocessing=before,
        layers=(
            *(Layer(name, "Conv2D", shape[0], False) for name, shape in layers.items()),
            Layer("dense", "Dense", num_classes, True),
        ),
        trainable=("dense",),
        parameters=Parameters(sum(value.size for value in constants.values()) - 2, 33 * num_classes, 0),
        classes=None,
        source={"file": "residual"},
        versions={"birdsonnx": "test"},
    )
    return BirdModel(proto, metadata, "residual")


def photo(label: int, generator: np.random.Generator, size: int = SIZE) -> Image.Image:
    """A blob of the class's colour on noise: what the tiny network can learn to tell apart."""
    pixels = generator.integers(70, 150, (size, size, 3))
    top, left = generator.integers(2, size // 3, 2)
    half = size // 2
    color = np.array(COLORS[label % len(COLORS)])
    pixels[top : top + half, left : left + half] = color + generator.integers(-25, 25, (half, half, 3))
    return Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))


def photos(count: int, seed: int = 0) -> np.ndarray:
    """So many photos of all classes, uint8 `[count, SIZE, SIZE, 3]`."""
    generator = np.random.default_rng(seed)
    return np.stack([np.asarray(photo(number, generator)) for number in range(count)])


def make_class_folders(
    root: Path, names: Sequence[str] = ("ANT BIRD", "BEE-EATER", "COOT"), per_class: int = 8, seed: int = 0
) -> Path:
    """`root/<name>/<number>.png`, distinct colours per class."""
    generator = np.random.default_rng(seed)
    for label, name in enumerate(names):
        (root / name).mkdir(parents=True, exist_ok=True)
        for number in range(per_class):
            photo(label, generator).save(root / name / f"{number:03}.png")
    return root
