"""What `checkpoints.load` and `layers` mean."""

import json
from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, helper

from birdsonnx.config import parse
from birdsonnx.errors import ConfigError, ModelError
from birdsonnx.network import loading
from tests.network.graphs import answer
from tests.network.networks import keras_warns
from tests.tiny import tiny_model

PIXELS = np.random.default_rng(0).integers(0, 256, (2, 24, 24, 3), np.uint8)
NORMALIZE = [{"normalize": {"mean": [0.4, 0.5, 0.6], "std": [0.2, 0.25, 0.5]}}]


def settings(load="model.onnx", **network):
    text = json.dumps({"neural_network": {"checkpoints": {"load": load}, **network}})
    return parse(text, "config.json")


def keras_json(without=None, **dense):
    layers = [
        {"class_name": "Conv2D", "config": {"name": "conv1", "filters": 8}},
        {"class_name": "Conv2D", "config": {"name": "conv2", "filters": 24}},
        {"class_name": "ReLU", "config": {"name": "relu"}},
        {"class_name": "Dense", "config": {"name": "dense", "units": 3, **dense}},
    ]
    kept = [layer for layer in layers if layer["config"]["name"] != without]
    return {"class_name": "Functional", "config": {"layers": kept}}


@pytest.fixture
def model():
    tiny_model(3).save(Path("model.onnx"))


@pytest.mark.parametrize(
    ("name", "expected", "said"),
    [("a/m.pt", "a/m.onnx", 1), ("m.PT", "m.onnx", 1), ("m.onnx", "m.onnx", 0), ("m.h5", "m.h5", 0)],
)
def test_a_pt_name_means_the_onnx_of_the_same_stem(name, expected, said):
    lines = []
    assert loading.checkpoint_file(name, lines.append) == Path(expected)
    assert len(lines) == said


def test_a_pt_name_loads_the_onnx(model):
    lines = []
    loaded = loading.to_train(settings("model.pt"), lines.append)
    assert loaded.serialized() == Path("model.onnx").read_bytes()
    assert lines == ["model.pt names a libtorch file; loading model.onnx instead"]


@pytest.mark.parametrize("name", ["m.ckpt", "m", "model.onnx.bak"])
def test_other_suffixes_are_refused(name):
    with pytest.raises(ConfigError, match=rf"checkpoints\.load: '{name}' is none of"):
        loading.to_train(settings(name), print)


def test_training_needs_a_network():
    with pytest.raises(ConfigError, match=r"no network to train; give checkpoints\.load .* or layers"):
        loading.to_train(parse('{"neural_network": {}}', "c"), print)


@pytest.mark.parametrize("as_file", [True, False])
def test_layers_that_agree_say_nothing(model, as_file):
    Path("layers.json").write_text(json.dumps(keras_json()))
    lines = []
    loading.to_train(settings(layers="layers.json" if as_file else keras_json()), lines.append)
    assert lines == []


def test_layers_are_found_in_nested_models(model):
    content = keras_json()
    *inner, last = content["config"]["layers"]
    nested = {"class_name": "Functional", "config": {"name": "base", "layers": inner}}
    loading.to_train(
        settings(layers={"class_name": "Functional", "config": {"layers": [nested, last]}}), print
    )


def test_an_absent_layers_file_is_one_line(model):
    lines = []
    loading.to_train(settings(layers="absent.json"), lines.append)
    assert lines == ["absent.json is not there; not needed: model.onnx holds the whole network"]


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        (keras_json(units=5), "'dense' has 5 units in neural_network.layers and 3 in model.onnx"),
        (keras_json(name="head"), "has a layer '(head|dense)' that"),
        (keras_json(without="conv2"), "model.onnx has a layer 'conv2' that neural_network.layers has not"),
    ],
)
def test_layers_of_another_network_are_refused(model, layers, message):
    """Where nothing is trained: a model that is used must be the one that is described."""
    with pytest.raises(ModelError, match=message):
        loading.compare_layers(tiny_model(3).metadata, settings(layers=layers), "model.onnx", print)
    normalized = settings(layers=layers, data={"transforms": NORMALIZE})
    with pytest.raises(ModelError, match=message):
        loading.to_predict(normalized, print)


