"""The `.onnx` as a file: what survives it, and what is refused."""

import dataclasses

import numpy as np
import onnx
import pytest

from birdsonnx.errors import ModelError
from birdsonnx.model.model_file import load, parse
from birdsonnx.model.preprocessing import of_mode
from birdsonnx.passes.uint8_input import with_preprocessing
from tests.graphs import answer
from tests.tiny import tiny_model

PIXELS = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3), np.uint8)


def test_a_round_trip_keeps_graph_and_metadata(tmp_path):
    model = tiny_model(3, ["A", "B é", 'C"'])
    model = dataclasses.replace(model, metadata=model.metadata.having(run={"run": 2, "epoch": 1}))
    content = model.save(tmp_path / "m.onnx")
    again = load(tmp_path / "m.onnx")
    assert (tmp_path / "m.onnx").read_bytes() == content == again.serialized()
    assert again.metadata == model.metadata
    assert again.proto.graph == model.proto.graph
    assert (again.input_size, again.num_classes) == ((32, 32, 3), 3)
    assert again.where == str(tmp_path / "m.onnx")


def test_the_same_model_gives_the_same_bytes():
    assert tiny_model(2, ["A", "B"]).serialized() == tiny_model(2, ["A", "B"]).serialized()
    assert tiny_model(2, ["A", "B"]).serialized() != tiny_model(2, ["A", "C"]).serialized()


def test_another_preprocessing_takes_the_place_of_the_old():
    caffe = tiny_model(mode="caffe")
    tf = with_preprocessing(caffe, of_mode("tf", 3))
    assert tf.metadata.preprocessing.name == "tf"
    expected = answer(tiny_model(mode="tf").proto, PIXELS)
    np.testing.assert_allclose(answer(tf.proto, PIXELS), expected, rtol=1e-6, atol=1e-6)
    assert np.abs(answer(caffe.proto, PIXELS) - expected).max() > 0.1
    assert with_preprocessing(caffe, of_mode("caffe", 3)) is caffe


def changed(change):
    proto = onnx.load_model_from_string(tiny_model().serialized())
    change(proto)
    return proto.SerializeToString()


def rename_input(proto):
    proto.graph.node[0].input[0] = proto.graph.input[0].name = "pixels"


def rename_output(proto):
    proto.graph.node[-1].output[0] = proto.graph.output[0].name = "scores"


def second_output(proto):
    proto.graph.output.append(onnx.helper.make_tensor_value_info("logits", 1, ["batch", 3]))


def flat_input(proto):
    del proto.graph.input[0].type.tensor_type.shape.dim[2:]


def move_weights(proto):
    [kernel] = [tensor for tensor in proto.graph.initializer if tensor.name == "dense/kernel"]
    onnx.external_data_helper.set_external_data(kernel, "../../secret.bin")
    kernel.ClearField("raw_data")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "not made by birdsonnx"),
        (b"hello world, no model here", "not a complete ONNX file"),
        (tiny_model().serialized()[:-500], "not a complete ONNX file"),
        (changed(lambda proto: proto.ClearField("metadata_props")), "not made by birdsonnx"),
        (changed(rename_input), "the one input 'images'"),
        (changed(rename_output), "the output 'log_probs'"),
        (changed(second_output), "the output 'log_probs'"),
        (changed(flat_input), "'images' must have 4 dimensions"),
        (changed(move_weights), "its weights lie in other files"),
    ],
    ids=["empty", "text", "truncated", "no metadata", "input", "output", "outputs", "flat", "external data"],
)
def test_what_is_no_model_of_ours_is_refused(content, message):
    with pytest.raises(ModelError, match=rf"^m\.onnx: .*{message}"):
        parse(content, "m.onnx")


@pytest.mark.parametrize("part", [1, 20, 300, 2000])
def test_every_truncation_is_a_refusal(part):
    with pytest.raises(ModelError, match=r"^m: "):
        parse(tiny_model().serialized()[:part], "m")


def test_missing_files_and_folders_are_refused(tmp_path):
    with pytest.raises(ModelError, match="there is no such model"):
        load(tmp_path / "none.onnx")
    with pytest.raises(ModelError, match="cannot be read"):
        load(tmp_path)
