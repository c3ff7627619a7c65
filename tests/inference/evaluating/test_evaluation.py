"""Figures against plain loops, and where labels come from."""

from pathlib import Path

import numpy as np
import pytest

from birdsonnx.errors import DataError
from birdsonnx.inference.evaluating.confusion import Confusion
from birdsonnx.inference.evaluating.evaluation import evaluate
from birdsonnx.inference.evaluating.labels import labels_of
from birdsonnx.inference.evaluating.reliability import reliability, wilson_interval
from birdsonnx.inference.keeping import hdf5

CLASSES = ("COOT", "COOT BLACK", "ANT BIRD")
CSV = Path("labels.csv")


def outcomes(photos: int, classes: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Log-probabilities float32 `[photos, classes]`, and labels that are often right."""
    generator = np.random.default_rng(seed)
    labels = generator.integers(0, classes, photos)
    logits = generator.normal(0, 1, (photos, classes)) + 1.5 * np.eye(classes)[labels]
    return (logits - np.log(np.exp(logits).sum(1, keepdims=True))).astype(np.float32), labels


def answers(log_probs, labels) -> list[tuple[str, np.ndarray, int]]:
    """With names that fall while the photos come."""
    names = [f"{number:04}.jpg" for number in range(len(log_probs), 0, -1)]
    return list(zip(names, log_probs, labels, strict=True))


# --- Figures --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("photos", "classes"), [(1, 1), (1, 3), (50, 3), (200, 12), (60, 40)])
def test_figures_equal_plain_loops(photos, classes):
    log_probs, labels = outcomes(photos, classes, seed=photos)
    names = [f"class {index}" for index in range(classes)]
    found = evaluate(answers(log_probs, labels), names)

    right = in_five = loss = 0
    confusion = [[0] * classes for _ in range(classes)]
    for row, label in zip(log_probs.tolist(), labels.tolist(), strict=True):
        order = sorted(range(classes), key=lambda index: -row[index])
        right += order[0] == label
        in_five += label in order[:5]
        loss -= row[label]
        confusion[label][order[0]] += 1
    assert found.photos == photos
    assert found.accuracy == pytest.approx(right / photos)
    assert found.top5 == pytest.approx(in_five / photos)
    assert found.loss == pytest.approx(loss / photos)
    assert found.confusion.matrix().tolist() == confusion

    recalls, f1s = [], []
    for index, row in enumerate(found.per_class()):
        is_it = sum(label == index for label in labels)
        named = sum(best == index for best in log_probs.argmax(1))
        both = sum((labels == index) & (log_probs.argmax(1) == index))
        assert (row["class"], row["photos"], row["correct"]) == (names[index], is_it, both)
        assert row["recall"] == (pytest.approx(both / is_it) if is_it else None)
        assert row["precision"] == (pytest.approx(both / named) if named else None)
        assert row["recall_interval"] == (list(wilson_interval(both, is_it)) if is_it else None)
        recall, precision = both / is_it if is_it else 0, both / named if named else 0
        f1 = 2 * recall * precision / (recall + precision) if both else 0
        assert row["f1"] == (pytest.approx(f1) if is_it or named else None)
        recalls += [recall] if is_it else []
        f1s += [f1] if is_it or named else []
    assert found.macro_accuracy == pytest.approx(np.mean(recalls))
    assert found.macro_f1 == pytest.approx(np.mean(f1s))
    assert found.accuracy_interval == wilson_interval(right, photos)
    best = np.exp(log_probs.max(1).astype(np.float64))
    trust = reliability(np.minimum(best, 1), log_probs.argmax(1) == labels)
    assert found.calibration_error == pytest.approx(trust.expected_error, abs=1e-7)


def test_a_class_without_photos_or_never_named_is_as_scikit_learn_has_it():
    """Classes: right and wrong; never named; without photos but named; neither. The means are
    `balanced_accuracy_score(y, said)` and `f1_score(y, said, average="macro", zero_division=0)` of
    scikit-learn 1.7 for y = [0, 0, 0, 1, 1], said = [0, 0, 2, 0, 2]."""
    log_probs = np.log(0.1 + 0.6 * np.eye(4)[[0, 0, 2, 0, 2]]).astype(np.float32)
    found = evaluate(answers(log_probs, [0, 0, 0, 1, 1]), "ABCD")
    assert [row["recall"] for row in found.per_class()] == [2 / 3, 0, None, None]
    assert [row["precision"] for row in found.per_class()] == [2 / 3, None, 0, None]
    assert [row["f1"] for row in found.per_class()] == [pytest.approx(2 / 3), 0, 0, None]
    assert found.macro_accuracy == pytest.approx(1 / 3)
    assert found.macro_f1 == pytest.approx(2 / 9)


def test_as_json_holds_the_same_figures():
    log_probs, labels = outcomes(20, 3)
    found = evaluate(answers(log_probs, labels), CLASSES)
    assert found.as_json() == {
        "photos": 20,
        "accuracy": found.accuracy,
        "top5": 1.0,
        "loss": found.loss,
        "accuracy_interval": list(found.accuracy_interval),
        "macro_accuracy": found.macro_accuracy,
        "macro_f1": found.macro_f1,
        "calibration_error": found.calibration_error,
        "per_class": found.per_class(),
        "confusion": found.confusion.matrix().tolist(),
        "mistakes": [
            {"class": CLASSES[label], "named": CLASSES[named], "photos": count}
            for count, label, named in found.confusion.mistakes()
        ],
        "wrong": [mistake.as_json() for mistake in found.wrong.surest_first()],
    }


def test_no_photos_have_no_figures():
    assert evaluate([], CLASSES) is None


def test_the_loss_of_a_certain_mistake_is_infinite():
    log_probs = np.array([0, -np.inf, -np.inf], np.float32)
    assert evaluate([("a.jpg", log_probs, 1)], CLASSES).loss == np.inf
    assert evaluate([("a.jpg", log_probs, 0)], CLASSES).loss == 0


def test_a_matrix_too_large_to_show_is_told_by_its_mistakes():
    classes = [f"class {n}" for n in range(1001)]
    log_probs = np.full((1001, 1001), -9, np.float32)
    log_probs[np.arange(1001), (np.arange(1001) // 2) * 2] = -0.1
    found = evaluate(answers(log_probs, range(1001)), classes).as_json()
    assert found["confusion"] is None
    assert len(found["mistakes"]) == 500
    assert {"class": "class 7", "named": "class 6", "photos": 1} in found["mistakes"]


def test_the_classes_with_the_most_mistakes():
    confusion = Confusion.of({(0, 0): 9, (1, 3): 2, (3, 3): 1, (4, 2): 3, (2, 4): 1}, 5)
    assert confusion.most_confused(2).tolist() == [2, 4]
    assert confusion.most_confused(4).tolist() == [1, 2, 3, 4]
    some = confusion.most_confused(4)
    assert confusion.among(some).matrix().tolist() == confusion.matrix()[np.ix_(some, some)].tolist()


# --- Labels ---------------------------------------------------------------------------------------------


def predictions_of(names: tuple[str, ...], classes: tuple[str, ...] | None):
    """An open predictions file of three scores a photo."""
    path = Path("out.h5")
    with hdf5.writing(path, classes, "0" * 64) as writer:
        for name in names:
            writer.put(name, np.zeros(3, np.float32))
    return hdf5.reading(path)


def labels(*names: str, csv: str | None = None, classes: tuple[str, ...] | None = CLASSES) -> list[int]:
    if csv is not None:
        CSV.write_text(csv, encoding="utf-8")
    with predictions_of(names, classes) as predictions:
        found, indices = labels_of(predictions, "out.h5", CSV if csv else None)
    assert found == classes
    return indices


@pytest.mark.parametrize(
    ("name", "label"),
    [
        ("ANT BIRD/1.jpg", 2),
        ("COOT BLACK/1.jpg", 1),
        ("COOT/1.jpg", 0),
        ("COOT/june/1.jpg", 0),
        ("june/COOT/1.jpg", 0),
        ("COOT/ANT BIRD.jpg", 0),
        ("COOT BLACK1.jpg", 1),
        ("COOT BLACK", 1),
        ("COOT BLAC.jpg", 0),
        ("COOT1.jpg", 0),
        ("ANT BIRD 1.jpg", 2),
        ("COOT/IMG.JPG/0", 0),  # boxes
        ("june/COOT/IMG.JPG/12", 0),
        ("COOT BLACK 7.jpg/0", 1),
    ],
)
def test_the_class_is_the_group_or_the_longest_name_that_begins_the_file_name(name, label):
    assert labels(name) == [label]


def test_a_csv_tells_the_class_of_any_name():
    text = 'name,class\n"a, b.jpg",COOT BLACK\n\nCOOT/1.jpg,ANT BIRD\nünï.jpg,COOT\nnot there.jpg,COOT\n'
    assert labels("COOT/1.jpg", "a, b.jpg", "ünï.jpg", csv=text) == [2, 1, 0]
    assert labels("1.jpg", csv="1.jpg,COOT\n") == [0]
    assert labels("1.jpg", csv="\ufeff1.jpg,COOT\n1.jpg,COOT\n") == [0]  # as a spreadsheet saves it


@pytest.mark.parametrize(
    ("name", "csv", "said"),
    [
        ("1.jpg", None, "the class of '1.jpg' is unknown: neither a group nor its name gives one"),
        ("coot1.jpg", None, "the class of 'coot1.jpg' is unknown"),
        ("GULL/COOT1.jpg", None, "the class of 'GULL/COOT1.jpg' is unknown"),
        ("1.jpg", "2.jpg,COOT\n", "the class of '1.jpg' is unknown: labels.csv has no line for it"),
        ("COOT1.jpg", "2.jpg,COOT\n", "labels.csv has no line for it"),
        ("1.jpg", "1.jpg,GULL\n", "labels.csv: line 1: expected name,class with a class of the model"),
        ("1.jpg", "name,class\n1.jpg\n", "labels.csv: line 2: expected name,class"),
        ("1.jpg", "1.jpg,COOT,more\n", "labels.csv: line 1: expected name,class"),
        ("1.jpg", "1.jpg,COOT\nname,class\n", "labels.csv: line 2: expected name,class"),
        ("1.jpg", "1.jpg,COOT\n1.jpg,ANT BIRD\n", "labels.csv: line 2: '1.jpg' is there before"),
        ("COOT june/1", None, "the class of 'COOT june/1' is unknown"),
    ],
)
def test_a_class_that_cannot_be_told(name, csv, said):
    with pytest.raises(DataError) as caught:
        labels(name, csv=csv)
    assert said in str(caught.value)


@pytest.mark.parametrize("make", [lambda: None, CSV.mkdir, lambda: CSV.write_bytes(b"1.jpg,COOT \xff\n")])
def test_a_csv_that_cannot_be_read(make):
    make()
    with (
        predictions_of(("1.jpg",), CLASSES) as predictions,
        pytest.raises(DataError, match=r"labels\.csv: cannot be read as a CSV of name,class"),
    ):
        labels_of(predictions, "out.h5", CSV)


@pytest.mark.parametrize(
    ("classes", "said"), [(None, "it holds no class names"), (("COOT",), "1 class names for 3 scores")]
)
def test_files_without_fitting_class_names(classes, said):
    with pytest.raises(DataError) as caught:
        labels("COOT1.jpg", classes=classes)
    assert said in str(caught.value)
