"""A training run as people and programs read it: lines on the console, two text files that numpy reads.

`<stem>_train.txt`: per batch `time_s epoch batch loss grad_norm`; `<stem>_test.txt`: per evaluation
`time_s epoch loss accuracy`. The suffix of `outfile` is left out: `out.txt` gives `out_train.txt`; where that
is of another command, `out_2_train.txt`. Lines that begin with `#` name the columns and the command.
"""

import contextlib
import glob
import re
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TextIO

import numpy as np
import numpy.typing as npt

from birdsonnx import artifacts
from birdsonnx.artifacts import commands
from birdsonnx.artifacts.commands import Place
from birdsonnx.artifacts.regular_files import opener
from birdsonnx.errors import ArtifactError, DataError
from birdsonnx.reporting.console import Console
from birdsonnx.reporting.printable import printable
from birdsonnx.reporting.training_summary import summary
from birdsonnx.training.audience import Facts
from birdsonnx.training.epochs import Batch, Epoch

TRAIN_COLUMNS = ("time_s", "epoch", "batch", "loss", "grad_norm")
MOST_COMMENTS = 4
"""Lines at the beginning of a log, among which that of its command is."""

TEST_COLUMNS = ("time_s", "epoch", "loss", "accuracy")
TESTED_ON = "test photos in "
"""Begins the remark of a test log that says where its photos are."""

TRAIN_END = "_train.txt"
"""How the names of the logs of batches end."""


def log_paths(outfile: str) -> tuple[Path, Path]:
    """The two files of an `outfile` stem. Raises DataError where it names no file."""
    if not Path(outfile).name:
        raise DataError(f"{outfile}: names no file; give the config's outfile, e.g. out_classifier.txt")
    stem = Path(outfile).with_suffix("")
    return stem.with_name(f"{stem.name}{TRAIN_END}"), stem.with_name(f"{stem.name}_test.txt")


class TrainingLog:
    """Lines and logs of a training, by rank 0: the others pass `speaks=False`, which writes nothing."""

    def __init__(
        self,
        console: Console,
        outfile: str | None,
        epochs: int,
        verbose: bool,
        speaks: bool,
        overwrite: bool = False,
    ) -> None:
        self.progress = console.progress
        self.say = console.say
        self._outfile = outfile if speaks else None
        self._epochs = epochs
        self._verbose = verbose
        self._overwrite = overwrite
        self._open = contextlib.ExitStack()
        self._files: list[TextIO] = []
        self._started = time.perf_counter()
        self._rate: float | None = None
        self._advance: Callable[[int], None] | None = None

    def begin(self, facts: Facts) -> str | None:
        """Print the summary and open the logs; a resumed run keeps the lines of the epochs it has."""
        for title, line in summary(facts).items():
            self.say(f"{title + ':':<15}{line}")
        self._started = time.perf_counter() - facts.time_s
        if self._outfile is None:
            return None
        place = self._open.enter_context(self._taking(self._outfile, facts))
        done = (facts.epochs_done + 1, facts.batches_done)
        tested = () if facts.test is None else (f"{TESTED_ON}{printable(facts.test.where)}",)
        train, test = place.paths
        self._files.append(_open_log(train, TRAIN_COLUMNS, done, (place.record,)))
        self._files.append(_open_log(test, TEST_COLUMNS, done, (*tested, place.record)))
        return place.record

    def _taking(self, outfile: str, facts: Facts) -> AbstractContextManager[Place]:
        """The logs of this run: a resumed one goes on in its own."""
        resumed = (facts.epochs_done, facts.batches_done) > (0, 0)
        record = facts.log if resumed else None
        record = record or facts.command.record(log_paths(outfile)[0].parent)

        def read(path: Path) -> str | None:
            found = command_of(path)
            if found is None and resumed and facts.log is None:
                return record  # of a version that kept no records, as the run's state has none either
            return found

        def names(number: int) -> tuple[Path, Path]:
            return log_paths(str(commands.numbered(Path(outfile), number)))

        def say(line: str) -> None:
            if not resumed or not line.startswith("replacing"):
                self.say(line)

        return commands.taking(names, record, read, say, self._overwrite)

    def on_batch(self, batch: Batch) -> None:
        total_s = batch.data_s + batch.compute_s or 1.0
        self.say(
            f"epoch {batch.epoch}/{self._epochs}  batch {batch.number}/{batch.count}  loss {batch.loss:.6f}  "
            f"|g| {batch.gradient_norm:.6f}  "
            f"data {batch.data_s / total_s:.0%}  compute {batch.compute_s / total_s:.0%}"
        )
        self._tell_progress(batch)
        self._write(0, f"{batch.epoch} {batch.number} {batch.loss:.9g} {batch.gradient_norm:.9g}")

    def on_epoch(self, epoch: Epoch) -> None:
        if self._verbose and epoch.learning_rate != self._rate:
            self.say(f"epoch {epoch.epoch}/{self._epochs}  learning rate {epoch.learning_rate:g}")
        self._rate = epoch.learning_rate
        if epoch.test_loss is None or epoch.test_accuracy is None:
            return
        self.say(
            f"epoch {epoch.epoch}/{self._epochs}  test  loss {epoch.test_loss:.6f}  "
            f"accuracy {epoch.test_accuracy:.4f}"
        )
        self._write(1, f"{epoch.epoch} {epoch.test_loss:.9g} {epoch.test_accuracy:.9g}")

    def close(self) -> None:
        for file in self._files:
            with contextlib.suppress(OSError):  # a line that could not be written, which was said
                file.close()
        self._files.clear()
        self._open.close()

    def _tell_progress(self, batch: Batch) -> None:
        """From the first batch on, which is over: how many of the others are, up to the last epoch."""
        if self._advance is None:
            left = (self._epochs - batch.epoch + 1) * batch.count - batch.number
            self._advance = self._open.enter_context(self.progress("training: batches", left))
        else:
            self._advance(1)

    def _write(self, which: int, values: str) -> None:
        if self._files:
            # Flushed line by line: the curve can be watched, and a kill loses nothing.
            try:
                self._files[which].write(f"{time.perf_counter() - self._started:.3f} {values}\n")
                self._files[which].flush()
            except OSError as error:
                raise ArtifactError(f"cannot write {self._files[which].name}: {error.strerror}") from None


