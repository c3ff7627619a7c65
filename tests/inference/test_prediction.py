"""Naming photos, against a plain loop over a bare session and Pillow."""

import csv
import os
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import onnx
import onnxruntime
import pytest
from PIL import Image

from birdsonnx import artifacts
from birdsonnx.config.transforms import CenterCrop, Resize
from birdsonnx.errors import ConfigError, DataError, ModelError
from birdsonnx.images.folders import Photo, collect
from birdsonnx.inference import classifier as classifiers
from birdsonnx.inference.classifier import INT8_PHOTOS_PER_RUN, fastest, open_classifier
from birdsonnx.inference.prediction import SHOWN, name_photos, predict
from birdsonnx.inference.tuning import Form
from birdsonnx.model.checkpoint_names import newest_checkpoint, run_record
from birdsonnx.model.model_file import BirdModel
from birdsonnx.passes.quantization import quantize
from birdsonnx.runtime.ranks import Ranks
from birdsonnx.runtime.sessions import PHOTOS_PER_RUN
from tests.tiny import SIZE, photo, residual_model, tiny_model

CLASSES = ("ANT BIRD", "BEE-EATER", "COOT")
OUTPUT = Path("predictions/output_1.h5")
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
def classifier(folder):
    return open_classifier(folder / "model.onnx", "model.onnx", COUNT, 2)


@pytest.fixture
def photos(folder) -> list[Photo]:
    return collect([str(folder / "photos")])


def broken(name: str) -> Photo:
    Path(name).write_text("no picture")
    return Photo(Path(name), name)


# --- Log-probabilities ----------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [0, 1, 2, 5, COUNT])
@pytest.mark.parametrize("threads", [1, 2, 5])
@pytest.mark.parametrize("per_run", [1, 4, 50])
def test_log_probs_equal_a_plain_loop(folder, photos, expected, count, threads, per_run):
    classifier = open_classifier(folder / "model.onnx", "model.onnx", count, threads)
    named = list(name_photos(replace(classifier, per_run=per_run), photos[:count], Ranks()))
    assert [entry.photo for entry in named] == photos[:count]
    found = np.reshape([entry.log_probs for entry in named], (count, 3))
    np.testing.assert_allclose(found, expected[:count], atol=1e-6)


def test_a_model_may_be_given_as_its_content(folder, photos, expected):
    classifier = open_classifier((folder / "model.onnx").read_bytes(), "model", COUNT, 2)
    found = [entry.log_probs for entry in name_photos(classifier, photos, Ranks())]
    np.testing.assert_allclose(found, expected, atol=1e-6)


class TestSideBySide:
    """With `SIDE_BY_SIDE` lowered: what becomes of runs that take exactly so many photos."""

    SMALL = 14
    """Pixels, which the stem halves."""

    @pytest.fixture(autouse=True)
    def many(self, monkeypatch):
        monkeypatch.setattr(classifiers, "MANY", 1)
        monkeypatch.setattr(classifiers, "SIDE_BY_SIDE", 1)

    @pytest.fixture
    def content(self) -> bytes:
        return residual_model(3, size=self.SMALL).serialized()

    @pytest.mark.parametrize("count", [1, 2, 5, COUNT])
    @pytest.mark.parametrize("per_run", [1, 2, 4, 50])
    def test_log_probs_equal_a_plain_loop(self, content, photos, count, per_run):
        photos = [*photos[:1], broken("bad.png"), *photos[1:count]]
        session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
        classifier = open_classifier(content, "model", len(photos), 2, per_run=per_run)
        assert classifier.session.input_shapes["images"][0] == ("batch" if per_run == 1 else per_run)
        for named in name_photos(classifier, photos, Ranks()):
            if named.photo.name == "bad.png":
                assert named.log_probs is None
                continue
            with Image.open(named.photo.path) as image:
                small = image.convert("RGB").resize((self.SMALL, self.SMALL), Image.Resampling.BILINEAR)
            [expected] = session.run(None, {"images": np.asarray(small)[None]})[0]
            np.testing.assert_allclose(named.log_probs, expected, atol=1e-5)

    def test_not_where_threads_share_a_run(self, content):
        classifier = open_classifier(content, "model", 9, 2, form=Form(1, 2, 4))
        assert classifier.session.input_shapes["images"][0] == "batch"

    def test_an_int8_model_takes_more_photos_at_once(self, content):
        model = residual_model(3, size=self.SMALL)
        pixels = np.random.default_rng(0).integers(0, 256, (8, self.SMALL, self.SMALL, 3), np.uint8)
        proto = quantize(model.proto, model.metadata.preprocessing, [pixels], "minmax")
        int8 = BirdModel(proto, model.metadata.having(quantization={"photos": 8}), "int8").serialized()
        classifiers = [open_classifier(each, "model", 9, 2) for each in (content, int8)]
        assert [each.per_run for each in classifiers] == [PHOTOS_PER_RUN, INT8_PHOTOS_PER_RUN]
        shapes = [each.session.input_shapes["images"] for each in classifiers]
        assert [shape[0] for shape in shapes] == [PHOTOS_PER_RUN, INT8_PHOTOS_PER_RUN]

    def test_the_model_is_known_by_its_file(self, content):
        assert open_classifier(content, "model", 9, 2).sha256 == artifacts.sha256_of(content)