def test_normalize_takes_the_place_of_the_models_preprocessing():
    """The caffe network must see `(x / 255 - mean) / std` in RGB, as one that has it built in does."""
    tiny_model(size=24).save(Path("model.onnx"))
    loaded = loading.to_train(settings(data={"transforms": NORMALIZE}), print)
    assert loaded.metadata.preprocessing.name == "normalize"
    seen = (PIXELS / 255 - [0.4, 0.5, 0.6]) / [0.2, 0.25, 0.5]
    bare = tiny_model(size=24, mode="none").proto
    while bare.graph.node[0].name.startswith("preprocess/"):
        del bare.graph.node[0]
    floats = helper.make_tensor_value_info("network_input", TensorProto.FLOAT, ["batch", 3, 24, 24])
    bare.graph.input[0].CopyFrom(floats)
    np.testing.assert_allclose(
        answer(loaded.proto, PIXELS),
        answer(bare, seen.transpose(0, 3, 1, 2).astype(np.float32)),
        rtol=1e-4,
        atol=1e-5,
    )


def test_prediction_takes_the_file_as_it_is_unless_the_config_changes_it(model):
    assert loading.to_predict(settings(), print) == (Path("model.onnx"), "model.onnx")
    content, where = loading.to_predict(settings(data={"transforms": NORMALIZE}), print)
    assert where == "model.onnx"
    expected = loading.to_train(settings(data={"transforms": NORMALIZE}), print).serialized()
    assert content == expected != Path("model.onnx").read_bytes()


def convert(**network):
    """A converted `small.h5` and what was said; caffe must not be guessed, so the config normalizes."""
    network = {"birdsonnx": {"cache": "cache"}, "data": {"transforms": NORMALIZE}, **network}
    lines = []
    return loading.to_train(settings("small.h5", **network), lines.append), " ".join(lines)


@keras_warns
def test_a_keras_file_is_converted_once(network):
    network.save("small.h5")
    first, said = convert()
    assert "converting small.h5" in said
    assert "same answers as Keras" in said
    scores = network.predict((PIXELS / 255 - [0.4, 0.5, 0.6]) / [0.2, 0.25, 0.5], verbose=0)
    np.testing.assert_allclose(answer(first.proto, PIXELS), np.log(scores), rtol=0, atol=1e-4)
    again, said = convert()
    assert "converted before" in said
    assert again.serialized() == first.serialized()


@keras_warns
@pytest.mark.parametrize("change", ["weights", "layers", "seed"])
def test_another_network_is_converted_anew(keras, network, change):
    network.save("small.h5")
    convert()
    options = {}
    if change == "weights":
        other = keras.models.clone_model(network)
        other.save("small.h5")
    elif change == "layers":
        options = {"layers": json.loads(network.to_json())}
    else:
        options = {"birdsonnx": {"cache": "cache", "seed": 5}}
    assert "converting small.h5" in convert(**options)[1]
    assert "converted before" in convert(**options)[1]
    assert len(list(Path("cache").iterdir())) == 2


@keras_warns
def test_without_a_cache_nothing_is_kept(network):
    network.save("small.h5")
    before = set(Path.cwd().rglob("*"))
    convert(birdsonnx={"cache": False})
    assert set(Path.cwd().rglob("*")) == before


@keras_warns
def test_a_network_that_is_not_recognised_needs_a_normalize(network):
    network.save("small.h5")
    with pytest.raises(ModelError, match="preprocessing of this network is not recognised"):
        loading.to_train(settings("small.h5"), print)


def test_a_damaged_keras_file_is_refused_before_any_conversion():
    Path("small.h5").write_bytes(b"\x89HDF\r\n\x1a\n damaged")
    lines = []
    with pytest.raises(ModelError, match=r"small\.h5: not a complete Keras file"):
        loading.to_train(settings("small.h5"), lines.append)
    assert lines == []
