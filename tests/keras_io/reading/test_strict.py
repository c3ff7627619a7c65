"""What a file may not hold: each refusal is one line that names the file's part."""

import json
import zipfile

import h5py
import numpy as np
import pytest

from birdsonnx.errors import ModelError
from birdsonnx.keras_io.reading import graph_of, read
from tests.keras_io.reading import written


def drawn(path):
    return graph_of(read(path))


def refused(path, *parts):
    with pytest.raises(ModelError) as caught:
        drawn(path)
    message = str(caught.value)
    assert "\n" not in message
    for part in parts:
        assert part in message


both = pytest.mark.parametrize("name", ["conv2d_batch_norm.h5", "conv2d_batch_norm.keras"])
generations = pytest.mark.parametrize("keras_version", [2, 3])


# --- Configs --------------------------------------------------------------------------------------------


@both
@generations
@pytest.mark.parametrize(
    ("kind", "key", "value", "parts"),
    [
        ("Conv2D", "spin", 1, ["Conv2D", "'spin' (with value 1) is not known"]),
        ("Conv2D", "fliters", 4, ["did you mean 'filters'?"]),
        (
            "Conv2D",
            "data_format",
            "channels_first",
            ["is channels_first; build the network with data_format='channels_last'"],
        ),
        ("Conv2D", "filters", "4", ["filters must be a whole number from 1 on"]),
        ("Conv2D", "filters", 0, ["filters must be"]),
        ("Conv2D", "kernel_size", [3, 3, 3], ["kernel_size must be 2 whole number(s)"]),
        ("Conv2D", "padding", "full", ["padding must be one of valid, same"]),
        ("Conv2D", "groups", 2, ["groups 2 divides not both"]),
        ("Conv2D", "activation", "my_activation", ["'my_activation' is none that can be read"]),
        (
            "Conv2D",
            "activation",
            {"class_name": "function", "config": "os.system"},
            ["none that can be read"],
        ),
        (
            "Conv2D",
            "filters",
            5,
            ["kernel has the shape [3, 3, 3, 4] in the file, the network needs [3, 3, 3, 5]"],
        ),
        ("Conv2D", "lora_rank", 4, ["lora_rank 4 is not read"]),
        ("Conv2D", "dtype", {"class_name": "QuantizedDTypePolicy", "config": {}}, ["dtype", "is not read"]),
        ("Conv2D", "dilation_rate", 1e9, ["dilation_rate must be"]),
        ("BatchNormalization", "renorm", True, ["renorm true is not read"]),
        ("BatchNormalization", "epsilon", "small", ["epsilon must be a number"]),
        ("BatchNormalization", "axis", [1, 3], ["axis [1, 3] is not read; one axis can be"]),
        ("ReLU", "threshold", 0.5, ["threshold 0.5 is not read; what is: 0"]),
    ],
)
def test_a_key_that_is_not_read(name, keras_version, kind, key, value, parts, tmp_path):
    path = written.file(keras_version, name, tmp_path)

    def edit(config):
        written.first(config, kind)["config"][key] = value

    written.edit_config(path, edit)
    refused(path, str(path), *parts)


@both
@generations
@pytest.mark.parametrize("key", ["groups", "kernel_regularizer", "lora_rank", "quantization_config"])
def test_a_key_that_does_nothing_at_its_value(name, keras_version, key, tmp_path):
    path = written.file(keras_version, name, tmp_path)

    def edit(config):
        written.first(config, "Conv2D")["config"][key] = 1 if key == "groups" else None

    written.edit_config(path, edit)
    np.testing.assert_array_equal(
        written.answered(path, keras_version),
        written.answered(written.file(keras_version, name, tmp_path), keras_version),
    )


@both
@generations
@pytest.mark.parametrize(
    ("kind", "parts"),
    [
        ("Lambda", ["runs code from the file; not loaded"]),
        ("TFSMLayer", ["runs code"]),
        ("LSTM", ["recurrent layers are not read"]),
        ("RelU", ["'RelU', which is none that can be read", "did you mean 'ReLU'?"]),
        ("MyOwn>ReLU", ["which is not Keras' own"]),
    ],
)
def test_a_class_that_is_not_read(name, keras_version, kind, parts, tmp_path):
    path = written.file(keras_version, name, tmp_path)

    def edit(config):
        entry = written.first(config, "ReLU")
        entry["class_name"] = kind
        entry["config"].update(dtype="float32", trainable=True)

    written.edit_config(path, edit)
    refused(path, *parts)


def test_a_class_of_another_module(tmp_path):
    path = written.file(3, "conv2d_batch_norm.keras", tmp_path)

    def edit(config):
        written.first(config, "ReLU")["module"] = "evil.layers"

    written.edit_config(path, edit)
    refused(path, "evil.layers", "not Keras' own")


