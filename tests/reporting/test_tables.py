"""What a model holds and how right it is, as text and CSV."""

import csv
import hashlib
import json
from pathlib import Path

import numpy as np
import onnx
import pytest

from birdsonnx.config.transforms import CenterCrop, Resize
from birdsonnx.inference.evaluating.confusion import Confusion
from birdsonnx.inference.evaluating.evaluation import Evaluation
from birdsonnx.inference.evaluating.mistakes import Mistakes
from birdsonnx.inference.evaluating.reliability import wilson_interval
from birdsonnx.model import model_file
from birdsonnx.model.model_file import BirdModel
from birdsonnx.reporting.tables import evaluation_lines, info_lines, model_info, write_evaluation
from tests.tiny import FEATURES, SIZE, tiny_model

MODEL = Path("model.onnx")
CLASSES = ("ANT BIRD", "BEE-EATER", "COOT", "DODO")
MATRIX = np.array([[8, 2, 0, 0], [1, 9, 0, 0], [0, 5, 0, 0], [0, 0, 0, 0]])


def confusion_of(matrix: np.ndarray) -> Confusion:
    return Confusion.of({cell: int(count) for cell, count in np.ndenumerate(matrix)}, len(matrix))


EVALUATION = Evaluation(
    CLASSES,
    confusion_of(MATRIX),
    top5_hits=24,
    loss=0.1234567,
    wrong=Mistakes(CLASSES),
    calibration_error=0.0625,
)


def evaluation_of(classes: tuple[str, ...], matrix: np.ndarray) -> Evaluation:
    confusion, wrong = confusion_of(matrix), Mistakes(classes)
    return Evaluation(classes, confusion, top5_hits=1, loss=1.0, wrong=wrong, calibration_error=0.0)


def info(**metadata) -> dict:
    """Of the tiny model, with some metadata replaced, written and read back."""
    model = tiny_model(len(metadata.get("classes") or CLASSES[:3]), CLASSES[:3])
    BirdModel(model.proto, model.metadata.having(**metadata), "model.onnx").save(MODEL)
    return model_info(model_file.load(MODEL), MODEL)


# --- Models ---------------------------------------------------------------------------------------------


def test_info_is_what_the_file_holds():
    found = info()
    content = MODEL.read_bytes()
    proto = onnx.load(MODEL)
    assert found["file"] == "model.onnx"
    assert found["bytes"] == len(content)
    assert found["sha256"] == hashlib.sha256(content).hexdigest()
    assert found["input"] == {"name": "images", "type": "uint8", "shape": ["batch", SIZE, SIZE, 3]}
    assert found["output"] == {"name": "log_probs", "type": "float32", "shape": ["batch", 3]}
    assert (found["opset"], found["ir_version"]) == (17, proto.ir_version)
    operators = [node.op_type for node in proto.graph.node]
    assert found["operators"] == {name: operators.count(name) for name in operators}
    assert found["classes"] == list(CLASSES[:3])
    assert (found["layers"], found["trainable"]) == (3, ["dense"])
    trainable = FEATURES * 3 + 3
    total = 8 * 3 * 5 * 5 + 8 + FEATURES * 8 * 3 * 3 + FEATURES + trainable
    assert found["parameters"] == {"total": total, "trainable": trainable, "statistics": 0}
    assert found["preprocessing"]["name"] == "caffe"
    assert (found["transforms"], found["history"], found["run"]) == (None, [], None)
    assert json.loads(json.dumps(found)) == found


def test_info_for_people():
    lines = info_lines(info())
    text = "\n".join(lines)
    facts = dict(line.split(None, 1) for line in lines)
    assert facts["file"].startswith("model.onnx (0.0 MB, sha256 ")
    assert hashlib.sha256(MODEL.read_bytes()).hexdigest()[:16] in facts["file"]
    assert facts["classes"] == "3: ANT BIRD, BEE-EATER, COOT"
    assert facts["preprocessing"] == "caffe"
    assert facts["transforms"] == "resize to the input"
    assert facts["parameters"] == "2,435 and 0 BatchNorm statistics, as Keras counts them"
    assert facts["trainable"] == "dense"
    assert "2 Conv" in facts["operators"]
    assert "epoch" not in text


def test_info_of_a_trained_model_lists_its_epochs_and_transforms():
    history = (
        {"epoch": 1, "learning_rate": 0.01, "train_loss": 1.5},
        {"epoch": 2, "learning_rate": 0.005, "train_loss": 0.75, "test_accuracy": 1.0},
    )
    found = info(
        history=history, transforms=(Resize(40, 40), CenterCrop(SIZE, SIZE)), run={"run": 1, "epoch": 2}
    )
    assert found["history"] == list(history)
    assert found["transforms"] == [{"resize": [40, 40]}, {"center_crop": [SIZE, SIZE]}]
    assert found["run"] == {"run": 1, "epoch": 2}
    epochs = [line.split(None, 1)[1].split(", ") for line in info_lines(found) if line.startswith("epoch")]
    assert list(map(set, epochs)) == [
        {"epoch 1", "learning_rate 0.01", "train_loss 1.5"},
        {"epoch 2", "learning_rate 0.005", "train_loss 0.75", "test_accuracy 1"},
    ]


