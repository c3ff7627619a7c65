"""The preprocessing as the first nodes of the graph: photos go in as uint8."""

import numpy as np
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, helper

from birdsonnx.errors import ModelError
from birdsonnx.model.graph import Array, drop_unused, redirect, remove, set_constant
from birdsonnx.model.metadata import INPUT
from birdsonnx.model.model_file import BirdModel
from birdsonnx.model.preprocessing import Preprocessing

PREPROCESS = "preprocess/"

NETWORK_INPUT = "network_input"
"""The float32 NCHW tensor behind the preprocessing: what Keras calls the model's input."""


def take_uint8(proto: GraphProto, preprocessing: Preprocessing, source: str = NETWORK_INPUT) -> None:
    """Put the preprocessing in front: `images` uint8 `[batch, height, width, channels]` to `source`.

    `source` is the float32 NCHW input of the network, which stops being a graph input; where the graph
    has a preprocessing already, the new one takes its place. Transposing and reordering happen on uint8,
    a quarter of the bytes.
    """
    remove(proto, [node for node in proto.node if node.name.startswith(PREPROCESS)])
    [graph_input] = proto.input
    dims = [dim.dim_value for dim in graph_input.type.tensor_type.shape.dim]
    if graph_input.name != INPUT:
        redirect(proto, graph_input.name, source)
        dims = [dims[0], dims[2], dims[3], dims[1]]
    height, width, channels = dims[1:]

    nodes: list[NodeProto] = []
    tensor = INPUT

    def then(operation: str, extra: Array | None = None, **attributes: object) -> None:
        nonlocal tensor
        name = f"{PREPROCESS}{operation.lower()}"
        inputs = [tensor]
        if extra is not None:
            set_constant(proto, f"{name}_by", extra)
            inputs.append(f"{name}_by")
        nodes.append(helper.make_node(operation, inputs, [name], name=name, **attributes))
        tensor = name

    then("Transpose", perm=[0, 3, 1, 2])
    if preprocessing.bgr:
        then("Gather", np.arange(channels)[::-1].astype(np.int64), axis=1)
    then("Cast", to=TensorProto.FLOAT)
    if any(number != 1 for number in preprocessing.scale):
        then("Mul", np.asarray(preprocessing.scale, np.float32).reshape(1, -1, 1, 1))
    if any(number != 0 for number in preprocessing.offset):
        then("Add", np.asarray(preprocessing.offset, np.float32).reshape(1, -1, 1, 1))
    nodes[-1].output[0] = source

    network = list(proto.node)
    del proto.node[:]
    proto.node.extend([*nodes, *network])
    graph_input.CopyFrom(
        helper.make_tensor_value_info(INPUT, TensorProto.UINT8, ["batch", height, width, channels])
    )
    drop_unused(proto)


def with_preprocessing(model: BirdModel, preprocessing: Preprocessing) -> BirdModel:
    """The same network with another preprocessing before it. Raises ModelError for an int8 model."""
    if preprocessing == model.metadata.preprocessing:
        return model
    if model.metadata.quantization is not None:
        raise ModelError(
            f"{model.where}: an int8 model's preprocessing is part of its first layer; change that of the "
            "float32 model and quantise it again"
        )
    proto = ModelProto()
    proto.CopyFrom(model.proto)
    take_uint8(proto.graph, preprocessing)
    return BirdModel(proto, model.metadata.having(preprocessing=preprocessing), model.where)
