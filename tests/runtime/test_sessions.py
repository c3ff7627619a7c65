"""The seam around ONNX Runtime, and streams of work through threads."""

import threading
import time

import numpy as np
import onnxruntime
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import helper
from onnx.reference import ReferenceEvaluator

from birdsonnx.errors import ModelError
from birdsonnx.runtime.sessions import Session, in_streams, slices, streams_for
from tests.graphs import graph_of
from tests.tiny import SIZE, tiny_model


@pytest.fixture(scope="module")
def content() -> bytes:
    return tiny_model(3).serialized()


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("batch", [1, 5])
def test_run_equals_the_bare_runtime(content, threads, batch):
    session = Session(content, threads)
    images = np.random.default_rng(batch).integers(0, 256, (batch, SIZE, SIZE, 3), np.uint8)
    bare = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    found = session.run({"images": images})
    assert list(found) == ["log_probs"]
    np.testing.assert_allclose(found["log_probs"], bare.run(None, {"images": images})[0], atol=1e-6)


@pytest.mark.parametrize("pool", ["MaxPool", "AveragePool"])
@pytest.mark.parametrize("pads", [[0, 0, 0, 0], [1, 1, 1, 1]])
def test_zeros_before_a_pooling_stay_values(pool, pads):
    """The values are below 0: a zero is the largest of each window that holds one, and counts in averages."""
    maps = -np.random.default_rng(0).uniform(1, 2, (2, 3, 9, 9)).astype(np.float32)
    node = helper.make_node
    model = graph_of(
        [
            node("Pad", ["x", "margins", "zero"], ["wide"]),
            node(pool, ["wide"], ["y"], kernel_shape=[3, 3], strides=[2, 2], pads=pads),
        ],
        {"margins": np.array([0, 0, 2, 1, 0, 0, 0, 1]), "zero": np.float32(0)},
        ["batch", 3, 9, 9],
        ["batch", 3, "rows", "columns"],
    )
    expected = ReferenceEvaluator(model).run(None, {"x": maps})[0]
    found = Session(model.SerializeToString()).run({"x": maps})["y"]
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_several_threads_run_one_session(content):
    session = Session(content)
    images = np.random.default_rng(0).integers(0, 256, (40, 1, SIZE, SIZE, 3), np.uint8)
    alone = [session.run({"images": image})["log_probs"] for image in images]
    together = in_streams(4, lambda image: session.run({"images": image})["log_probs"], images)
    np.testing.assert_array_equal(list(together), alone)


def test_what_a_session_tells_of_its_model(content):
    session = Session(content)
    assert session.outputs == ["log_probs"]
    assert session.input_shapes == {"images": ["batch", SIZE, SIZE, 3]}
    assert session.output_shapes == {"log_probs": ["batch", 3]}
    assert session.types == {"images": "tensor(uint8)", "log_probs": "tensor(float)"}


@pytest.mark.parametrize("kept", [0, 100, -10])
def test_models_that_are_refused(content, kept):
    with pytest.raises(ModelError, match=r"^the model: not an ONNX model"):
        Session(content[:kept])
    with pytest.raises(ModelError, match=r"^m\.onnx: not an ONNX model") as caught:
        Session(content[:kept], where="m.onnx")
    assert "\n" not in str(caught.value)


# --- Streams --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("streams", [1, 2, 5])
@pytest.mark.parametrize("count", [0, 1, 3, 40])
def test_results_keep_the_order_of_the_items(streams, count):
    delays = np.random.default_rng(count).uniform(0, 0.002, count)

    def work(index: int) -> int:
        time.sleep(delays[index])
        return index * index

    assert list(in_streams(streams, work, range(count))) == [index * index for index in range(count)]


def test_streams_work_at_the_same_time():
    everyone = threading.Barrier(3, timeout=10)
    assert sorted(in_streams(3, lambda _: everyone.wait(), range(3))) == [0, 1, 2]


@pytest.mark.parametrize(("streams", "ahead"), [(1, 1), (1, 2), (3, 2), (2, 4)])
def test_the_look_ahead_is_bounded(streams, ahead):
    pulled = 0

    def items():
        nonlocal pulled
        while pulled < 100:
            pulled += 1
            yield pulled

    for taken, result in enumerate(in_streams(streams, lambda item: item, items(), ahead), 1):
        assert result == taken
        assert pulled - taken <= streams * ahead
    assert pulled == 100


def test_an_error_comes_at_its_place_and_ends_the_work():
    done = []

    def work(item: int) -> int:
        if item == 3:
            raise ModelError("broken")
        done.append(item)
        return item

    results = in_streams(2, work, range(1000))
    assert [next(results) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(ModelError, match="broken"):
        next(results)
    assert len(done) < 20


def test_an_error_of_the_items_comes_through():
    def items():
        yield 1
        raise ModelError("no more")

    with pytest.raises(ModelError, match="no more"):
        list(in_streams(2, abs, items()))


def test_a_reader_that_stops_ends_the_work():
    done = []
    begun, stopped = threading.Event(), threading.Event()

    def work(item: int) -> None:
        if item > 2:  # the first half of what may wait is taken at once
            begun.set()
            assert stopped.wait(10)
        done.append(item)

    results = in_streams(1, work, range(1000), ahead=5)
    next(results)
    assert begun.wait(10)
    threading.Timer(0.1, stopped.set).start()
    results.close()
    assert done == [0, 1, 2, 3]


@pytest.mark.parametrize(
    ("photos", "threads", "expected"),
    [
        (100, 4, (4, 1)),
        (4, 4, (4, 1)),
        (3, 4, (3, 1)),
        (2, 4, (2, 2)),
        (1, 4, (1, 4)),
        (0, 4, (1, 4)),
        (1, 1, (1, 1)),
        (0, 1, (1, 1)),
        (3, 8, (3, 2)),
    ],
)
def test_streams_for_so_many_photos(photos, threads, expected):
    assert streams_for(photos, threads) == expected


@settings(derandomize=True, deadline=None, max_examples=100)
@given(st.integers(0, 300), st.integers(1, 128))
def test_streams_never_take_more_threads_than_there_are(photos, threads):
    streams, per_run = streams_for(photos, threads)
    assert 1 <= streams <= max(1, photos)
    assert per_run >= 1
    assert threads / 2 < streams * per_run <= threads


@settings(derandomize=True, deadline=None, max_examples=100)
@given(st.lists(st.integers(), max_size=40), st.integers(1, 12))
def test_slices(items, size):
    pieces = list(slices(items, size))
    assert [item for piece in pieces for item in piece] == items
    assert all(len(piece) == size for piece in pieces[:-1])
    assert all(0 < len(piece) <= size for piece in pieces)
