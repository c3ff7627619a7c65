"""What `checkpoints.load` and `layers` mean."""

import json
from pathlib import Path

import h5py
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from birdsonnx.config.reading import parse
from birdsonnx.config.transforms import Normalize
from birdsonnx.errors import ConfigError, ModelError
from birdsonnx.keras_io import conversion as own_road
from birdsonnx.keras_io import loading, oracle
from birdsonnx.keras_io.reading import read
from birdsonnx.keras_io.reading.fitting import read_into
from birdsonnx.keras_io.tf2onnx_road import conversion, keras_source
from birdsonnx.keras_io.tf2onnx_road.keras_network import KerasNetwork, layers_json
from birdsonnx.model import model_file
from birdsonnx.model.model_file import BirdModel
from birdsonnx.model.preprocessing import of_mode, of_normalize
from birdsonnx.model.weights import with_weights
from birdsonnx.passes.uint8_input import with_preprocessing
from birdsonnx.training.partition import Network
from tests.digits import lenet
from tests.graphs import answer
from tests.networks import keras_answers, keras_warns
from tests.tiny import tiny_model

PIXELS = np.random.default_rng(0).integers(0, 256, (2, 24, 24, 3), np.uint8)
NORMALIZE = [{"normalize": {"mean": [0.4, 0.5, 0.6], "std": [0.2, 0.25, 0.5]}}]


def settings(load="model.onnx", **network):
    text = json.dumps({"neural_network": {"checkpoints": {"load": load}, **network}})
    return parse(text, "config.json")


def chained(layers):
    """A Functional model of one layer after another, as Keras 2 writes it."""
    size = {"name": "photo", "batch_input_shape": [None, None, None, 3]}
    items = [{"class_name": "InputLayer", "config": size, "name": "photo", "inbound_nodes": []}]
    for layer in layers:
        before = items[-1]["name"]
        inbound = [[[before, 0, 0, {}]]]
        items.append({**layer, "name": layer["config"]["name"], "inbound_nodes": inbound})
    ends = {"input_layers": [["photo", 0, 0]], "output_layers": [[items[-1]["name"], 0, 0]]}
    return {"class_name": "Functional", "config": {"name": "chain", "layers": items, **ends}}


