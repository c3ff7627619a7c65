"""The last pass of every conversion: nothing unused, one opset, the oldest IR version that it allows."""

from onnx import ModelProto, defs, helper

from birdsonnx.errors import ModelError
from birdsonnx.model.graph import drop_unused, opset_of


def finish(model: ModelProto) -> None:
    """Drop what nothing needs, keep only the `ai.onnx` import and the oldest IR that the opset allows."""
    drop_unused(model.graph)
    del model.graph.value_info[:]
    used = {node.domain for node in model.graph.node}
    if used - {"", "ai.onnx"}:
        raise ModelError(
            f"the converted graph needs operators of {', '.join(sorted(used - {'', 'ai.onnx'}))}"
        )
    unknown = {node.op_type for node in model.graph.node if not defs.has(node.op_type, node.domain)}
    if unknown:
        raise ModelError(f"this network needs {', '.join(sorted(unknown))}, which ONNX does not have")
    opset = opset_of(model)
    del model.opset_import[:]
    model.opset_import.append(helper.make_opsetid("", opset))
    model.ir_version = min(10, helper.find_min_ir_version_for(list(model.opset_import)))
    model.graph.name = "birdsonnx"
    model.graph.doc_string = model.doc_string = ""
    model.producer_name = "birdsonnx"
    model.producer_version = ""
