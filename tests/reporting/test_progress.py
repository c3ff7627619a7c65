"""Progress: what is shown when, of work that takes long, in a terminal and in a log."""

import io
import os
import pty
import re
import subprocess
import sys

import pytest

from birdsonnx.reporting import console as consoles
from birdsonnx.reporting import progress as progressing
from birdsonnx.reporting.bar import Bar
from birdsonnx.reporting.console import Console
from birdsonnx.reporting.progress import Lines, Progress, Shown, in_words


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def work(clock: Clock, view: object, steps: int, step_s: float, total: int | None) -> None:
    """Steps that take so long each, looked at twice a second."""
    piece = Shown(Progress("photos", total, clock), view)
    for _ in range(steps):
        for _ in range(int(2 * step_s)):
            clock.now += 0.5
            piece.look()
        piece.progress.advance(100)
    piece.end()


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (0.1, "1 s"),
        (59.4, "59 s"),
        (59.6, "1 min 0 s"),
        (130, "2 min 10 s"),
        (3599.9, "1 h 0 min"),
        (3900, "1 h 5 min"),
        (100_000, "27 h 46 min"),
    ],
)
def test_durations_in_words(seconds, said):
    assert in_words(seconds) == said


def test_a_log_gets_a_line_every_30_s(clock, capsys):
    work(clock, Lines(), 40, 2, 9000)
    assert capsys.readouterr().err.splitlines() == [
        "photos 1,400 of 9,000, 2 min 30 s left",
        "photos 2,900 of 9,000, 2 min 0 s left",
    ]


def test_work_that_ends_sooner_is_not_shown(clock, capsys):
    work(clock, Lines(), 29, 1, 9000)
    assert capsys.readouterr() == ("", "")


def test_a_long_step_is_told_as_well(clock, capsys):
    """Of a total that nobody knows, before the first step, and beyond the time that was expected."""
    work(clock, Lines(), 1, 62, None)
    work(clock, Lines(), 1, 40, 200)
    piece = Shown(Progress("photos", 300, clock), Lines())
    clock.now += 20
    piece.progress.advance(200)
    clock.now += 11
    piece.look()
    assert capsys.readouterr().err.splitlines() == [
        "photos 30 s so far",
        "photos 1 min 0 s so far",
        "photos 0 of 200, 30 s so far",
        "photos 200 of 300, 31 s so far",
    ]


def test_more_steps_than_there_are_count_as_all(clock):
    progress = Progress("photos", 10, clock)
    clock.now += 3
    progress.advance(8)
    progress.advance(8)
    assert (progress.done, progress.state) == (10, "10 of 10, 3 s so far")


def test_a_bar_in_a_terminal_appears_after_2_s_and_goes(clock, monkeypatch):
    terminal = io.StringIO()
    monkeypatch.setattr(terminal, "isatty", lambda: True)
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "80")
    work(clock, Bar(), 1, 1.5, 9000)
    assert terminal.getvalue() == ""
    work(clock, Bar(), 4, 1, 9000)
    shown = terminal.getvalue()
    assert "100 of 9,000, " in shown
    assert "300 of 9,000, 1 min 26 s left" in shown
    assert shown.endswith("\x1b[1A\x1b[2K"), "the last line is erased"
    assert "\x1b[?25l" not in shown, "the cursor stays"


@pytest.mark.parametrize("options", [{"speaks": False}, {"speaks": True}])
def test_only_rank_0_shows_anything(monkeypatch, capsys, options):
    monkeypatch.setattr(Lines, "first_s", 0.0)
    monkeypatch.setattr(progressing, "LOOKED_AT_EVERY_S", 0.001)
    monkeypatch.setattr(sys.stdout, "isatty", lambda: False)
    before = capsys.readouterr().err
    with Console(**options).progress("photos", 100) as advance:
        while options["speaks"] and not before:
            before = capsys.readouterr().err
            advance(1)
    assert before.startswith("photos ") == options["speaks"]
    assert capsys.readouterr() == ("", "")


def test_a_part_of_work_is_shown_instead_of_the_whole(monkeypatch, capsys):
    monkeypatch.setattr(Lines, "first_s", 0.0)
    monkeypatch.setattr(Lines, "every_s", 0.0)
    monkeypatch.setattr(progressing, "LOOKED_AT_EVERY_S", 0.001)

    def next_title() -> str:
        capsys.readouterr()
        said = ""
        while said.count("\n") < 3:
            said += capsys.readouterr().err
        return said.splitlines()[1].split(" ")[0]

    console = Console()
    with console.progress("whole"):
        assert next_title() == "whole"
        with console.progress("part", 7):
            assert next_title() == "part"
        assert next_title() == "whole"


SLOW = """
import sys, time
from birdsonnx.reporting.bar import Bar
from birdsonnx.reporting.console import Console
Bar.first_s, seen = 0.0, Bar.show
shows = []
Bar.show = lambda bar, progress: (seen(bar, progress), shows.append(progress.done))
console = Console(json={json})
with console.progress("photos", 4) as advance:
    for number in range(4):
        before = len(shows)
        while len(shows) < before + 2:
            time.sleep(0.01)
        console.say(f"line {{number}}")
        advance(1)
"""


@pytest.mark.parametrize("json", [False, True])
def test_lines_go_to_stdout_also_while_a_bar_is_drawn(json):
    """With stderr a terminal and stdout a pipe: rich alone would send both to stderr."""
    main, side = pty.openpty()
    done = subprocess.run(
        [sys.executable, "-c", SLOW.format(json=json)],
        stdout=subprocess.PIPE,
        stderr=side,
        env={**os.environ, "TERM": "xterm"},
        text=True,
        check=True,
    )
    os.close(side)
    drawn = os.read(main, 100_000).decode()
    os.close(main)
    assert done.stdout.splitlines() == ([] if json else [f"line {number}" for number in range(4)])
    assert re.search(r"photos .* 3 of 4, ", drawn)
    assert "line" not in drawn


def test_a_dumb_terminal_gets_lines(monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    monkeypatch.setenv("TERM", "dumb")
    assert isinstance(consoles._view(), Lines)
    monkeypatch.setenv("TERM", "xterm")
    assert isinstance(consoles._view(), Bar)
