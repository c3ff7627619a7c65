"""The logs of a training run: what numpy reads, what a resumed run keeps, what is said on the console."""

import contextlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from birdsonnx.errors import ArtifactError, DataError
from birdsonnx.reporting.console import Console
from birdsonnx.reporting.training_log import TrainingLog, log_paths, read_curves
from birdsonnx.reporting.training_summary import summary
from birdsonnx.training.epochs import Batch, Epoch
from tests.runs import facts_of_a_run

TRAIN, TEST = Path("out_train.txt"), Path("out_test.txt")


def loss_of(epoch: int, batch: int) -> float:
    return 3 / epoch + batch / 7


def run(
    first: int,
    last: int,
    outfile: str | None = "out.txt",
    time_s: float = 0.0,
    tested: bool = True,
    **options: Any,
) -> None:
    """Log epochs of three batches, as the training loop does."""
    options = {"verbose": False, "speaks": True, "console": Console(speaks=False), **options}
    log = TrainingLog(options["console"], outfile, last, options["verbose"], options["speaks"])
    log.begin(facts_of_a_run(epochs_done=first - 1, time_s=time_s))
    for epoch in range(first, last + 1):
        for number in (1, 2, 3):
            log.on_batch(Batch(epoch, number, 3, loss_of(epoch, number), 0.1 * number, 0.01, 0.03))
        test = (1.5 / epoch, 1 - 1 / (epoch + 1)) if tested else ()
        log.on_epoch(Epoch(epoch, 0.1 * 0.5 ** ((epoch - 1) // 2), 1.0, *test))
    log.close()


@pytest.mark.parametrize(
    ("outfile", "stem"),
    [
        ("out.txt", "out"),
        ("out", "out"),
        ("out_classifier.txt", "out_classifier"),
        ("runs/one/out.log", "runs/one/out"),
        ("./out.txt", "out"),
        ("runs.d/out", "runs.d/out"),
        ("a.b.txt", "a.b"),
        (".hidden", ".hidden"),
    ],
)
def test_the_suffix_of_outfile_goes(outfile, stem):
    assert log_paths(outfile) == (Path(f"{stem}_train.txt"), Path(f"{stem}_test.txt"))


def test_numpy_reads_both_logs():
    run(1, 4)
    train, test = np.loadtxt(TRAIN), np.loadtxt(TEST)
    steps = [(epoch, batch) for epoch in (1, 2, 3, 4) for batch in (1, 2, 3)]
    np.testing.assert_array_equal(train[:, 1:3], steps)
    np.testing.assert_allclose(train[:, 3], [loss_of(*step) for step in steps], rtol=1e-8)
    np.testing.assert_allclose(train[:, 4], [0.1, 0.2, 0.3] * 4, rtol=1e-8)
    np.testing.assert_array_equal(test[:, 1], [1, 2, 3, 4])
    np.testing.assert_allclose(test[:, 2], [1.5, 0.75, 0.5, 0.375], rtol=1e-8)
    np.testing.assert_allclose(test[:, 3], [1 / 2, 2 / 3, 3 / 4, 4 / 5], rtol=1e-8)
    for table in (train, test):
        assert (np.diff(table[:, 0]) >= 0).all()
    assert TRAIN.read_text().startswith("# time_s epoch batch loss grad_norm\n")
    assert TEST.read_text().startswith("# time_s epoch loss accuracy\n")


def test_read_curves_gives_what_numpy_reads():
    run(1, 3)
    curves = read_curves("out.txt")
    np.testing.assert_array_equal(curves.train, np.loadtxt(TRAIN))
    np.testing.assert_array_equal(curves.test, np.loadtxt(TEST))


def test_a_run_without_evaluation_has_an_empty_test_log():
    run(1, 1, tested=False)
    curves = read_curves("out.txt")
    assert curves.train.shape == (3, 5)
    assert curves.test.shape == (0, 4)
    TEST.unlink()
    assert read_curves("out.txt").test.shape == (0, 4)


def test_lines_are_there_as_soon_as_they_are_logged():
    log = TrainingLog(Console(speaks=False), "out.txt", 1, False, True)
    log.begin(facts_of_a_run())
    for number in (1, 2):
        log.on_batch(Batch(1, number, 2, 0.5, 0.25, 0.0, 0.0))
        assert len(np.loadtxt(TRAIN, ndmin=2)) == number
    log.close()


@pytest.mark.parametrize("kept", [0, 1, 3])
def test_a_resumed_run_keeps_the_lines_of_the_epochs_it_has(kept):
    run(1, 4)
    before = [path.read_text().splitlines() for path in (TRAIN, TEST)]
    run(kept + 1, 5, time_s=100.0)
    after = [path.read_text().splitlines() for path in (TRAIN, TEST)]
    assert after[0][: 1 + 3 * kept] == before[0][: 1 + 3 * kept]
    assert after[1][: 1 + kept] == before[1][: 1 + kept]
    train, test = np.loadtxt(TRAIN), np.loadtxt(TEST)
    np.testing.assert_array_equal(train[:, 1], np.repeat([1, 2, 3, 4, 5], 3))
    np.testing.assert_array_equal(test[:, 1], [1, 2, 3, 4, 5])
    assert (train[: 3 * kept, 0] < 100).all()
    assert (train[3 * kept :, 0] >= 100).all()


def test_a_resumed_run_drops_a_torn_last_line():
    run(1, 2)
    TRAIN.write_text(TRAIN.read_text() + "12.5 3 1 0.1")
    run(3, 3)
    assert len(np.loadtxt(TRAIN)) == 9


def test_a_new_run_replaces_the_old_logs():
    run(1, 4)
    run(1, 1)
    assert len(np.loadtxt(TRAIN)) == 3
    assert len(np.loadtxt(TEST, ndmin=2)) == 1


def test_folders_of_the_logs_are_made():
    run(1, 1, "runs/one/out.txt")
    assert len(read_curves("runs/one/out.txt").train) == 3


@pytest.mark.parametrize(("outfile", "speaks"), [(None, True), ("out.txt", False)])
def test_no_logs_without_outfile_or_on_other_ranks(outfile, speaks):
    run(1, 2, outfile, speaks=speaks)
    assert not list(Path().iterdir())


def test_a_log_that_cannot_be_written():
    TEST.mkdir()
    log = TrainingLog(Console(speaks=False), "out.txt", 1, False, True, overwrite=True)
    with contextlib.closing(log), pytest.raises(ArtifactError, match="cannot write out_test"):
        log.begin(facts_of_a_run())


def test_what_is_said(capsys):
    run(1, 2, console=Console(), outfile=None)
    said = capsys.readouterr().out.splitlines()
    assert said[len(summary(facts_of_a_run())) :] == [
        "epoch 1/2  batch 1/3  loss 3.142857  |g| 0.100000  data 25%  compute 75%",
        "epoch 1/2  batch 2/3  loss 3.285714  |g| 0.200000  data 25%  compute 75%",
        "epoch 1/2  batch 3/3  loss 3.428571  |g| 0.300000  data 25%  compute 75%",
        "epoch 1/2  test  loss 1.500000  accuracy 0.5000",
        "epoch 2/2  batch 1/3  loss 1.642857  |g| 0.100000  data 25%  compute 75%",
        "epoch 2/2  batch 2/3  loss 1.785714  |g| 0.200000  data 25%  compute 75%",
        "epoch 2/2  batch 3/3  loss 1.928571  |g| 0.300000  data 25%  compute 75%",
        "epoch 2/2  test  loss 0.750000  accuracy 0.6667",
    ]


def test_verbose_tells_the_learning_rate_when_it_changes(capsys):
    run(1, 4, console=Console(), outfile=None, verbose=True)
    said = [line for line in capsys.readouterr().out.splitlines() if "learning rate" in line]
    assert said == ["epoch 1/4  learning rate 0.1", "epoch 3/4  learning rate 0.05"]


def test_the_summary_comes_first(capsys):
    log = TrainingLog(Console(), None, 1, False, True)
    facts = facts_of_a_run()
    log.begin(facts)
    lines = capsys.readouterr().out.splitlines()
    assert lines[:2] == [
        "network:       tiny: 3 layers with weights, 3 classes, input 32 x 32 x 3",
        "preprocessing: caffe",
    ]
    assert [line[15:] for line in lines] == list(summary(facts).values())


@pytest.mark.parametrize("options", [{"speaks": False}, {"json": True}])
def test_other_ranks_and_json_are_quiet(capsys, options):
    run(1, 1, console=Console(**options), outfile=None)
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("train", "test", "said"),
    [
        (None, None, "out_train.txt: there is no such log; give the config's outfile"),
        (None, "1 1 1 1\n", "out_train.txt: there is no such log"),
        ("a log of something else\n", None, "out_train.txt: not a log of birdsonnx (time_s epoch batch loss"),
        ("1 2 3\n", None, "out_train.txt: not a log of birdsonnx"),
        ("1 1 1 1 1\n1 1\n", None, "out_train.txt: not a log of birdsonnx"),
        ("1 1 1 1 1\n", "1 1 x 1\n", "out_test.txt: not a log of birdsonnx (time_s epoch loss accuracy)"),
    ],
)
def test_logs_that_are_refused(train, test, said):
    for path, content in ((TRAIN, train), (TEST, test)):
        if content is not None:
            path.write_text(content)
    with pytest.raises(DataError) as caught:
        read_curves("out.txt")
    assert said in str(caught.value)


def test_batches_to_come_are_counted_from_the_first_on():
    """Also of a run that goes on within an epoch."""
    told: list[tuple[str, int]] = []

    class Counting(Console):
        @contextlib.contextmanager
        def progress(self, title, total=None, /):
            told.append((title, total))
            yield lambda count: told.append(("advanced", count))
            told.append(("ended", 0))

    log = TrainingLog(Counting(), None, 3, False, True)
    log.begin(facts_of_a_run(epochs_done=1))
    for number in (2, 3):
        log.on_batch(Batch(2, number, 3, 0.5, 0.25, 0.0, 0.0))
    log.on_batch(Batch(3, 1, 3, 0.5, 0.25, 0.0, 0.0))
    log.close()
    assert told == [("training: batches", 4), ("advanced", 1), ("advanced", 1), ("ended", 0)]


@pytest.mark.parametrize(
    ("root", "tag", "called"),
    [
        ("data/valid", None, "valid"),
        ("data", "held out", "held out"),
        (".", None, "."),
        ("a\nb", None, "a\\nb"),
    ],
)
def test_the_test_log_says_where_its_photos_are(root, tag, called):
    """Also after a resume; numpy reads over it."""
    facts = facts_of_a_run()
    folder = replace(facts.train, root=Path(root), tag=tag)
    for done in (0, 1):
        log = TrainingLog(Console(speaks=False), "out.txt", 2, False, True)
        log.begin(replace(facts, test=folder, epochs_done=done))
        log.on_epoch(Epoch(done + 1, 0.1, 1.0, 0.5, 0.75))
        log.close()
    assert TEST.read_text().count("# test photos in ") == 1
    assert np.loadtxt(TEST).shape == (2, 4)
    assert read_curves("out.txt").tested_on == called
