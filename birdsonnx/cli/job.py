"""One running verb: which ranks work, who prints, how it exits, what an error becomes."""

import signal
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager, redirect_stderr, redirect_stdout, suppress
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import typer

from birdsonnx import artifacts
from birdsonnx.errors import BirdsonnxError, ConfigError, InstallationError, traceback_of
from birdsonnx.reporting.terminal import shortened, write_line, write_lines
from birdsonnx.runtime import interruption
from birdsonnx.runtime.launchers import is_first_launched

if TYPE_CHECKING:
    from birdsonnx.reporting.console import Console
    from birdsonnx.runtime.ranks import Ranks

T = TypeVar("T")

DONE, SOME_REFUSED, CANNOT = 0, 1, 2

GRACE_S = 0.2
"""For which a rank waits before it reports an error and ends the others: if all have it, the first reports it
and ends them all in the meantime."""

INTERRUPTION_GRACE_S = 3.0
"""For which the other ranks leave the report of a signal to the first, which has files to put away."""

WorkingRanks = Literal["all", "first", "one", "separate"]
"""Which ranks carry out a verb that was started with mpirun.

all: every rank, together.
first: rank 0, as if it were alone; the others sleep, and leave with its exit code.
one: none; the verb starts processes of its own, or measures this one, and is refused under mpirun.
separate: like first; but where the launcher's processes do not see each other, each of them does the work
    and the launcher's first one prints. For doctor, which has to say what is wrong then.
"""


class Job:
    """One running verb: who prints, what goes into the JSON object, how it exits."""

    def __init__(self, json: bool, debug: bool = False) -> None:
        self.json = json
        self.debug = debug
        self.result: dict[str, Any] = {}
        self.code = DONE
        self.speaks = is_first_launched()
        """Whether this process prints."""
        self.works = True
        """Whether this process carries out the verb."""
        self._is_printed = False
        """Whether the JSON object is out already."""
        self._ranks: Ranks | None = None
        self._all: Ranks | None = None
        """All ranks, also those that do not work."""

    @property
    def ranks(self) -> "Ranks":
        """The ranks that carry out the verb together."""
        assert self._ranks is not None
        return self._ranks

    @property
    def is_one_of_several(self) -> bool:
        """Whether other ranks carry out the verb with this one, and would wait for it."""
        return self._ranks is not None and self._ranks.size > 1

    def join_ranks(self, working: WorkingRanks) -> None:
        """Find out which ranks there are, and what this one is to do.

        Raises:
            InstallationError: the launcher's processes do not see each other.
            ConfigError: there are several, and the verb is one process's work.
        """
        from birdsonnx.runtime import ranks

        try:
            joined = ranks.join()
            self.speaks = joined.is_first
        except InstallationError as error:
            self.speaks = not error.agreed
            if working != "separate":
                raise
            joined = ranks.Ranks()
        self._ranks = self._all = joined
        joined.report_loss(self.lose)
        interruption.joined()
        joined.require_same(tuple(sys.argv[1:]), "words on its command line")
        if working == "one" and joined.size > 1:
            agreed(lambda: _refuse_ranks(joined.size))
        if working != "all" and joined.size > 1:
            self._ranks = ranks.Ranks()
            self.works = joined.is_first

    def share_code(self) -> None:
        """Wait for rank 0, which may have work of its own, and take over its exit code."""
        if self._all is not None:
            self._all.wait_quietly()
            self.code = self._all.first(lambda: self.code)

    def console(self) -> "Console":
        """What work reports to."""
        from birdsonnx.reporting.console import Console

        return Console(self.speaks, self.json)

    def say(self, *lines: str) -> None:
        """Lines for people on stdout; silent under --json and on other ranks."""
        if self.speaks and not self.json:
            write_lines(lines)

    def refuse(self, reasons: Iterable[str]) -> None:
        """List inputs that could not be used, on stderr; the exit code says so."""
        for reason in reasons:
            write_line(f"birdsonnx: refused: {reason}", error=True)
            self.code = SOME_REFUSED

    def fail(self, *lines: str, code: int = CANNOT, agreed: bool = False) -> None:
        """Report an error, its message and what that lists; where not every rank has it, also end the others,
        which would wait for this one.

        With --debug the traceback comes first, on stderr.
        """
        self.code = code
        self.result = {"error": "\n".join(map(shortened, lines))}
        if agreed and not self.speaks:
            return
        several = not agreed and self.is_one_of_several
        if several and not self.speaks:
            time.sleep(GRACE_S)
        error = sys.exception()
        if self.debug and error is not None:
            write_lines(traceback_of(error), error=True)
        prefix = f"birdsonnx: rank {self.ranks.rank}: " if several else "birdsonnx: "
        write_lines([prefix + lines[0], *lines[1:]], error=True)
        if several:
            self.print_result(instead_of_first=True)
            self.ranks.abort(code)

    def lose(self, error: BirdsonnxError) -> None:
        """Report that ranks have vanished, and end the others, whatever they are doing."""
        self.fail(*error.lines)
        self.print_result(instead_of_first=True)
        if self._all is not None:
            self._all.abort(CANNOT)

    def print_result(self, instead_of_first: bool = False) -> None:
        """Under --json print the one object, once; of several ranks only the first does, unless it cannot."""
        if self.json and not self._is_printed and (self.speaks or instead_of_first):
            self._is_printed = True
            write_line(artifacts.json_text(self.result))

    def announce(self, result: dict[str, Any]) -> None:
        """Print the object now, of a verb that goes on until it is stopped: what follows is only its end."""
        self.result = result
        self.print_result()

    def interrupt(self, error: KeyboardInterrupt) -> None:
        """Report Ctrl-C or another signal, and end all ranks, also those that only wait."""
        interruption.reported()
        self.code = 128 + getattr(error, "number", signal.SIGINT)
        agreed = getattr(error, "agreed", False)
        if not self.speaks and not agreed:
            time.sleep(INTERRUPTION_GRACE_S)
            if self._all is not None:  # the first has got none
                self._all.pass_on(self.code - 128)
                time.sleep(INTERRUPTION_GRACE_S)
        if self.works:
            self.fail(str(error) or "interrupted", code=self.code, agreed=agreed)
        if self._all is not None and not agreed:
            self._all.abort(self.code)


