"""The gradient of Relu as a product with a mask.

`dX = dY where Y > 0 else 0 = dY * mask` with `mask = min(1, max(0, Y * 3.4e38))`: 1 for every positive
float32 but the subnormal ones (< 2.9e-39). The runtime's ReluGrad takes 3.1 ms where HardSigmoid and Mul take
0.5 together (800,000 elements). Y is positive exactly where the input of the Relu is, so that the input need
not be kept.
"""

from collections.abc import Iterator

import numpy as np
from onnx import NodeProto, helper

from birdsonnx.model.edits import Editor

LARGEST_FLOAT32 = float(np.finfo(np.float32).max)


class ReluGradAsMask:
    """Looks at every ReluGrad; one mask serves all of a tensor.

    Args:
        shapes: of all tensors; gets those of the masks.
    """

    done = "ReluGrad as a mask"
    subject = "ReluGrad"

    def __init__(self, shapes: dict[str, tuple[int, ...]]) -> None:
        self._shapes = shapes
        self._result: dict[str, str] = {}
        """Of each Relu, by its input."""

    def candidates(self, graph: Editor) -> Iterator[NodeProto]:
        self._result = {node.input[0]: node.output[0] for node in graph.nodes() if node.op_type == "Relu"}
        return (node for node in graph.nodes() if node.op_type == "ReluGrad")

    def check(self, _: Editor, __: NodeProto) -> str | None:
        return None

    def rewrite(self, graph: Editor, node: NodeProto) -> int:
        gradient, of = node.input
        of = self._result.get(of, of)
        mask = f"{of}/mask"
        if mask not in self._shapes:
            self._shapes[mask] = self._shapes[of]
            attributes = {"alpha": LARGEST_FLOAT32, "beta": 0.0}
            graph.insert_before(node, helper.make_node("HardSigmoid", [of], [mask], name=mask, **attributes))
        graph.replace(node, helper.make_node("Mul", [gradient, mask], [node.output[0]], name=node.name))
        return 1