@pytest.mark.parametrize(
    "content", [b"no model", b"QuantizeLinear", tiny_model().proto.SerializeToString()[:-50]]
)
def test_foreign_bytes_are_not_made_over(content):
    assert fastest(content, side_by_side=4, amx=True) == content


def test_transforms_of_the_training_apply_unless_others_are_given(photos):
    model = tiny_model(3)
    trained_with = (Resize(40, 44), CenterCrop(SIZE, SIZE))
    metadata = model.metadata.having(transforms=trained_with)
    content = BirdModel(model.proto, metadata, "model").serialized()
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    with Image.open(photos[0].path) as image:
        resized = np.asarray(image.resize((40, 44), Image.Resampling.BILINEAR))
        cropped = np.asarray(image)[8:40, 8:40]
    for given, pixels in ((None, resized[6:38, 4:36]), ((CenterCrop(SIZE, SIZE),), cropped)):
        classifier = open_classifier(content, "model", 1, 1, given)
        [named] = name_photos(classifier, photos[:1], Ranks())
        [oracle] = session.run(None, {"images": pixels[None]})[0]
        np.testing.assert_allclose(named.log_probs, oracle, atol=1e-6)


@pytest.mark.parametrize("per_run", [1, 4])
def test_refused_photos_are_told_and_the_others_named(classifier, photos, expected, per_run):
    bad = [broken("x.jpg"), Photo(Path("nowhere.jpg"), "y.jpg")]
    mixed = [bad[0], *photos[:3], bad[1], *photos[3:6]]
    named = {
        entry.photo.name: entry for entry in name_photos(replace(classifier, per_run=per_run), mixed, Ranks())
    }
    assert len(named) == len(mixed)
    assert named["x.jpg"].log_probs is named["y.jpg"].log_probs is None
    assert named["x.jpg"].refusal.startswith("x.jpg: not an image")
    assert named["y.jpg"].refusal.startswith("nowhere.jpg: no such file")
    found = [named[entry.name].log_probs for entry in photos[:6]]
    np.testing.assert_allclose(found, expected[:6], atol=1e-6)


# --- A prediction run -----------------------------------------------------------------------------------


def test_output_csv_and_summary_tell_the_same(classifier, photos, expected):
    advanced = []
    mixed = [*photos, broken("x.jpg")]
    summary = predict(
        classifier, mixed, Ranks(), OUTPUT, top_k=2, csv_path=Path("named.csv"), advance=advanced.append
    )
    probabilities = np.exp(expected)
    order = np.argsort(-expected, axis=1)[:, :2]
    names = [entry.name for entry in photos]

    with h5py.File(OUTPUT) as file:
        assert list(file) == names
        np.testing.assert_allclose([file[name][()] for name in names], expected, atol=1e-6)
        assert tuple(file.attrs["classes"]) == CLASSES
        assert (file.attrs["photos"], file.attrs["refused"]) == (COUNT, 1)
        assert file.attrs["model_sha256"] == classifier.sha256

    with Path("named.csv").open(newline="") as file:
        header, *rows = csv.reader(file)
    assert header == ["name", "class_1", "probability_1", "class_2", "probability_2"]
    assert [row[0] for row in rows] == names
    assert [[row[1], row[3]] for row in rows] == [[CLASSES[index] for index in best] for best in order]
    written = [[float(row[2]), float(row[4])] for row in rows]
    np.testing.assert_allclose(written, np.take_along_axis(probabilities, order, 1), atol=2e-6)

    assert (summary.photos, len(summary.refused), sum(advanced)) == (COUNT, 1, COUNT + 1)
    assert summary.refused[0].startswith("x.jpg: not an image")
    assert (summary.output, summary.csv) == (OUTPUT, Path("named.csv"))
    assert [entry["name"] for entry in summary.shown] == names
    assert [[name for name, _ in entry["top"]] for entry in summary.shown] == [row[1::2] for row in rows]
    first = [CLASSES[index] for index in order[:, 0]]
    assert summary.counts == {name: first.count(name) for name in set(first)}


@pytest.mark.parametrize("top_k", [1, 2, 3, 10])
def test_top_k_is_at_most_the_number_of_classes(classifier, photos, expected, top_k):
    summary = predict(classifier, photos, Ranks(), None, top_k)
    for entry, row in zip(summary.shown, expected, strict=True):
        best = sorted(range(3), key=lambda index: -row[index])[: min(top_k, 3)]
        assert [name for name, _ in entry["top"]] == [CLASSES[index] for index in best]
        assert [p for _, p in entry["top"]] == pytest.approx([np.exp(row[index]) for index in best], abs=1e-6)
    assert not list(Path().iterdir())


