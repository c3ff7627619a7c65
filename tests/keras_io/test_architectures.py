"""Networks of keras.applications without Keras, against those that Keras builds."""

import hashlib
import http.server
import json
import threading
import urllib.error

import numpy as np
import pytest

from birdsonnx.errors import ConfigError, ModelError
from birdsonnx.keras_io import architectures
from birdsonnx.keras_io.architectures import descriptions, imagenet
from birdsonnx.keras_io.architectures.descriptions import ImageNetFile
from birdsonnx.keras_io.reading import graph_of
from tests.graphs import answer
from tests.networks import keras_answers, keras_warns

pytestmark = keras_warns


def keras_own(keras, name, size, channels=3):
    """What Keras builds, without values in its variables."""
    from keras.src.backend import StatelessScope

    keras.backend.clear_session()
    with StatelessScope(initialize_variables=False):
        make = getattr(keras.applications, name)
        return make(include_top=False, weights=None, pooling="avg", input_shape=(*size, channels))


def assert_same_network(keras, name, size, channels=3):
    """Keras, which reads our description too, and our reader: the same layers, arguments and arrays."""
    from keras.src.backend import StatelessScope

    wanted = keras_own(keras, name, size, channels)
    spelt, content = architectures.described(name, 5, "none", size, channels)
    with StatelessScope(initialize_variables=False):
        built = keras.models.model_from_json(json.dumps(content))
    assert spelt == name
    assert built.input_shape == (None, *size, channels)
    assert [layer.name for layer in built.layers] == [*(layer.name for layer in wanted.layers), "dense"]
    for ours, theirs in zip(built.layers, wanted.layers, strict=False):
        assert without_frozen(ours.get_config()) == without_frozen(theirs.get_config()), theirs.name
        assert ours.compute_dtype == theirs.compute_dtype
        assert [tensor.shape for tensor in flat(ours.output)] == [
            tensor.shape for tensor in flat(theirs.output)
        ]
    file = architectures.read(name, 5, "none", 0, size, channels)
    assert file.input_size == (*size, channels)
    held = [layer for layer in wanted.layers if layer.weights]
    ours = [value.shape for weights in file.weights.values() for value in weights.values()]
    theirs = [tuple(weight.shape) for layer in held for weight in layer.weights]
    features = wanted.output.shape[-1]
    assert sorted(ours) == sorted([*theirs, (features, 5), (5,)])
    assert file.parameters.total == wanted.count_params() + features * 5 + 5
    assert file.parameters.trainable == features * 5 + 5
    assert [layer.name for layer in file.layers if layer.trainable] == ["dense"]
    graph = graph_of(file).model
    assert [each.dim_value for each in graph.graph.output[0].type.tensor_type.shape.dim][1:] == [5]


def flat(value):
    return value if isinstance(value, list | tuple) else [value]


def without_frozen(config):
    """A config without what the description leaves out: frozen layers, and sizes of tensors inside."""
    text = json.loads(json.dumps(config, default=str))

    def cleaned(item):
        if isinstance(item, list):
            return [cleaned(each) for each in item]
        if not isinstance(item, dict):
            return item
        left = ("trainable", "build_config", "build_input_shape", "batch_shape", "shape", "registered_name")
        return {key: cleaned(each) for key, each in item.items() if key not in left}

    return cleaned(text)


@pytest.mark.parametrize(
    ("name", "size", "channels"),
    [("MobileNet", (96, 96), 3), ("MobileNetV2", (97, 130), 3), ("MobileNetV3Small", (64, 33), 1)],
)
def test_small_networks_are_those_of_keras(keras, name, size, channels):
    assert_same_network(keras, name, size, channels)


@pytest.mark.slow
@pytest.mark.parametrize("name", architectures.DEFAULT_SIZES)
def test_all_networks_are_those_of_keras(keras, name):
    for size, channels in (((100, 119), 3), ((157, 222), 1)):
        assert_same_network(keras, name, size, channels)