@pytest.mark.parametrize(
    ("classes", "shown"),
    [
        (None, "not known yet: the first training takes them from its folders"),
        (tuple("ABCDE"), "5: A, B, C, D, E"),
        (tuple("ABCDEF"), "6: A, B, C, D, E, …"),
    ],
)
def test_info_shows_the_first_classes(classes, shown):
    found = info(classes=classes)
    assert found["classes"] == (None if classes is None else list(classes))
    assert f"classes        {shown}" in info_lines(found)


def test_info_of_a_frozen_model():
    assert "trainable      nothing" in info_lines(info(trainable=()))


# --- Evaluations ----------------------------------------------------------------------------------------


def test_evaluation_for_people():
    assert evaluation_lines(EVALUATION) == [
        "accuracy 0.6800   top-5 0.9600   loss 0.123457   photos 25",
        "accuracy between 0.4841 and 0.8279 (95 %)   calibration error 0.0625",
        "mean over the classes: recall 0.5667   F1 0.5115",
        "",
        "class      photos  correct  recall       95 %  precision     F1",
        "ANT BIRD       10        8   0.800  0.49-0.94      0.889  0.842",
        "BEE-EATER      10        9   0.900  0.60-0.98      0.562  0.692",
        "COOT            5        0   0.000  0.00-0.43          -  0.000",
        "DODO            0        0       -          -          -      -",
        "",
        "taken for another:",
        "   5 x COOT -> BEE-EATER",
        "   2 x ANT BIRD -> BEE-EATER",
        "   1 x BEE-EATER -> ANT BIRD",
    ]


def test_a_table_fits_a_line_of_80_whatever_the_names_are_called():
    names = ("A" * 26, "B" * 27, "C" * 80, "D")
    lines = evaluation_lines(evaluation_of(names, 10**5 * (np.ones((4, 4), int) + np.eye(4, dtype=int))))
    table = lines[: lines.index("taken for another:")]
    assert max(map(len, table)) == 80
    assert {"B" * 27, "C" * 80} < set(table)
    figures = [line[26:] for line in table if line.endswith("0.400")]
    assert len(figures) == 4
    assert len(set(figures)) == 1


def test_an_evaluation_without_mistakes_lists_none():
    lines = evaluation_lines(evaluation_of(CLASSES, np.diag([3, 2, 1, 4])))
    assert not [line for line in lines if "taken" in line or "->" in line]


def test_only_the_most_frequent_mistakes_are_listed():
    confusion = np.arange(64).reshape(8, 8)
    lines = evaluation_lines(evaluation_of(tuple("ABCDEFGH"), confusion))
    counts = [int(line.split(" x ")[0]) for line in lines if "->" in line]
    mistakes = sorted(confusion[~np.eye(8, dtype=bool)].tolist(), reverse=True)
    assert counts == mistakes[:20]


def test_evaluation_as_csv():
    path = Path("tables/evaluation.csv")
    write_evaluation(EVALUATION, path)
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["class"] for row in rows] == list(CLASSES)
    for row, counts in zip(rows, MATRIX, strict=True):
        assert [int(row[f"named {name}"]) for name in CLASSES] == counts.tolist()
        assert int(row["photos"]) == counts.sum()
    assert [row["correct"] for row in rows] == ["8", "9", "0", "0"]
    assert [row["recall"] for row in rows] == ["0.8", "0.9", "0.0", ""]
    assert [row["precision"] for row in rows] == [str(8 / 9), str(9 / 16), "", ""]
    assert [row["f1"] for row in rows] == [str(16 / 19), str(18 / 26), "0.0", ""]
    assert list(rows[0])[-3:] == ["f1", "recall_low", "recall_high"]
    for row, (right, photos) in zip(rows, ((8, 10), (9, 10), (0, 5)), strict=False):
        assert (float(row["recall_low"]), float(row["recall_high"])) == wilson_interval(right, photos)
    assert (rows[3]["recall_low"], rows[3]["recall_high"]) == ("", "")


def test_csv_keeps_any_class_name():
    names = ("COMMA, BIRD", 'QUOTE "BIRD"', "ÜNÏ BIRD", " SPACE ")
    write_evaluation(evaluation_of(names, np.eye(4, dtype=int)), Path("table.csv"))
    with Path("table.csv").open(encoding="utf-8", newline="") as file:
        assert [row["class"] for row in csv.DictReader(file)] == list(names)
