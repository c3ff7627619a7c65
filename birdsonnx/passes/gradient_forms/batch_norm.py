"""BatchNormalization in inference mode, which has no gradient, as Mul and Add with constants.

`gamma (x - mean) / sqrt(variance + epsilon) + beta = scale x + shift` per channel, with constants that
`passes.batch_norm.channel_affine` computes in float64.
"""

from collections.abc import Collection, Iterator, Mapping

import numpy as np
from onnx import NodeProto, helper

from birdsonnx.model.edits import Editor
from birdsonnx.passes.batch_norm import NOT_CONSTANT, channel_affine

MAP = 4
"""Dimensions of `[batch, channels, height, width]`, where shape inference does not know them."""


class BatchNormAsAffine:
    """Looks at the BatchNormalizations after a trained weight.

    Args:
        trained: the tensors that depend on a trained weight.
        shapes: of one photo's values, by tensor.
    """

    done = "batch norm as a product and a sum"
    subject = "batch norm"

    def __init__(self, trained: Collection[str], shapes: Mapping[str, tuple[int, ...]]) -> None:
        self._trained, self._shapes = trained, shapes

    def candidates(self, graph: Editor) -> Iterator[NodeProto]:
        return (
            node
            for node in graph.nodes()
            if node.op_type == "BatchNormalization" and node.input[0] in self._trained
        )

    def check(self, graph: Editor, norm: NodeProto) -> str | None:
        return None if channel_affine(graph, norm, norm.input[0]) is not None else NOT_CONSTANT

    def rewrite(self, graph: Editor, norm: NodeProto) -> int:
        data, output = norm.input[0], norm.output[0]
        affine = channel_affine(graph, norm, data)
        assert affine is not None
        dimensions = len(self._shapes[data]) + 1 if data in self._shapes else MAP
        scale, shift = (value.astype(np.float32).reshape(1, -1, *[1] * (dimensions - 2)) for value in affine)
        scaled = f"{output}/scaled"
        graph.set_constant(f"{scaled}/by", scale)
        graph.set_constant(f"{output}/shift", shift)
        graph.replace(
            norm,
            helper.make_node("Mul", [data, f"{scaled}/by"], [scaled], name=f"{norm.name}/scale"),
            helper.make_node("Add", [scaled, f"{output}/shift"], [output], name=norm.name),
        )
        return 1
