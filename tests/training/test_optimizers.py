"""The optimizers against PyTorch: its stored results, and PyTorch itself where it is installed."""

import json
import tracemalloc

import numpy as np
import pytest

from birdsonnx.config.optimizers import OptimizerSettings
from birdsonnx.config.reading import parse
from birdsonnx.training import optimizers
from birdsonnx.training.optimizers import build
from birdsonnx.training.parameters import FlatWeights
from tests.training.make_optimizer_values import CASES, PLAIN, RATES, STEPS, VALUES, oracle, problem

STORED = [
    [np.array(tensor) for tensor in case["weights"]] for case in json.loads(VALUES.read_text())["weights"]
]
KINDS = [kind.__name__ for kind in OptimizerSettings.__args__]
MILLION = 10**6

each_case = pytest.mark.parametrize(("kind", "options"), CASES, ids=str)
each_kind = pytest.mark.parametrize("kind", KINDS)


def settings_of(kind, **options):
    network = {"optimizer": {"type": kind, **options}}
    return parse(json.dumps({"neural_network": network}), "config.json").optimizer


def flat_weights(tensors):
    named = {str(number): np.float32(tensor) for number, tensor in enumerate(tensors)}
    weights = FlatWeights(named)
    weights.set(named)
    return weights


def run(optimizer, weights, gradients, rates):
    for of_step, rate in zip(gradients, rates, strict=True):
        optimizer.step(weights.flat, flat_weights(of_step).flat, float(rate))


def after_all_steps(kind, options, seed=0, threads=1):
    start, gradients = problem(seed)
    weights = flat_weights(start)
    optimizer = build(settings_of(kind, **options), weights, threads)
    run(optimizer, weights, gradients, RATES)
    assert optimizer.steps == STEPS
    return weights


def assert_close(weights, expected, seed=0):
    """Each tensor by itself: they differ in size, and in how far they go."""
    for span, wanted, start in zip(weights.spans, expected, problem(seed)[0], strict=True):
        error = np.linalg.norm(weights.flat[span] - wanted.ravel())
        assert error <= 1e-5 * np.linalg.norm(wanted)
        moved = np.linalg.norm(wanted.ravel() - start.ravel())
        rounding = np.finfo(np.float32).eps * np.linalg.norm(wanted)
        assert error <= 1e-5 * moved + STEPS * rounding


# --- The formulas ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("block", [optimizers.BLOCK, 5])
@pytest.mark.parametrize("number", range(len(CASES)), ids=[str(case) for case in CASES])
def test_stored_results(number, block, monkeypatch):
    monkeypatch.setattr(optimizers, "BLOCK", block)
    assert len(STORED) == len(CASES)
    assert_close(after_all_steps(*CASES[number]), STORED[number])


@each_case
@pytest.mark.parametrize("seed", [0, 1])
def test_results_of_today(kind, options, seed):
    """PyTorch, and for what it does not have the papers' formulas."""
    if kind not in PLAIN:
        pytest.importorskip("torch")
    assert_close(after_all_steps(kind, options, seed), oracle(kind, options, seed), seed)


@each_kind
def test_every_option_is_among_the_cases(kind):
    options = {key for name, given in CASES if name == kind for key in given}
    assert options == set(settings_of(kind).model_dump()) - {"type", "learning_rate", "lr_scheduler"}


def test_a_variance_that_rounds_below_zero_is_none():
    """PyTorch gives NaN here."""
    start = np.zeros(1000)
    gradient = np.random.default_rng(0).normal(size=1000)
    weights = flat_weights([start])
    optimizer = build(settings_of("RMSprop", centered=True, alpha=0.5), weights)
    run(optimizer, weights, [[gradient]] * 60, np.full(60, 1e-12))
    assert np.isfinite(weights.flat).all()


# --- How a step is carried out --------------------------------------------------------------------------


@each_kind
def test_the_rate_of_each_step_is_the_one_given(kind):
    """The schedule's rate counts, not the config's."""
    (start, gradients), found = problem(), []
    for rate in (0.05, 7):
        weights = flat_weights(start)
        run(build(settings_of(kind, learning_rate=rate), weights), weights, gradients, RATES)
        found.append(weights.flat)
    np.testing.assert_array_equal(*found)


@each_case
def test_a_rate_of_zero_changes_nothing(kind, options):
    start, gradients = problem()
    weights = flat_weights(start)
    run(build(settings_of(kind, **options), weights), weights, gradients, np.zeros(STEPS))
    np.testing.assert_array_equal(weights.flat, flat_weights(start).flat)


