"""What is said of a photo: by plain loops, and what it is called beside a class of the same name."""

import math

import numpy as np
import pytest

from birdsonnx.errors import ConfigError
from birdsonnx.inference.judging.coverage import Judging
from birdsonnx.inference.judging.criteria import Criteria
from birdsonnx.inference.judging.species import Species
from birdsonnx.inference.judging.taxonomy import Level, Taxonomy
from birdsonnx.inference.judging.thresholds import Thresholds
from birdsonnx.inference.judging.verdicts import Judge

NAMES = ("ANT BIRD", "BEE-EATER", "COOT", "DUCK")
GENERA = Taxonomy((Level.of("genus", ["G", "G", "H", "H"], (0, 1, 2, 3)),))


def logs(*probabilities: float) -> np.ndarray:
    return np.log(np.array(probabilities, np.float32))


def species(*indices: int) -> Species:
    return Species(np.array(indices, np.int64))


def test_without_criteria_the_likeliest_class_is_said():
    verdict = Judge(NAMES, 2).verdict(logs(0.1, 0.2, 0.4, 0.3))
    assert (verdict.said, verdict.level, verdict.title) == ("COOT", "class", "COOT")
    assert verdict.as_json() == {
        "top": [("COOT", pytest.approx(0.4)), ("DUCK", pytest.approx(0.3))],
    }
    assert Judge(NAMES).columns == ()


def test_a_list_takes_probability_away_and_says_where_that_changed_the_answer():
    judge = Judge(NAMES, 2, species=species(0, 1))
    verdict = judge.verdict(logs(0.1, 0.2, 0.4, 0.3))
    assert verdict.as_json() == {
        "top": [("BEE-EATER", pytest.approx(2 / 3)), ("ANT BIRD", pytest.approx(1 / 3))],
        "instead_of": ("COOT", pytest.approx(0.4)),
    }
    assert verdict.probability == verdict.top[0][1]
    assert judge.verdict(logs(0.1, 0.5, 0.3, 0.1)).instead_of is None
    assert judge.columns == ("said", "level", "said_probability", "instead_of")
    assert verdict.cells["instead_of"] == "COOT"


def test_a_probability_that_is_the_threshold_reaches_it():
    """Compared is the float64 exponential of the float32 logarithm."""
    log_probs = logs(0.1, 0.2, 0.4, 0.3)
    probability = math.exp(float(log_probs[2]))
    for threshold, level in (
        (probability, "class"),
        (math.nextafter(probability, 1), "unsure"),
        (math.nextafter(probability, 0), "class"),
    ):
        assert Judge(NAMES, thresholds=Thresholds.same(threshold, 4)).verdict(log_probs).level == level
    assert (
        Judge(NAMES, thresholds=Thresholds.same(1, 4)).verdict(np.array([0, -9, -9, -9.0])).level == "class"
    )


def test_each_class_has_its_threshold_and_taxa_the_precision():
    fitted = Thresholds.of_model({"values": (0.9, 0.3, 0.9, 0.9), "precision": 0.75})
    judge = Judge(NAMES, thresholds=fitted, taxonomy=GENERA)
    for probabilities, said in (
        ((0.8, 0.1, 0.05, 0.05), ("G", "genus", 0.9)),
        ((0.1, 0.4, 0.3, 0.2), ("BEE-EATER", "class", 0.4)),
        ((0.1, 0.1, 0.5, 0.3), ("H", "genus", 0.8)),
        ((0.2, 0.1, 0.4, 0.3), ("unsure", "unsure", 0.4)),
        ((0.05, 0.02, 0.92, 0.01), ("COOT", "class", 0.92)),
    ):
        verdict = judge.verdict(logs(*probabilities))
        assert (verdict.said, verdict.level) == said[:2]
        assert verdict.probability == pytest.approx(said[2], abs=1e-6)
    assert judge.verdict(logs(0.8, 0.1, 0.05, 0.05)).as_json() == {
        "top": [("ANT BIRD", pytest.approx(0.8))],
        "said": "G",
        "level": "genus",
        "probability": pytest.approx(0.9),
    }
    assert judge.labels == (*NAMES, "unsure", "genus G", "genus H")


