"""Hosts that vanish: a cable is pulled, a machine loses its power. MPI would wait for them for ever.

Where the ranks are on several hosts, each of them holds a TCP connection to rank 0, on which nothing is said
but a goodbye. The kernels ask each other every few seconds whether they are still there. So a rank that
computes for minutes, that is stopped, or whose machine is busy counts as there; a host whose kernel answers
no more has vanished; and of a process that is killed its kernel says so at once, because it closes the
connection without a goodbye. A thread that sleeps until then watches over it, on both sides: who is cut off
ends as well.
"""

import atexit
import contextlib
import errno
import hmac
import os
import secrets
import selectors
import signal
import socket
import struct
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from birdsonnx.errors import RankError

IDLE_S, INTERVAL_S, PROBES = 5, 2, 4
"""The kernel asks after so long without a word, then so often, so many times."""
SILENCE_S = IDLE_S + INTERVAL_S * PROBES
"""After so long without an answer a host has vanished."""
CONNECTING_S = 30.0
"""For all ranks to connect; a rank whose packets a firewall drops is not watched."""
ATTEMPT_S = 2.0
"""For one address of rank 0's host."""
TOGETHER_S = 0.05
"""Connections that end within this time end for one reason."""
LAUNCHER_S = 6.0
"""For Open MPI's launcher to end the job by itself."""

GOODBYE, ENDING, LOST = b"g", b"e", b"l"
"""A rank leaves as it should; a rank ends all others, for an error of its own; because it has lost some."""

TOKEN_BYTES = 16
HELLO = struct.Struct(f"!{TOKEN_BYTES}sI")

Connected = tuple[Sequence[str], int, bytes]
"""Where rank 0 listens: addresses of its host, the port, and what a rank has to show there."""

Report = Callable[[RankError], None]


class FarHosts:
    """One rank's connections to the others.

    Args:
        rank: of this process.
        hosts: the name of each rank's host.
    """

    def __init__(self, rank: int, hosts: Sequence[str]) -> None:
        self._rank = rank
        self._hosts = hosts
        self._listener: socket.socket | None = None
        self._token = secrets.token_bytes(TOKEN_BYTES)
        self._selector = selectors.DefaultSelector()
        self._peers: dict[int, socket.socket] = {}
        self._met: set[int] = set()
        self._lock = threading.Lock()
        self._is_over = False
        self._thread: threading.Thread | None = None
        self.has_lost = False
        """Whether a rank or a host has vanished."""
        self.report: Report | None = None
        """Told of a loss, in a thread of its own; it is to end the process."""

    def listen(self) -> Connected | None:
        """Rank 0's part: let the others connect. None: no port can be had here."""
        try:
            self._listener = socket.create_server(("", 0))
        except OSError:
            return None
        return _addresses(), self._listener.getsockname()[1], self._token

    def start(self, first: Connected | None) -> None:
        """Connect, and watch from now on; `first` is what `listen` gave to rank 0."""
        if first is None:
            return
        self._thread = threading.Thread(target=self._watch, args=(first,), name="far hosts", daemon=True)
        self._thread.start()
        atexit.register(self.leave)  # before MPI ends, which may not come to an end without the others

    def leave(self, word: bytes = GOODBYE) -> None:
        """Say goodbye to the others, once. Where a loss is being reported, that ends the process: wait."""
        with self._lock:
            is_first, self._is_over = not self._is_over, True
        if self.has_lost and self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join()
        if is_first:
            self._tell(word)

    def _tell(self, word: bytes) -> None:
        with self._lock:
            for peer in self._peers.values():
                with contextlib.suppress(OSError):
                    peer.send(word)

    # --- In the thread ----------------------------------------------------------------------------------

    def _watch(self, first: Connected) -> None:
        if self._listener is not None:
            self._selector.register(self._listener, selectors.EVENT_READ, None)
        elif (peer := _connected(first, self._rank)) is not None:
            self._add(peer, 0)
        ends_s = time.monotonic() + CONNECTING_S
        while self._listener is not None or self._peers:
            gone = self._look(None if self._listener is None else max(ends_s - time.monotonic(), 0))
            if gone:
                time.sleep(TOGETHER_S)
                gone |= self._look(0)
                self._lose(gone)
                return
            if self._listener is not None and time.monotonic() >= ends_s:
                self._stop_listening()

    def _look(self, timeout_s: float | None) -> dict[int, str | None]:
        """Take what has come; the ranks that went without a goodbye, each with the kernel's reason, None
        where the process closed the connection by its end."""
        gone: dict[int, str | None] = {}
        for key, _ in self._selector.select(timeout_s):
            rank = key.data
            if rank is None:
                self._accept()
                continue
            try:
                word, reason = self._peers[rank].recv(1), None
            except OSError as error:
                word, reason = b"", None if error.errno == errno.ECONNRESET else os.strerror(error.errno or 0)
            self._selector.unregister(self._peers[rank])
            with self._lock:
                self._peers.pop(rank).close()
            if word == b"":
                gone[rank] = reason
            elif word != GOODBYE:
                self._end_with_others(word)
        return gone

    def _accept(self) -> None:
        assert self._listener is not None
        with contextlib.suppress(OSError):
            peer, _ = self._listener.accept()
            peer.settimeout(ATTEMPT_S)
            hello = peer.recv(HELLO.size, socket.MSG_WAITALL)
            if len(hello) < HELLO.size:
                peer.close()
                return
            token, rank = HELLO.unpack(hello)
            if not hmac.compare_digest(token, self._token) or rank in self._met or rank >= len(self._hosts):
                peer.close()
                return
            peer.sendall(self._token)
            self._met.add(rank)
            self._add(peer, rank)
            if len(self._met) == len(self._hosts) - 1:
                self._close_listener()

    def _add(self, peer: socket.socket, rank: int) -> None:
        peer.settimeout(None)
        _keep_asking(peer)
        self._selector.register(peer, selectors.EVENT_READ, rank)
        with self._lock:
            self._peers[rank] = peer
            if self._is_over:
                peer.send(GOODBYE)

    def _stop_listening(self) -> None:
        self._close_listener()
        absent = [rank for rank in range(1, len(self._hosts)) if rank not in self._met]
        if not self._is_over:
            who = f"{named(absent, self._hosts)} cannot connect to {self._hosts[0]}"
            text = f"birdsonnx: {who} (a firewall?): should that host vanish, it is waited for"
            print(text, file=sys.stderr, flush=True)

    def _close_listener(self) -> None:
        assert self._listener is not None
        self._selector.unregister(self._listener)
        self._listener.close()
        self._listener = None

    def _lose(self, gone: dict[int, str | None]) -> None:
        """Report it, on the lowest of the ranks that see it: where that ends all, the others say nothing."""
        time.sleep(min(0.1 * self._rank, 2))
        with self._lock:
            if self._is_over:
                return
            self._is_over = self.has_lost = True
        self._tell(LOST)
        error = RankError(_described(gone, self._hosts))
        with contextlib.suppress(Exception):  # whoever read our output may be gone, too
            if self.report is None:
                print(f"birdsonnx: rank {self._rank}: {error}", file=sys.stderr, flush=True)
            else:
                self.report(error)
        end(2)

    def _end_with_others(self, word: bytes) -> None:
        """Another rank ends them all, and has said why. After a loss its launcher may not reach this one."""
        with self._lock:
            self._is_over = True
        self._tell(word)
        if word == LOST:
            time.sleep(LAUNCHER_S + 1)
            end(2)


