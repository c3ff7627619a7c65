"""One answer for the photos of a sequence, whatever order they come in."""

import csv
import math
import random
from pathlib import Path

import h5py
import numpy as np
import pytest

from birdsonnx.errors import ConfigError
from birdsonnx.images.photo_list import Photo
from birdsonnx.images.sequences import Sequences
from birdsonnx.inference import prediction
from birdsonnx.inference.judging.bursts import mean_of, require_gap, sharing
from birdsonnx.inference.judging.verdicts import Judge
from birdsonnx.inference.naming import Named
from birdsonnx.inference.prediction import Files
from birdsonnx.runtime.ranks import Ranks

CLASSES = 5


def outcomes(count: int, chance: random.Random) -> list[Named]:
    """Of some photos; each tenth one was refused."""
    generator = np.random.default_rng(chance.randrange(2**32))
    logits = generator.normal(0, 3, (count, CLASSES))
    rows = (logits - np.log(np.exp(logits).sum(1, keepdims=True))).astype(np.float32)
    found = []
    for index, row in enumerate(rows):
        photo = Photo(Path(f"{index:03}.jpg"), f"{index:03}.jpg")
        if chance.random() < 0.1:
            found.append(Named(photo, None, "damaged", index=index))
        else:
            found.append(Named(photo, row, known=chance.random(), index=index))
    return found


def by_hand(members: list[Named]) -> tuple[list[float], float]:
    """The oracle: means in plain floats, and the logarithm of the sum of exponentials."""
    means = [sum(float(member.log_probs[k]) for member in members) / len(members) for k in range(CLASSES)]
    total = math.log(sum(math.exp(mean) for mean in means))
    return [mean - total for mean in means], sum(member.known for member in members) / len(members)


@pytest.mark.parametrize("seed", range(12))
def test_all_of_a_sequence_get_the_normalised_mean_in_any_order(seed):
    chance = random.Random(seed)
    named = outcomes(60, chance)
    numbers = [chance.randrange(20) for _ in named]
    numbers = [sorted(set(numbers)).index(number) for number in numbers]
    sequences = Sequences(np.array(numbers, np.int64), 0)
    shuffled = [*named]
    chance.shuffle(shuffled)
    found = {each.index: (each, answer) for each, answer in sharing(shuffled, sequences)}
    assert sorted(found) == list(range(60))
    for index, (each, answer) in found.items():
        assert each is named[index]
        if each.log_probs is None:
            assert answer is None
            continue
        members = [
            other for other in named if numbers[other.index] == numbers[index] and other.log_probs is not None
        ]
        expected, known = by_hand(members)
        np.testing.assert_allclose(answer.log_probs, expected, atol=1e-5)
        assert answer.log_probs.dtype == np.float32
        assert answer.known == pytest.approx(known)
        assert answer.sequence == numbers[index] + 1
        assert np.exp(answer.log_probs).sum() == pytest.approx(1, abs=1e-5)
    in_order = {each.index: answer for each, answer in sharing(named, sequences)}
    for index, (_, answer) in found.items():
        if answer is not None:
            assert answer.log_probs.tobytes() == in_order[index].log_probs.tobytes()
            assert answer.known == in_order[index].known


def test_photos_of_a_sequence_come_together_as_soon_as_all_are_here():
    named = [each for each in outcomes(40, random.Random(3)) if each.log_probs is not None][:6]
    named = [Named(each.photo, each.log_probs, index=place) for place, each in enumerate(named)]
    sequences = Sequences(np.array([0, 1, 0, 1, 2, 1]), 0)
    taken = []

    def arriving():
        for each in named:
            taken.append(each.index)
            yield each

    seen = [(each.index, len(taken)) for each, _ in sharing(arriving(), sequences)]
    assert seen == [(0, 3), (2, 3), (4, 5), (1, 6), (3, 6), (5, 6)]


def test_a_photo_by_itself_keeps_its_bits():
    [row] = [each.log_probs for each in outcomes(20, random.Random(1)) if each.log_probs is not None][:1]
    assert mean_of([row]) is row
    [(_, answer)] = sharing([Named(Photo(Path("a"), "a"), row, known=0.3, index=0)], None)
    assert (answer.log_probs is row, answer.known, answer.sequence) == (True, 0.3, None)


def test_very_improbable_classes_stay_finite():
    rows = [np.array([0, -1e4, -1e4], np.float32), np.array([-1e4, 0, -1e4], np.float32)]
    found = mean_of(rows)
    assert np.isfinite(found).all()
    np.testing.assert_allclose(np.exp(found), [0.5, 0.5, 0], atol=1e-6)


@pytest.mark.parametrize("gap", [math.nan, math.inf, -1.0, 86_401.0, 1e300])
def test_what_is_no_gap_is_refused(gap):
    with pytest.raises(ConfigError, match="--sequence-gap"):
        require_gap(gap)


@pytest.mark.parametrize("gap", [None, 0.0, 0.5, 60.0, 86_400.0])
def test_gaps(gap):
    require_gap(gap)


def test_the_file_of_predictions_keeps_what_each_photo_says_itself(classifier, photos, monkeypatch):
    row = np.log(np.array([0.5, 0.25, 0.25], np.float32))
    named = [Named(photos[place], row, known=score, index=place) for place, score in enumerate([0.25, 0.75])]
    monkeypatch.setattr(prediction, "name_photos", lambda *_: named)
    judge = Judge(classifier.class_names, least_known=0.4)
    files = Files(Path("output_1.h5"), csv=Path("named.csv"))
    sequences = Sequences(np.array([0, 0]), 0)
    summary = prediction.record(classifier, photos[:2], Ranks(), files, judge, sequences=sequences)
    with h5py.File("output_1.h5") as file:
        assert [float(file[each.name].attrs["known"]) for each in photos[:2]] == [0.25, 0.75]
    with Path("named.csv").open(newline="") as file:
        found = [(row["level"], row["known"], row["sequence"]) for row in csv.DictReader(file)]
    assert found == [("class", "0.500000", "1")] * 2
    assert [entry["known"] for entry in summary.shown] == [0.5, 0.5]
