"""Quantising a file: which photos, what is refused, and the comparison against a plain loop."""

import contextlib
import hashlib
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from PIL import Image

from birdsonnx.config.transforms import CenterCrop, Resize
from birdsonnx.errors import ArtifactError, ConfigError, DataError, ModelError
from birdsonnx.images.inputs import collect
from birdsonnx.images.photo_list import Photo
from birdsonnx.inference import quantizing
from birdsonnx.inference.classifier import open_classifier
from birdsonnx.inference.engines import fastest
from birdsonnx.inference.forms import MANY
from birdsonnx.inference.quantizing import Request, evenly, quantize, quantized_model
from birdsonnx.model import model_file
from birdsonnx.model.edits import set_constant
from birdsonnx.model.model_file import BirdModel
from birdsonnx.passes.rewriting import Report
from tests.conftest import disk_of
from tests.tiny import SIZE, make_class_folders, photo, tiny_model

CLASSES = ("ANT BIRD", "BEE-EATER", "COOT")
OUTPUT = Path("model.int8.onnx")
STEPS = ("calibrating: photos", "comparing int8 with float32: photos")
VALIDATION = ("validating float32: photos", "validating int8: photos")


class Audience:
    def __init__(self) -> None:
        self.lines: list[str] = []
        self.steps: dict[str, int] = {}

    def say(self, line: str) -> None:
        self.lines.append(line)

    @contextlib.contextmanager
    def progress(self, title, total=None, /):
        self.steps[title] = -total

        def advance(count):
            self.steps[title] += count

        yield advance


def model() -> BirdModel:
    """Its head's bias makes the network name each class as often as any other."""
    model = tiny_model(3, CLASSES)
    generator = np.random.default_rng(6)
    pixels = np.stack([np.asarray(photo(number, generator)) for number in range(30)])
    session = onnxruntime.InferenceSession(model.serialized(), providers=["CPUExecutionProvider"])
    [log_probs] = session.run(None, {"images": pixels})
    bias = -np.median(log_probs - log_probs[:, :1], axis=0)
    set_constant(model.proto.graph, "dense/bias", bias.astype(np.float32))
    return model


@pytest.fixture
def request_() -> Request:
    """A model and photos to calibrate with."""
    make_class_folders(Path("train"), CLASSES, per_class=6)
    model().save(Path("model.onnx"))
    return Request(Path("model.onnx"), Path("train"), photos=12)


@pytest.fixture
def valid(request_) -> Path:
    """Random photos under what the float32 network names them: its accuracy is 1, but for one in the wrong
    folder and one that cannot be read."""
    session = onnxruntime.InferenceSession(request_.model, providers=["CPUExecutionProvider"])
    generator = np.random.default_rng(5)
    for name in CLASSES:
        Path("valid", name).mkdir(parents=True)
    for number in range(40):
        image = photo(number, generator, SIZE)
        [log_probs] = session.run(None, {"images": np.asarray(image)[None]})
        named = int(log_probs.argmax())
        image.save(Path("valid", CLASSES[(named + (number == 7)) % 3], f"{number}.png"))
    for folder in Path("valid").iterdir():
        if not any(folder.iterdir()):
            photo(0, generator, SIZE).save(folder / "filler.png")
    Path("valid", CLASSES[0], "broken.png").write_text("no picture")
    return Path("valid")


def untouched(before: set[str]) -> bool:
    return set(map(str, Path().rglob("*"))) == before


def everything() -> set[str]:
    return set(map(str, Path().rglob("*")))


# --- Which photos ---------------------------------------------------------------------------------------


def listed(**folders: int) -> list[Photo]:
    return [
        Photo(Path(folder, f"{number}.png"), f"{folder}/{number}.png")
        for folder, count in folders.items()
        for number in range(count)
    ]


@pytest.mark.parametrize(
    ("count", "expected"),
    [
        (3, {"a": 1, "b": 1, "c": 1}),
        (6, {"a": 2, "b": 2, "c": 2}),
        (9, {"a": 4, "b": 2, "c": 3}),
        (15, {"a": 8, "b": 2, "c": 5}),
        (100, {"a": 20, "b": 2, "c": 5}),
        (1, {"a": 1}),
    ],
)
def test_as_many_of_each_folder(count, expected):
    photos = listed(a=20, b=2, c=5)
    drawn = evenly(photos, count)
    assert len(set(drawn)) == len(drawn) == sum(expected.values())
    assert set(drawn) <= set(photos)
    found = {name: sum(photo.path.parent == Path(name) for photo in drawn) for name in expected}
    assert found == expected


