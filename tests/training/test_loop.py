"""The loop against a plain one: order, batches, losses, steps, and when it ends."""

import contextlib
import json
from itertools import chain

import numpy as np
import pytest

from birdsonnx.config.reading import parse
from birdsonnx.errors import TrainingError
from birdsonnx.runtime.ranks import Ranks
from birdsonnx.training.epochs import Epoch, best_epoch, stops_early
from birdsonnx.training.features import Dataset
from birdsonnx.training.gradients import Gradients
from birdsonnx.training.learner import Learner
from birdsonnx.training.loop import Training, clip
from birdsonnx.training.losses import Loss
from birdsonnx.training.optimizers import build
from birdsonnx.training.parameters import FlatWeights
from birdsonnx.training.partition import Network
from tests.tiny import FEATURES, tiny_model


class Rows:
    """A table that notes what was asked for."""

    def __init__(self, values):
        self.values, self.asked, self.epochs = values, [], []

    def rows(self, photos, epoch):
        self.asked.append(list(photos))
        self.epochs.append(epoch)
        return self.values[list(photos)]


class Listener:
    def __init__(self):
        self.batches, self.epochs = [], []

    def say(self, line):
        raise AssertionError(line)

    def progress(self, title, total=None, /):
        assert (title, total > 0) == ("test photos", True)
        return contextlib.nullcontext(lambda count: None)

    def on_batch(self, batch):
        self.batches.append(batch)

    def on_epoch(self, epoch):
        self.epochs.append(epoch)


class Keeper:
    """Notes what it is to keep."""

    def __init__(self, keeps_predictions=False):
        self.keeps_predictions = keeps_predictions
        self.epochs, self.predictions = [], []

    def keep_epoch(self, epoch, last):
        self.epochs.append((epoch.epoch, last))

    def keep_predictions(self, epoch, predictions):
        self.predictions.append((epoch, list(predictions)))


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


def head():
    """The tiny network, divided before its dense layer."""
    network = Network(tiny_model(), ["dense"])
    return network.divide(network.frontier)


def training(train, test=None, ranks=None, listener=None, keeper=None, threads=1, **options):
    network = {"num_epochs": 2, "data": {"batch_size": 8, "test_batch_size": 3}, **options}
    settings = parse(json.dumps({"neural_network": network}), "c")
    part, loss = head(), Loss.of(settings, np.ones(3, np.int64))
    weights = FlatWeights(part.weights)
    weights.set(part.weights)
    gradients = Gradients(part, loss, weights, threads)
    return Training(
        settings=settings,
        ranks=ranks or Ranks(),
        threads=threads,
        learner=Learner(part, weights, loss, gradients, build(settings.optimizer, weights, threads)),
        train=train,
        test=test,
        listener=listener or Listener(),
        keeper=keeper or Keeper(),
    )


