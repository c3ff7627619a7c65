"""What was fitted to a model's answers does not outlive a change of its weights."""

from onnx import helper

from birdsonnx.model import model_file
from birdsonnx.model.after_change import without_fitted
from birdsonnx.model.model_file import BirdModel
from tests.tiny import tiny_model

CALIBRATION = {"temperature": 2.0, "photos": 9}
THRESHOLDS = {"precision": 0.9, "values": [0.5, 0.5, 1.0]}
KNOWN = {"score": "largest", "threshold": -1.0, "kept": 0.95, "photos": 9}


def test_all_of_it_goes_and_one_line_says_so():
    model = tiny_model(3, ("a", "b", "c"))
    graph = model.proto.graph
    graph.node.append(helper.make_node("ReduceMax", ["logits"], ["known"], axes=[1], keepdims=0))
    graph.output.append(helper.make_tensor_value_info("known", 1, ["batch"]))
    metadata = model.metadata.having(calibration=CALIBRATION, thresholds=THRESHOLDS, known=KNOWN)
    fitted = model_file.parse(BirdModel(model.proto, metadata, "x.onnx").serialized(), "x.onnx")
    lines: list[str] = []
    plain = without_fitted(fitted, "since it is trained", lines.append)
    assert lines == [
        "x.onnx: the calibration of its probabilities, its thresholds and its output 'known' are left out, "
        "since it is trained"
    ]
    again = model_file.parse(plain.serialized(), "x.onnx")
    assert (again.metadata.calibration, again.metadata.thresholds, again.metadata.known) == (None,) * 3
    assert [output.name for output in again.proto.graph.output] == ["log_probs"]
    assert "ReduceMax" not in [node.op_type for node in again.proto.graph.node]
    assert [output.name for output in fitted.proto.graph.output] == ["log_probs", "known"]


def test_a_model_without_any_stays_as_it_is():
    model = tiny_model(3)
    lines: list[str] = []
    assert without_fitted(model, "", lines.append) is model
    assert not lines


def test_one_of_them():
    model = tiny_model(3)
    calibrated = BirdModel(model.proto, model.metadata.having(calibration=CALIBRATION), "y.onnx")
    lines: list[str] = []
    assert without_fitted(calibrated, "since", lines.append).proto is model.proto
    assert lines == ["y.onnx: the calibration of its probabilities is left out, since"]
