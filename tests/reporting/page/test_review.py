"""The page to look through: which photos come first, and how many there are."""

import numpy as np

from birdsonnx.inference.evaluating.answers import Answers
from birdsonnx.reporting.page import review


def answers_of(*answers: tuple[int, float]) -> Answers:
    """Of photos `0.jpg`, `1.jpg` … by the class that was said and its probability; of three classes."""
    kept = Answers()
    for number, (said, probability) in enumerate(answers):
        log_probs = np.full(3, np.log((1 - probability) / 2), np.float32)
        log_probs[said] = np.log(probability)
        kept.add(f"{number}.jpg", log_probs)
    return kept


ANSWERS = answers_of((1, 0.9), (0, 0.8), (1, 0.6), (0, 0.95), (2, 0.99), (1, 0.5))


def test_each_class_has_its_turn_and_the_least_certain_come_first():
    assert review.order_of(ANSWERS) == [5, 1, 4, 2, 3, 0]


def test_all_are_counted_and_those_with_thumbnails_are_not_there_twice():
    order = review.order_of(ANSWERS)
    page = review.review(ANSWERS, ["ANT", "BEE", "COOT"], "x.h5", order, ["data:a", "data:b", ""])
    assert [(each.name, each.photos) for each in page.classes] == [("ANT", 2), ("BEE", 3), ("COOT", 1)]
    assert [round(each.lowest, 3) for each in page.classes] == [0.8, 0.5, 0.99]
    assert [round(each.median, 3) for each in page.classes] == [0.875, 0.6, 0.99]
    assert [card.name for card in page.cards] == ["5.jpg", "2.jpg", "1.jpg", "0.jpg", "3.jpg", "4.jpg"]
    assert page.rows["names"] == ["5.jpg", "1.jpg", "4.jpg", "2.jpg", "3.jpg", "0.jpg"]
    assert page.rows["thumbnails"] == ["", "", ""]  # they stand in the cards
    assert page.rows["p"] == [5000, 8000, 9900, 6000, 9500, 9000]
    assert page.thumbnails == 2


def test_of_too_many_photos_the_least_certain_are_listed(monkeypatch):
    monkeypatch.setattr(review, "MOST_ROW_BYTES", 100)
    order = review.listed(ANSWERS)
    assert order == [5, 1, 4]
    page = review.review(ANSWERS, ["ANT", "BEE", "COOT"], "x.h5", order, [])
    assert (page.photos, page.listed, sum(each.photos for each in page.classes)) == (6, 3, 6)
