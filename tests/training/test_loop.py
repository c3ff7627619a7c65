"""The loop against a plain one: order, batches, losses, steps."""

import json
from itertools import chain

import numpy as np
import pytest

from birdsonnx.config import parse
from birdsonnx.errors import TrainingError
from birdsonnx.network.head import split
from birdsonnx.runtime.ranks import Ranks
from birdsonnx.training.gradients import HeadGradients
from birdsonnx.training.loop import Dataset, Training
from birdsonnx.training.optimizers import build
from birdsonnx.training.parameters import FlatWeights
from tests.tiny import FEATURES, tiny_model


class Rows:
    """A table that notes what was asked for."""

    def __init__(self, values):
        self.values, self.asked = values, []

    def rows(self, indices):
        self.asked.append(indices.tolist())
        return self.values[indices]


class Listener:
    def __init__(self):
        self.batches, self.epochs = [], []

    def on_batch(self, batch):
        self.batches.append(batch)

    def on_epoch(self, epoch):
        self.epochs.append(epoch)


class OneOf(Ranks):
    """A rank that notes what is summed, and gets nothing from the others."""

    def __init__(self, rank, size):
        self.rank, self.size, self.summed = rank, size, []

    def add_up(self, values):
        self.summed.append(values.copy())


def dataset(count, seed):
    generator = np.random.default_rng(seed)
    values = generator.normal(size=(count, FEATURES)).astype(np.float32)
    return Dataset(Rows(values), generator.integers(0, 3, count))


def training(train, test=None, ranks=None, listener=None, **options):
    network = {"num_epochs": 2, "data": {"batch_size": 8, "test_batch_size": 3}, **options}
    settings = parse(json.dumps({"neural_network": network}), "c")
    parts = split(tiny_model(), ["dense"])
    weights = FlatWeights(parts.weights)
    weights.set(parts.weights)
    return Training(
        settings,
        ranks or Ranks(),
        HeadGradients(parts.head, parts.weights, 1),
        weights,
        build(settings.optimizer, weights.flat.size),
        train,
        test,
        listener or Listener(),
        lambda epoch: None,
    )


def plain_loop(train, test, epochs, rate, seed=0):
    """float64: the order is NumPy's permutation of (seed, epoch)."""
    initial = split(tiny_model(), ["dense"]).weights
    kernel, bias = (initial[f"dense/{role}"].astype(np.float64) for role in ("kernel", "bias"))
    losses, evaluations = [], []

    def log_probs(x):
        scores = x.astype(np.float64) @ kernel + bias
        return scores - np.log(np.exp(scores).sum(axis=1, keepdims=True))

    for epoch in range(1, epochs + 1):
        order = np.random.default_rng([seed, epoch]).permutation(len(train))
        for start in range(0, len(order), 8):
            batch = order[start : start + 8]
            x, y = train.features.values[batch], train.labels[batch]
            found = log_probs(x)
            losses.append(-found[np.arange(len(y)), y].mean())
            error = np.exp(found)
            error[np.arange(len(y)), y] -= 1
            kernel -= rate * x.T.astype(np.float64) @ error / len(y)
            bias -= rate * error.mean(axis=0)
        found = log_probs(test.features.values)
        accuracy = (found.argmax(axis=1) == test.labels).mean()
        evaluations.append((-found[np.arange(len(test)), test.labels].mean(), accuracy))
    return losses, evaluations, kernel


def test_it_is_a_plain_training_loop():
    train, test, listener = dataset(21, 1), dataset(10, 2), Listener()
    run = training(train, test, listener=listener, optimizer={"type": "SGD", "learning_rate": 0.1})
    run.run(1)
    losses, evaluations, kernel = plain_loop(train, test, 2, 0.1)
    assert [batch.count for batch in listener.batches] == [3] * 6
    np.testing.assert_allclose([batch.loss for batch in listener.batches], losses, rtol=1e-5)
    np.testing.assert_allclose(run.weights.named["dense/kernel"], kernel, rtol=1e-4, atol=1e-6)
    for epoch, (loss, accuracy) in zip(listener.epochs, evaluations, strict=True):
        assert epoch.test_loss == pytest.approx(loss, rel=1e-5)
        assert epoch.test_accuracy == accuracy
    # The epoch's loss is over photos, not over batches: the last batch has 5.
    sizes = np.array([8, 8, 5])
    expected = (np.array([batch.loss for batch in listener.batches[:3]]) * sizes).sum() / 21
    assert listener.epochs[0].train_loss == pytest.approx(expected, rel=1e-6)


