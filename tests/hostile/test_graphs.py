"""Models whose graph cannot be: the runtime dies of some, and training and quantising trip over others."""

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from birdsonnx.errors import ModelError
from birdsonnx.inference.classifier import open_classifier
from birdsonnx.model.model_file import load, parse
from birdsonnx.model.soundness import require_sound
from tests.command import birdsonnx
from tests.tiny import make_class_folders, tiny_model

Change = Callable[[ModelProto], object]


def changed(change: Change) -> bytes:
    model = onnx.load_model_from_string(tiny_model(3, ["A", "B", "C"]).serialized())
    change(model)
    return bytes(model.SerializeToString())


def constant(model: ModelProto, name: str) -> TensorProto:
    [found] = [tensor for tensor in model.graph.initializer if tensor.name == name]
    return found


def node(model: ModelProto, kind: str) -> NodeProto:
    return next(node for node in model.graph.node if node.op_type == kind)


def window(name: str, values: int | list[int]) -> Change:
    def change(model: ModelProto) -> None:
        conv = node(model, "Conv")
        for old in [each for each in conv.attribute if each.name == name]:
            conv.attribute.remove(old)
        conv.attribute.append(helper.make_attribute(name, values))

    return change


def dims(name: str, values: list[int]) -> Change:
    return lambda model: constant(model, name).ClearField("dims") or constant(model, name).dims.extend(values)


def held(name: str, count: int) -> Change:
    return lambda model: setattr(constant(model, name), "raw_data", bytes(count))


def typed(name: str, field: str, values: list[float]) -> Change:
    def change(model: ModelProto) -> None:
        constant(model, name).ClearField("raw_data")
        getattr(constant(model, name), field).extend(values)

    return change


def flat_kernel(model: ModelProto) -> None:
    kernel = constant(model, "conv2/kernel")
    kernel.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(kernel).reshape(-1), kernel.name))


DAMAGED = "holds more or fewer values than it says: damaged"
UNSOUND: dict[str, tuple[Change, str]] = {
    "one byte of axes": (held("axes", 1), f"'axes' {DAMAGED}"),
    "no byte": (held("dense/bias", 0), f"'dense/bias' {DAMAGED}"),
    "more bytes": (held("dense/bias", 16), f"'dense/bias' {DAMAGED}"),
    "negative size": (dims("dense/bias", [-1]), DAMAGED),
    "huge size": (dims("dense/bias", [2**62, 4]), DAMAGED),
    "no dimension": (dims("dense/bias", []), DAMAGED),
    "70 dimensions": (dims("dense/bias", [3] + [1] * 70), DAMAGED),
    "fewer floats": (typed("dense/bias", "float_data", [1, 2]), DAMAGED),
    "fewer numbers": (typed("axes", "int64_data", [300]), DAMAGED),
    "floats in the field of others": (typed("dense/bias", "int64_data", [1, 2, 3]), "in a form, that"),
    "strides of 0": (window("strides", [0, 0]), "it holds strides of 0, which no network can have"),
    "strides of -1": (window("strides", [-1, 2]), "strides of -1"),
    "huge strides": (window("strides", [2**40, 1]), "strides of 1099511627776"),
    "dilations of 0": (window("dilations", [0, 1]), "dilations of 0"),
    "pads below 0": (window("pads", [-1] * 4), "pads of -1"),
    "huge pads": (window("pads", [2**40] * 4), "pads of 1099511627776"),
    "kernel of 0": (window("kernel_shape", [0, 0]), "kernel_shape of 0"),
    "group of 0": (window("group", 0), "group of 0"),
    "flat kernel": (flat_kernel, "'conv2/kernel' has too few dimensions"),
}


@pytest.mark.parametrize(("change", "said"), UNSOUND.values(), ids=UNSOUND)
def test_what_the_runtime_dies_of_does_not_reach_it(change, said, monkeypatch):
    content = changed(change)
    monkeypatch.setattr("birdsonnx.inference.engines.opened", None)
    for road in (lambda: parse(content, "m"), lambda: open_classifier(content, "m", 1, 1)):
        with pytest.raises(ModelError, match=rf"^m: .*{said}"):
            road()