def command_of(path: Path) -> str | None:
    """The record of the command that made a log; None where there is none to be read."""
    try:
        with open(path, errors="replace", opener=opener) as file:
            comments = [line for line in islice(file, MOST_COMMENTS) if line.startswith("# {")]
    except OSError:
        return None
    return comments[0].removeprefix("# ") if comments else None


def outfile_of(outfile: str, record: str | None) -> str | None:
    """The outfile under which a run's logs lie: of several commands with one `outfile`, all but the first
    have a number in the names of their logs. Without a `record`, `outfile` itself; None where no log is."""
    first = Path(outfile)
    paths = [log_paths(outfile)[0]]
    if record is not None:
        paths += sorted(first.parent.glob(f"{glob.escape(first.stem)}_*{TRAIN_END}"))
    for path in paths:
        if path.is_file() and (record is None or commands.same(command_of(path), record)):
            return str(path.with_name(f"{path.stem.removesuffix('_train')}{first.suffix}"))
    return None


def _open_log(
    path: Path, columns: tuple[str, ...], keep_through: tuple[int, int], remarks: tuple[str, ...]
) -> TextIO:
    """A log with the lines that it has up to a batch of an epoch, and `remarks` below its columns."""
    kept = ""
    if keep_through > (1, 0) and path.is_file():
        lines = path.read_text(errors="replace").splitlines()
        kept = "".join(
            f"{line}\n"
            for line in lines
            if not line.startswith("#") and (1, 0) < _place_of(line, columns) <= keep_through
        )
    header = "".join(f"# {line}\n" for line in (" ".join(columns), *remarks))
    artifacts.write_bytes(path, f"{header}{kept}".encode())
    try:
        return path.open("a")
    except OSError as error:
        raise ArtifactError(f"cannot write {path}: {error.strerror}") from None


def _place_of(line: str, columns: tuple[str, ...]) -> tuple[int, int]:
    """Epoch and batch; an evaluation comes after all batches."""
    fields = line.split()
    if len(fields) != len(columns) or not fields[1].isdigit():
        return 0, 0
    if "batch" not in columns:
        return int(fields[1]) + 1, 0
    return int(fields[1]), int(fields[2]) if fields[2].isdigit() else 0


def _called(where: str) -> str:
    """`valid` of `data/valid`, and of `data (folders 'valid')`."""
    tagged = re.search(r"\(folders '(.+)'\)$", where)
    return tagged[1] if tagged else Path(where).name or where


@dataclass(frozen=True)
class Curves:
    """Both logs of a run: float64 `[lines, columns]`; a log without lines has none."""

    train: npt.NDArray[np.float64]
    test: npt.NDArray[np.float64]
    tested_on: str | None = None
    """What the test set is called: the last name of its folder, or its tag; None: the log does not say."""


def read_curves(outfile: str) -> Curves:
    """The logs of a run by the `outfile` of its config.

    Raises:
        DataError: no log there, or one that is not ours.
    """
    tables = []
    tested_on = None
    paths = log_paths(outfile)
    if not paths[0].is_file():
        raise DataError(
            f"{paths[0]}: there is no such log; give the config's outfile, e.g. out_classifier.txt"
        )
    for path, columns in zip(paths, (TRAIN_COLUMNS, TEST_COLUMNS), strict=True):
        lines = path.read_text(errors="replace").splitlines() if path.is_file() else []
        where = next((line[2:] for line in lines if line.startswith(f"# {TESTED_ON}")), None)
        if where is not None:
            tested_on = _called(where.removeprefix(TESTED_ON))
        rows = [line.split() for line in lines if line and not line.startswith("#")]
        try:
            table = np.array([[float(value) for value in row] for row in rows], np.float64)
            tables.append(table.reshape(-1, len(columns)))
        except ValueError:
            raise DataError(f"{path}: not a log of birdsonnx ({' '.join(columns)})") from None
    train, test = tables
    return Curves(train, test, tested_on)
