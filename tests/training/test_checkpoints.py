"""Checkpoints: which one counts, and which state belongs to it."""

import os
from pathlib import Path

import numpy as np
import pytest
from numpy.lib.npyio import NpzFile

from birdsonnx.config.optimizers import Adam
from birdsonnx.errors import TrainingError
from birdsonnx.model.model_file import BirdModel
from birdsonnx.training import checkpoints
from birdsonnx.training.optimizers import build
from birdsonnx.training.parameters import FlatWeights
from tests.tiny import tiny_model

FOLDER = Path("saved")


def save(epoch, run=1, seed=0):
    model = tiny_model(seed=seed)
    model = BirdModel(model.proto, model.metadata.having(run={"run": run, "epoch": epoch}), "m")
    optimizer = build(Adam(), FlatWeights({"dense/bias": np.zeros(5, np.float32)}))
    optimizer.steps = 10 * epoch
    optimizer.state["gradient_sum"][...] = epoch + np.arange(5)
    return checkpoints.save(FOLDER, model, optimizer, 1.5, {"birdsonnx.seed": 3})


def test_what_is_saved_comes_back():
    path = save(2)
    model, state = checkpoints.newest(FOLDER)
    assert path == FOLDER / "model_checkpoint_2.onnx"
    assert model.serialized() == path.read_bytes()
    assert (state.epoch, state.run, state.steps, state.time_s) == (2, 1, 20, 1.5)
    assert state.settings == {"birdsonnx.seed": 3}
    np.testing.assert_array_equal(state.arrays["gradient_sum"], 2 + np.arange(5, dtype=np.float32))
    assert set(state.arrays) == {"gradient_sum", "square_sum"}


def test_the_newest_is_known_by_the_runs_own_record():
    paths = [save(6, run=1), save(2, run=2), save(4, run=1)]
    for age, path in enumerate(paths):
        os.utime(path, (1000 - age, 1000 - age))
    assert checkpoints.newest(FOLDER)[1].epoch == 2
    assert checkpoints.next_run(FOLDER) == 3
    assert checkpoints.next_run(Path("empty")) == 1


def cut_state(path):
    state = checkpoints.state_path(path)
    state.write_bytes(state.read_bytes()[:3])


def foreign_state(path):
    checkpoints.state_path(path).write_text("no state at all")


def state_without_facts(path):
    with checkpoints.state_path(path).open("wb") as file:
        np.savez(file, gradient_sum=np.zeros(5))


def pickled_state(path):
    with checkpoints.state_path(path).open("wb") as file:
        np.savez(file, facts=np.array([Bomb()], dtype=object))


class Bomb:
    def __reduce__(self):
        return (Path.touch, (Path("ran"),))


def no_state(path):
    checkpoints.state_path(path).unlink()


def cut_model(path):
    path.write_bytes(path.read_bytes()[:-10])


def model_of_another_epoch(path):
    path.write_bytes(checkpoints.model_path(FOLDER, 2).read_bytes())


def killed_between_the_files(path):
    """The model as it was, the state of the one that was to come."""
    before = path.read_bytes()
    save(4, seed=1)
    path.write_bytes(before)


DAMAGES = [
    cut_state,
    foreign_state,
    state_without_facts,
    pickled_state,
    no_state,
    cut_model,
    model_of_another_epoch,
    killed_between_the_files,
]


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__)
def test_a_pair_that_does_not_fit_together_is_passed_over(damage):
    save(2)
    damage(save(4))
    model, state = checkpoints.newest(FOLDER)
    assert state.epoch == 2
    assert model.metadata.run == {"run": 1, "epoch": 2}
    assert not Path("ran").exists(), "nothing of a pickle runs"


@pytest.fixture
def read(monkeypatch):
    """The files whose optimizer arrays, and those whose models, were read."""
    arrays, models = [], []
    get, read_bytes, sha256 = NpzFile.__getitem__, checkpoints.read_bytes, checkpoints.artifacts.sha256

    def getting(file, name):
        if name != "facts":
            arrays.append(Path(file.zip.filename).name)
        return get(file, name)

    def noted(reading):
        def reading_noted(path):
            models.append(path.name)
            return reading(path)

        return reading_noted

    monkeypatch.setattr(NpzFile, "__getitem__", getting)
    monkeypatch.setattr(checkpoints, "read_bytes", noted(read_bytes))
    monkeypatch.setattr(checkpoints.artifacts, "sha256", noted(sha256))
    return arrays, models


def test_of_older_checkpoints_only_the_facts_are_read(read):
    for epoch in (2, 4, 6, 8):
        save(epoch)
    assert checkpoints.newest(FOLDER)[1].epoch == 8
    arrays, models = read
    assert set(arrays) == {"model_checkpoint_8.state.npz"}
    assert models == ["model_checkpoint_8.onnx"]


def test_the_next_older_pair_is_read_where_the_newest_does_not_fit(read):
    for epoch in (2, 4, 6):
        save(epoch)
    cut_model(save(8))
    read[1].clear()
    assert checkpoints.newest(FOLDER)[1].epoch == 6
    arrays, models = read
    assert set(arrays) == {"model_checkpoint_6.state.npz"}
    assert models == ["model_checkpoint_8.onnx", "model_checkpoint_6.onnx"]


def damaged_array(path):
    """The list of members and the facts are good, the numbers are not."""
    state = checkpoints.state_path(path)
    content = state.read_bytes()
    place = content.index(np.arange(4, 9, dtype=np.float32).tobytes())
    state.write_bytes(content[:place] + bytes(20) + content[place + 20 :])


def test_a_state_with_damaged_numbers_is_passed_over():
    save(2)
    damaged_array(save(4))
    assert checkpoints.newest(FOLDER)[1].epoch == 2


def test_no_pair_at_all_is_refused():
    cut_state(save(2))
    with pytest.raises(TrainingError, match="no checkpoint to resume from"):
        checkpoints.newest(FOLDER)


def test_the_state_is_written_first(monkeypatch):
    """So that a kill between the two leaves no model without its state."""
    written = []
    replacing = checkpoints.artifacts.replacing

    def noted(path):
        written.append(path.name)
        return replacing(path)

    monkeypatch.setattr(checkpoints.artifacts, "replacing", noted)
    save(2)
    assert written == ["model_checkpoint_2.next.state.npz", "model_checkpoint_2.onnx"]


def test_saving_again_replaces_the_pair():
    save(2)
    save(2, run=2, seed=1)
    assert checkpoints.newest(FOLDER)[1].run == 2
    assert len(list(FOLDER.iterdir())) == 2


def test_the_best_is_a_model_by_itself_that_no_run_goes_on_from():
    save(2)
    model = tiny_model(seed=4)
    best = BirdModel(model.proto, model.metadata.having(run={"run": 1, "epoch": 9}), "m")
    path = checkpoints.save_best(FOLDER, best)
    assert path == FOLDER / "model_best.onnx"
    assert path.read_bytes() == best.serialized()
    assert checkpoints.newest(FOLDER)[1].epoch == 2
    assert checkpoints.next_run(FOLDER) == 2
    checkpoints.save_best(FOLDER, tiny_model(seed=5))
    assert path.read_bytes() == tiny_model(seed=5).serialized()
    assert len(list(FOLDER.iterdir())) == 3
