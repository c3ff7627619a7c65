"""Delay of what a host sends, for hosts on one machine (`hosts.py`) whose kernel has no `netem`.

    python -m benchmarks.delayed_link MICROSECONDS

Runs inside of a host until it is ended. Netfilter holds every packet that leaves by eth0 until this program
lets it go (its queue 0), after so long; it reads the packets' numbers only, 64 KB of a stream at a time, so
that 10 Gbit/s pass. Takes root and iptables (Debian's package).
"""

import contextlib
import ctypes
import os
import select
import shutil
import socket
import struct
import subprocess
import sys
import time
from collections import deque

NETLINK_NETFILTER = 12
QUEUE = 3 << 8
PACKET, VERDICT_BATCH, CONFIG = QUEUE | 0, QUEUE | 3, QUEUE | 2
CFG_COMMAND, CFG_PARAMETERS, CFG_LENGTH, CFG_MASK, CFG_FLAGS = 1, 2, 3, 4, 5
BIND, COPY_META, FAIL_OPEN, WHOLE_SEGMENTS = 1, 1, 1, 4
"""Names and numbers: linux/netfilter/nfnetlink_queue.h."""
ACCEPT = 1


def message(kind: int, *attributes: tuple[int, bytes]) -> bytes:
    """A message to queue 0: netlink's header, nfnetlink's, then each attribute padded to 4 bytes."""
    content = struct.pack(">BBH", socket.AF_UNSPEC, 0, 0)
    for name, value in attributes:
        content += struct.pack("=HH", 4 + len(value), name) + value + b"\0" * (-len(value) % 4)
    return struct.pack("=IHHII", 16 + len(content), kind, 1, 0, 0) + content


def packets_in(content: bytes) -> list[int]:
    """The numbers of the packets that messages from the queue tell of."""
    found, start = [], 0
    while start + 16 <= len(content):
        length, kind = struct.unpack_from("=IH", content, start)
        if kind == PACKET:  # its first attribute is the packet's header, which begins with its number
            found.append(struct.unpack_from(">I", content, start + 16 + 4 + 4)[0])
        start += (length + 3) & ~3
    return found


def main() -> None:
    delay_s = float(sys.argv[1]) * 1e-6
    os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))  # or it waits for what computes on its core
    ctypes.CDLL(None).prctl(29, 1, 0, 0, 0)  # PR_SET_TIMERSLACK: sleeps to the nanosecond, not to 50 us
    queue = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_NETFILTER)
    queue.setsockopt(socket.SOL_SOCKET, 33, 2**24)  # SO_RCVBUFFORCE
    queue.bind((0, 0))
    queue.send(message(CONFIG, (CFG_COMMAND, struct.pack(">BBH", BIND, 0, socket.AF_INET))))
    flags = struct.pack(">I", FAIL_OPEN | WHOLE_SEGMENTS)
    queue.send(
        message(
            CONFIG,
            (CFG_PARAMETERS, struct.pack(">IB", 0, COPY_META)),
            (CFG_LENGTH, struct.pack(">I", 100_000)),
            (CFG_MASK, flags),
            (CFG_FLAGS, flags),
        )
    )
    tool = shutil.which("iptables-legacy", path="/usr/sbin:/sbin:/usr/bin")
    if tool is None:
        raise SystemExit("iptables is not installed")
    rule = ["-A", "OUTPUT", "-o", "eth0", "-j", "NFQUEUE", "--queue-num", "0", "--queue-bypass"]
    subprocess.run([tool, *rule], check=True)
    print("delaying", flush=True)
    queue.setblocking(False)
    held: deque[tuple[float, int]] = deque()
    while True:
        wait_s = None if not held else max(0.0, held[0][0] - time.monotonic())
        select.select([queue], [], [], wait_s)  # a socket's own timeout is in whole milliseconds
        with contextlib.suppress(BlockingIOError):
            while True:
                numbers = packets_in(queue.recv(2**16))
                due = time.monotonic() + delay_s
                held += [(due, number) for number in numbers]
        now, last = time.monotonic(), None
        while held and held[0][0] <= now:
            last = held.popleft()[1]
        if last is not None:
            queue.send(message(VERDICT_BATCH, (2, struct.pack(">II", ACCEPT, last))))


if __name__ == "__main__":
    main()