@pytest.mark.parametrize(("name", "size"), [("MobileNet", (96, 96)), ("EfficientNetB0", (65, 96))])
def test_numbers_are_those_of_keras(keras, name, size, tmp_path):
    """Weights of Keras, which are no defaults, in our description."""
    keras.backend.clear_session()
    keras.utils.set_random_seed(1)
    make = getattr(keras.applications, name)
    base = make(include_top=False, weights=None, pooling="avg", input_shape=(*size, 3))
    head = keras.layers.Dense(4, activation="log_softmax", name="dense")
    model = keras.Model(base.input, head(base.output))
    photos = np.random.default_rng(0).uniform(-1, 1, (3, *size, 3)).astype(np.float32)
    norms = [layer for layer in model.layers if isinstance(layer, keras.layers.BatchNormalization)]
    for layer in norms:
        layer.momentum = 0.0
    model(photos, training=True)
    model.save(tmp_path / "whole.h5")
    base.save_weights(tmp_path / "base.weights.h5")
    wanted = keras_answers(model, photos)
    file = architectures.read(name, 4, str(tmp_path / "whole.h5"), 0, size)
    assert file.notes == []
    found = answer(graph_of(file).model, photos.transpose(0, 3, 1, 2))
    np.testing.assert_allclose(found, wanted, atol=2e-3 * np.abs(wanted).max())
    part = architectures.read(name, 4, str(tmp_path / "base.weights.h5"), 0, size)
    assert part.notes == ["dense (not in the file): starts from fresh weights"]
    for path, held in part.weights.items():
        for role, value in held.items():
            if path != "dense" and role != "count":
                np.testing.assert_array_equal(value, file.weights[path][role])


def test_a_seed_decides_and_the_default_size_is_that_of_training():
    first, again, other = (architectures.read("mobilenet", 3, "none", seed) for seed in (1, 1, 2))
    assert first.input_size == (224, 224, 3)
    assert first.source == {"file": "keras.applications.MobileNet (none)"}
    for path, held in first.weights.items():
        for role, value in held.items():
            np.testing.assert_array_equal(value, again.weights[path][role])
    assert np.abs(first.weights["conv1"]["kernel"] - other.weights["conv1"]["kernel"]).max() > 0.01


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("ResNet51", {}, "--arch ResNet51: there is no such network .* file; did you mean 'ResNet50'"),
        (
            "Xception",
            {"size": (60, 90)},
            r"--arch Xception: Keras does not build it for 90x60 images .* at least 71x71",
        ),
        ("ResNet50", {"channels": 1, "weights": "imagenet"}, "must have 3 channels"),
    ],
)
def test_what_keras_does_not_build(name, options, message):
    with pytest.raises(ConfigError, match=message):
        architectures.read(name, **{"classes": 3, "weights": "none", **options})


def test_weights_of_another_network_are_refused(tmp_path, keras):
    keras.backend.clear_session()
    source = keras.applications.MobileNetV2(
        include_top=False, weights=None, pooling="avg", input_shape=(32, 32, 3)
    )
    source.save(tmp_path / "three.h5")
    with pytest.raises(ModelError, match="frozen layers get no weights: Conv1"):
        architectures.read("mobilenetv2", 3, str(tmp_path / "three.h5"), 2, (32, 32), channels=1)


@pytest.mark.slow
@pytest.mark.parametrize("name", architectures.DEFAULT_SIZES)
def test_the_least_size_is_keras_own(keras, name):
    least = descriptions.load(name).least
    keras_own(keras, name, (least, least))
    with pytest.raises(ValueError, match=f"at least {least}x{least}"):
        keras_own(keras, name, (least, least - 1))


def test_every_network_has_a_description():
    names = [json.loads(line)["name"] for line in descriptions.lines()]
    assert names == list(architectures.DEFAULT_SIZES)
    assert descriptions.FILE.stat().st_size < 500_000


# --- ImageNet's weights ---------------------------------------------------------------------------------


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "keras"))
    return tmp_path / "keras" / "models"


CONTENT = b"weights of many photos"
MD5 = hashlib.md5(CONTENT).hexdigest()
SHA256 = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture
def server():
    """Serves CONTENT; half of it under /half."""
    asked = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)
            if self.path == "/none":
                self.send_error(404)
                return
            self.send_response(200)
            self.send_header("Content-Length", str(len(CONTENT)))
            self.end_headers()
            self.wfile.write(CONTENT[:9] if self.path == "/half" else CONTENT)

        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}", asked
        server.shutdown()