def test_they_are_drawn_at_random_by_a_seed():
    photos = listed(a=50, b=50)
    drawn = evenly(photos, 10)
    assert drawn == evenly(photos, 10)
    assert drawn != evenly(photos, 10, seed=1)
    assert {photo.name for photo in drawn} != {
        f"{folder}/{number}.png" for folder in "ab" for number in range(5)
    }
    assert evenly([], 3) == []


# --- The file -------------------------------------------------------------------------------------------


def test_it_writes_the_int8_form_beside_the_model(request_):
    audience = Audience()
    before = Path("model.onnx").read_bytes()
    done = quantize(request_, 2, audience)
    assert (done.output, done.photos, done.comparison) == (OUTPUT, 12, None)
    assert (done.bytes_before, done.bytes_after) == (len(before), OUTPUT.stat().st_size)
    assert Path("model.onnx").read_bytes() == before
    assert audience.steps == dict.fromkeys(STEPS, 0)
    old, new = model_file.load(Path("model.onnx")).metadata, model_file.load(OUTPUT).metadata
    assert new.quantization == {
        "precision": "int8",
        "method": "minmax",
        "photos": 12,
        "agreement": 1.0,
        "source_sha256": hashlib.sha256(before).hexdigest(),
    }
    assert replace(new, quantization=None) == old


def test_threads_and_repetition_change_no_bit(request_):
    contents = []
    for threads in (1, 2, 2):
        quantize(request_, threads, Audience())
        contents.append(OUTPUT.read_bytes())
    assert len(set(contents)) == 1


def test_it_calibrates_with_the_pixels_that_prediction_sees(request_, monkeypatch):
    """In the transforms of the training."""
    model = tiny_model(3)
    transforms = (Resize(40, 44), CenterCrop(SIZE, SIZE))
    model = BirdModel(model.proto, model.metadata.having(transforms=transforms), "model")
    photos = collect(["train"])[:5]
    seen = []

    def keep(proto, preprocessing, batches, method):
        seen.extend(batches)
        return proto

    monkeypatch.setattr(quantizing.quantization, "quantize", keep)
    quantized_model(model, photos, "minmax", 2, "0" * 64)
    for found, item in zip(np.concatenate(seen), photos, strict=True):
        with Image.open(item.path) as image:
            resized = image.convert("RGB").resize((40, 44), Image.Resampling.BILINEAR)
        np.testing.assert_array_equal(found, np.asarray(resized)[6:38, 4:36])


@pytest.mark.parametrize("told", [False, True])
def test_a_cpu_without_int8_products_is_told(request_, monkeypatch, told):
    monkeypatch.setattr("birdsonnx.runtime.isa.has_int8_products", lambda: not told)
    audience = Audience()
    quantize(request_, 1, audience)
    assert (
        audience.lines
        == ["this CPU has neither VNNI nor AMX: int8 will hardly be faster than float32 here"] * told
    )


