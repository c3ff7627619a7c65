"""How a machine runs a model fastest: what is tried, what is remembered, and that it changes only speed."""

from dataclasses import astuple
from pathlib import Path

import h5py
import numpy as np
import pytest

from birdsonnx import artifacts
from birdsonnx.errors import ModelError
from birdsonnx.images.inputs import collect
from birdsonnx.inference import classifier as classifiers
from birdsonnx.inference import forms as forms_of_runs
from birdsonnx.inference import prediction, tuning
from birdsonnx.inference.classifier import open_classifier
from birdsonnx.inference.forms import Form
from birdsonnx.inference.naming import name_photos
from birdsonnx.inference.requests import Request
from birdsonnx.inference.tuning import PER_RUN, Among, Memory, Tuning, probe
from birdsonnx.reporting.console import Console
from birdsonnx.runtime.ranks import Ranks
from birdsonnx.runtime.sessions import PHOTOS_PER_RUN
from tests.tiny import make_class_folders, tiny_model

MODEL = tiny_model(3).serialized()
FOUND = Tuning(Form(1, 2, 8), 123.4)


@pytest.fixture
def memory() -> Memory:
    return Memory(Path("cache"))


def test_forms_are_streams_beside_each_other_or_threads_inside_a_run():
    assert set(Among(1).forms()) == {Form(1, 1, count) for count in PER_RUN}
    assert set(Among(3).forms()) == {
        form for count in PER_RUN for form in (Form(3, 1, count), Form(1, 3, count))
    }
    assert len(list(Among(3).forms())) == len(set(Among(3).forms()))


@pytest.mark.parametrize("threads", [1, 2])
def test_probe_finds_one_of_the_forms(threads):
    found = probe(MODEL, Among(threads), seconds=0.01)
    assert found.form in set(Among(threads).forms())
    assert found.images_per_second > 0


def test_probe_takes_the_fastest_but_the_usual_one_in_doubt(monkeypatch):
    usual, other = Form(2, 1, PHOTOS_PER_RUN), Form(1, 2, 16)
    for rate, expected in ((102, usual), (104, other)):
        rates = {usual: 100, other: rate}
        monkeypatch.setattr(tuning, "_rate", lambda session, form, seconds, by=rates: by.get(form, 1))
        assert probe(MODEL, Among(2)) == Tuning(expected, rates[expected])


def test_probe_refuses_what_is_no_model():
    with pytest.raises(ModelError):
        probe(b"no model", Among(1))


def test_memory_gives_back_what_it_was_given(memory):
    assert memory.is_empty
    assert memory.recall(MODEL, Among(2)) is None
    memory.keep(MODEL, Among(2), FOUND)
    memory.keep(MODEL, Among(4), Tuning(Form(4, 1, 1), 5))
    assert not memory.is_empty
    assert Memory(Path("cache")).recall(MODEL, Among(2)) == FOUND.form
    assert memory.recall(MODEL, Among(4)) == Form(4, 1, 1)
    memory.keep(MODEL, Among(2), Tuning(Form(2, 1, 2), 200))
    assert memory.recall(MODEL, Among(2)) == Form(2, 1, 2)


def test_memory_is_of_one_model_and_so_many_threads(memory, monkeypatch):
    memory.keep(MODEL, Among(2), FOUND)
    assert memory.recall(tiny_model(3, seed=1).serialized(), Among(2)) is None
    assert memory.recall(MODEL, Among(1)) is None
    monkeypatch.setattr("platform.node", lambda: "another machine")
    assert memory.recall(MODEL, Among(2)) is None


def test_those_who_measure_at_the_same_time_take_nothing_from_each_other(memory, monkeypatch):
    """The second keeps its own while the first is about to."""
    write = artifacts.write_json

    def write_after_the_other(path: Path, content: dict) -> None:
        monkeypatch.setattr(artifacts, "write_json", write)
        Memory(Path("cache")).keep(MODEL, Among(4), Tuning(Form(4, 1, 1), 5))
        write(path, content)

    monkeypatch.setattr(artifacts, "write_json", write_after_the_other)
    memory.keep(MODEL, Among(2), FOUND)
    assert (memory.recall(MODEL, Among(2)), memory.recall(MODEL, Among(4))) == (FOUND.form, Form(4, 1, 1))


