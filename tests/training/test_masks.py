"""Dropout in training: which values, how often, and the gradients under them."""

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from birdsonnx.config.reading import parse
from birdsonnx.model import model_file
from birdsonnx.model.metadata import Dropout
from birdsonnx.model.model_file import BirdModel
from birdsonnx.passes.dropout import mask_of, masked
from birdsonnx.runtime.ranks import Ranks
from birdsonnx.training import run
from birdsonnx.training.gradients import Gradients
from birdsonnx.training.losses import TARGETS, Loss
from birdsonnx.training.masks import Masks
from birdsonnx.training.parameters import FlatWeights
from birdsonnx.training.partition import Network
from tests.conftest import needs_training_runtime
from tests.runs import TRAINED, Audience, Stopped
from tests.tiny import residual_model
from tests.training.test_gradients import in_float64, named

CLASSES = 3
LOSS = Loss(np.ones(CLASSES, np.float32), 0, 0)
BLOCK, HEAD = "block_drop/Dropout", "head_drop/Dropout"


def dropped(maps: float = 0.3, head: float = 0.5) -> BirdModel:
    """The residual network that drops whole maps before block_b, and values before its head; with a
    rate of 0 there is no such node."""
    model = residual_model(CLASSES)
    graph = model.proto.graph
    dropouts = []
    for name, rate, shape, reader in (
        (BLOCK, maps, (16, 1, 1), "block_b/Conv"),
        (HEAD, head, (32,), "dense/Gemm"),
    ):
        if not rate:
            continue
        at = next(index for index, node in enumerate(graph.node) if node.name == reader)
        source = graph.node[at].input[0]
        graph.initializer.append(numpy_helper.from_array(np.array(rate, np.float32), f"{name}/ratio"))
        graph.node.insert(at, helper.make_node("Dropout", [source, f"{name}/ratio"], [f"{name}:0"], name))
        graph.node[at + 1].input[0] = f"{name}:0"
        dropouts.append(Dropout(name, rate, shape))
    return BirdModel(model.proto, model.metadata.having(dropout=tuple(dropouts)), "dropped")


# --- Masks ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rate", [0.1, 0.5, 0.9])
def test_a_mask_keeps_the_mean(rate):
    [mask] = Masks([Dropout("d", rate, (100, 10))], seed=1).of(range(20), epoch=1).values()
    assert mask.shape == (20, 100, 10)
    assert mask.dtype == np.float32
    assert set(np.unique(mask)) == {0, np.float32(1) / np.float32(1 - rate)}
    share = (mask == 0).mean()
    assert share == pytest.approx(rate, abs=4 * np.sqrt(rate * (1 - rate) / mask.size))
    assert mask.mean() == pytest.approx(1, abs=0.15)


def test_a_rate_of_1_drops_everything():
    [mask] = Masks([Dropout("d", 1, (5,))], seed=1).of([0], epoch=1).values()
    assert not mask.any()


def test_a_mask_follows_from_seed_epoch_photo_and_layer_alone():
    dropouts = [Dropout("a/Dropout", 0.5, (40,)), Dropout("b/Dropout", 0.5, (40,))]
    masks = Masks(dropouts, seed=3).of(range(8), epoch=2)
    first, second = (masks[mask_of(each)] for each in dropouts)
    for alone in (Masks(dropouts[1:], 3), Masks(dropouts[::-1], 3)):
        for photos in ([5, 2], [2], [7, 5, 2]):
            np.testing.assert_array_equal(alone.of(photos, 2)["b/Dropout/mask"], second[photos])
    assert not np.array_equal(first, second)
    assert len(np.unique(first, axis=0)) == 8
    for other in (Masks(dropouts, 4).of(range(8), 2), Masks(dropouts, 3).of(range(8), 3)):
        assert not np.array_equal(other["a/Dropout/mask"], first)


CONVOLUTIONS = [
    pytest.param(trained, marks=needs_training_runtime)
    for trained in (["block_b", "last", "dense"], ["stem", "block_a", "dense"])
]


# --- Gradients ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("block", [True, False], ids=["blocked", "plain"])
@pytest.mark.parametrize("trained", [["dense"], *CONVOLUTIONS])
def test_gradients_under_a_mask_against_finite_differences(trained, block, monkeypatch):
    if not block:
        monkeypatch.setattr("birdsonnx.passes.blocked.block_size", lambda: 1)
    network = Network(dropped(), trained)
    part = network.divide(network.boundaries()[0])
    assert part.dropouts
    weights = FlatWeights(part.weights)
    weights.set(part.weights)
    generator = np.random.default_rng(0)
    if part.row_type == np.uint8:
        rows = generator.integers(0, 256, (3, *part.row_shape), np.uint8)
    else:
        rows = generator.random((3, *part.row_shape), np.float32)
    targets = LOSS.targets(np.array([0, 2, 1]))
    masks = Masks(part.dropouts, seed=5).of(range(3), epoch=1)
    feeds = {part.source: rows, TARGETS: targets, **masks}

    def load(photos):
        return {name: value[list(photos)] for name, value in feeds.items()}

    total = Gradients(part, LOSS, weights, 2).sum_over(range(3), load).total
    model = in_float64(masked(part.trainable, part.dropouts))
    for tensor in [tensor for tensor in model.graph.initializer if tensor.name in weights.named]:
        model.graph.initializer.remove(tensor)
        model.graph.input.append(
            helper.make_tensor_value_info(tensor.name, onnx.TensorProto.DOUBLE, tensor.dims)
        )
    evaluator = ReferenceEvaluator(model)
    wide = {name: value.astype(np.float64) for name, value in weights.named.items()}
    fixed = {name: value for name, value in feeds.items() if name != TARGETS}
    fixed = {
        name: value if value.dtype == np.uint8 else value.astype(np.float64) for name, value in fixed.items()
    }

    def loss_of(values):
        return -float((targets * evaluator.run(None, {**fixed, **values})[0]).sum())

    assert total[-1] == pytest.approx(loss_of(wide), rel=1e-5)
    for name, gradient in named(weights, total).items():
        direction = generator.normal(size=gradient.shape)
        step = 1e-6
        above, below = (loss_of({**wide, name: wide[name] + sign * step * direction}) for sign in (1, -1))
        expected = (above - below) / (2 * step)
        assert (gradient * direction).sum() == pytest.approx(expected, rel=1e-3, abs=1e-4), name