def plain_loop(train, test, epochs, rate, seed=0, weight=(1, 1, 1), largest=None):
    """float64: the order is NumPy's permutation of (seed, epoch). Means are PyTorch's
    (`CrossEntropyLoss(weight)`), and so is clipping (`clip_grad_norm_`)."""
    initial = head().weights
    weight = np.array(weight, np.float64)
    kernel, bias = (initial[f"dense/{role}"].astype(np.float64) for role in ("kernel", "bias"))
    losses, evaluations = [], []

    def log_probs(x):
        scores = x.astype(np.float64) @ kernel + bias
        return scores - np.log(np.exp(scores).sum(axis=1, keepdims=True))

    def mean(found, y):
        return -(weight[y] * found[np.arange(len(y)), y]).sum() / weight[y].sum()

    for epoch in range(1, epochs + 1):
        order = np.random.default_rng([seed, epoch]).permutation(len(train))
        for start in range(0, len(order), 8):
            batch = order[start : start + 8]
            x, y = train.features.values[batch], train.labels[batch]
            found = log_probs(x)
            losses.append(mean(found, y))
            error = np.exp(found)
            error[np.arange(len(y)), y] -= 1
            error *= (weight[y] / weight[y].sum())[:, None]
            steps = [x.T.astype(np.float64) @ error, error.sum(axis=0)]
            norm = np.sqrt(sum((step**2).sum() for step in steps))
            scale = 1 if largest is None else min(1, largest / (norm + 1e-6))
            kernel -= rate * scale * steps[0]
            bias -= rate * scale * steps[1]
        found = log_probs(test.features.values)
        accuracy = (found.argmax(axis=1) == test.labels).mean()
        evaluations.append((mean(found, test.labels), accuracy))
    return losses, evaluations, kernel


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize(
    ("weight", "largest"), [(None, None), ((0.2, 3, 1), None), (None, 1.5), ((0.2, 3, 1), 1.5)]
)
def test_it_is_a_plain_training_loop(weight, largest, threads):
    train, test, listener = dataset(21, 1), dataset(10, 2), Listener()
    run = training(
        train,
        test,
        listener=listener,
        threads=threads,
        optimizer={"type": "SGD", "learning_rate": 0.1},
        loss={"function": "NLL", "weight": weight},
        birdsonnx={"clip_norm": largest},
    )
    run.run([])
    weight = weight or (1, 1, 1)
    losses, evaluations, kernel = plain_loop(train, test, 2, 0.1, weight=weight, largest=largest)
    assert [batch.count for batch in listener.batches] == [3] * 6
    np.testing.assert_allclose([batch.loss for batch in listener.batches], losses, rtol=1e-5)
    np.testing.assert_allclose(run.learner.weights.named["dense/kernel"], kernel, rtol=1e-4, atol=1e-6)
    for epoch, (loss, accuracy) in zip(listener.epochs, evaluations, strict=True):
        assert epoch.test_loss == pytest.approx(loss, rel=1e-5)
        assert epoch.test_accuracy == accuracy
    if largest is not None:
        norms = [batch.gradient_norm for batch in listener.batches]
        assert min(norms) < largest < max(norms), "the logged norm is that before clipping, some are clipped"


def test_the_epochs_loss_is_over_photos_not_over_batches():
    """PyTorch's weighted mean of all of them: the last batch has 5, and batches differ in their classes."""
    weight = np.array([0.2, 3, 1])
    train, listener = dataset(21, 1), Listener()
    training(train, listener=listener, num_epochs=1, loss={"function": "NLL", "weight": weight.tolist()}).run(
        []
    )
    order = np.random.default_rng([0, 1]).permutation(21)
    sizes = [weight[train.labels[order[start : start + 8]]].sum() for start in (0, 8, 16)]
    losses = [batch.loss for batch in listener.batches]
    assert listener.epochs[0].train_loss == pytest.approx(np.dot(losses, sizes) / sum(sizes), rel=1e-6)


def test_a_batch_of_nothing_but_classes_without_weight_changes_nothing():
    train, listener = dataset(9, 1), Listener()
    train.labels[:] = 1
    run = training(train, train, listener=listener, loss={"function": "NLL", "weight": [1, 0, 1]})
    before = run.learner.weights.flat.copy()
    run.run([])
    np.testing.assert_array_equal(run.learner.weights.flat, before)
    assert [batch.loss for batch in listener.batches] == [0] * 4
    assert [(epoch.train_loss, epoch.test_loss) for epoch in listener.epochs] == [(0, 0)] * 2


def order(rank=0, of=1, history=(), **options):
    """The photos of a rank, per batch: all that it is given and reads, or none."""
    train = dataset(21, 1)
    run = training(train, ranks=OneOf(rank, of), **options)
    given, sum_over = [], run.learner.gradients.sum_over

    def noted(photos, load):
        given.append(list(photos))
        return sum_over(photos, load)

    run.learner.gradients.sum_over = noted
    run.run(history)
    assert train.features.asked == [batch for batch in given if batch]
    return given


def epochs(*test_losses):
    return [Epoch(number, 0.1, 1.0, loss, 0.5) for number, loss in enumerate(test_losses, 1)]


def test_every_epoch_sees_every_photo_once_in_another_order():
    batches = order(num_epochs=3)
    assert [len(batch) for batch in batches] == [8, 8, 5] * 3
    orders = [list(chain(*batches[start : start + 3])) for start in (0, 3, 6)]
    assert all(sorted(each) == list(range(21)) for each in orders)
    assert orders[0] != orders[1] != orders[2] != orders[0]


