"""Training runs inside this process: stop and resume, and what may not change between."""

from pathlib import Path

import numpy as np
import pytest

from birdsonnx.config.optimizers import OptimizerSettings
from birdsonnx.errors import ConfigError, TrainingError
from birdsonnx.model.model_file import load
from birdsonnx.runtime.ranks import Ranks
from birdsonnx.training import boundary_choice, run
from birdsonnx.training.partition import Network
from tests.conftest import needs_training_runtime
from tests.runs import TRAINED, Audience, Stopped
from tests.tiny import residual_model

RANDOM = [{"jitter_crop": 0.3}, {"resize": [32, 32]}, {"random_horizontal_flip": 0.5}, {"random_rotate": 20}]
OPTIMIZERS = {
    "SGD": {"momentum": 0.9, "nesterov": True},
    "Adagrad": {"lr_decay": 0.1},
    "Adam": {"amsgrad": True},
    "AdamW": {"weight_decay": 0.05},
    "RMSprop": {"momentum": 0.5, "centered": True},
    "LARS": {"momentum": 0.9, "dampening": 0.1, "learning_rate": 1},
    "LAMB": {"weight_decay": 0.01},
}
SCHEDULES = {
    "Step": {"gamma": 0.5, "step_size": 2},
    "MultiStep": {"gamma": 0.5, "milestones": [2, 5]},
    "Warmup": {"num_epochs": 5, "start_factor": 0.1},
    "Cosine": {},
}


@pytest.fixture
def settings(fine_tuning):
    """Settings of a fine-tuning run of 6 epochs that saves every one."""
    return fine_tuning


def train(settings, resume=False, stop_in=None):
    audience = Audience(stop_in)
    outcome = run.train(settings, Ranks(), audience, resume)
    return outcome, audience


CASES = {
    **{kind: {"optimizer": {"type": kind, **options}} for kind, options in OPTIMIZERS.items()},
    **{
        kind: {"optimizer": {"type": "SGD", "lr_scheduler": {"type": kind, **options}}}
        for kind, options in SCHEDULES.items()
    },
    "augmentation": {"data": {"transforms": RANDOM}},
    "augmentation, preload": {"data": {"transforms": RANDOM, "preload": True}},
    "no cache": {"birdsonnx": {"cache": False}},
    "fp16": {"birdsonnx": {"feature_precision": "fp16"}},
    "int8": {"birdsonnx": {"feature_precision": "int8"}},
    "early stopping": {"birdsonnx": {"early_stopping": 4}},
    "clip_norm": {"birdsonnx": {"clip_norm": 0.5}},
    "class weights": {"loss": {"weight": [0.2, 1, 3]}},
    "label smoothing": {"birdsonnx": {"label_smoothing": 0.1}},
    "focal": {"loss": {"function": "Focal", "gamma": 1.5, "weight": [0.2, 1, 3]}},
}


def test_no_optimizer_is_forgotten():
    assert [kind.__name__ for kind in OptimizerSettings.__args__] == list(OPTIMIZERS)


@pytest.mark.parametrize("case", CASES)
def test_stop_and_resume_gives_the_bits_of_never_stopping(settings, case):
    """Stopped in the middle of the fourth of six epochs."""
    whole, _ = train(settings("whole", **CASES[case]))
    with pytest.raises(Stopped):
        train(settings("parts", **CASES[case]), stop_in=4)
    assert Path("parts/model_checkpoint_3.onnx").exists()
    assert not Path("parts/model_checkpoint_4.onnx").exists()
    rest, audience = train(settings("parts", **CASES[case]), resume=True)
    assert "resuming after epoch 3 from parts/model_checkpoint_3.onnx" in audience.lines
    assert audience.summary["epochs"] == "6, 3 done"
    assert [epoch.epoch for epoch in rest.epochs] == [4, 5, 6]
    assert rest.epochs == whole.epochs[3:]
    name = "model_checkpoint_6"
    assert Path("parts", f"{name}.onnx").read_bytes() == Path("whole", f"{name}.onnx").read_bytes()
    with np.load(f"parts/{name}.state.npz") as parts, np.load(f"whole/{name}.state.npz") as expected:
        assert parts.files == expected.files
        for array in set(parts.files) - {"facts"}:
            np.testing.assert_array_equal(parts[array], expected[array])


