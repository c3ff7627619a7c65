"""The summary of a training: of real plans, and of facts that are made up here."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from birdsonnx.config.reading import parse
from birdsonnx.images.photo_list import Photo
from birdsonnx.model.metadata import INPUT
from birdsonnx.reporting.training_summary import learning, summary
from birdsonnx.runtime.ranks import Ranks
from birdsonnx.training import plan, run
from birdsonnx.training.boundary_choice import Choice
from birdsonnx.training.losses import Loss
from birdsonnx.training.partition import Boundary
from tests.conftest import needs_training_runtime
from tests.runs import facts_of_a_run

RANDOM = [{"jitter_crop": 0.3}, {"resize": [32, 32]}, {"random_horizontal_flip": 0.5}, {"random_rotate": 20}]
PHOTO = Boundary((INPUT,), ((200, 200, 3),))


@pytest.fixture
def planned(fine_tuning):
    """The summary of what a config would train."""

    def make(**sections):
        settings = fine_tuning(num_epochs=1, **sections)
        return summary(
            run.facts_of(
                settings, Ranks(), plan.make(settings, Ranks(), lambda _: None), run.command_of(settings)
            )
        )

    return make


@needs_training_runtime
def test_of_kept_features(planned):
    lines = planned()
    # 2 tensors of 16 x 16 x 16, 33 photos.
    assert lines["features"] == "block_a, stem: 32,768 bytes per photo, 0.00 GB in kept"
    assert "2,963 trainable: block_b, last, dense" in lines["parameters"]
    assert "augmentation" not in lines
    assert "preload" not in lines


@needs_training_runtime
def test_of_float16(planned):
    lines = planned(birdsonnx={"feature_precision": "fp16"})
    assert lines["features"] == "block_a, stem: 16,384 bytes per photo, 0.00 GB in kept (float16)"


@pytest.mark.parametrize(
    "section",
    [
        {"birdsonnx": {"cache": False}},
        pytest.param({"birdsonnx": {"trainable": ["*"]}}, marks=needs_training_runtime),
        {"data": {"transforms": RANDOM}},
    ],
)
def test_of_no_features(planned, section):
    assert planned(**section)["features"] == "none; every epoch decodes the photos and runs the whole network"
    assert not Path("kept").exists()


def test_of_augmentation(planned):
    lines = planned(data={"transforms": RANDOM})
    assert lines["augmentation"] == "jitter_crop 0.3, random_horizontal_flip 0.5, random_rotate 20"


def test_of_preload(planned):
    lines = planned(data={"preload": True})
    assert lines["preload"] == "changes nothing: features are kept, each photo is read once"
    lines = planned(data={"preload": True}, birdsonnx={"cache": False})
    assert "preload" not in lines


def test_of_a_precision_that_nothing_has(planned):
    lines = planned(birdsonnx={"feature_precision": "fp16", "cache": False})
    assert lines["feature precision"] == "fp16 changes nothing: no features are kept"
    assert "feature precision" not in planned(birdsonnx={"feature_precision": "fp16"})


def test_of_the_exchange_of_gradients(planned):
    assert "exchange" not in planned()
    lines = planned(birdsonnx={"exchange_precision": "bf16"})
    assert lines["exchange"] == "bf16 changes nothing: one rank"


def test_of_the_loss(planned):
    own = {"label_smoothing": 0.1, "clip_norm": 2}
    lines = planned(loss={"weight": [1, 2, 1]}, birdsonnx=own)
    assert lines["loss"] == (
        "NLL (negative log-likelihood), 3 class weights, label smoothing 0.1, gradient norm at most 2"
    )


def test_of_balanced_weights():
    settings = parse('{"neural_network": {"loss": {"weight": "balanced"}}}', "config.json")
    facts = facts_of_a_run(settings=settings, loss=Loss(np.array([1, 0.5, 7.25], np.float32), 0, 0))
    words = "NLL (negative log-likelihood), balanced class weights"
    assert summary(facts)["loss"] == f"{words} from 0.5 (BEE) to 7.25 (COOT)"
    assert learning(settings)["loss"] == words


def features(boundary, precision="fp32", folder=Path("cache"), measured_on=None):
    """The line for 1,000 photos."""
    facts = facts_of_a_run(choice=Choice(boundary, measured_on), cache=folder)
    photos = tuple(Photo(Path(str(number)), str(number), 0) for number in range(1000))
    text = json.dumps({"neural_network": {"birdsonnx": {"feature_precision": precision}}})
    facts = replace(facts, train=replace(facts.train, photos=photos), settings=parse(text, "config.json"))
    return summary(facts)["features"]


def at(name, size):
    return Boundary((name,), ((size,),))


@pytest.mark.parametrize(
    ("boundary", "precision", "text"),
    [
        (at("pool5/Squeeze:0", 2048), "fp32", "pool5: 8,192 bytes per photo, 0.01 GB in cache"),
        (at("pool5/Squeeze:0", 2048), "fp16", "pool5: 4,096 bytes per photo, 0.00 GB in cache (float16)"),
        (
            Boundary(("a/Relu:0", "b/Add:0"), ((10, 10), (100,))),
            "fp32",
            "a, b: 800 bytes per photo, 0.00 GB in cache",
        ),
        (
            Boundary(tuple("abcde"), ((250_000,),) * 5),
            "fp32",
            "a, b, c and 2 more: 5,000,000 bytes per photo, 5.00 GB in cache",
        ),
    ],
)
def test_of_features_of_any_kind(boundary, precision, text):
    assert features(boundary, precision) == text
    assert features(boundary, precision, measured_on="2026-03-01") == (
        f"{text}; the fastest place, as measured on 2026-03-01"
    )


@pytest.mark.parametrize(("boundary", "folder"), [(PHOTO, Path("cache")), (at("near", 1_000_000), None)])
def test_of_nothing_kept(boundary, folder):
    assert features(boundary, folder=folder).startswith("none; every epoch decodes the photos")
