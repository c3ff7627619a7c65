"""A model and photos to name with it, and what a bare session says of them."""

from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from PIL import Image

from birdsonnx.images.inputs import collect
from birdsonnx.images.photo_list import Photo
from birdsonnx.inference.classifier import Classifier, open_classifier
from tests.tiny import SIZE, photo, tiny_model

CLASSES = ("ANT BIRD", "BEE-EATER", "COOT")
COUNT = 13


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A model, and photos larger than its input, in one flat folder."""
    folder = tmp_path_factory.mktemp("prediction")
    tiny_model(3, CLASSES).save(folder / "model.onnx")
    (folder / "photos").mkdir()
    generator = np.random.default_rng(0)
    for number in range(COUNT):
        photo(number, generator, 48).save(folder / "photos" / f"{number:02}.png")
    return folder


@pytest.fixture(scope="module")
def expected(folder) -> np.ndarray:
    """The oracle, `[photos, classes]`."""
    session = onnxruntime.InferenceSession(folder / "model.onnx", providers=["CPUExecutionProvider"])
    rows = []
    for path in sorted((folder / "photos").iterdir()):
        image = Image.open(path).convert("RGB").resize((SIZE, SIZE), Image.Resampling.BILINEAR)
        rows.append(session.run(None, {"images": np.asarray(image)[None]})[0][0])
    return np.stack(rows)


@pytest.fixture
def classifier(folder) -> Classifier:
    return open_classifier(folder / "model.onnx", "model.onnx", COUNT, 2)


@pytest.fixture
def photos(folder) -> list[Photo]:
    return collect([str(folder / "photos")])


def broken(name: str) -> Photo:
    """A file that is no picture."""
    Path(name).write_text("no picture")
    return Photo(Path(name), name)