def test_numbers_that_are_no_counts_are_no_tuning(memory):
    memory.keep(MODEL, Among(2), Tuning(Form(0, 1, 4), 1.0))
    assert memory.recall(MODEL, Among(2)) is None


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"\xff\xfe",
        b"[]",
        b"1",
        b"null",
        b"{}",
        b'{"form": 1}',
        b'{"form": {"streams": 2}}',
    ],
)
def test_a_damaged_memory_holds_nothing_and_is_replaced(memory, content):
    memory.keep(MODEL, Among(2), FOUND)
    [path] = Path("cache").iterdir()
    path.write_bytes(content)
    assert memory.recall(MODEL, Among(2)) is None
    memory.keep(MODEL, Among(2), FOUND)
    assert memory.recall(MODEL, Among(2)) == FOUND.form


class TestPrediction:
    """With `MANY` lowered: so few photos would not use a tuning."""

    @pytest.fixture(autouse=True)
    def photos(self, monkeypatch):
        monkeypatch.setattr(forms_of_runs, "MANY", 1)
        make_class_folders(Path("photos"), per_class=3)
        Path("model.onnx").write_bytes(MODEL)

    @pytest.mark.parametrize("form", [*Among(1).forms(), *Among(2).forms()], ids=str)
    def test_it_is_the_same_whatever_the_form(self, form):
        photos = collect(["photos"])
        found, expected = (
            [
                named.log_probs
                for named in name_photos(
                    open_classifier(MODEL, "model", len(photos), 2, form=each), photos, Ranks()
                )
            ]
            for each in (form, None)
        )
        np.testing.assert_allclose(found, expected, atol=1e-6)

    def predicted(self, monkeypatch, **options) -> tuple[Form, np.ndarray]:
        """The form of a prediction run, and its log-probabilities."""
        opened = []
        original = open_classifier

        def watch(*words, **named):
            opened.append(original(*words, **named))
            return opened[-1]

        monkeypatch.setattr(classifiers, "open_classifier", watch)
        request = Request(["photos"], Path("model.onnx"), Path("out"), **{"threads": 2, **options})
        prediction.predict(request, Ranks(), Console(json=True))
        monkeypatch.setattr(classifiers, "open_classifier", original)
        with h5py.File("out/output_1.h5") as file:
            names = []
            file.visititems(lambda name, item: names.append(name) if isinstance(item, h5py.Dataset) else None)
            values = np.stack([file[name][()] for name in sorted(names)])
        [classifier] = opened
        [threads] = {1, 2} - {classifier.streams}
        return Form(classifier.streams, threads, classifier.per_run), values

    def test_a_tuning_is_measured_used_and_remembered(self, monkeypatch):
        usual, plain = self.predicted(monkeypatch)
        assert usual == Form(2, 1, PHOTOS_PER_RUN)
        measured = []

        def measure(model, among, advance):
            measured.append((model, among.threads))
            return FOUND

        monkeypatch.setattr(tuning, "probe", measure)
        for tune in (True, False, False):
            form, values = self.predicted(monkeypatch, tune=tune)
            assert astuple(form) == astuple(FOUND.form)
            np.testing.assert_allclose(values, plain, atol=1e-6)
        assert measured == [(MODEL, 2)]
        form, _ = self.predicted(monkeypatch, per_run=3)
        assert form == Form(1, 2, 3)

    def test_few_photos_do_not_use_it(self, monkeypatch):
        monkeypatch.setattr(tuning, "probe", lambda model, among, advance: FOUND)
        monkeypatch.setattr(forms_of_runs, "MANY", 100)
        assert self.predicted(monkeypatch, tune=True)[0] == Form(2, 1, PHOTOS_PER_RUN)