# --- Refusals -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bad", [1, 3])
def test_bad_photos_are_all_listed_and_nothing_is_written(request_, bad):
    paths = sorted(Path("train").rglob("*.png"))[:: 18 // bad][:bad]
    for path in paths:
        path.write_text("no picture")
    before = everything()
    with pytest.raises(DataError, match=f"{bad} of 18 photos to calibrate with cannot be used") as caught:
        quantize(replace(request_, photos=100), 2, Audience())
    assert all(str(path) in str(caught.value) for path in paths)
    assert untouched(before)


def test_output_that_is_the_model_is_refused(request_):
    before = Path("model.onnx").read_bytes()
    Path("link.onnx").symlink_to("model.onnx")
    for output in (Path("model.onnx"), Path("train/../model.onnx"), Path("link.onnx")):
        with pytest.raises(ConfigError, match="is the model itself; give another name"):
            quantize(replace(request_, output=output), 1, Audience())
    assert Path("model.onnx").read_bytes() == before


def test_an_int8_model_is_refused(request_):
    quantize(request_, 1, Audience())
    with pytest.raises(ModelError, match=r"model\.int8\.onnx: it is an int8 model already"):
        quantize(replace(request_, model=OUTPUT), 1, Audience())


def test_a_full_disk_keeps_the_old_file(request_):
    OUTPUT.write_text("old")
    before = everything()
    content = quantized_model(
        model_file.load(request_.model), evenly(collect(["train"]), 12), "minmax", 1, "0" * 64
    )
    with disk_of(1000), pytest.raises(ArtifactError):
        content.save(OUTPUT)
    assert OUTPUT.read_text() == "old"
    assert untouched(before)


# --- Validation -----------------------------------------------------------------------------------------


def calibrate_on_the_mean_color() -> None:
    """The network sees it as 0, so the ranges fit no photo and int8 names many wrongly."""
    shutil.rmtree("train")
    Path("train").mkdir()
    Image.new("RGB", (SIZE, SIZE), (124, 117, 104)).save("train/mean.png")


def test_the_comparison_equals_a_plain_loop(request_, valid):
    calibrate_on_the_mean_color()
    audience = Audience()
    done = quantize(replace(request_, validate=valid, max_drop=1), 2, audience)
    assert audience.steps == dict.fromkeys([*STEPS, *VALIDATION], 0)
    named = []
    for path in (Path("model.onnx"), OUTPUT):
        content = fastest(path.read_bytes())  # exact also where the CPU has no VNNI
        session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
        rows, labels = [], []
        for label, name in enumerate(CLASSES):
            for file in sorted((valid / name).iterdir()):
                if file.name != "broken.png":
                    [log_probs] = session.run(None, {"images": np.asarray(Image.open(file))[None]})
                    rows.append(log_probs[0])
                    labels.append(label)
        rows, labels = np.array(rows), np.array(labels)
        figures = done.comparison.as_json()["float32" if path != OUTPUT else "int8"]
        assert figures["accuracy"] == pytest.approx((rows.argmax(1) == labels).mean())
        assert figures["loss"] == pytest.approx(-rows[range(len(rows)), labels].mean(), rel=1e-4)
        named.append(rows.argmax(1))
    assert done.comparison.as_json()["photos"] == len(named[0])
    assert done.comparison.agreement == pytest.approx((named[0] == named[1]).mean())
    assert done.comparison.drop == pytest.approx(
        done.comparison.float32.accuracy - done.comparison.int8.accuracy
    )


def test_an_accuracy_that_drops_too_far_keeps_the_old_file(request_, valid):
    calibrate_on_the_mean_color()
    OUTPUT.write_text("old")
    before = everything()
    with pytest.raises(
        ModelError, match=r"model\.onnx: int8 takes the accuracy on valid from 0\.9"
    ) as caught:
        quantize(replace(request_, validate=valid), 1, Audience())
    assert "more than --max-drop 0.01; nothing was written" in str(caught.value)
    assert OUTPUT.read_text() == "old"
    assert untouched(before)
    done = quantize(replace(request_, validate=valid, max_drop=1), 1, Audience())
    assert done.comparison.drop > 0.1


def test_a_folder_of_other_classes_is_refused_before_anything_is_written(request_, valid):
    (valid / "COOT").rename(valid / "CROW")
    before = everything()
    with pytest.raises(DataError, match="only in valid: 'CROW'"):
        quantize(replace(request_, validate=valid), 1, Audience())
    tiny_model(4).save(Path("model.onnx"))
    with pytest.raises(DataError, match="has 4 classes, valid has 3 class folders"):
        quantize(replace(request_, validate=valid), 1, Audience())
    assert untouched(before)


def test_validation_photos_that_can_all_not_be_read_are_refused(request_, valid):
    for path in valid.rglob("*.png"):
        path.write_text("no picture")
    with pytest.raises(DataError, match="valid: none of its photos can be used"):
        quantize(replace(request_, validate=valid), 1, Audience())
    assert not OUTPUT.exists()


def test_many_photos_are_named_by_the_form_for_this_cpu(request_, monkeypatch):
    """On a CPU with AMX, from `MANY` photos on. It gives the same bits, so only the call tells."""
    quantize(request_, 1, Audience())
    moved = []

    def sums_on_amx(model):
        moved.append(model)
        return Report("", "")

    monkeypatch.setattr("birdsonnx.passes.uint8_weights.sums_on_amx", sums_on_amx)
    monkeypatch.setattr("birdsonnx.runtime.isa.adds_in_16_bits", lambda: False)
    int8, float32 = OUTPUT.read_bytes(), Path("model.onnx").read_bytes()
    for amx in (False, True):
        monkeypatch.setattr("birdsonnx.runtime.isa.has_amx", lambda amx=amx: amx)
        for content in (int8, float32):
            for photos in (1, MANY):
                open_classifier(content, "model", photos, 1)
    assert moved == [onnx.load_model_from_string(int8)]
