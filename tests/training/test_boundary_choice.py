"""Where a run is divided: named, resumed, kept, or measured."""

import json
from pathlib import Path

import pytest

from birdsonnx.errors import ConfigError, TrainingError
from birdsonnx.images.decoding import decoder
from birdsonnx.images.folders import read_class_folders
from birdsonnx.runtime.ranks import Ranks
from birdsonnx.training import boundary, boundary_choice, run
from birdsonnx.training.boundary_choice import Question, choose, names_of
from birdsonnx.training.partition import Network
from tests.conftest import needs_training_runtime
from tests.runs import Audience
from tests.tiny import make_class_folders, residual_model

TRAINED = ["block_b", "last", "dense"]
FRONTIER, STEM, PHOTOS = "block_a, stem", "stem", "photos"
CACHE = Path("cache")


@pytest.fixture
def clock(monkeypatch):
    """Frozen layers seem to take so long, and reading so many bytes per second."""

    def set_to(frozen_s, bytes_per_s):
        monkeypatch.setattr(boundary, "_frozen_s", lambda *_: frozen_s)
        monkeypatch.setattr(boundary, "_copy_rate", lambda: bytes_per_s)

    return set_to


def slow_memory(clock):
    clock(0.0, 1e4)  # what is smaller is read sooner: the stem, a single tensor


def slow_layers(clock):
    clock(1.0, 1e9)


@pytest.fixture
def question():
    photos = read_class_folders(make_class_folders(Path("photos"), per_class=2)).photos
    probed = [photo.path for photo in photos[:4]]
    return Question(Network(residual_model(), TRAINED), len(photos), probed, decoder(32, 32, 3, None), 2)


def chosen(question, folder=CACHE, named=None, resumed=None, say=lambda _: None):
    return choose(question, folder, named, resumed, say)


def place(question, **options):
    return names_of(chosen(question, **options).boundary)[0]


def test_clocks_decide_once(question, clock):
    slow_layers(clock)
    first = chosen(question)
    assert names_of(first.boundary)[0] == FRONTIER
    assert first.measured_on is None
    slow_memory(clock)
    again = chosen(question)
    assert again.boundary == first.boundary
    assert again.measured_on is not None
    assert place(question, folder=Path("another")) != FRONTIER, "the clock would have it elsewhere"


def test_a_training_gives_the_same_bits_whatever_the_clock_says(fine_tuning, clock):
    weights = []
    for name, set_to in (("one", slow_layers), ("two", slow_memory)):
        set_to(clock)
        audience = Audience()
        outcome = run.train(fine_tuning(name, num_epochs=1), Ranks(), audience)
        weights.append(outcome.checkpoints[-1].read_bytes())
    assert weights[0] == weights[1]
    assert "; the fastest place, as measured on 20" in audience.summary["features"]
    state = json.loads(next(Path("kept").glob("boundary-*.json")).read_text())
    assert state["tensors"] == list(audience.facts.choice.boundary.tensors)


@pytest.mark.parametrize("name", [FRONTIER, STEM, PHOTOS, "stem/relu", "images", "block_a/active, stem/relu"])
def test_the_config_may_name_it(question, clock, name):
    slow_layers(clock)
    chosen(question)  # kept, and not asked
    found = chosen(question, named=name)
    assert name in names_of(found.boundary)
    assert found.measured_on is None


@needs_training_runtime
def test_a_training_is_divided_where_the_config_says(fine_tuning, clock):
    slow_layers(clock)
    audience = Audience()
    for own, begins in (
        ({}, "block_a, stem: "),
        ({"boundary": "stem"}, "stem: "),
        ({"boundary": "photos"}, "none"),
    ):
        run.train(fine_tuning(None, num_epochs=1, birdsonnx=own), Ranks(), audience)
        assert audience.summary["features"].startswith(begins)


def test_a_name_that_is_none_is_refused_with_those_that_are(question):
    with pytest.raises(ConfigError) as refusal:
        chosen(question, named="stemm")
    assert str(refusal.value) == (
        "neural_network.birdsonnx.boundary: residual cannot be divided at 'stemm'; did you mean 'stem'?; "
        "possible are 'block_a, stem'; 'stem'; 'network_input'; 'preprocess'; 'photos'"
    )


def test_of_many_names_the_first_are_listed(question, monkeypatch):
    monkeypatch.setattr(boundary_choice, "LISTED", 2)
    with pytest.raises(ConfigError, match="'block_a, stem'; 'stem' and 3 more, from there to the photos"):
        chosen(question, named="nowhere")


def test_a_layer_is_no_boundary_where_nothing_is_kept(question):
    assert place(question, folder=None, named=PHOTOS) == PHOTOS
    with pytest.raises(ConfigError, match="'stem' would be kept as features, but with random transforms "):
        chosen(question, folder=None, named=STEM)


def test_without_a_cache_nothing_is_measured(question, clock):
    for set_to in (slow_layers, slow_memory):
        set_to(clock)
        assert place(question, folder=None) == PHOTOS


def test_a_resumed_run_stays_where_it_was(question, clock):
    slow_layers(clock)
    chosen(question)
    before = next(each for each in question.network.boundaries() if names_of(each)[0] == STEM)
    resumed = list(before.tensors)
    assert chosen(question, resumed=resumed).boundary == before
    assert chosen(question, resumed=resumed, named=STEM).boundary == before
    with pytest.raises(
        TrainingError, match=r"its run had birdsonnx\.boundary 'stem', the config has 'photos'"
    ):
        chosen(question, resumed=resumed, named=PHOTOS)


def test_a_resumed_run_without_its_cache_is_reported(question):
    lines = []
    assert place(question, folder=None, resumed=["stem/relu"], say=lines.append) == PHOTOS
    [line] = lines
    assert "its run kept features of stem; without a cache every epoch runs the whole network" in line


@pytest.mark.parametrize(
    "record", [b"", b"[]", b"{}", b'{"tensors": ["gone"], "measured_on": "2026-03-01"}', b'{"tensors": 3}']
)
def test_a_damaged_record_is_made_again(question, clock, record):
    slow_layers(clock)
    first = chosen(question)
    [path] = CACHE.glob("boundary-*.json")
    path.write_bytes(record)
    assert chosen(question) == first
    assert chosen(question).measured_on is not None


def test_a_cache_that_cannot_be_written_is_reported(question, clock):
    slow_layers(clock)
    CACHE.touch()
    lines = []
    assert place(question, say=lines.append) == FRONTIER
    [line] = lines
    assert "cannot write" in line
    assert "unless birdsonnx.boundary names it" in line


def test_another_question_is_asked_anew(question, clock):
    photos = (question.photos, question.probed)
    others = [
        Question(Network(residual_model(seed=1), TRAINED), *photos, question.decoder, 2),
        Question(Network(residual_model(), ["last", "dense"]), *photos, question.decoder, 2),
        Question(question.network, photos[0] - 1, photos[1], question.decoder, 2),
        Question(question.network, *photos, question.decoder, 3),
    ]
    assert len({each.key() for each in (question, *others)}) == 5
    question.probed[0].write_bytes(question.probed[1].read_bytes() + b"more")
    assert question.key() not in {each.key() for each in others}


def test_the_trained_weights_do_not_matter(question):
    other = residual_model()
    [bias] = [tensor for tensor in other.proto.graph.initializer if tensor.name == "dense/bias"]
    bias.raw_data = bytes(4 * 3 - 4) + b"\0\0\x80\x3f"
    photos = (question.photos, question.probed)
    again = Question(Network(other, TRAINED), *photos, question.decoder, 2)
    assert again.key() == question.key()
