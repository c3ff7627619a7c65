"""The config that a training without one gets: a pure function of folders, a number of photos and options."""

import json
from pathlib import Path

import pytest

from birdsonnx.config.optimizers import Adam
from birdsonnx.config.proposed import (
    FEWEST_EPOCHS,
    MOST_EPOCHS,
    Choices,
    Places,
    Sets,
    epochs_for,
    gamma_for,
    proposed,
    reason,
    text_of,
)
from birdsonnx.config.reading import parse

SETS = Sets(Path("data/train"), Path("data/valid"))
PLACES = Places(Path("net.onnx"), Path("run/out.txt"), Path("run/checkpoints"))


def settings(sets=SETS, photos=240, **choices):
    return parse(text_of(proposed(sets, photos, Choices(**choices), PLACES)), "proposed")


def test_what_nobody_chose_follows_from_the_folders_and_the_rule():
    found = settings()
    assert (found.data.input_path, found.data.test_input_path) == ("data/train", "data/valid")
    assert (found.checkpoints.load, found.checkpoints.save) == ("net.onnx", "run/checkpoints")
    assert found.outfile == "run/out.txt"
    assert found.num_epochs == 30
    assert isinstance(found.optimizer, Adam)
    assert found.birdsonnx.trainable is None


def test_every_choice_is_in_it():
    found = settings(
        epochs=5, batch_size=7, learning_rate=0.5, trainable=("conv*", "dense"), feature_precision="fp16"
    )
    assert (found.num_epochs, found.data.batch_size, found.optimizer.learning_rate) == (5, 7, 0.5)
    assert found.birdsonnx.trainable == ("conv*", "dense")
    assert found.birdsonnx.feature_precision == "fp16"


def test_tags_come_instead_of_a_second_folder():
    found = settings(Sets(Path("photos"), training_tag="Train", test_tag="val"))
    assert (found.data.training_tag, found.data.test_tag, found.data.test_input_path) == (
        "Train",
        "val",
        None,
    )
    assert found.data.test_folder == "photos"


def test_fewer_photos_are_shown_more_often():
    counts = [20, 60, 240, 900, 1798, 60_000]
    epochs = [epochs_for(count) for count in counts]
    assert epochs == sorted(epochs, reverse=True)
    assert epochs[0] == MOST_EPOCHS
    assert epochs[-1] == FEWEST_EPOCHS
    assert epochs_for(240) == 30


@pytest.mark.parametrize("epochs", [6, 30, 60])
def test_the_rate_ends_at_a_fiftieth_after_any_number_of_epochs(epochs):
    assert gamma_for(epochs) ** epochs == pytest.approx(0.02, rel=0.05)


def test_layers_that_were_trained_before_learn_more_slowly():
    assert settings(trainable=("*",)).optimizer.learning_rate < settings().optimizer.learning_rate / 5


def test_few_checkpoints_are_kept_and_the_last_is_one():
    for photos in (20, 240, 60_000):
        found = settings(photos=photos)
        assert 1 < found.num_epochs / found.checkpoints.interval <= 3


def test_the_text_is_json_of_short_lines_that_says_the_same():
    long = Sets(Path("photos of the garden/spring/train"), Path("photos of the garden/spring/valid"))
    config = proposed(long, 240, Choices(), PLACES)
    assert json.loads(text_of(config)) == config
    assert max(map(len, text_of(config).splitlines())) <= 110


def test_the_reason_tells_the_rule_from_a_choice():
    chosen = Choices(epochs=5)
    assert reason(240, proposed(SETS, 240, chosen, PLACES), chosen).startswith("5 epochs as --epochs says")
    ruled = reason(240, proposed(SETS, 240, Choices(), PLACES), Choices())
    assert ruled.startswith("30 epochs for 240 photos")
    assert ruled.endswith("learning rate x 0.878 after each")
