"""The preprocessing as the first nodes of the graph: photos go in as uint8.

A network sees `scale * p + offset` per channel, where `p` are a photo's values 0 to 255 in the order of
channels that it was trained with: a Transpose to `[batch, channels, height, width]`, a Gather where the order
is BGR, a Cast, a Mul, an Add. Transpose and Gather only move values, so they come first, on uint8: a quarter
of the bytes. A scale of 1 and an offset of 0 get no node.
"""

from collections.abc import Iterator

import numpy as np
from onnx import GraphProto, NodeProto, TensorProto, ValueInfoProto, helper

from birdsonnx.errors import ModelError
from birdsonnx.model.edits import Editor, copy_of, drop_unused, set_inputs
from birdsonnx.model.graph import Array
from birdsonnx.model.image_metadata import denote
from birdsonnx.model.metadata import INPUT
from birdsonnx.model.model_file import BirdModel
from birdsonnx.model.preprocessing import Preprocessing
from birdsonnx.passes.rewriting import Report, apply

PREPROCESS = "preprocess/"

NETWORK_INPUT = "network_input"
"""The float32 NCHW tensor after the preprocessing: what Keras calls the model's input."""

DIMENSIONS = 4
"""Of a batch of photos."""


class TakeUint8:
    """Looks at the graph's one input: `images`, or the network's own float32 `[batch, channels, height,
    width]`.

    Where the graph has a preprocessing already, the new one takes its place.
    """

    done = "starts on uint8"
    subject = "input"

    def __init__(self, preprocessing: Preprocessing, source: str) -> None:
        self._preprocessing, self._source = preprocessing, source

    def candidates(self, graph: Editor) -> Iterator[ValueInfoProto]:
        [value] = graph.proto.input
        yield value

    def check(self, _: Editor, value: ValueInfoProto) -> str | None:
        found = len(value.type.tensor_type.shape.dim)
        return (
            None if found == DIMENSIONS else f"the network's input has {found} dimensions, not {DIMENSIONS}"
        )

    def rewrite(self, graph: Editor, value: ValueInfoProto) -> int:
        graph.remove(*(node for node in graph.nodes() if node.name.startswith(PREPROCESS)))
        dims = [dim.dim_value for dim in value.type.tensor_type.shape.dim]
        if value.name != INPUT:
            graph.redirect(value.name, self._source)
            dims = [dims[0], dims[2], dims[3], dims[1]]
        height, width, channels = dims[1:]
        graph.insert_first(*self._nodes(graph, channels))
        shape = ["batch", height, width, channels]
        set_inputs(graph.proto, [helper.make_tensor_value_info(INPUT, TensorProto.UINT8, shape)])
        denote(graph.proto)
        return 1

    def _nodes(self, graph: Editor, channels: int) -> list[NodeProto]:
        preprocessing = self._preprocessing
        nodes: list[NodeProto] = []

        def then(operation: str, by: Array | None = None, **attributes: object) -> None:
            name = f"{PREPROCESS}{operation.lower()}"
            inputs = [nodes[-1].output[0] if nodes else INPUT]
            if by is not None:
                graph.set_constant(f"{name}_by", by)
                inputs.append(f"{name}_by")
            nodes.append(helper.make_node(operation, inputs, [name], name=name, **attributes))

        then("Transpose", perm=[0, 3, 1, 2])
        if preprocessing.bgr:
            then("Gather", np.arange(channels)[::-1].astype(np.int64), axis=1)
        then("Cast", to=TensorProto.FLOAT)
        if any(number != 1 for number in preprocessing.scale):
            then("Mul", np.asarray(preprocessing.scale, np.float32).reshape(1, -1, 1, 1))
        if any(number != 0 for number in preprocessing.offset):
            then("Add", np.asarray(preprocessing.offset, np.float32).reshape(1, -1, 1, 1))
        nodes[-1].output[0] = self._source
        return nodes


def take_uint8(proto: GraphProto, preprocessing: Preprocessing, source: str = NETWORK_INPUT) -> Report:
    """Put the preprocessing before the network: from `images`, uint8 `[batch, height, width, channels]`, to
    the tensor `source`, which stops being the graph's input.

    Raises:
        ModelError: the input is no batch of photos.
    """
    report = apply(TakeUint8(preprocessing, source), proto)
    for reason in report.declined:
        raise ModelError(reason)
    drop_unused(proto)
    return report


def with_preprocessing(model: BirdModel, preprocessing: Preprocessing) -> BirdModel:
    """The same network with another preprocessing before it. Raises ModelError for an int8 model."""
    if preprocessing == model.metadata.preprocessing:
        return model
    if model.metadata.quantization is not None:
        raise ModelError(
            f"{model.where}: an int8 model's preprocessing is part of its first layer; change that of the "
            "float32 model and quantise it again"
        )
    proto = copy_of(model.proto)
    take_uint8(proto.graph, preprocessing)
    return BirdModel(proto, model.metadata.having(preprocessing=preprocessing), model.where)