@pytest.mark.parametrize("case", sorted(set(CASES) - {"early stopping", "no cache", "augmentation, preload"}))
def test_every_setting_acts(settings, case):
    """Or the test above would say nothing of it."""
    optimizer = CASES[case].get("optimizer", {})
    plain = {"optimizer": {"type": "SGD" if "lr_scheduler" in optimizer else "Adam", "learning_rate": 0.01}}
    _, without = train(settings(None, num_epochs=3, **plain))
    _, audience = train(settings(None, num_epochs=3, **{**plain, **CASES[case]}))
    assert audience.losses != without.losses


OTHERS = {
    "data.input_path": {"data": {"input_path": "data/valid/"}},
    "data.batch_size": {"data": {"batch_size": 6}},
    "data.transforms": {"data": {"transforms": RANDOM}},
    "optimizer": {"optimizer": {"type": "AdamW"}},
    "loss": {"loss": {"weight": [1, 2, 1]}},
    "birdsonnx.seed": {"birdsonnx": {"seed": 1}},
    "birdsonnx.label_smoothing": {"birdsonnx": {"label_smoothing": 0.1}},
    "birdsonnx.clip_norm": {"birdsonnx": {"clip_norm": 3}},
    "birdsonnx.feature_precision": {"birdsonnx": {"feature_precision": "fp16"}},
    "birdsonnx.exchange_precision": {"birdsonnx": {"exchange_precision": "bf16"}},
    "birdsonnx.trainable": {"birdsonnx": {"trainable": ["last"] if TRAINED == ["dense"] else ["dense"]}},
}


@pytest.mark.parametrize("key", OTHERS)
def test_another_setting_is_another_run(settings, key):
    train(settings(num_epochs=2))
    with pytest.raises(
        TrainingError, match=f"its run had {key} .*; resume with the same, or start"
    ) as refusal:
        train(settings(**OTHERS[key]), resume=True)
    assert "\n" not in str(refusal.value)
    assert len(list(Path("saved").glob("*.onnx"))) == 2, "nothing was trained"


def test_a_cosine_needs_the_same_number_of_epochs(settings):
    cosine = {"optimizer": {"lr_scheduler": {"type": "Cosine"}}}
    train(settings(num_epochs=2, **cosine))
    with pytest.raises(TrainingError, match="its run had num_epochs 2, the config has 6"):
        train(settings(**cosine), resume=True)


def cheapest_is(monkeypatch, place):
    """Let measuring find this one of the network's boundaries."""
    monkeypatch.setattr(
        boundary_choice.boundaries, "cheapest", lambda network, *_: network.boundaries()[place]
    )


@needs_training_runtime
def test_a_resumed_run_is_divided_where_it_was(settings, monkeypatch):
    """Another place would give other roundings, and which one is cheapest depends on the moment's timing."""
    _, first = train(settings(num_epochs=2))
    assert first.summary["features"].startswith("block_a, stem:")
    cheapest_is(monkeypatch, 1)
    _, second = train(settings(), resume=True)
    assert second.summary["features"] == first.summary["features"]
    _, elsewhere = train(settings("elsewhere", birdsonnx={"cache": "another"}))
    assert elsewhere.summary["features"].startswith("stem:")


def test_wherever_the_network_is_divided_the_curve_is_the_same(settings, monkeypatch):
    network = Network(residual_model(), TRAINED)
    places = range(len(network.boundaries()))
    assert len(places) > 3
    losses = []
    for place in places:
        cheapest_is(monkeypatch, place)
        optimizer = {"type": "SGD", "learning_rate": 0.01}
        _, audience = train(settings(num_epochs=2, optimizer=optimizer, birdsonnx={"cache": f"at {place}"}))
        assert audience.facts.choice.boundary == network.boundaries()[place]
        losses.append(audience.losses)
    for other in losses[1:]:
        np.testing.assert_allclose(other, losses[0], rtol=1e-4)  # sums of float32 in another order


def test_frozen_layers_keep_their_bits(settings):
    outcome, _ = train(settings(num_epochs=2))
    before, after = (
        {tensor.name: tensor.raw_data for tensor in load(path).proto.graph.initializer}
        for path in (Path("model.onnx"), outcome.checkpoints[-1])
    )
    changed = {name for name in before if before[name] != after[name]}
    assert changed == {f"{layer}/{role}" for layer in TRAINED for role in ("kernel", "bias")}
    assert load(outcome.checkpoints[-1]).metadata.trainable == tuple(TRAINED)


def test_class_weights_of_the_wrong_number_are_refused(settings):
    with pytest.raises(ConfigError, match=r"loss\.weight: 2 numbers for 3 classes; give one for each"):
        train(settings(loss={"weight": [1, 2]}))
    assert not Path("saved").exists()
