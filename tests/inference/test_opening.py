"""Which model a request means, and what a config makes of it."""

import contextlib
import json
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import onnxruntime
import pytest
from PIL import Image

from birdsonnx.config.reading import parse
from birdsonnx.config.settings import Settings
from birdsonnx.errors import ConfigError, ModelError
from birdsonnx.inference.opening import choose_model
from birdsonnx.inference.prediction import predict
from birdsonnx.inference.requests import Request
from birdsonnx.model.checkpoint_names import CHECKPOINTS
from birdsonnx.model.model_file import BirdModel
from birdsonnx.model.preprocessing import TORCH_MEAN_RGB, TORCH_STD_RGB
from birdsonnx.passes.quantization import quantize
from birdsonnx.runtime.ranks import Ranks
from tests.tiny import SIZE, photo, tiny_model

MODEL = Path("model.onnx")
NORMALIZE = {"mean": list(TORCH_MEAN_RGB), "std": list(TORCH_STD_RGB)}
CHECKPOINT = CHECKPOINTS / "model_checkpoint_1.onnx"


class Lines:
    """An audience that keeps the lines."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def say(self, line: str) -> None:
        self.said.append(line)

    def progress(self, title: str, total: int | None = None, /):
        return contextlib.nullcontext(lambda count: None)


@pytest.fixture(autouse=True)
def model() -> BirdModel:
    """In two files, and a photo."""
    model = tiny_model(3)
    checkpoint = BirdModel(model.proto, model.metadata.having(run={"run": 1, "epoch": 1}), "checkpoint")
    checkpoint.save(CHECKPOINT)
    checkpoint.save(MODEL)
    Path("photos").mkdir()
    photo(0, np.random.default_rng(0), SIZE).save("photos/a.png")
    return checkpoint


def settings(normalize: dict | None = None, **sections) -> Settings:
    data = {"test_input_path": "photos"}
    if normalize is not None:
        data["transforms"] = [{"normalize": normalize}]
    return parse(json.dumps({"neural_network": {"data": data, **sections}}), "config.json")


def log_probs(request: Request) -> np.ndarray:
    predict(replace(request, output=Path("out")), Ranks(), Lines())
    with h5py.File("out/output_1.h5") as file:
        return file["a.png"][()]


def expected(mode: str) -> np.ndarray:
    """The oracle: the network behind one of Keras' preprocessings, in a bare session."""
    session = onnxruntime.InferenceSession(tiny_model(3, mode=mode).serialized())
    return session.run(None, {"images": np.asarray(Image.open("photos/a.png"))[None]})[0][0]


# --- Preprocessing --------------------------------------------------------------------------------------


@pytest.mark.parametrize("named", [MODEL, None], ids=["--model", "newest"])
@pytest.mark.parametrize("normalize", [NORMALIZE, None])
@pytest.mark.parametrize("sections", [{}, {"checkpoints": {"load": "model.onnx"}}], ids=["", "load"])
def test_a_normalize_of_the_config_applies_wherever_the_model_comes_from(named, normalize, sections):
    request = replace(Request.from_config(settings(normalize, **sections)), model=named)
    mode = "caffe" if normalize is None else "torch"
    np.testing.assert_allclose(log_probs(request), expected(mode), atol=1e-5)


def test_without_one_the_file_itself_is_opened():
    chosen = choose_model(Request.from_config(settings()), print)
    assert chosen.content == CHECKPOINT


def test_an_int8_model_with_another_preprocessing_is_refused(model):
    pixels = np.random.default_rng(0).integers(0, 256, (8, SIZE, SIZE, 3), np.uint8)
    proto = quantize(model.proto, model.metadata.preprocessing, [pixels], "minmax")
    BirdModel(proto, model.metadata.having(quantization={"photos": 8}), "int8").save(MODEL)
    request = replace(Request.from_config(settings(NORMALIZE)), model=MODEL)
    with pytest.raises(ModelError, match=r"model\.onnx: an int8 model's preprocessing"):
        choose_model(request, print)


def test_a_normalize_of_another_length_is_refused():
    tiny_model(3, channels=1, mode="unit").save(MODEL)
    request = replace(Request.from_config(settings(NORMALIZE)), model=MODEL)
    with pytest.raises(ConfigError, match="normalize has 3 values, the network takes 1 channel"):
        choose_model(request, print)


def test_a_damaged_model_with_a_normalize():
    MODEL.write_bytes(MODEL.read_bytes()[:-50])
    request = replace(Request.from_config(settings(NORMALIZE)), model=MODEL)
    with pytest.raises(ModelError, match=r"model\.onnx: not a complete ONNX file"):
        choose_model(request, print)


# --- What else a config asks for ------------------------------------------------------------------------


@pytest.mark.parametrize("named", [MODEL, None], ids=["--model", "newest"])
def test_layers_are_compared_wherever_the_model_comes_from(named):
    described = {
        "class_name": "Sequential",
        "config": {
            "name": "other",
            "layers": [
                {"class_name": "Dense", "config": {"name": name, "units": units}}
                for name, units in (("conv1", 8), ("conv2", 24), ("dense", 400))
            ],
        },
    }
    request = replace(Request.from_config(settings(layers=described)), model=named)
    with pytest.raises(ModelError, match=r"'dense' has 400 units in neural_network\.layers and 3 in"):
        predict(request, Ranks(), Lines())


def test_a_tag_that_does_not_apply_is_reported():
    made = parse(
        json.dumps({"neural_network": {"data": {"test_input_path": "data", "test_tag": "valid"}}}), "c.json"
    )
    lines = Lines()
    predict(Request.from_config(made, ["photos"]), Ranks(), lines)
    assert lines.said == ["test_tag 'valid' is for the config's own folder, and not used here"]


@pytest.mark.parametrize(
    ("precision", "said"),
    [("int8", "is a float32 model, --precision asks for int8"), ("fp32", None), (None, None)],
)
def test_the_precision_that_is_asked_for(precision, said):
    request = Request(["photos"], MODEL, precision=precision)
    if said is None:
        predict(request, Ranks(), Lines())
    else:
        with pytest.raises(ModelError, match=said):
            predict(request, Ranks(), Lines())