@each_case
def test_the_state_is_all_that_resuming_needs(kind, options):
    settings, (start, gradients) = settings_of(kind, **options), problem()
    weights = flat_weights(start)
    first, second = build(settings, weights), build(settings, weights)
    run(first, weights, gradients[:10], RATES[:10])
    assert {values.dtype for values in first.state.values()} <= {np.dtype(np.float32)}
    for name, saved in first.state.items():
        second.state[name][...] = saved
    second.steps = first.steps
    run(second, weights, gradients[10:], RATES[10:])
    np.testing.assert_array_equal(weights.flat, after_all_steps(kind, options).flat)


@each_case
@pytest.mark.parametrize("threads", [2, 3, 9])
def test_threads_change_no_bit(kind, options, threads, monkeypatch):
    monkeypatch.setattr(optimizers, "BLOCK", 5)
    np.testing.assert_array_equal(
        after_all_steps(kind, options, threads=threads).flat, after_all_steps(kind, options).flat
    )


@each_kind
def test_threads_change_no_bit_of_many_whole_blocks_and_a_part(kind):
    generator, found = np.random.default_rng(0), []
    start = [generator.normal(size=size) for size in (2 * optimizers.BLOCK + 17, optimizers.BLOCK, 1000)]
    gradients = [[generator.normal(size=tensor.size) for tensor in start] for _ in range(2)]
    for threads in (1, 3):
        weights = flat_weights(start)
        optimizer = build(settings_of(kind, weight_decay=0.1), weights, threads)
        run(optimizer, weights, gradients, [0.1, 0.05])
        found.append(weights.flat)
    np.testing.assert_array_equal(*found)
    for span in weights.spans:  # no block is left out; LARS moves a few weights by less than rounding
        assert (found[0][span] != flat_weights(start).flat[span]).mean() > 0.9


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize(
    ("kind", "options", "buffers"),
    [
        ("SGD", {"momentum": 0.9, "nesterov": True}, 1),
        ("LARS", {}, 0),
        ("Adam", {"amsgrad": True}, 3),
        ("LAMB", {}, 2),
    ],
)
def test_nothing_of_the_models_size_but_the_state(kind, options, buffers, threads):
    weights = FlatWeights({"kernel": np.broadcast_to(np.float32(0), 4 * MILLION)})
    weights.flat[...] = 1
    gradient = np.ones_like(weights.flat)
    tracemalloc.start()
    try:
        optimizer = build(settings_of(kind, weight_decay=0.1, **options), weights, threads)
        kept, peak = tracemalloc.get_traced_memory()
        assert kept < peak < buffers * 16 * MILLION + 4 * MILLION
        tracemalloc.reset_peak()
        optimizer.step(weights.flat, gradient, 0.1)
        assert tracemalloc.get_traced_memory()[1] - kept < 4 * MILLION
    finally:
        tracemalloc.stop()


# --- Turned kernels -------------------------------------------------------------------------------------


@each_case
@pytest.mark.parametrize("later", [(), ("k",), ("l",)], ids=["plain", "the same", "another"])
def test_a_state_goes_from_one_layout_to_another(kind, options, later):
    """Kept with `k` turned, restored in any layout: the steps after it are the same but for the order in
    which norms are added up."""
    generator = np.random.default_rng(0)
    start = {name: generator.normal(size=shape) for name, shape in (("k", (4, 3, 2, 2)), ("l", (3, 4, 1, 3)))}
    steps = [{name: generator.normal(size=value.shape) for name, value in start.items()} for _ in range(6)]

    def begun(turned):
        weights = FlatWeights({name: np.float32(value) for name, value in start.items()}, turned)
        weights.set(start)
        return weights, build(settings_of(kind, **options), weights)

    def step(weights, optimizer, gradient):
        flat = np.zeros_like(weights.flat)
        for name, view in weights.views_of(flat).items():
            view[...] = gradient[name]
        optimizer.step(weights.flat, flat, 0.01)

    whole, optimizer = begun(())
    for gradient in steps:
        step(whole, optimizer, gradient)
    first, optimizer = begun({"k"})
    for gradient in steps[:3]:
        step(first, optimizer, gradient)
    kept = {name: values.copy() for name, values in optimizer.kept().items()}
    second, restored = begun(later)
    second.set(first.named)
    restored.restore(kept, optimizer.steps)
    for gradient in steps[3:]:
        step(second, restored, gradient)
    for name, value in whole.named.items():
        np.testing.assert_allclose(second.named[name], value, rtol=1e-5, atol=1e-6)