def end(code: int) -> None:
    """End this process after a loss, and Open MPI's launcher above it, if that does not end the job by
    itself: even after MPI_Abort it would wait for its part on the vanished host. MPICH's does not."""
    parent = os.getppid()
    if launches_by_itself(parent):
        time.sleep(LAUNCHER_S)
        if os.getppid() == parent:
            with contextlib.suppress(OSError):
                os.kill(parent, signal.SIGKILL)
    os._exit(code)


def launches_by_itself(process: int) -> bool:
    """Whether a process is Open MPI's launcher, or its part on a far host."""
    try:
        name = Path(f"/proc/{process}/comm").read_text().strip()
    except OSError:
        return False
    return name in ("orted", "prted", "orterun", "prterun") or name.startswith(("mpirun", "mpiexec"))


def named(ranks: Sequence[int], hosts: Sequence[str]) -> str:
    """Those ranks with their hosts."""
    names = sorted({hosts[rank] for rank in ranks})
    numbers = ", ".join(map(str, sorted(ranks)))
    return f"rank{'s' * (len(ranks) > 1)} {numbers} on {', '.join(names)}"


def _described(gone: dict[int, str | None], hosts: Sequence[str]) -> str:
    silent = {hosts[rank]: reason for rank, reason in gone.items() if reason is not None}
    if silent:
        ranks = [rank for rank, host in enumerate(hosts) if host in silent]
        why = f"no answer from there for {SILENCE_S} s ({next(iter(silent.values()))})"
    else:
        ranks, why = list(gone), "gone without a word: killed, or the host went down"
    advice = "checkpoints are kept: train goes on with --resume, predict with the same words"
    return f"{named(ranks, hosts)}: {why}; all ranks end, {advice}"


def _keep_asking(peer: socket.socket) -> None:
    """Let the kernel find out whether the other one is still there."""
    peer.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    options = {"TCP_KEEPIDLE": IDLE_S, "TCP_KEEPINTVL": INTERVAL_S, "TCP_KEEPCNT": PROBES}
    options["TCP_USER_TIMEOUT"] = 1000 * SILENCE_S
    for name, value in options.items():
        if hasattr(socket, name):  # they are Linux'
            peer.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)


def _connected(first: Connected, rank: int) -> socket.socket | None:
    """A connection to rank 0, which knows it from now on."""
    addresses, port, token = first
    ends_s = time.monotonic() + CONNECTING_S / 2
    while time.monotonic() < ends_s:
        for address in addresses:
            with contextlib.suppress(OSError):
                peer = socket.create_connection((address, port), ATTEMPT_S)
                peer.sendall(HELLO.pack(token, rank))
                if hmac.compare_digest(peer.recv(TOKEN_BYTES, socket.MSG_WAITALL), token):
                    return peer
                peer.close()
        time.sleep(1)
    return None


def _addresses() -> list[str]:
    """Those of this host that others may reach."""
    found = []
    if sys.platform == "linux":
        import fcntl

        ask_address = 0x8915  # SIOCGIFADDR: linux/sockios.h
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
            for _, name in socket.if_nameindex():
                with contextlib.suppress(OSError):  # an interface without an address
                    answer = fcntl.ioctl(asking, ask_address, struct.pack("256s", name.encode()))
                    found.append(socket.inet_ntoa(answer[20:24]))
    found = [address for address in found if not address.startswith("127.")]
    if not found:
        with contextlib.suppress(OSError):
            found = [str(each[4][0]) for each in socket.getaddrinfo(socket.gethostname(), None)]
    return list(dict.fromkeys(found))
