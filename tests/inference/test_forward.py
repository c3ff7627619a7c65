"""Photos through a network, against a plain loop over a bare session and Pillow."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from birdsonnx.images.photo_list import Photo
from birdsonnx.inference.classifier import open_classifier
from birdsonnx.inference.naming import name_photos
from birdsonnx.runtime.ranks import Ranks
from tests.inference.conftest import COUNT, broken


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
