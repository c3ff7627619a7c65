"""How `birdsonnx serve` stands a load, on this machine's loopback: `make bench-serve`.

The session's rate comes first: the bare session on pixels in memory, in as many streams as the server has.
Then, against a server in a process of its own: a closed loop (so many clients, each sends its next photo when
it has its answer), and open loops, in which photos come at random times (Poisson) at a share of the session's
rate, whatever was answered; a latency counts from when a photo should have been sent. Every answer is
compared with the first one for its photo. Before the last loop clients leave in the middle of an upload, and
others send slowly. The tables go to stdout as Markdown, all figures to `--json FILE`.

    python -m benchmarks.serving --model MODEL.onnx --data PHOTOS [--seconds 20]

Client and server share the cores: the client's share is in the table.
"""

import argparse
import asyncio
import itertools
import json
import random
import statistics
import subprocess
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np

from birdsonnx.images.inputs import collect
from birdsonnx.inference.classifier import open_classifier
from birdsonnx.inference.timing import timed
from birdsonnx.model.metadata import INPUT
from birdsonnx.runtime.threads import available_cores

LOADS = (0.5, 0.9, 1.5)
"""Of the session's rate, of the open loops."""
ABORTED, SLOW = 200, 16
MOST_PHOTOS = 64
IDLE_S = 3.0
"""After which a connection is not used again: the server closes it after 5."""


@dataclass
class Outcome:
    """What became of a loop's photos."""

    name: str
    seconds: float = 0.0
    latencies_ms: list[float] = field(default_factory=list)
    """Of those that were named."""
    statuses: Counter[int] = field(default_factory=Counter)
    wrong: int = 0
    """Answers that differ from the first one for the same photo."""
    client_cpu_s: float = 0.0
    rss_mb: float = 0.0
    """Of the server, afterwards."""

    @property
    def rate(self) -> float:
        return self.statuses[200] / self.seconds

    def percentile(self, percent: float) -> float:
        return float(np.percentile(self.latencies_ms, percent)) if self.latencies_ms else float("nan")

    def row(self) -> str:
        lost = sum(count for status, count in self.statuses.items() if status not in (200, 503))
        p50, p90, p99 = (self.percentile(percent) for percent in (50, 90, 99))
        return (
            f"| {self.name} | {sum(self.statuses.values())} | {self.statuses[503]} | {lost} | {self.wrong} "
            f"| {self.rate:.1f} | {p50:.0f} | {p90:.0f} | {p99:.0f} | {self.rss_mb:.0f} "
            f"| {100 * self.client_cpu_s / self.seconds:.0f} % |"
        )


