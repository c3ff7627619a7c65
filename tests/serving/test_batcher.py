"""Which photos share a run, and what becomes of those that cannot have one."""

import threading
from dataclasses import replace

import numpy as np
import pytest

from birdsonnx.errors import ImageError, ModelError
from birdsonnx.images.photo_file import Upload
from birdsonnx.inference.classifier import open_classifier
from birdsonnx.serving.batcher import Batcher, FullError
from birdsonnx.serving.metrics import Metrics


class Held:
    """An engine that answers when it is let; it notes how many photos each run had."""

    def __init__(self, engine):
        self._engine = engine
        self.go = threading.Semaphore(0)
        self.began = threading.Semaphore(0)
        self.runs: list[int] = []

    def __getattr__(self, name):
        return getattr(self._engine, name)

    def run(self, feeds):
        self.runs.append(len(feeds["images"]))
        self.began.release()
        self.go.acquire()
        return self._engine.run(feeds)


@pytest.fixture(scope="module")
def classifier(place):
    return open_classifier(place / "model.onnx", "model.onnx", 100, 2, per_run=4)


@pytest.fixture
def uploads(place):
    return [Upload(path.name, path.read_bytes()) for path in sorted((place / "data").rglob("*.png"))]


@pytest.fixture
def held(classifier):
    """A batcher of one stream, its engine, and nothing that waits."""
    engine = Held(classifier.engine)
    batcher = Batcher(replace(classifier, engine=engine, streams=1), 6, Metrics({}))
    yield batcher, engine
    engine.go.release(1000)
    batcher.close()


def test_what_waits_meanwhile_shares_the_next_run(held, uploads):
    batcher, engine = held
    first = batcher.submit(uploads[:1])
    engine.began.acquire()  # a lone photo has not waited for company
    later = [batcher.submit(uploads[:2]), batcher.submit(uploads[2:5])]
    assert batcher.waiting == 5
    engine.go.release(3)
    for answer in (*first, *later[0], *later[1]):
        assert np.exp(answer.result(timeout=30).log_probs).sum() == pytest.approx(1)
    assert engine.runs == [1, 4, 1]


def test_idle_streams_share_what_comes_at_once(classifier, uploads):
    engine = Held(classifier.engine)
    batcher = Batcher(replace(classifier, engine=engine, streams=2), 10, Metrics({}))
    while batcher._idle < 2:
        pass
    answers = batcher.submit(uploads[:4])
    engine.began.acquire()
    engine.began.acquire()
    assert sorted(engine.runs) == [2, 2]
    engine.go.release(2)
    batcher.close()
    assert all(answer.done() for answer in answers)


def test_places_are_bounded_and_those_of_clients_that_left_are_free(held, uploads):
    batcher, engine = held
    batcher.submit(uploads[:1])
    engine.began.acquire()
    waiting = batcher.submit(uploads[:6])
    with pytest.raises(FullError):
        batcher.submit(uploads[:1])
    for answer in waiting[:5]:
        assert answer.cancel()
    batcher.submit(uploads[:5])
    with pytest.raises(FullError):
        batcher.submit(uploads[:1])
    engine.go.release(10)
    batcher.close()
    assert sum(engine.runs) == 1 + 1 + 5  # and nothing is computed for nobody


def test_a_close_answers_all_that_waits_and_takes_no_more(held, uploads):
    batcher, engine = held
    answers = batcher.submit(uploads[:6])
    engine.go.release(100)
    batcher.close()
    assert all(answer.done() for answer in answers)
    with pytest.raises(FullError):
        batcher.submit(uploads[:1])


def test_a_bad_photo_spoils_no_other_of_its_run(held, uploads):
    batcher, engine = held
    engine.go.release(100)
    good, bad, other = batcher.submit([uploads[0], Upload("x", b"no picture"), uploads[1]])
    assert good.result(30).log_probs.shape == other.result(30).log_probs.shape
    with pytest.raises(ImageError, match="x: not an image"):
        bad.result(30)


def test_an_engine_that_fails_answers_all_of_its_run_and_goes_on(classifier, uploads):
    class Failing:
        fails = True

        def __getattr__(self, name):
            return getattr(classifier.engine, name)

        def run(self, feeds):
            if self.fails:
                raise ModelError("model.onnx: the runtime cannot compute it")
            return classifier.engine.run(feeds)

    engine = Failing()
    batcher = Batcher(replace(classifier, engine=engine, streams=1), 10, Metrics({}))
    for answer in batcher.submit(uploads[:3]):
        with pytest.raises(ModelError):
            answer.result(30)
    engine.fails = False
    assert batcher.submit(uploads[:1])[0].result(30) is not None
    batcher.close()