_silenced = ExitStack()
"""Closed when a verb begins, and knows its ranks."""


@contextmanager
def one_speaker() -> Iterator[None]:
    """Until a verb begins, only the launcher's first process prints: help and usage errors, which would come
    once for each rank."""
    with _silenced:
        if not is_first_launched():
            nothing = StringIO()
            _silenced.enter_context(redirect_stdout(nothing))
            _silenced.enter_context(redirect_stderr(nothing))
        yield


@contextmanager
def running(json: bool, debug: bool, ranks: WorkingRanks) -> Iterator[Job]:
    """Run a verb's body, on the ranks that carry it out: errors become one line and an exit code, results one
    JSON object."""
    _silenced.close()
    job = Job(json, debug)
    with interruption.handled(), _reporting(job):
        with _reporting(job):
            job.join_ranks(ranks)
            if job.works:
                yield job
        job.share_code()
        job.print_result()
    raise typer.Exit(job.code)


@contextmanager
def _reporting(job: Job) -> Iterator[None]:
    """Report what ends the block, and give the job its exit code."""
    try:
        yield
    except KeyboardInterrupt as error:
        job.interrupt(error)
    except BrokenPipeError:  # the reader of our output left
        job.code = 141
        if job.is_one_of_several:
            job.ranks.abort(job.code)
    except Exception as error:
        interrupted = interruption.raised()
        if interrupted is not None:
            job.interrupt(interrupted)
        elif isinstance(error, BirdsonnxError):
            job.fail(*error.lines, agreed=error.agreed)
        else:
            job.fail(_described(error))


def same_config(ranks: "Ranks", path: Path) -> None:
    """Raises RankError where a rank finds another text in the config than rank 0, whose text counts."""
    content = None
    with suppress(OSError):  # rank 0's is the one that is read
        content = artifacts.sha256(path)
    ranks.require_same(content, f"text in {path}")


def _refuse_ranks(size: int) -> None:
    raise ConfigError(f"this verb runs in one process, and {size} ranks are running; start it without mpirun")


def _described(error: Exception) -> str:
    """What nobody foresaw, in one line."""
    if isinstance(error, OSError) and isinstance(error.filename, str):
        return f"{error.filename}: {error.strerror}; --debug shows where"
    reason = " ".join(str(error).split())
    return f"internal error: {type(error).__name__}: {reason}; --debug shows where"


def agreed(produce: Callable[[], T]) -> T:
    """The result of a step that goes the same way on every rank, so that each of them has its error."""
    try:
        return produce()
    except BirdsonnxError as error:
        error.agreed = True
        raise