def test_the_order_depends_on_the_seed_and_the_epoch_alone():
    whole = order(num_epochs=3)
    assert order(num_epochs=3) == whole
    assert order(num_epochs=3, birdsonnx={"seed": 1}) != whole
    assert order(num_epochs=3, history=epochs(None)) == whole[3:]


@pytest.mark.parametrize("size", [2, 3, 5, 9])
def test_the_order_does_not_depend_on_the_rank_count(size):
    shares = zip(*(order(rank, size) for rank in range(size)), strict=True)
    assert [list(chain(*share)) for share in shares] == order()


@pytest.mark.parametrize("size", [2, 3, 5])
def test_the_ranks_parts_are_the_whole_batch(size):
    train = dataset(21, 1)

    def first_step(rank, of):
        ranks = OneOf(rank, of)
        training(train, ranks=ranks, num_epochs=1).run([])
        return ranks.summed[0]

    whole = first_step(0, 1)
    parts = sum(first_step(rank, size) for rank in range(size))
    np.testing.assert_allclose(parts, whole, rtol=1e-5, atol=1e-5)


def test_the_loss_is_the_mean_negative_log_likelihood():
    """Before the first step, of the weights that the network came with."""
    train, listener = dataset(21, 1), Listener()
    training(train, listener=listener, num_epochs=1, data={"batch_size": 64}).run([])
    weights = head().weights
    scores = train.features.values.astype(np.float64) @ weights["dense/kernel"] + weights["dense/bias"]
    chosen = scores[np.arange(21), train.labels]
    [batch] = listener.batches
    assert batch.loss == pytest.approx((np.log(np.exp(scores).sum(axis=1)) - chosen).mean(), rel=1e-6)


def test_the_gradient_norm_is_that_of_the_mean():
    train, ranks, listener = dataset(21, 1), OneOf(0, 1), Listener()
    training(train, ranks=ranks, listener=listener, num_epochs=1).run([])
    # Of what is summed, the last two elements are the loss and whether a rank is to stop.
    for summed, batch, size in zip(ranks.summed, listener.batches, [8, 8, 5], strict=True):
        assert batch.gradient_norm == pytest.approx(np.linalg.norm(summed[:-2] / size), rel=1e-5)


def test_each_epoch_has_the_rate_of_its_schedule():
    schedule = {"type": "Step", "gamma": 0.5, "step_size": 2}
    options = {"type": "SGD", "learning_rate": 0.4, "lr_scheduler": schedule}
    listener = Listener()
    training(dataset(9, 1), listener=listener, num_epochs=4, optimizer=options).run([])
    assert [epoch.learning_rate for epoch in listener.epochs] == [0.4, 0.4, 0.2, 0.2]
    assert all(epoch.test_loss is None for epoch in listener.epochs)


def test_training_reads_with_the_epoch_and_evaluation_without():
    """Random transforms act in the one and not in the other."""
    train, test = dataset(21, 1), dataset(10, 2)
    training(train, test).run(epochs(1.0))
    assert train.features.epochs == [2] * 3
    assert test.features.epochs == [None] * 4


def test_the_test_photos_are_read_in_order_and_in_small_batches():
    test = dataset(10, 2)
    keeper = Keeper(keeps_predictions=True)
    run = training(dataset(9, 1), test, keeper=keeper, num_epochs=1)
    run.run([])
    assert test.features.asked == [[0, 1, 2], [3, 4, 5], [6, 7, 8], [9]]
    [(epoch, pieces)] = keeper.predictions
    assert epoch == 1
    found = np.concatenate([log_probs for _, log_probs in pieces])
    assert [row for rows, _ in pieces for row in rows] == list(range(10))
    weights = run.learner.weights.named
    scores = test.features.values.astype(np.float64) @ weights["dense/kernel"] + weights["dense/bias"]
    expected = scores - np.log(np.exp(scores).sum(axis=1, keepdims=True))
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("value", [np.inf, np.nan])
def test_a_loss_that_is_not_finite_stops_it(value):
    train, listener = dataset(16, 1), Listener()
    train.features.values[3] = value
    run = training(train, listener=listener)
    with pytest.raises(TrainingError, match=r"epoch 1, batch [12]: .*learning_rate") as refusal:
        run.run([])
    assert refusal.value.agreed, "every rank has the same sums"
    assert listener.epochs == []
    assert np.isfinite(run.learner.weights.flat).all()