def keras_json(without=None, nested=False, **dense):
    layers = [
        {"class_name": "Conv2D", "config": {"name": "conv1", "filters": 8}},
        {"class_name": "Conv2D", "config": {"name": "conv2", "filters": 24}},
        {"class_name": "ReLU", "config": {"name": "relu"}},
        {"class_name": "Dense", "config": {"name": "dense", "units": 3, **dense}},
    ]
    kept = [layer for layer in layers if layer["config"]["name"] != without]
    return chained([chained(kept[:-1]), kept[-1]] if nested else kept)


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
    lines = []
    loading.to_train(settings(layers=keras_json(nested=True)), lines.append)
    assert lines == []
    with pytest.raises(ModelError, match="'dense' has 5 units"):
        loading.compare_layers(
            tiny_model(3).metadata, settings(layers=keras_json(nested=True, units=5)), "m", print
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
def test_a_keras_file_is_converted(network):
    """Each time, in the same bytes, without a word where there is nothing to say, and nothing is kept."""
    network.save("small.h5")
    before = set(Path.cwd().rglob("*"))
    first, said = convert()
    assert said == ""
    scores = keras_answers(network, (PIXELS / 255 - [0.4, 0.5, 0.6]) / [0.2, 0.25, 0.5])
    np.testing.assert_allclose(answer(first.proto, PIXELS), np.log(scores), rtol=0, atol=1e-4)
    assert convert()[0].serialized() == first.serialized()
    assert set(Path.cwd().rglob("*")) == before


@keras_warns
@pytest.mark.parametrize("suffix", ["h5", "keras"])
def test_no_keras_is_needed_for_it(network, suffix, monkeypatch):
    network.save(f"small.{suffix}")
    monkeypatch.setattr(keras_source, "import_keras", lambda: pytest.fail("not needed"))
    loaded = loading.to_train(settings(f"small.{suffix}", data={"transforms": NORMALIZE}), print)
    assert loaded.metadata.layers[-1].name == "dense"


@keras_warns
def test_other_weights_under_the_same_name_are_read(keras, network):
    network.save("small.h5")
    first, _ = convert()
    keras.models.clone_model(network).save("small.h5")
    assert convert()[0].serialized() != first.serialized()


@keras_warns
def test_layers_beside_a_keras_file_get_its_weights(network):
    network.save("small.h5")
    alone, _ = convert()
    beside, said = convert(layers=json.loads(network.to_json()))
    assert said == ""
    assert beside.proto.graph == alone.proto.graph


@keras_warns
def test_a_layer_that_the_keras_file_has_not_is_said(network):
    """Its weights depend on the seed alone."""
    network.save("small.h5")
    layers = json.loads(network.to_json())
    layers["config"]["layers"][-1]["config"]["units"] = 6
    first, said = convert(layers=layers)
    assert said == "dense (it has 8x4 4, the network 8x6 6): starts from fresh weights"
    assert first.num_classes == 6
    assert convert(layers=layers)[0].serialized() == first.serialized()
    seeded = {"cache": "cache", "seed": 5}
    assert convert(layers=layers, birdsonnx=seeded)[0].serialized() != first.serialized()


@keras_warns
def test_what_a_keras_file_says_is_said(keras, network):
    noise = keras.layers.GaussianNoise(0.1, name="noise")
    keras.Sequential([keras.Input((24, 24, 3)), noise, network]).save("small.h5")
    assert convert()[1].startswith("noise (GaussianNoise): what it does in Keras' training alone")


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


# --- Networks of `layers` -------------------------------------------------------------------------------


def fresh(layers, **network):
    """What `layers` alone give, and what was said of it."""
    text = json.dumps({"neural_network": {"layers": layers, "birdsonnx": {"cache": "cache"}, **network}})
    lines = []
    return loading.to_train(parse(text, "config.json"), lines.append), lines


@keras_warns
def test_layers_alone_are_a_new_network():
    model, lines = fresh(lenet())
    assert model.input_size == (28, 28, 1)
    assert model.metadata.trainable == ("conv2d", "conv2d_1", "dense", "dense_1")
    assert model.metadata.preprocessing.name == "unit"
    assert model.metadata.classes is None
    assert lines[0] == "neural_network.layers: a new network with fresh weights (seed 0)"
    assert "it sees pixels scaled to [0, 1]" in lines[-1]
    keras_network = oracle.model_like(read_into(lenet(), None, 0, "layers"))
    photos = np.random.default_rng(0).integers(0, 256, (2, 28, 28, 1), np.uint8)
    expected = keras_answers(keras_network, photos / np.float32(255))
    np.testing.assert_allclose(answer(model.proto, photos), expected, rtol=0, atol=1e-5)


def test_a_file_and_an_array_are_the_same_network():
    Path("layers.json").write_text(json.dumps(lenet()))
    model, lines = fresh("layers.json")
    assert lines[0].startswith("layers.json: a new network")
    again, _ = fresh(lenet())
    assert again.proto == model.proto
    other, _ = fresh(lenet(), birdsonnx={"cache": "cache", "seed": 1})
    assert other.proto != model.proto


@keras_warns
def test_a_new_network_behind_a_normalize():
    model, lines = fresh(lenet(), data={"transforms": [{"normalize": {"mean": 0.13, "std": 0.31}}]})
    assert model.metadata.preprocessing.name == "normalize"
    assert not any("scaled" in line for line in lines)


@keras_warns
def test_a_new_network_with_batch_norm_says_what_becomes_of_it():
    layers = lenet()
    layers.insert(1, {"class_name": "BatchNormalization", "config": {}})
    _, lines = fresh(layers)
    assert any("BatchNorm keeps the statistics that it starts with" in line for line in lines)


def test_a_damaged_array_is_refused_before_any_conversion(monkeypatch):
    monkeypatch.setattr(keras_source, "import_keras", lambda: pytest.fail("too late"))
    with pytest.raises(ModelError, match=r"^neural_network\.layers\[1\]: a layer is an object"):
        fresh([*lenet()[:1], "Dense"])


@pytest.mark.parametrize(
    "layers",
    [
        {"config": []},
        {"config": "x"},
        {"config": {"layers": 3}},
        {"config": {"layers": ["Dense"]}},
        {"config": {"layers": [{"class_name": "Dense", "config": 3}]}},
        {"config": {"layers": [{"class_name": "Model", "config": {"layers": [3]}}]}},
    ],
)
def test_an_odd_model_object_is_one_line(model, layers):
    for how in (lambda: fresh(layers), lambda: loading.to_train(settings(layers=layers), print)):
        with pytest.raises(ModelError, match=r"neural_network\.layers: this JSON describes no Keras model"):
            how()


@keras_warns
@pytest.mark.parametrize("kind", ["Normalization", "PReLU", "LayerNormalization", "BatchNormalization"])
def test_a_networks_own_json_is_never_another(keras, kind):
    layers = keras.layers
    inputs = keras.Input((12, 12, 3))
    x = layers.Conv2D(4, 3, name="conv")(getattr(layers, kind)(name="special")(inputs))
    x = layers.Dense(3, activation="log_softmax", name="head")(layers.GlobalAveragePooling2D()(x))
    network = KerasNetwork(keras.Model(inputs, x), {"file": "x"})
    conversion.convert(network, "x", "none").model.save(Path("x.onnx"))
    lines = []
    loading.to_train(settings("x.onnx", layers=layers_json(network)), lines.append)
    assert lines == []


# --- Checkpoints across networks ------------------------------------------------------------------------


def another(checkpoint="lenet.onnx", layers=None, **network):
    lines = []
    network = {"birdsonnx": {"cache": "cache"}, **network}
    return loading.to_train(settings(checkpoint, layers=layers, **network), lines.append), lines


def constants(model):
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in model.proto.graph.initializer}