def test_what_is_dropped_gets_no_gradient():
    network = Network(dropped(), ["dense"])
    part = network.divide(network.boundaries()[0])
    weights = FlatWeights(part.weights)
    weights.set(part.weights)
    mask = np.ones((1, 32), np.float32)
    mask[0, 10:20] = 0

    def load(photos):
        rows = np.ones((len(photos), *part.row_shape), np.float32)
        return {
            part.source: rows,
            TARGETS: LOSS.targets(np.zeros(1, np.int64)),
            mask_of(part.dropouts[0]): mask,
        }

    total = Gradients(part, LOSS, weights, 1).sum_over([0], load).total
    kernel = named(weights, total)["dense/kernel"]
    assert not kernel[10:20].any()
    assert kernel[:10].all()
    assert kernel[20:].all()


# --- Runs -----------------------------------------------------------------------------------------------


@pytest.fixture
def train(workspace, training_config):
    """Trains a model and gives what the run said."""

    def run_it(model=None, resume=False, stop_in=None, save="saved", **own):
        if model is not None:
            model.save(Path("model.onnx"))
        network = training_config(num_epochs=4)["neural_network"]
        network["checkpoints"] = {"load": "model.onnx", "save": save}
        network["birdsonnx"] = {
            "trainable": TRAINED,
            "cache": "kept",
            "threads": 2,
            **own,
        }
        audience = Audience(stop_in)
        settings = parse(json.dumps({"neural_network": network}), "config.json")
        outcome = run.train(settings, Ranks(), audience, resume)
        return outcome, audience

    return run_it


@needs_training_runtime
def test_dropout_changes_training_and_not_evaluation(train):
    _, without = train(dropped(0, 0))
    outcome, audience = train(dropped())
    assert audience.losses[0] != without.losses[0], "the first step of all, from the same weights"
    assert audience.summary["dropout"] == "block_drop 0.3, head_drop 0.5"
    assert "dropout" not in without.summary
    again, other = train(dropped(), seed=0)
    assert (again.epochs, other.losses) == (outcome.epochs, audience.losses)
    _, other = train(dropped(), cache=False)
    np.testing.assert_allclose(other.losses, audience.losses, rtol=1e-4)


def test_a_rate_that_drops_almost_nothing_is_training_without(train):
    _, without = train(dropped(0, 0))
    _, audience = train(dropped(1e-9, 1e-9))
    np.testing.assert_allclose(audience.losses, without.losses, rtol=1e-4)


def test_stop_and_resume_gives_the_bits_of_never_stopping(train):
    whole, _ = train(dropped(), save="whole")
    with pytest.raises(Stopped):
        train(save="parts", stop_in=3)
    rest, _ = train(save="parts", resume=True)
    assert rest.epochs == whole.epochs[2:]
    name = "model_checkpoint_4.onnx"
    assert Path("parts", name).read_bytes() == Path("whole", name).read_bytes()


def test_threads_change_nothing(train):
    _, one = train(dropped(), threads=1)
    _, three = train(dropped(), threads=3)
    np.testing.assert_allclose(three.losses, one.losses, rtol=1e-4)


def test_a_head_is_trained_on_features_from_before_its_dropout(train):
    _, audience = train(dropped(), trainable=["dense"])
    assert audience.summary["features"].startswith("flat: 128 bytes per photo")
    assert audience.summary["dropout"] == ("head_drop 0.5; 1 before frozen layers, where nothing is dropped")
    _, without = train(dropped(0.3, 0), trainable=["dense"])
    assert without.summary["dropout"] == "none; 1 before frozen layers, where nothing is dropped"
    assert without.losses[0] != audience.losses[0]
    _, recomputed = train(dropped(), trainable=["dense"], cache=False)
    np.testing.assert_allclose(recomputed.losses, audience.losses, rtol=1e-4)
    _, half = train(dropped(), trainable=["dense"], feature_precision="fp16")
    np.testing.assert_allclose(half.losses, audience.losses, rtol=1e-2)
    assert half.losses != audience.losses


def test_a_checkpoint_keeps_its_dropout(train):
    outcome, first = train(dropped())
    checkpoint = model_file.load(outcome.checkpoints[-1])
    assert checkpoint.metadata.dropout == dropped().metadata.dropout
    _, second = train(checkpoint)
    assert second.summary["dropout"] == first.summary["dropout"]
