"""BatchNorms of a finished network: folded into the convolution in front, or written out.

    norm(conv(x, w) + b) = conv(x, w * factor) + b * factor + term,
    factor = gamma / sqrt(variance + epsilon), term = beta - mean * factor

as `passes.batch_norm` does it; in one pass over the nodes, and before there are
any protos whose arrays would be copied. A convolution that is called twice keeps its kernel, which is one for
all calls.
"""

from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np
from onnx import NodeProto, helper

from birdsonnx.keras_io.reading.layers.normalization import batch_norm_affine
from birdsonnx.model.graph import Array
from birdsonnx.passes.batch_norm import CALLED_TWICE, NO_CONVOLUTION, READ_ELSEWHERE, FoldBatchNorm
from birdsonnx.passes.rewriting import Report

Known = Mapping[str, tuple[int, float]]
"""By the name of the node: how many axes its maps have behind the channels, and its epsilon."""


def settle(
    nodes: Sequence[NodeProto], constants: dict[str, Array], output: str, known: Known, fold: bool
) -> tuple[list[NodeProto], Report]:
    """The nodes without BatchNormalization, but those that could be folded where `fold` is off; and what was
    folded, and what not and why."""
    readers = Counter(name for node in nodes for name in node.input)
    readers[output] += 1
    makers = {name: node for node in nodes for name in node.output}
    settled: list[NodeProto] = []
    folded, declined = 0, Counter[str]()
    for node in nodes:
        if node.op_type != "BatchNormalization":
            settled.append(node)
            continue
        conv = makers.get(node.input[0])
        reason = _why_not(conv, node, readers)
        if reason is not None or conv is None:
            settled += _written_out(node, constants, known)
            declined[str(reason)] += 1
        elif fold:
            _fold(conv, node, constants, known)
            makers[node.output[0]] = conv
            folded += 1
        else:
            settled.append(node)
    return settled, Report(FoldBatchNorm.done, FoldBatchNorm.subject, folded, dict(declined))


def _why_not(conv: NodeProto | None, node: NodeProto, readers: Mapping[str, int]) -> str | None:
    """Why a BatchNormalization is no part of the node before it."""
    if conv is None or conv.op_type != "Conv":
        return NO_CONVOLUTION
    if readers[node.input[0]] > 1:
        return READ_ELSEWHERE
    return CALLED_TWICE if readers[conv.input[1]] > 1 else None


def _affine(node: NodeProto, constants: Mapping[str, Array], known: Known) -> tuple[Array, Array]:
    gamma, beta, mean, variance = (constants[name] for name in node.input[1:5])
    return batch_norm_affine(known[node.name][1], mean, variance, gamma, beta)


def _fold(conv: NodeProto, node: NodeProto, constants: dict[str, Array], known: Known) -> None:
    factor, term = _affine(node, constants, known)
    kernel_name = conv.input[1]
    kernel = constants[kernel_name]
    bias = constants[conv.input[2]] if len(conv.input) > 2 else np.zeros(len(factor))
    bias_name = f"{kernel_name.rpartition('/')[0]}/bias"
    wide = kernel.astype(np.float64) * factor.reshape(-1, *[1] * (kernel.ndim - 1))
    constants[kernel_name] = wide.astype(np.float32)
    constants[bias_name] = (bias.astype(np.float64) * factor + term).astype(np.float32)
    del conv.input[2:]
    conv.input.append(bias_name)
    conv.output[0] = node.output[0]


def _written_out(node: NodeProto, constants: dict[str, Array], known: Known) -> list[NodeProto]:
    """As `<layer>/scale` and `<layer>/shift`, which can be trained."""
    values = _affine(node, constants, known)
    path, x, made = node.name.rpartition("/")[0], node.input[0], []
    maps, _ = known[node.name]
    for operation, role, value in zip(("Mul", "Add"), ("scale", "shift"), values, strict=True):
        shape = [1, -1, *[1] * maps] if maps else [-1]  # as tf2onnx wrote them: checkpoints have it so
        constants[f"{path}/{role}"] = value.reshape(shape).astype(np.float32)
        name = node.name.replace("BatchNormalization", operation)
        result = node.output[0] if role == "shift" else f"{name}:0"
        made.append(helper.make_node(operation, [x, f"{path}/{role}"], [result], name=name))
        x = result
    return made