@pytest.fixture
def checkpoint():
    """A trained LeNet of 2 classes: other weights than fresh ones, names, a normalize."""
    model, _ = fresh(lenet())
    generator = np.random.default_rng(1)
    names = [name for name in constants(model) if name.endswith(("/kernel", "/bias"))]
    values = {name: generator.normal(size=constants(model)[name].shape).astype(np.float32) for name in names}
    model = with_preprocessing(with_weights(model, values), of_normalize(Normalize((0.2,), (0.4,)), 1))
    model = BirdModel(model.proto, model.metadata.having(classes=("a", "b")), "lenet.onnx")
    model.save(Path("lenet.onnx"))
    return model


@keras_warns
@pytest.mark.parametrize("name", ["lenet.onnx", "lenet.pt"])
def test_another_head_gets_what_fits(checkpoint, name):
    model, lines = another(name, lenet(units=5))
    assert model.num_classes == 5
    assert model.metadata.classes is None
    assert model.metadata.preprocessing == checkpoint.metadata.preprocessing
    before, after = constants(checkpoint), constants(model)
    head = {"dense_1/kernel", "dense_1/bias"}
    weights = {f"{layer}/{role}" for layer in model.metadata.trainable for role in ("kernel", "bias")}
    for key in weights - head:
        np.testing.assert_array_equal(after[key], before[key])
    fresh_head = constants(fresh(lenet(units=5))[0])
    for key in head:
        np.testing.assert_array_equal(after[key], fresh_head[key])
    why = "layer 'dense_1' has 5 units in neural_network.layers and 2 in lenet.onnx"
    assert f"{why}; taking over the weights that fit" in lines
    assert "lenet.onnx: weights of 3 layers taken over" in lines
    assert not any("scaled" in line or "fresh weights (seed" in line for line in lines)
    assert "dense_1 (it has 32x2 2, the network 32x5 5): starts from fresh weights" in lines
    # All that comes before the head answers as it did.
    photos = np.random.default_rng(2).integers(0, 256, (2, 28, 28, 1), np.uint8)
    outputs = []
    for each in (checkpoint, model):
        network = Network(each, ["dense_1"])
        part = network.divide(network.boundaries()[0])
        outputs.append(answer(onnx.load_model_from_string(part.backbone), photos))
    np.testing.assert_array_equal(*outputs)


@keras_warns
@pytest.mark.parametrize("road", ["tf2onnx", "own"])
def test_batch_norms_come_along(keras, road):
    """One that is folded into its convolution, one that stands alone, and a PReLU; in a fresh network they
    add zeros. Also from a checkpoint of the road by tf2onnx, which gives weights another form."""

    def network(units):
        layers = keras.layers
        inputs = keras.Input((12, 12, 3))
        x = layers.Conv2D(4, 3, use_bias=False, name="conv")(inputs)
        x = layers.MaxPooling2D()(layers.BatchNormalization(name="folded")(x))
        x = layers.PReLU(shared_axes=[1, 2], name="slope")(layers.BatchNormalization(name="alone")(x))
        x = layers.PReLU(name="slopes")(layers.Conv2D(4, 2, name="more")(x))
        x = layers.Dense(units, activation="log_softmax", name="head")(layers.GlobalAveragePooling2D()(x))
        model = keras.Model(inputs, x)
        for layer in model.layers:
            layer.trainable = layer.name == "head"
        return KerasNetwork(model, {"file": "x"})

    trained = network(3)
    generator = np.random.default_rng(1)
    for layer in trained.layers:  # gammas and variances above 0, and values of both signs at each PReLU
        low = 0.5 if layer.name in ("folded", "alone") else -2
        layer.set_weights([generator.uniform(low, 2, weight.shape) for weight in layer.weights])
    if road == "tf2onnx":
        conversion.convert(trained, "x", "unit").model.save(Path("x.onnx"))
    else:
        trained.model.save("x.keras")
        own_road.convert(read(Path("x.keras")), "x", "unit").model.save(Path("x.onnx"))
    model, lines = another("x.onnx", layers_json(network(5)))
    assert "head (it has 4x3 3, the network 4x5 5): starts from fresh weights" in lines
    photos = np.random.default_rng(2).integers(0, 256, (2, 12, 12, 3), np.uint8)
    outputs = []
    for each in (model_file.load(Path("x.onnx")), model):
        divided = Network(each, ["head"])
        part = divided.divide(divided.boundaries()[0])
        outputs.append(answer(onnx.load_model_from_string(part.backbone), photos))
    np.testing.assert_allclose(*outputs, rtol=1e-5)  # the two write a PReLU with other operations
    if road == "own":
        np.testing.assert_array_equal(*outputs)
    assert np.ptp(outputs[0]) > 0.1