@pytest.mark.parametrize("digest", [MD5, SHA256, None])
def test_a_file_is_downloaded_once(home, server, digest):
    url, asked = server
    file = ImageNetFile("some.h5", f"{url}/some.h5", digest)
    for _ in range(2):
        assert imagenet.local_file(file) == home / "some.h5"
        assert (home / "some.h5").read_bytes() == CONTENT
    assert asked == ["/some.h5"]


def test_a_cached_file_that_is_another_is_replaced(home, server):
    home.mkdir(parents=True)
    (home / "some.h5").write_bytes(b"half of it")
    imagenet.local_file(ImageNetFile("some.h5", f"{server[0]}/some.h5", MD5))
    assert (home / "some.h5").read_bytes() == CONTENT


@pytest.mark.parametrize(
    ("path", "digest", "why"),
    [("none", MD5, "404"), ("half", None, "9 of 22 bytes"), ("some.h5", MD5[::-1], "not what Keras expects")],
)
def test_a_download_that_fails(home, server, path, digest, why):
    with pytest.raises(ModelError, match=rf"weights could not be downloaded .*{why}.*--weights FILE.* none"):
        imagenet.local_file(ImageNetFile("some.h5", f"{server[0]}/{path}", digest))
    assert list(home.glob("*")) == []


def test_without_a_network_one_line_says_what_to_do(home, monkeypatch):
    def urlopen(*_, **__):
        raise urllib.error.URLError("Temporary failure in name resolution")

    monkeypatch.setattr(imagenet.urllib.request, "urlopen", urlopen)
    with pytest.raises(
        ModelError, match=r"could not be downloaded .*name resolution.*--weights none"
    ) as caught:
        architectures.read("MobileNet", 3)
    assert "\n" not in str(caught.value)


def test_imagenet_weights_from_the_cache(home, keras, monkeypatch):
    """The file of this size; its layers are assigned in order, and that the head is new is no news."""
    keras.backend.clear_session()
    made = keras.applications.MobileNetV2(
        include_top=False, weights=None, pooling="avg", input_shape=(96, 96, 3)
    )
    home.mkdir(parents=True)
    file = descriptions.load("MobileNetV2").imagenet_file(96, 96)
    assert file.name == "mobilenet_v2_weights_tf_dim_ordering_tf_kernels_1.0_96_no_top.h5"
    made.save_weights(home / "made.weights.h5")
    (home / "made.weights.h5").rename(home / file.name)
    found = architectures.read("mobilenetv2", 3, "imagenet", 0, (96, 96))
    assert (found.notes, found.source) == ([], {"file": "keras.applications.MobileNetV2 (imagenet)"})
    kernel = made.get_layer("Conv1").get_weights()[0]
    np.testing.assert_array_equal(found.weights["Conv1"]["kernel"], kernel)


@pytest.mark.slow
@pytest.mark.parametrize("name", architectures.DEFAULT_SIZES)
def test_the_download_is_that_of_keras(keras, name, monkeypatch):
    from keras.src.backend import StatelessScope
    from keras.src.utils import file_utils

    asked = []
    monkeypatch.setattr(
        file_utils,
        "get_file",
        lambda fname, origin, file_hash=None, **_: asked.append(ImageNetFile(fname, origin, file_hash)),
    )
    monkeypatch.setattr(keras.Model, "load_weights", lambda *_, **__: None)
    for side in (160, architectures.DEFAULT_SIZES[name]):
        keras.backend.clear_session()
        with StatelessScope(initialize_variables=False):
            wanted = getattr(keras.applications, name)(
                include_top=False, weights="imagenet", pooling="avg", input_shape=(side, side, 3)
            )
        assert descriptions.load(name).imagenet_file(side, side) == asked.pop()
        content = architectures.described(name, 3, "imagenet", (side, side))[1]
        layers = [layer["name"] for layer in content["config"]["layers"]]
        assert layers == [*(layer.name for layer in wanted.layers), "dense"]