class Client:
    """Connections that are kept, and the photos that go over them."""

    def __init__(self, url: str, photos: list[bytes]) -> None:
        place = urlsplit(url)
        self._address = (place.hostname, place.port)
        self._free: list[tuple[float, asyncio.StreamReader, asyncio.StreamWriter]] = []
        """Since when each is free."""
        self.requests = [_request(photo) for photo in photos]
        self._first: dict[int, list[Any]] = {}

    @asynccontextmanager
    async def _connection(self) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
        while self._free and time.perf_counter() - self._free[0][0] > IDLE_S:
            self._free.pop(0)[2].close()
        pair = self._free.pop()[1:] if self._free else await asyncio.open_connection(*self._address)
        try:
            yield pair
        except BaseException:
            pair[1].close()
            raise
        self._free.append((time.perf_counter(), *pair))

    async def ask(self, request: bytes) -> tuple[int, bytes]:
        """Status and body of an answer; status 0 where the connection broke."""
        try:
            async with self._connection() as (reader, writer):
                writer.write(request)
                await writer.drain()
                head = await reader.readuntil(b"\r\n\r\n")
                length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
                return int(head.split()[1]), await reader.readexactly(length)
        except (OSError, asyncio.IncompleteReadError):
            return 0, b""

    async def name(self, photo: int, due: float, outcome: Outcome) -> int:
        """Send a photo that should have been sent at `due`; its status."""
        status, body = await self.ask(self.requests[photo])
        outcome.statuses[status] += 1
        if status == 200:
            outcome.latencies_ms.append(1000 * (time.perf_counter() - due))
            top = json.loads(body)["predictions"][0]["top"]
            first = self._first.setdefault(photo, top)
            same = [name for name, _ in top] == [name for name, _ in first] and np.allclose(
                [share for _, share in top], [share for _, share in first], atol=1e-4
            )
            outcome.wrong += not same
        return status

    async def rss_mb(self) -> float:
        _, body = await self.ask(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n")
        [line] = [each for each in body.decode().splitlines() if each.startswith("process_resident")]
        return int(line.split()[-1]) / 2**20

    async def leave(self, photo: int) -> None:
        """Begin an upload, and go in its middle."""
        _, writer = await asyncio.open_connection(*self._address)
        request = self.requests[photo]
        writer.write(request[: len(request) // 2])
        await writer.drain()
        writer.close()

    async def dawdle(self, photo: int, seconds: float) -> int:
        """Send a photo in pieces over so long a time; its status."""
        reader, writer = await asyncio.open_connection(*self._address)
        request = self.requests[photo]
        size = len(request) // 20 + 1
        for start in range(0, len(request), size):
            writer.write(request[start : start + size])
            await asyncio.sleep(seconds / 20)
        head = await reader.readuntil(b"\r\n\r\n")
        writer.close()
        return int(head.split()[1])


def _request(photo: bytes) -> bytes:
    head = "POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/octet-stream\r\n"
    return f"{head}Content-Length: {len(photo)}\r\n\r\n".encode() + photo


@contextmanager
def measured(outcome: Outcome) -> Iterator[None]:
    """Time a loop."""
    started, used = time.perf_counter(), time.process_time()
    yield
    outcome.seconds = time.perf_counter() - started
    outcome.client_cpu_s = time.process_time() - used


async def closed_loop(client: Client, clients: int, seconds: float) -> Outcome:
    """Each client sends its next photo when it has its answer."""
    outcome = Outcome(f"closed, {clients} clients")
    end = time.perf_counter() + seconds
    turn = itertools.count()

    async def one() -> None:
        while (now := time.perf_counter()) < end:
            await client.name(next(turn) % len(client.requests), now, outcome)

    with measured(outcome):
        await asyncio.gather(*(one() for _ in range(clients)))
    return outcome


async def open_loop(client: Client, rate: float, share: float, seconds: float) -> Outcome:
    """Photos come at random, `rate` a second."""
    outcome = Outcome(f"open, {100 * share:.0f} % ({rate:.1f}/s)")
    chance = random.Random(0)
    tasks = []
    with measured(outcome):
        due = start = time.perf_counter()
        while (due := due + chance.expovariate(rate)) < start + seconds:
            await asyncio.sleep(max(0.0, due - time.perf_counter()))
            photo = chance.randrange(len(client.requests))
            tasks.append(asyncio.create_task(client.name(photo, due, outcome)))
        await asyncio.gather(*tasks)
    return outcome


async def disturb(client: Client) -> str:
    """Clients that leave, and clients that are slow, at once; what became of those."""
    leaving = asyncio.gather(*(client.leave(number % len(client.requests)) for number in range(ABORTED)))
    slow = asyncio.gather(*(client.dawdle(number % len(client.requests), 5.0) for number in range(SLOW)))
    await leaving
    statuses = Counter(await slow)
    return (
        f"{ABORTED} clients left in the middle of an upload; {SLOW} took 5 s for theirs: {dict(statuses)}; "
        f"{await client.rss_mb():.0f} MB afterwards"
    )


def session_rate(model: Path, seconds: float) -> tuple[float, int]:
    """Images/s of the bare session in as many streams as there are cores; and photos under way at once."""
    classifier = open_classifier(model, str(model), 10**6, len(available_cores()))
    engine = classifier.engine
    pixels = np.random.default_rng(0).integers(
        0, 256, (classifier.per_run, *engine.input_shapes[INPUT][1:]), np.uint8
    )
    found = timed(lambda: engine.run({INPUT: pixels}), time.perf_counter() + seconds, classifier.streams)
    return (
        len(found.durations_s) * classifier.per_run / found.elapsed_s,
        classifier.streams * classifier.per_run,
    )


@contextmanager
def served(model: Path) -> Iterator[str]:
    """The address of a server; at the end it must answer all and say so."""
    command = [sys.executable, "-m", "birdsonnx", "serve", str(model), "--port", "0", "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            yield json.loads(process.stdout.readline())["url"]
        finally:
            process.terminate()
        assert process.wait(60) == 0


async def load(url: str, photos: list[bytes], rates: list[float], at_once: int, seconds: float) -> Any:
    client = Client(url, photos)
    outcomes = []

    async def done(outcome: Outcome) -> None:
        outcome.rss_mb = await client.rss_mb()
        outcomes.append(outcome)
        print(outcome.row(), flush=True)

    await closed_loop(client, 2, 3)  # warm-up
    await done(await closed_loop(client, 2 * at_once, seconds))
    for share, rate in zip(LOADS, rates, strict=True):
        await done(await open_loop(client, rate, share, seconds))
    disturbances = await disturb(client)
    await done(await closed_loop(client, 2 * at_once, seconds))
    print(f"\n{disturbances}")
    return outcomes


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--data", required=True, help="photos")
    parser.add_argument("--seconds", type=float, default=20, help="for each loop")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    found = collect([options.data])
    photos = [photo.path.read_bytes() for photo in found[:: max(1, len(found) // MOST_PHOTOS)]]
    rate, at_once = session_rate(options.model, options.seconds)
    size = statistics.mean(map(len, photos))
    print(f"session alone: {rate:.1f} images/s; {len(photos)} photos of {size:,.0f} bytes on average\n")
    print("| loop | photos | 503 | lost | wrong | images/s | p50 ms | p90 | p99 | RSS MB | client's CPU |")
    print("|---|---|---|---|---|---|---|---|---|---|---|")
    with served(options.model) as url:
        rates = [rate * share for share in LOADS]
        outcomes = asyncio.run(load(url, photos, rates, at_once, options.seconds))
    if options.json is not None:
        loops = [vars(each) | {"statuses": dict(each.statuses)} for each in outcomes]
        content = {"session_images_per_second": rate, "loops": loops}
        options.json.write_text(json.dumps(content, indent=1))
    assert not any(each.wrong for each in outcomes)


if __name__ == "__main__":
    main()