@pytest.mark.parametrize("norm", [1e-9, 0.5, 1, 1.5, 1e9])
def test_clipping_is_that_of_pytorch(norm):
    gradient = np.random.default_rng(0).normal(size=100).astype(np.float32)
    gradient *= np.float32(norm) / np.linalg.norm(gradient)
    expected = gradient.astype(np.float64) * min(1, 1 / (np.linalg.norm(gradient.astype(np.float64)) + 1e-6))
    clipped = gradient.copy()
    clip(clipped, float(np.linalg.norm(gradient)), 1.0)
    np.testing.assert_allclose(clipped, expected, rtol=2e-6)
    clip(gradient, norm, None)
    assert np.linalg.norm(gradient) == pytest.approx(norm, rel=1e-5), "no limit, no clipping"


def keras_early_stopping(losses, patience):
    """The epoch after which Keras' EarlyStopping(monitor="val_loss", patience) ends training, and the best:
    its two methods (Keras 3, callbacks/early_stopping.py) as a loop."""
    best, best_at, wait = np.inf, None, 0
    for epoch, loss in enumerate(losses, 1):
        wait += 1
        if loss < best:
            best, best_at, wait = loss, epoch, 0
        elif wait >= patience and epoch > 1:
            return epoch, best_at
    return len(losses), best_at


@pytest.mark.parametrize("patience", [1, 2, 3, 5])
def test_it_stops_where_keras_does(patience):
    generator = np.random.default_rng(patience)
    ends = set()
    for _ in range(200):
        losses = (generator.integers(1, 9, 12) / 8).tolist()  # many ties: an equal loss is no lower one
        done = []
        for epoch in epochs(*losses):
            done.append(epoch)
            if stops_early(done, patience):
                break
        assert (len(done), best_epoch(done)) == keras_early_stopping(losses, patience)
        assert not stops_early(done, None)
        ends.add(len(done))
    assert len(ends) > 3


def test_without_a_test_loss_there_is_no_best_epoch_and_no_early_stop():
    assert best_epoch([]) is None
    assert best_epoch(epochs(None, None)) is None
    assert not stops_early(epochs(None, None), 1)


def overfitting(**options):
    """A run whose test loss soon rises: the photos have nothing to do with their labels."""
    options = {"num_epochs": 30, "optimizer": {"type": "SGD", "learning_rate": 0.5}, **options}
    listener, keeper = Listener(), Keeper()
    run = training(dataset(16, 1), dataset(16, 2), listener=listener, keeper=keeper, **options)
    return run, listener, keeper.epochs


def test_the_run_ends_when_the_test_loss_falls_no_more():
    whole, through, _ = overfitting()
    whole.run([])
    end, _ = keras_early_stopping([epoch.test_loss for epoch in through.epochs], 3)
    assert 3 < end < 30
    run, listener, kept = overfitting(birdsonnx={"early_stopping": 3})
    run.run([])
    assert listener.epochs == through.epochs[:end]
    assert kept == [(number, number == end) for number in range(1, end + 1)], "the last one is known as such"
    again, nothing, _ = overfitting(birdsonnx={"early_stopping": 3})
    again.run(listener.epochs)
    assert nothing.batches == [], "it had stopped already"


def test_what_happened_before_a_resume_counts_for_stopping():
    history = epochs(0.001, 0.5, 0.5)  # the best one is never beaten
    run, listener, kept = overfitting(birdsonnx={"early_stopping": 5})
    run.run(history)
    assert [epoch.epoch for epoch in listener.epochs] == [4, 5, 6]
    assert kept == [(4, False), (5, False), (6, True)]


def test_the_last_epoch_is_known_as_such():
    run, _, kept = overfitting(num_epochs=3)
    run.run([])
    assert kept == [(1, False), (2, False), (3, True)]
