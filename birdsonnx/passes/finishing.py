"""The last pass of every conversion: nothing unused, one opset, the oldest IR version that it allows.

No value changes: an output depends only on the nodes that lead to it, and versions say how a file is read,
not what is in it. A file of the oldest version is read by the most runtimes (`Session`'s: IR 10, opset 21).
"""

from onnx import ModelProto, defs, helper

from birdsonnx.errors import ModelError
from birdsonnx.model.edits import drop_unused
from birdsonnx.model.graph import opset_of
from birdsonnx.model.soundness import IR_VERSIONS, OUR_DOMAINS


def check(model: ModelProto) -> str | None:
    """Why a runtime could not compute what the outputs need, or None."""
    used = {node.domain for node in model.graph.node}
    foreign = sorted(used.difference(OUR_DOMAINS))
    if foreign:
        return f"the converted graph needs operators of {', '.join(foreign)}"
    holding = {
        node.op_type
        for node in model.graph.node
        for attribute in node.attribute
        if attribute.HasField("g") or attribute.graphs
    }
    if holding:
        return f"the converted graph needs {', '.join(sorted(holding))}, and graphs inside nodes are not read"
    unknown = {node.op_type for node in model.graph.node if not defs.has(node.op_type, node.domain)}
    if unknown:
        return f"this network needs {', '.join(sorted(unknown))}, which ONNX does not have"
    return None


def finish(model: ModelProto) -> None:
    """Drop what nothing needs, keep only the `ai.onnx` import and the oldest IR that the opset allows.

    Raises:
        ModelError: an operator that is not ONNX's.
    """
    drop_unused(model.graph)
    del model.graph.value_info[:]
    reason = check(model)
    if reason is not None:
        raise ModelError(reason)
    opset = opset_of(model)
    del model.opset_import[:]
    model.opset_import.append(helper.make_opsetid("", opset))
    model.ir_version = min(IR_VERSIONS[-1], helper.find_min_ir_version_for(list(model.opset_import)))
    model.graph.name = "birdsonnx"
    model.graph.doc_string = model.doc_string = ""
    model.producer_name = "birdsonnx"
    model.producer_version = ""
