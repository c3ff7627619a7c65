"""One running verb: who prints, how it exits, what an error becomes."""

import json as json_format
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

import typer

from birdsonnx.errors import BirdsonnxError

if TYPE_CHECKING:
    from birdsonnx.reporting.console import Console
    from birdsonnx.runtime.ranks import Ranks

T = TypeVar("T")

DONE, SOME_REFUSED, CANNOT = 0, 1, 2


class Job:
    """One running verb: who prints, what goes into the JSON object, how it exits."""

    def __init__(self, json: bool) -> None:
        self.json = json
        self.result: dict[str, Any] = {}
        self.code = DONE
        self.ranks: Ranks | None = None

    @property
    def speaks(self) -> bool:
        return self.ranks is None or self.ranks.is_first

    def join_ranks(self) -> "Ranks":
        """The MPI ranks of this run."""
        from birdsonnx.runtime import ranks

        self.ranks = ranks.join()
        return self.ranks

    def console(self) -> "Console":
        from birdsonnx.reporting.console import Console

        return Console(self.speaks, self.json)

    def say(self, *lines: str) -> None:
        """Lines for people on stdout; silent under --json and on other ranks."""
        if self.speaks and not self.json:
            for line in lines:
                print(line)

    def fail(self, message: str, code: int = CANNOT) -> None:
        prefix = (
            f"birdsonnx: rank {self.ranks.rank}: " if self.ranks and self.ranks.size > 1 else "birdsonnx: "
        )
        print(prefix + printable(message), file=sys.stderr, flush=True)
        if self.json:
            self.result = {"error": message}
        self.code = code


@contextmanager
def running(json: bool, debug: bool) -> Iterator[Job]:
    """Run a verb's body: errors become one line and an exit code, results one JSON object."""
    job = Job(json)
    try:
        yield job
    except BirdsonnxError as error:
        if debug:
            raise
        if error.agreed:  # every rank has it: the first speaks, all leave
            job.code = CANNOT
            if job.speaks and job.ranks is not None:
                print(f"birdsonnx: {printable(str(error))}", file=sys.stderr, flush=True)
                job.result = {"error": str(error)}
        else:
            job.fail(str(error))
            _abort(job)
    except KeyboardInterrupt:
        job.fail("interrupted", 130)
        _abort(job)
    except BrokenPipeError:  # the reader of our output left
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        job.code = 141
    except Exception as error:
        if debug:
            raise
        reason = " ".join(str(error).split())
        job.fail(f"internal error: {type(error).__name__}: {reason}; --debug shows where")
        _abort(job)
    if job.json and job.speaks:
        print(json_format.dumps(job.result, default=str))
    raise typer.Exit(job.code)


def _abort(job: Job) -> None:
    if job.ranks is not None and job.ranks.size > 1:
        job.ranks.abort(job.code)


def printable(text: str) -> str:
    """The text with undecodable file name bytes shown as they are in repr."""
    return text.encode(errors="backslashreplace").decode()


def agreed(produce: Callable[[], T]) -> T:
    """A step that goes the same way on every rank, so that its error is everyone's."""
    try:
        return produce()
    except BirdsonnxError as error:
        error.agreed = True
        raise