def test_only_the_first_photos_are_shown(classifier, photos):
    many = [Photo(photos[0].path, f"{number:03}.png") for number in range(SHOWN + 20)]
    summary = predict(classifier, many, Ranks(), OUTPUT)
    assert [entry["name"] for entry in summary.shown] == [entry.name for entry in many[:SHOWN]]
    assert sum(summary.counts.values()) == summary.photos == SHOWN + 20


def test_nothing_but_refused_photos_is_an_error_and_the_old_files_stay(classifier, photos):
    predict(classifier, photos, Ranks(), OUTPUT, csv_path=Path("named.csv"))
    before = OUTPUT.read_bytes(), Path("named.csv").read_bytes()
    bad = [broken("x.jpg"), broken("y.jpg")]
    with pytest.raises(DataError, match="none of the 2 photos can be used") as caught:
        predict(classifier, bad, Ranks(), OUTPUT, csv_path=Path("named.csv"))
    assert "x.jpg: not an image" in str(caught.value)
    assert "y.jpg: not an image" in str(caught.value)
    assert (OUTPUT.read_bytes(), Path("named.csv").read_bytes()) == before
    assert {path.name for path in Path().iterdir()} == {"predictions", "named.csv", "x.jpg", "y.jpg"}
    assert [path.name for path in OUTPUT.parent.iterdir()] == ["output_1.h5"]


def test_a_name_that_hdf5_cannot_hold_is_refused_there_and_only_there(classifier, photos):
    odd = Photo(photos[0].path, os.fsdecode(b"bad \xff.png"))
    mixed = [odd, *photos[1:3]]
    summary = predict(classifier, mixed, Ranks(), OUTPUT)
    assert summary.photos == 2
    assert "not valid UTF-8" in summary.refused[0]
    without = predict(classifier, mixed, Ranks(), None, csv_path=Path("named.csv"))
    assert (without.photos, without.refused) == (3, [])
    assert b"bad \xff.png" in Path("named.csv").read_bytes()


# --- Models ---------------------------------------------------------------------------------------------


def test_a_model_without_class_names(photos):
    classifier = open_classifier(tiny_model(3).serialized(), "model", 1, 1)
    assert classifier.class_names == ("class 0", "class 1", "class 2")
    predict(classifier, photos[:2], Ranks(), OUTPUT)
    with h5py.File(OUTPUT) as file:
        assert "classes" not in file.attrs


@pytest.mark.parametrize(
    ("name", "make", "said"),
    [
        ("model.onnx", lambda path: None, "there is no such model"),
        ("model.h5", lambda path: path.touch(), "a Keras file; convert it first: birdsonnx export"),
        ("model.keras", lambda path: path.touch(), "a Keras file; convert it first: birdsonnx export"),
        ("model.onnx", lambda path: path.write_bytes(b"no model"), "not a complete ONNX file"),
        (
            "model.onnx",
            lambda path: path.write_bytes(tiny_model().serialized()[:-50]),
            "not a complete ONNX file",
        ),
        ("model.onnx", lambda path: onnx.save(tiny_model().proto, path), "not made by birdsonnx"),
    ],
)
def test_models_that_are_refused(name, make, said):
    make(Path(name))
    with pytest.raises(ModelError) as caught:
        open_classifier(Path(name), name, 1, 1)
    assert str(caught.value).startswith(f"{name}: ")
    assert said in str(caught.value)


def test_transforms_of_another_size_are_refused(folder):
    with pytest.raises(ConfigError, match="but the network takes 32 x 32"):
        open_classifier(folder / "model.onnx", "model.onnx", 1, 1, (Resize(33, 32),))


def checkpoint(name: str, run: int, epoch: int, modified: float) -> None:
    model = tiny_model(2, size=16)
    metadata = model.metadata.having(run={"run": run, "epoch": epoch})
    path = Path("saved") / name
    BirdModel(model.proto, metadata, name).save(path)
    os.utime(path, (modified, modified))


def test_the_newest_checkpoint_is_the_last_epoch_of_the_last_run():
    checkpoint("model_checkpoint_9.onnx", 1, 9, modified=4000)
    checkpoint("model_checkpoint_2.onnx", 2, 2, modified=3000)
    checkpoint("model_checkpoint_10.onnx", 2, 10, modified=2000)
    checkpoint("other.onnx", 3, 1, modified=5000)
    Path("saved/model_checkpoint_50.onnx").write_bytes(b"truncated")
    tiny_model().save(Path("saved/model_checkpoint_60.onnx"))
    assert newest_checkpoint(Path("saved")) == Path("saved/model_checkpoint_10.onnx")
    assert run_record(Path("saved/model_checkpoint_10.onnx")) == {"run": 2, "epoch": 10}
    for number in (50, 60, 70):
        assert run_record(Path(f"saved/model_checkpoint_{number}.onnx")) is None


def test_no_checkpoint_is_an_error():
    for make in (lambda: None, lambda: Path("saved").mkdir()):
        make()
        with pytest.raises(ModelError, match="saved: no model_checkpoint_"):
            newest_checkpoint(Path("saved"))