@pytest.mark.parametrize("name", ["one byte of axes", "strides of 0", "pads below 0"])
def test_predict_ends_in_one_line_and_not_by_a_signal(name):
    """In a process of its own: it would take this one with it."""
    Path("m.onnx").write_bytes(changed(UNSOUND[name][0]))
    make_class_folders(Path("data"), per_class=1)
    done = birdsonnx("predict", "data", "--model", "m.onnx")
    assert (done.returncode, len(done.stderr.splitlines())) == (2, 1), done
    assert "m.onnx: " in done.stderr


def test_values_one_by_one_are_counted_as_those_in_a_row():
    def change(model: ModelProto) -> None:
        bias, axes = constant(model, "dense/bias"), constant(model, "axes")
        values = numpy_helper.to_array(bias).tolist()
        bias.CopyFrom(helper.make_tensor(bias.name, TensorProto.FLOAT, [3], values))
        axes.CopyFrom(helper.make_tensor(axes.name, TensorProto.INT64, [2], [2, 3]))
        small = helper.make_tensor("small", TensorProto.INT8, [3], [-1, 0, 127])
        model.graph.initializer.append(small)

    require_sound(changed(change), "m")
    parse(changed(change), "m")


def test_two_tensors_in_one_attribute_are_refused():
    """Protobuf makes one of them, with the dimensions of both and the values of the last."""
    value = numpy_helper.from_array(np.ones(4, np.float32)).SerializeToString()
    one = b"\x2a" + bytes([len(value)]) + value
    attribute = b"\x0a\x05value" + one + one + b"\xa0\x01\x04"
    entry = b"\x12\x01c\x22\x08Constant\x2a" + bytes([len(attribute)]) + attribute
    graph = b"\x0a" + bytes([len(entry)]) + entry
    content = changed(lambda _: None) + b"\x3a" + bytes([len(graph)]) + graph
    with pytest.raises(ModelError, match="not a complete ONNX file"):
        require_sound(content, "m")


# --- Versions -------------------------------------------------------------------------------------------


def opset(version: int) -> Change:
    return lambda model: setattr(model.opset_import[0], "version", version)


def ir_version(version: int) -> Change:
    return lambda model: setattr(model, "ir_version", version)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        *((opset(version), f"its opset is {version} ") for version in (0, 12, 22, 10**9)),
        *((ir_version(version), f"its IR version {version};") for version in (0, 2, 11, 10**9)),
        (lambda model: model.ClearField("opset_import"), "its opset is none "),
        (lambda model: model.opset_import.append(helper.make_opsetid("ai.onnx", 17)), "its opset is 17, 17 "),
    ],
)
def test_versions_that_are_not_read(change, said):
    for road in (parse, lambda content, where: open_classifier(content, where, 1, 1)):
        with pytest.raises(ModelError, match=rf"^m: .*{said}.*opsets 13 to 21 and IR versions 3 to 10"):
            road(changed(change), "m")


def test_sets_of_operators_of_others_that_no_node_needs_are_no_matter(run):
    content = changed(lambda model: model.opset_import.insert(0, helper.make_opsetid("com.evil\x1b", 1)))
    Path("m.onnx").write_bytes(content)
    assert "opset, IR      17, 8" in run("info", "m.onnx").out
    assert load(Path("m.onnx")).num_classes == 3


# --- Names and shapes -----------------------------------------------------------------------------------


def without_input(model: ModelProto) -> None:
    node(model, "Gemm").input[0] = "nowhere\x1b[2J\n"


def circle(model: ModelProto) -> None:
    node(model, "Relu").input[0] = "r2"


def text_for_strides(model: ModelProto) -> None:
    for each in node(model, "Conv").attribute:
        if each.name == "strides":
            each.CopyFrom(helper.make_attribute("strides", "x"))


def double_kernel(model: ModelProto) -> None:
    kernel = constant(model, "dense/kernel")
    kernel.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(kernel).astype(np.float64), kernel.name))


