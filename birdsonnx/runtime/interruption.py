"""Ctrl-C, SIGTERM (Slurm's time limit, `docker stop`) and SIGHUP (a closed terminal) end work in one way.

The first of them raises `Interrupted` in the main thread, or at the end of `held`, where work must not stop
between two of its lines. The second one ends the process at once, whatever it is doing.
"""

import contextlib
import os
import signal
import threading
import time
from collections.abc import Iterator
from typing import Any

SIGNALS = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))

ONE_S = 0.3
"""Signals so close to each other count as one: a launcher passes on what its ranks got from the same hand."""


class Interrupted(KeyboardInterrupt):
    """A signal that asks for the end.

    Attributes:
        number: the signal.
        agreed: every MPI rank raises it at the same place.
    """

    def __init__(self, number: int, message: str = "interrupted", agreed: bool = False) -> None:
        super().__init__(message)
        self.number = number
        self.agreed = agreed

    def adding(self, advice: str) -> "Interrupted":
        """The same with more to say."""
        return Interrupted(self.number, f"{self}; {advice}", self.agreed)


class _Asked:
    """What this process has been asked so far."""

    number = 0
    """The first signal; 0: none."""
    holds = 0
    """How many `held` are open."""
    starts = False
    """Whether one of those is that of `hold_until_joined`."""
    was_raised = False
    """Whether it has become an exception, which nobody has reported yet."""
    is_handled = False
    """Whether a `handled` is open."""


def asked() -> int:
    """The signal that has asked for the end and waits for the end of a `held`; 0: none."""
    return _Asked.number


def raised() -> Interrupted | None:
    """The interruption that nobody has reported yet, if there was one: on its way it may have become another
    error, as the import of a library makes an ImportError of it."""
    return Interrupted(_Asked.number) if _Asked.was_raised else None


def reported() -> None:
    """It has been reported."""
    _Asked.was_raised = False


@contextlib.contextmanager
def held() -> Iterator[None]:
    """Let a signal interrupt only at the end of the block; inside, `asked` says whether one has come."""
    _Asked.holds += 1
    try:
        yield
    finally:
        _Asked.holds -= 1
    if _Asked.number and not _Asked.holds:
        _Asked.was_raised = True
        raise Interrupted(_Asked.number)


def hold_until_joined() -> None:
    """Let a signal interrupt a rank only where it calls `joined`: a launcher takes a process that exits
    before it has come to MPI for done, and the others would wait for it for ever."""
    _Asked.holds, _Asked.starts = _Asked.holds + 1, True


def joined() -> None:
    """The ranks know each other. Raises Interrupted where a signal has come since `hold_until_joined`."""
    if _Asked.starts:
        _Asked.holds, _Asked.starts = _Asked.holds - 1, False
        with held():
            pass


@contextlib.contextmanager
def handled() -> Iterator[None]:
    """Take care of the signals inside the block. Those that are ignored stay so, as nohup wants it.

    Outside the main thread Python allows no handler: then nothing changes, nor in a block inside another.
    """
    if threading.current_thread() is not threading.main_thread() or _Asked.is_handled:
        yield
        return
    before = {number: signal.getsignal(number) for number in SIGNALS}
    _Asked.number, _Asked.was_raised, _Asked.is_handled = 0, False, True
    with _second_ends_at_once():
        for number, handler in before.items():
            if handler not in (signal.SIG_IGN, None):
                signal.signal(number, _first)
        try:
            yield
        finally:
            for number, handler in before.items():
                if handler is not None:
                    signal.signal(number, handler)
            _Asked.is_handled = False


def _first(number: int, _: Any) -> None:
    if _Asked.number:
        return  # within the same instant, or the process had ended
    _Asked.number = number
    if not _Asked.holds:
        _Asked.was_raised = True
        raise Interrupted(number)


@contextlib.contextmanager
def _second_ends_at_once() -> Iterator[None]:
    """A thread of its own sees to it: Python's handlers wait for the main thread to come out of a library."""
    if os.name == "nt":  # its wake-up wants a socket
        yield
        return
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    before = signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    watching = threading.Thread(target=_watch, args=(reader,), name="signals", daemon=True)
    watching.start()
    try:
        yield
    finally:
        signal.set_wakeup_fd(before)
        os.close(writer)  # the thread ends
        watching.join()


def _watch(reader: int) -> None:
    first_s = None
    while received := os.read(reader, 1):
        number = received[0]
        if number not in SIGNALS:
            continue
        now = time.monotonic()
        if first_s is not None and now - first_s > ONE_S:
            os._exit(128 + number)
        first_s = first_s or now
    os.close(reader)