def test_unknown_comes_first_and_is_not_changed_by_a_list():
    judge = Judge(NAMES, 1, -2.0, species(0, 1), Thresholds.same(0.9, 4))
    verdict = judge.verdict(logs(0.1, 0.2, 0.4, 0.3), -2.5)
    assert (verdict.said, verdict.level, verdict.known, verdict.instead_of) == (
        "unknown",
        "unknown",
        -2.5,
        None,
    )
    unsure = judge.verdict(logs(0.1, 0.2, 0.4, 0.3), -2.0)
    assert (unsure.level, unsure.instead_of[0]) == ("unsure", "COOT")
    assert judge.columns == ("said", "level", "said_probability", "instead_of", "known")


@pytest.mark.parametrize(
    ("names", "label"),
    [
        (("A", "B"), "unsure"),
        (("A", "unsure"), "unsure (no class)"),
        (("Unsure", "UNSURE (no CLASS)"), "unsure (no class) (no class)"),
    ],
)
def test_what_is_no_class_is_told_from_a_class_of_that_name(names, label):
    judge = Judge(names, thresholds=Thresholds.same(0.9, 2))
    verdict = judge.verdict(logs(0.4, 0.6))
    assert (verdict.said, verdict.level, verdict.title) == ("unsure", "unsure", label)
    assert len(set(judge.labels)) == len(judge.labels) == 3
    taxonomy = Taxonomy((Level.of("genus", ["G", "G"], (0, 1)),))
    judge = Judge(("genus g", "B"), thresholds=Thresholds.same(0.9, 2), taxonomy=taxonomy)
    assert judge.verdict(logs(0.4, 0.6)).title == "genus G (no class)"


@pytest.mark.parametrize("threshold", [-0.1, 1.1, float("nan"), float("inf")])
def test_a_threshold_is_a_probability(threshold):
    with pytest.raises(ConfigError, match="a probability is from 0 to 1"):
        Criteria(threshold=threshold)


def judge_of(criteria: Criteria, fitted=None) -> tuple[Judge, list[str]]:
    said: list[str] = []
    return criteria.read().judge_of(NAMES, fitted, None, 9, said.append), said


def test_whose_thresholds_count():
    fitted = {"values": (0.1, 0.2, 0.3, 0.4), "precision": 0.95}
    judge, said = judge_of(Criteria(), fitted)
    assert judge.thresholds == Thresholds((0.1, 0.2, 0.3, 0.4), 0.95, 0.95)
    assert said == [
        "thresholds: the model's own, for a precision of 0.95; what does not reach them is unsure "
        "(--threshold 0: none)"
    ]
    assert judge_of(Criteria(threshold=0.0), fitted)[0].thresholds is None
    assert judge_of(Criteria(threshold=0.7), fitted)[0].thresholds == Thresholds((0.7,) * 4, 0.7)
    assert judge_of(Criteria()) == (Judge(NAMES, 4), [])


def test_no_more_classes_are_listed_than_can_occur():
    judge, _ = judge_of(Criteria(["COOT", "DUCK"]))
    assert [name for name, _ in judge.verdict(logs(0.4, 0.3, 0.2, 0.1)).top] == ["COOT", "DUCK"]


@pytest.mark.parametrize("seed", range(3))
def test_coverage_by_a_plain_loop(seed):
    generator = np.random.default_rng(seed)
    scores = generator.normal(0, 2, (200, 4))
    log_probs = (scores - np.log(np.exp(scores).sum(1, keepdims=True))).astype(np.float32)
    labels = generator.integers(0, 4, 200).tolist()
    judging = Judging(Judge(NAMES, species=species(0, 2, 3), thresholds=Thresholds.same(0.6, 4)))
    answers = [(str(i), row, label) for i, (row, label) in enumerate(zip(log_probs, labels, strict=True))]
    seen = list(judging.seen(answers))
    sure = right = off_list = 0
    for (_, row, label), (_, left, _) in zip(answers, seen, strict=True):
        kept = {index: math.exp(float(row[index])) for index in (0, 2, 3)}
        best = max(kept, key=lambda index: kept[index])
        probability = kept[best] / sum(kept.values())
        assert math.exp(left[best]) == pytest.approx(probability, rel=1e-6)
        off_list += label == 1
        if probability >= 0.6:
            sure += 1
            right += best == label
    found = judging.sure
    assert found is not None
    assert (found.photos, found.sure, found.right, judging.off_list) == (200, sure, right, off_list)
    assert found.as_json() == {
        "photos": sure,
        "coverage": sure / 200,
        "accuracy": right / sure,
        "precision": None,
        "threshold": 0.6,
    }
