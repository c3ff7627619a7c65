"""Ranks of several hosts that watch over each other: here over the loopback device, in processes of one
machine."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from birdsonnx.errors import RankError
from birdsonnx.runtime import far_hosts
from birdsonnx.runtime.far_hosts import FarHosts, named

RANK_1 = """
import sys, threading
from birdsonnx.runtime.far_hosts import FarHosts
far = FarHosts(1, ["a", "b"])
far.start((["127.0.0.1"], int(sys.argv[1]), bytes.fromhex(sys.argv[2])))
sys.stdin.read()
far.leave(sys.argv[3].encode())
"""


@pytest.fixture
def losses(monkeypatch) -> list[str]:
    """What rank 0 reports; no process ends in these tests."""
    monkeypatch.setattr(far_hosts, "end", lambda code: None)
    return []


class Center:
    """Rank 0 in this process, and rank 1 in another one."""

    def __init__(self, losses: list[str], word: str = "g") -> None:
        self.far = FarHosts(0, ["a", "b"])
        first = self.far.listen()
        assert first is not None
        _, port, token = first
        self.reported = threading.Event()

        def report(error: RankError) -> None:
            losses.append(str(error))
            self.reported.set()

        self.far.report = report
        self.far.start(first)
        command = [sys.executable, "-c", RANK_1, str(port), token.hex(), word]
        self.rank_1 = subprocess.Popen(command, stdin=subprocess.PIPE)
        until(lambda: bool(self.far._peers))

    def end(self) -> None:
        self.far.leave()
        assert self.rank_1.stdin is not None
        self.rank_1.stdin.close()
        self.rank_1.kill()
        self.rank_1.wait()


def until(reached: Callable[[], bool]) -> None:
    ends_s = time.monotonic() + 20
    while not reached():
        assert time.monotonic() < ends_s
        time.sleep(0.01)


@pytest.fixture
def center(losses) -> Iterator[Center]:
    center = Center(losses)
    yield center
    center.end()


def test_a_process_that_is_killed_is_reported_at_once(center, losses):
    center.rank_1.kill()
    assert center.reported.wait(10)
    assert losses[0].startswith("rank 1 on b: gone without a word")
    assert "--resume" in losses[0]


def test_a_goodbye_is_no_loss(center, losses):
    center.rank_1.stdin.close()
    assert center.rank_1.wait(10) == 0
    until(lambda: not center.far._peers)
    assert losses == []


def test_a_rank_that_ends_all_for_an_error_of_its_own_is_no_loss(losses):
    center = Center(losses, word="e")
    center.rank_1.stdin.close()
    assert center.rank_1.wait(10) == 0
    until(lambda: not center.far._peers)
    assert losses == []
    center.end()


def test_a_process_that_is_stopped_is_there(losses, monkeypatch):
    """For longer than its kernel might be silent."""
    for name, value in {"IDLE_S": 1, "INTERVAL_S": 1, "PROBES": 1, "SILENCE_S": 2}.items():
        monkeypatch.setattr(far_hosts, name, value)
    center = Center(losses)
    os.kill(center.rank_1.pid, signal.SIGSTOP)
    assert not center.reported.wait(4)
    os.kill(center.rank_1.pid, signal.SIGCONT)
    center.rank_1.stdin.close()
    assert center.rank_1.wait(10) == 0
    assert losses == []
    center.end()


def test_after_a_loss_nobody_leaves_before_it_is_reported(center, losses):
    """The main thread may be at its end, where MPI would wait for who is lost."""
    waiting = threading.Event()
    center.far.report = lambda error: waiting.wait(10)
    center.rank_1.kill()
    until(lambda: center.far.has_lost)
    leaving = threading.Thread(target=center.far.leave)
    leaving.start()
    leaving.join(0.2)
    assert leaving.is_alive()
    waiting.set()
    leaving.join(10)
    assert not leaving.is_alive()


def test_a_report_that_nobody_reads_ends_the_process_all_the_same(center, monkeypatch):
    codes: list[int] = []
    monkeypatch.setattr(far_hosts, "end", codes.append)

    def report(error: RankError) -> None:
        raise BrokenPipeError

    center.far.report = report
    center.rank_1.kill()
    until(lambda: codes == [2])


def test_a_stranger_is_not_taken_for_a_rank(losses):
    far = FarHosts(0, ["a", "b"])
    first = far.listen()
    assert first is not None
    far.start(first)
    for hello in (b"GET / HTTP/1.1\r\n\r\n      ", bytes(20), first[2] + (7).to_bytes(4)):
        with socket.create_connection(("127.0.0.1", first[1])) as stranger:
            stranger.sendall(hello)
            with contextlib.suppress(ConnectionResetError):  # where it left some of that unread
                assert stranger.recv(1) == b""
    assert not far._peers
    far.leave()


def test_who_cannot_connect_is_named_once(losses, monkeypatch, capfd):
    monkeypatch.setattr(far_hosts, "CONNECTING_S", 0.1)
    far = FarHosts(0, ["a", "b", "b"])
    far.start(far.listen())
    assert far._thread is not None
    far._thread.join(10)
    [line] = capfd.readouterr().err.splitlines()
    assert line.startswith("birdsonnx: ranks 1, 2 on b cannot connect to a (a firewall?)")


def test_a_silent_host_is_told_from_a_process_that_ended():
    hosts = ["a", "a", "b", "b", "c"]
    silent = far_hosts._described({2: "Connection timed out"}, hosts)
    assert silent.startswith("ranks 2, 3 on b: no answer from there for 13 s (Connection timed out)")
    assert far_hosts._described({1: None, 4: None}, hosts).startswith(
        "ranks 1, 4 on a, c: gone without a word"
    )
    assert named([0], hosts) == "rank 0 on a"


def test_only_open_mpi_s_launchers_are_ended():
    assert not far_hosts.launches_by_itself(os.getpid())
    assert not far_hosts.launches_by_itself(2**22 + 1)
