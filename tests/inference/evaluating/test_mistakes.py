"""The photos that were named wrongly, against a plain sort."""

import csv
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from birdsonnx.inference.evaluating import mistakes
from birdsonnx.inference.evaluating.mistakes import Mistakes

CLASSES = ("COOT", "=ANT", "BEE-EATER")


def some(photos: int = 60) -> tuple[list[str], np.ndarray, np.ndarray]:
    """Names, log-probabilities and labels; of the ones below two are equally sure."""
    generator = np.random.default_rng(photos)
    logits = generator.normal(0, 2, (photos, len(CLASSES)))
    log_probs = (logits - np.log(np.exp(logits).sum(1, keepdims=True))).astype(np.float32)
    names = [f"{number:03}.jpg" for number in generator.permutation(photos)]
    labels = generator.integers(0, len(CLASSES), photos)
    wrong = np.flatnonzero(log_probs.argmax(1) != labels)[:2]
    log_probs[wrong[1]], labels[wrong[1]] = log_probs[wrong[0]], labels[wrong[0]]
    return names, log_probs, labels


def test_the_surest_come_first():
    names, log_probs, labels = some()
    kept = Mistakes(CLASSES)
    for name, row, label in zip(names, log_probs, labels, strict=True):
        kept.add(name, row, label)
    expected = sorted(
        (-row.max(), name, CLASSES[label], np.exp(row[label]), CLASSES[row.argmax()], np.exp(row.max()))
        for name, row, label in zip(names, log_probs, labels, strict=True)
        if row.argmax() != label
    )
    found = list(kept.surest_first())
    assert len(found) == len(kept) == len(expected) > 20
    for each, (_, name, label, right, named, said) in zip(found, expected, strict=True):
        assert (each.name, each.label, each.named) == (name, label, named)
        assert (each.label_probability, each.named_probability) == pytest.approx((right, said))
    assert list(kept.surest_first(5)) == found[:5]


def test_what_is_certain_in_float32_is_still_in_order():
    kept = Mistakes(CLASSES)
    for name, least in (("b.jpg", -30.0), ("a.jpg", -20.0), ("c.jpg", -40.0)):
        kept.add(name, np.array([-(10.0**-9) * (40 + least), least, -90], np.float32), 1)
    assert [each.name for each in kept.surest_first()] == ["c.jpg", "b.jpg", "a.jpg"]
    assert {np.float32(each.named_probability) for each in kept.surest_first()} == {np.float32(1)}


def test_the_csv_holds_all_and_no_formula():
    kept = Mistakes(CLASSES)
    kept.add("-1.jpg", np.log(np.array([0.25, 0.5, 0.25], np.float32)), 0)
    kept.add("b\udcff.jpg", np.log(np.array([0.125, 0.125, 0.75], np.float32)), 1)
    kept.add("right.jpg", np.log(np.array([0.125, 0.125, 0.75], np.float32)), 2)
    for raw, quote in ((False, "'"), (True, "")):
        mistakes.write(kept, Path("wrong.csv"), raw)
        with Path("wrong.csv").open(newline="", encoding="utf-8", errors="surrogateescape") as file:
            rows = list(csv.reader(file))
        assert rows == [
            ["name", "class", "class_probability", "named", "named_probability"],
            ["b\udcff.jpg", f"{quote}=ANT", "0.125000", "BEE-EATER", "0.750000"],
            [f"{quote}-1.jpg", "COOT", "0.250000", f"{quote}=ANT", "0.500000"],
        ]


def test_a_million_photos_take_little_memory():
    row, names = np.log(np.array([0.2, 0.5, 0.3], np.float32)), [str(number) for number in range(100_000)]
    tracemalloc.start()
    kept = Mistakes(CLASSES)
    for name in names:
        kept.add(name, row, 0)
    taken, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(kept) == 100_000
    assert taken < 30 * 100_000
    assert next(kept.surest_first(1)).name == "0"


@pytest.mark.parametrize(
    ("table", "listed"), [("a/table.csv", "a/table_mistakes.csv"), ("table", "table_mistakes")]
)
def test_they_lie_beside_the_table(table, listed):
    assert mistakes.beside(Path(table)) == Path(listed)