@keras_warns
def test_what_a_checkpoint_has_beside_is_listed(checkpoint):
    layers = [layer for layer in lenet() if layer["config"].get("units") != 32]
    model, lines = another(layers=layers)
    assert model.num_classes == 2
    assert "dense (it has 256x32 32, the network 256x2 2): starts from fresh weights" in lines
    assert "lenet.onnx: the network has no place for dense_1" in lines


@keras_warns
def test_a_normalize_takes_the_place_of_the_checkpoints(checkpoint):
    data = {"transforms": [{"normalize": {"mean": 0.1, "std": 0.9}}]}
    model, _ = another(layers=lenet(units=5), data=data)
    assert model.metadata.preprocessing == of_normalize(Normalize((0.1,), (0.9,)), 1)


@keras_warns
def test_the_preprocessing_of_other_channels_is_not_taken_over(checkpoint):
    layers = lenet()
    layers[0]["config"]["batch_input_shape"] = [None, 28, 28, 3]
    model, lines = another(layers=layers)
    assert model.metadata.preprocessing == of_mode("unit", 3)
    assert any("it sees pixels scaled to [0, 1]" in line for line in lines)


@keras_warns
def test_nothing_that_fits_is_refused(model):
    with pytest.raises(ModelError, match=r"^model\.onnx: none of its weights fits this network"):
        another("model.onnx", lenet())


@keras_warns
def test_a_frozen_layer_must_get_weights(checkpoint):
    layers = lenet(units=5)
    layers[-1]["config"]["trainable"] = False
    with pytest.raises(ModelError, match=r"^lenet\.onnx: frozen layers get no weights: dense_1"):
        another(layers=layers)
    with pytest.raises(ModelError, match=r"^lenet\.onnx: frozen layers get no weights: dense_1"):
        another(layers=lenet(units=5), birdsonnx={"cache": "cache", "trainable": ["conv*"]})
    own = {"cache": "cache", "trainable": ["dense_1"]}
    model, _ = another(layers=layers, birdsonnx=own)
    assert model.num_classes == 5


@keras_warns
def test_another_size_of_photos_is_another_network(checkpoint):
    layers = lenet()
    layers[0]["config"]["batch_input_shape"] = [None, 32, 32, 1]
    model, lines = another(layers=layers)
    assert model.input_size == (32, 32, 1)
    assert any(line.startswith("dense (it has 256x32 32, the network 400x32 32)") for line in lines)


@keras_warns
def test_the_same_layers_need_no_keras(checkpoint, monkeypatch):
    monkeypatch.setattr(keras_source, "import_keras", lambda: pytest.fail("not needed"))
    model, lines = another(layers=lenet())
    assert model.serialized() == checkpoint.serialized()
    assert lines == []


@keras_warns
def test_a_keras_file_of_which_nothing_fits_is_refused(network):
    network.save("small.h5")
    with pytest.raises(ModelError, match=r"^small\.h5: none of its weights fits this network"):
        another("small.h5", lenet())


@keras_warns
@pytest.mark.parametrize("damage", ["a weight is missing", "names of numbers"])
def test_a_keras_file_with_damaged_weights_is_one_line(network, damage):
    network.save("small.h5")
    with h5py.File("small.h5", "r+") as file:
        groups = file["model_weights"]
        if damage == "a weight is missing":
            del groups["dense"][groups["dense"].attrs["weight_names"][0]]
        else:
            groups.attrs["layer_names"] = [1, 2, 3]
    with pytest.raises(ModelError, match=r"^small\.h5: its weights cannot be read"):
        another("small.h5", json.loads(network.to_json()))