def order(rank=0, of=1, first_epoch=1, **options):
    """What a rank reads, per batch."""
    train = dataset(21, 1)
    training(train, ranks=OneOf(rank, of), **options).run(first_epoch)
    return train.features.asked


def test_every_epoch_sees_every_photo_once_in_another_order():
    batches = order(num_epochs=3)
    assert [len(batch) for batch in batches] == [8, 8, 5] * 3
    epochs = [list(chain(*batches[start : start + 3])) for start in (0, 3, 6)]
    assert all(sorted(epoch) == list(range(21)) for epoch in epochs)
    assert epochs[0] != epochs[1] != epochs[2] != epochs[0]


def test_the_order_depends_on_the_seed_and_the_epoch_alone():
    whole = order(num_epochs=3)
    assert order(num_epochs=3) == whole
    assert order(num_epochs=3, birdsonnx={"seed": 1}) != whole
    assert order(num_epochs=3, first_epoch=2) == whole[3:]


@pytest.mark.parametrize("size", [2, 3, 5, 9])
def test_the_order_does_not_depend_on_the_rank_count(size):
    shares = zip(*(order(rank, size) for rank in range(size)), strict=True)
    assert [list(chain(*share)) for share in shares] == order()


@pytest.mark.parametrize("size", [2, 3, 5])
def test_the_ranks_parts_are_the_whole_batch(size):
    train = dataset(21, 1)

    def first_step(rank, of):
        ranks = OneOf(rank, of)
        training(train, ranks=ranks, num_epochs=1).run(1)
        return ranks.summed[0]

    whole = first_step(0, 1)
    parts = sum(first_step(rank, size) for rank in range(size))
    np.testing.assert_allclose(parts, whole, rtol=1e-5, atol=1e-5)


def test_the_loss_is_the_mean_negative_log_likelihood():
    """Before the first step, of the weights that the network came with."""
    train, listener = dataset(21, 1), Listener()
    training(train, listener=listener, num_epochs=1, data={"batch_size": 64}).run(1)
    weights = split(tiny_model(), ["dense"]).weights
    scores = train.features.values.astype(np.float64) @ weights["dense/kernel"] + weights["dense/bias"]
    chosen = scores[np.arange(21), train.labels]
    [batch] = listener.batches
    assert batch.loss == pytest.approx((np.log(np.exp(scores).sum(axis=1)) - chosen).mean(), rel=1e-6)


def test_the_gradient_norm_is_that_of_the_mean():
    train, ranks, listener = dataset(21, 1), OneOf(0, 1), Listener()
    training(train, ranks=ranks, listener=listener, num_epochs=1).run(1)
    for summed, batch, size in zip(ranks.summed, listener.batches, [8, 8, 5], strict=True):
        assert batch.gradient_norm == pytest.approx(np.linalg.norm(summed[:-1] / size), rel=1e-5)


def test_each_epoch_has_the_rate_of_its_schedule():
    schedule = {"type": "Step", "gamma": 0.5, "step_size": 2}
    options = {"type": "SGD", "learning_rate": 0.4, "lr_scheduler": schedule}
    listener = Listener()
    training(dataset(9, 1), listener=listener, num_epochs=4, optimizer=options).run(1)
    assert [epoch.learning_rate for epoch in listener.epochs] == [0.4, 0.4, 0.2, 0.2]
    assert all(epoch.test_loss is None for epoch in listener.epochs)


def test_the_test_photos_are_read_in_order_and_in_small_batches():
    test = dataset(10, 2)
    kept = []
    run = training(dataset(9, 1), test, num_epochs=1)
    run.keep_predictions = lambda epoch, pieces: kept.append((epoch, list(pieces)))
    run.run(1)
    assert test.features.asked == [[0, 1, 2], [3, 4, 5], [6, 7, 8], [9]]
    [(epoch, pieces)] = kept
    assert epoch == 1
    found = np.concatenate([log_probs for _, log_probs in pieces])
    assert [row for rows, _ in pieces for row in rows] == list(range(10))
    weights = run.weights.named
    scores = test.features.values.astype(np.float64) @ weights["dense/kernel"] + weights["dense/bias"]
    expected = scores - np.log(np.exp(scores).sum(axis=1, keepdims=True))
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("value", [np.inf, np.nan])
def test_a_loss_that_is_not_finite_stops_it(value):
    train, listener = dataset(16, 1), Listener()
    train.features.values[3] = value
    run = training(train, listener=listener)
    with pytest.raises(TrainingError, match=r"epoch 1, batch [12]: .*learning_rate") as refusal:
        run.run(1)
    assert refusal.value.agreed, "every rank has the same sums"
    assert listener.epochs == []
    assert np.isfinite(run.weights.flat).all()