INVALID: dict[str, Change] = {
    "without input": without_input,
    "empty input": lambda model: node(model, "Gemm").input.__setitem__(0, ""),
    "no inputs": lambda model: node(model, "Relu").ClearField("input"),
    "no outputs": lambda model: node(model, "Relu").ClearField("output"),
    "too many inputs": lambda model: node(model, "Relu").input.extend(["axes"] * 9),
    "no nodes": lambda model: model.graph.ClearField("node"),
    "node twice": lambda model: model.graph.node.append(model.graph.node[1]),
    "no operator": lambda model: setattr(node(model, "Relu"), "op_type", "\x1b[2J\nEvil"),
    "circle": circle,
    "text for strides": text_for_strides,
    "one stride": window("strides", [2]),
    "three pads": window("pads", [1, 1, 1]),
    "double kernel": double_kernel,
    "attribute of no type": lambda model: node(model, "Relu").attribute.add(name="x"),
}


@pytest.mark.parametrize("change", INVALID.values(), ids=INVALID)
def test_a_graph_that_onnx_does_not_allow_is_one_line_in_every_verb(change, run):
    Path("m.onnx").write_bytes(changed(change))
    make_class_folders(Path("data"), ["A", "B", "C"], per_class=1)
    Path("c.json").write_text(
        '{"neural_network": {"checkpoints": {"load": "m.onnx"}, "data": {"input_path": "data"}, '
        '"birdsonnx": {"cache": false}}}'
    )
    for words in (
        ("info", "m.onnx"),
        ("predict", "data", "--model", "m.onnx"),
        ("quantize", "m.onnx", "--calibrate", "data"),
        ("train", "c.json"),
    ):
        line = run(*words).refusal
        assert line.startswith("birdsonnx: m.onnx: ")
        assert "\x1b" not in line


def test_names_that_are_not_utf_8(run):
    content = changed(lambda model: setattr(node(model, "Relu"), "name", "a" * 7))
    Path("m.onnx").write_bytes(content.replace(b"a" * 7, b"\xff" * 7))
    make_class_folders(Path("data"), ["A", "B", "C"], per_class=1)
    for words in (("info", "m.onnx"), ("predict", "data", "--model", "m.onnx")):
        done = run(*words)
        assert "not a complete ONNX file" in done.refusal
        assert not done.out, "the runtime says on stdout that it tries again"


@pytest.mark.parametrize("side", ["input", "output"])
def test_a_batch_that_is_fixed_is_refused_before_any_photo(side):
    def change(model: ModelProto) -> None:
        getattr(model.graph, side)[0].type.tensor_type.shape.dim[0].dim_value = 1

    for road in (parse, lambda content, where: open_classifier(content, where, 9, 1)):
        with pytest.raises(ModelError, match="the first size of 'images' and 'log_probs' must be free"):
            road(changed(change), "m")


def test_what_the_runtime_cannot_compute_of_a_training_is_one_line(run):
    """Groups that do not fit the channels: no shape inference minds."""
    Path("m.onnx").write_bytes(changed(window("group", 7)))
    make_class_folders(Path("data"), ["A", "B", "C"], per_class=1)
    Path("c.json").write_text(
        '{"neural_network": {"checkpoints": {"load": "m.onnx"}, "data": {"input_path": "data"}, '
        '"birdsonnx": {"cache": false, "trainable": ["*"]}}}'
    )
    assert "m.onnx: its gradient: the runtime cannot compute it" in run("train", "c.json").refusal


@pytest.mark.parametrize("kind", ["pipe", "device", "folder"])
def test_a_model_that_is_no_file(kind, run):
    path = Path("model_checkpoints_save/model_checkpoint_1.onnx")
    path.parent.mkdir()
    match kind:
        case "pipe":
            os.mkfifo(path)
        case "device":
            path.symlink_to("/dev/zero")
        case "folder":
            path.mkdir()
    make_class_folders(Path("data"), ["A", "B", "C"], per_class=1)
    assert "cannot be read" in run("info", path).refusal
    assert "no model_checkpoint_*.onnx there" in run("predict", "data").refusal
