"""Small ONNX graphs, and their answers from the runtime without any of our code."""

from collections.abc import Mapping, Sequence

import numpy as np
import onnx
import onnxruntime
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, helper, numpy_helper

from birdsonnx.inference.engines import fastest


def graph_of(
    nodes: Sequence[NodeProto],
    constants: Mapping[str, np.ndarray],
    shape: Sequence[int | str],
    output: Sequence[int | str],
    kind: int = TensorProto.FLOAT,
) -> ModelProto:
    """A model from `x` to `y`."""
    graph = helper.make_graph(
        nodes,
        "test",
        [helper.make_tensor_value_info("x", kind, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, output)],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def answer(model: ModelProto, value: np.ndarray) -> np.ndarray:
    """The one output for `value`; the graph must pass the checker."""
    onnx.checker.check_model(model, full_check=True)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, {session.get_inputs()[0].name: value})[0]


def operators(graph: GraphProto) -> list[str]:
    return [node.op_type for node in graph.node]


def diamond() -> ModelProto:
    """`x` - Relu - `a`, read by Neg and Abs, whose sum is `y`; and a Sqrt that nothing needs."""
    node = helper.make_node
    return graph_of(
        [
            node("Relu", ["x"], ["a"]),
            node("Neg", ["a"], ["b"]),
            node("Abs", ["a"], ["c"]),
            node("Sqrt", ["c"], ["idle"]),
            node("Sum", ["b", "c", "k"], ["y"]),
        ],
        {"k": np.ones(4, np.float32), "unused": np.zeros(2, np.float32)},
        ["batch", 4],
        ["batch", 4],
    )


def random(*shape: int, seed: int = 0) -> np.ndarray:
    """Normal float32 values."""
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def outputs_of(model: ModelProto, feeds: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Every output by name, from the bare runtime."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(model.SerializeToString(), options)
    return dict(zip([output.name for output in session.get_outputs()], session.run(None, feeds), strict=True))


def int8_answer(model: ModelProto, pixels: np.ndarray) -> np.ndarray:
    """An int8 model's output, in the form in which it is opened on this CPU."""
    content = fastest(model.SerializeToString())
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    return session.run(None, {session.get_inputs()[0].name: pixels})[0]