@pytest.mark.parametrize(
    ("edit", "parts"),
    [
        (
            lambda config: written.first(config, "TFOpLambda")["config"].update(function="os.system"),
            ["os.system"],
        ),
        (
            lambda config: written.first(config, "TFOpLambda")["inbound_nodes"][0][3].update(spin=1),
            ["not read with these arguments"],
        ),
    ],
)
def test_a_function_that_is_not_read(edit, parts, tmp_path):
    path = written.file(2, "functions.h5", tmp_path)
    written.edit_config(path, edit)
    refused(path, *parts)


@pytest.mark.parametrize(
    "content",
    [
        [],
        {},
        {"class_name": "Functional"},
        {"class_name": "Functional", "config": {"layers": []}},
        {"class_name": "Functional", "config": {"name": "a", "layers": [1]}},
        {"class_name": "Sequential", "config": {"name": 3, "layers": [{"class_name": "ReLU", "config": {}}]}},
        {"class_name": "Mine", "config": {"layers": [{"class_name": "ReLU", "config": {}}]}},
        {"class_name": "Sequential", "keras_version": "1.2", "config": {"layers": [{"class_name": "ReLU"}]}},
        {"class_name": "Sequential", "config": {"layers": [{"class_name": "ReLU", "config": []}]}},
    ],
)
def test_a_json_that_is_no_network(content, tmp_path):
    path = written.file(2, "conv2d_batch_norm.h5", tmp_path)
    with h5py.File(path, "r+") as opened:
        opened.attrs["model_config"] = json.dumps(content)
    refused(path)


@pytest.mark.parametrize("text", ["NaN", "-Infinity", "1e999"])
@both
def test_what_json_has_not_is_refused_wherever_it_is(name, text, tmp_path):
    """Also where nothing reads it: it would go on into what is written of the network."""
    path = written.file(3, name, tmp_path)

    def edit(content):
        content["config"]["layers"][-1]["config"]["kernel_initializer"] = {"stddev": 0.125}

    written.edit_config(path, edit)
    content = json.dumps(written.config_of(path))
    written.set_config_text(path, content.replace("0.125", text))
    refused(path, "not valid JSON", f"config.kernel_initializer.stddev: {text} is not a JSON number")


@both
def test_a_key_that_is_given_twice(name, tmp_path):
    path = written.file(3, name, tmp_path)
    content = json.dumps(written.config_of(path))
    written.set_config_text(path, content.replace('"layers":', '"layers": [], "layers":', 1))
    refused(path, "the key 'layers' is given twice")


@pytest.mark.parametrize(
    "argument",
    [{"class_name": "__keras_tensor__", "config": [1]}, {"class_name": "__slice__", "config": "x"}, {"a": 1}],
)
def test_an_argument_of_a_call_that_keras_never_writes(argument, tmp_path):
    path = written.file(3, "conv2d_batch_norm.keras", tmp_path)

    def edit(content):
        content["config"]["layers"][1]["inbound_nodes"][0]["args"] = [argument]

    written.edit_config(path, edit)
    refused(path)


@pytest.mark.parametrize("side", [0, -1, 8193, 2**63, 2**70, 16.0, True, "16"])
def test_an_input_of_a_size_that_no_photo_has(side, tmp_path):
    path = written.file(3, "conv2d_batch_norm.keras", tmp_path)

    def edit(content):
        content["config"]["layers"][0]["config"]["batch_shape"][1] = side

    written.edit_config(path, edit)
    refused(path, "must have a fixed height and width, from 1 to 8192")


def test_a_circle_of_layers(tmp_path):
    path = written.file(2, "conv2d_batch_norm.h5", tmp_path)

    def edit(config):
        written.first(config, "Conv2D")["inbound_nodes"] = [
            [[config["config"]["layers"][-1]["name"], 0, 0, {}]]
        ]

    written.edit_config(path, edit)
    refused(path, "reads a tensor that nothing gives")


def test_training_that_a_call_asks_for(tmp_path):
    path = written.file(2, "dropouts.h5", tmp_path)

    def edit(config):
        written.first(config, "SpatialDropout2D")["inbound_nodes"][0][0][3]["training"] = True

    written.edit_config(path, edit)
    refused(path, "called with training=True")


# --- Arrays ---------------------------------------------------------------------------------------------


@generations
@pytest.mark.parametrize(
    ("name", "edit", "parts"),
    [
        (
            "conv2d_batch_norm.h5",
            lambda file: _kernel(file).parent.create_dataset("extra", data=[1.0]),
            ["extra"],
        ),
        (
            "conv2d_batch_norm.keras",
            lambda file: file["layers/conv2d/vars"].create_dataset("2", data=[1.0]),
            ["2"],
        ),
        (
            "conv2d_batch_norm.keras",
            lambda file: file.__delitem__("layers/conv2d/vars/1"),
            ["no bias for layer 'conv2d"],
        ),
        (
            "conv2d_batch_norm.h5",
            lambda file: file["model_weights"].attrs.__setitem__("layer_names", []),
            ["array"],
        ),
        (
            "same_names.keras",
            lambda file: _replace(file, "layers/functional/layers/conv2d/vars/0", "i4"),
            ["int32"],
        ),
        (
            "conv2d_batch_norm.h5",
            lambda file: file.__setitem__("away", h5py.ExternalLink("other.h5", "/")),
            ["is a link; a model file must hold all its data itself"],
        ),
        (
            "conv2d_batch_norm.keras",
            lambda file: file.__setitem__("soft", h5py.SoftLink("/layers")),
            ["is a link"],
        ),
        (
            "conv2d_batch_norm.h5",
            lambda file: file.__setitem__("again", file["model_weights"]),
            ["second name"],
        ),
        (
            "conv2d_batch_norm.h5",
            lambda file: file.create_dataset("vast", shape=(10**9,), dtype="f4", chunks=(2**10,)),
            ["far larger than the file"],
        ),
    ],
)
def test_arrays_that_are_not_the_networks(keras_version, name, edit, parts, tmp_path):
    path = written.file(keras_version, name, tmp_path)
    written.edit_arrays(path, edit)
    refused(path, *parts)


def _kernel(file):
    found = []
    file.visititems(
        lambda name, item: found.append(item) if name.split("/")[-1].startswith("kernel") else None
    )
    return found[0]


def _replace(file, name, kind):
    value = file[name][()]
    del file[name]
    file[name] = value.astype(kind)


@generations
def test_roles_in_another_order_are_seen_by_their_names(keras_version, tmp_path):
    path = written.file(keras_version, "batch_norm.h5", tmp_path)

    def edit(file):
        group = next(group for group in file["model_weights"].values() if len(group.attrs["weight_names"]))
        names = list(group.attrs["weight_names"])
        group.attrs["weight_names"] = [names[1], names[0], *names[2:]]

    written.edit_arrays(path, edit)
    refused(path, "should have its gamma where the file has", "not in the order that Keras writes")


def test_a_variance_below_0(tmp_path):
    path = written.file(3, "batch_norm.keras", tmp_path)
    written.edit_arrays(
        path, lambda file: file["layers/batch_normalization/vars/3"].write_direct(-np.ones(3, "f4"))
    )
    refused(path, "moving_variance has values below 0")


# --- Files ----------------------------------------------------------------------------------------------


def test_files_of_other_kinds(tmp_path):
    empty, text = tmp_path / "empty.h5", tmp_path / "text.keras"
    empty.write_bytes(b"")
    text.write_text("no network")
    for path in (empty, text, tmp_path / "missing.h5", tmp_path):
        refused(path, str(path))


@both
def test_truncated_files(name, tmp_path):
    path = written.file(3, name, tmp_path)
    whole = path.read_bytes()
    for share in (0.3, 0.9, 0.99):
        path.write_bytes(whole[: int(len(whole) * share)])
        refused(path, str(path))


def test_weights_alone_want_the_network(tmp_path):
    path = tmp_path / "only.weights.h5"
    path.write_bytes(written.members(2)["conv2d_batch_norm.h5"])
    with h5py.File(path, "r+") as opened:
        del opened.attrs["model_config"]
    refused(path, "Keras weights without their network; give the network too")


def test_a_zip_bomb_is_refused_by_its_header(tmp_path):
    path = written.file(3, "conv2d_batch_norm.keras", tmp_path)
    with zipfile.ZipFile(path) as archive:
        kept = {name: archive.read(name) for name in archive.namelist()}
    kept["model.weights.h5"] = bytes(64 * 2**20)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in kept.items():
            archive.writestr(name, data)
    refused(path, "model.weights.h5 says it is far larger than what is stored of it")


@generations
def test_the_network_as_json_beside_its_weights(keras_version, tmp_path):
    path = written.file(keras_version, "nested_half_frozen.h5", tmp_path)
    config = written.config_of(path)
    layers = tmp_path / "layers.json"
    layers.write_text(json.dumps({**config, "keras_version": f"{keras_version}.0"}))
    expected = written.answered(path, keras_version)
    photos = written.array(keras_version, written.PHOTOS).transpose(0, 3, 1, 2)
    for file in (read(layers, weights=path), read(path, layers), read(path, json.loads(layers.read_text()))):
        found = written.answer(graph_of(file).model, photos)
        np.testing.assert_array_equal(found, expected)


def test_an_array_of_layers_of_rmldnns(tmp_path):
    """Inline layers say little; the rest is as Keras has it by default."""
    path = written.file(2, "conv2d_batch_norm.h5", tmp_path)
    layers = [
        {"class_name": "InputLayer", "config": {"batch_input_shape": [None, 9, 7, 3]}},
        {"class_name": "Conv2D", "config": {"filters": 4, "kernel_size": 3}},
        {"class_name": "BatchNormalization", "config": {"epsilon": 0.1}},
        {"class_name": "Activation", "config": {"activation": "relu"}},
    ]
    photos = written.array(2, written.PHOTOS).transpose(0, 3, 1, 2)
    found = written.answer(graph_of(read(path, layers)).model, photos)
    np.testing.assert_array_equal(found, written.answered(path, 2))
