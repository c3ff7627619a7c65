"""Who waits for memory; and that big pictures do."""

import subprocess
import sys
import threading
import time
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from birdsonnx.config.transforms import Resize
from birdsonnx.errors import ImageError
from birdsonnx.images import decoding
from birdsonnx.images.decoding import decoder
from birdsonnx.runtime import memory
from birdsonnx.runtime.memory import Budget


def most_at_once(total: int, wanted: list[int]) -> int:
    """The most bytes that threads, each of which wants some, have at the same time."""
    budget, lock = Budget(total, 100), threading.Lock()
    now = most = 0

    def take(count: int) -> None:
        nonlocal now, most
        with budget.taking(count):
            with lock:
                now += count
                most = max(most, now)
            time.sleep(0.005)
            with lock:
                now -= count

    threads = [threading.Thread(target=take, args=(count,)) for count in wanted]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
        assert not thread.is_alive()
    return most


def test_no_more_than_the_budget_is_taken_at_once():
    assert most_at_once(10, [4] * 20) == 8
    assert most_at_once(10, [1, 9, 3, 7, 5, 5, 2, 8, 10] * 3) <= 10


def test_who_wants_more_than_all_has_it_alone():
    assert most_at_once(10, [15, 1, 15, 2, 30, 1]) == 30


def test_what_a_failed_body_had_is_free_again():
    budget = Budget(10, 100)
    for _ in range(3):
        with pytest.raises(ValueError, match="broken"), budget.taking(8):
            raise ValueError("broken")
    with budget.taking(10):
        pass


def test_a_picture_that_takes_more_than_there_is_is_refused(monkeypatch):
    Image.new("RGB", (300, 200)).save("big.png")
    read = decoder(32, 32, 3, None)
    for there, outcome in (
        (300 * 200 * 12, pytest.raises(ImageError, match=r"it takes .* GB of memory")),
        (300 * 200 * 13, nullcontext()),
    ):
        monkeypatch.setattr(decoding, "for_pictures", partial(Budget, there // 4, there))
        with outcome:
            read(Path("big.png"))


@pytest.mark.parametrize(
    ("line", "files", "expected"),
    [
        ("0::/job/step", {"memory.max": "max", "job/memory.max": "5000"}, 5000),
        ("0::/job/step", {"job/memory.max": "5000", "job/step/memory.max": "700"}, 700),
        ("0::/job/step", {"memory.max": "900"}, 900),
        ("7:cpu,memory:/job", {"memory/memory.limit_in_bytes": "800"}, 800),
        ("7:cpu,memory:/job", {"memory/job/memory.limit_in_bytes": "600", "memory.max": "5"}, 600),
    ],
)
def test_the_limit_is_what_the_control_groups_allow(tmp_path, line, files, expected):
    for name, content in files.items():
        path = tmp_path / "groups" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content + "\n")
    (tmp_path / "own").write_text(line + "\n")
    assert memory.limit(tmp_path / "groups", tmp_path / "own") == expected


def test_this_machine_has_a_limit():
    assert 2**28 < memory.limit() <= 2**50


SCRIPT = """
import sys
from pathlib import Path
from birdsonnx.config.transforms import Resize
from birdsonnx.images.decoding import decoder
from birdsonnx.runtime import memory
from birdsonnx.runtime.sessions import in_streams

def most():
    # In KB. Not by getrusage, which counts what the process was before exec as well.
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:"))

name, budget, streams = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
memory.for_pictures.cache_clear()
memory.limit = lambda: 4 * budget
decode = decoder(32, 32, 3, (Resize(32, 32),))
decode(Path("small" + name))
before = most()
list(in_streams(streams, decode, [Path(name)] * 2 * streams))
print(1024 * (most() - before))
"""

SIDE = 1600
KINDS: dict[str, tuple[str, dict[str, Any]]] = {
    "big.png": ("RGBA", {}),
    "big.webp": ("RGBA", {"method": 0}),
    "big.avif": ("RGBA", {"speed": 10}),
    "big.tif": ("RGBA", {"compression": "tiff_adobe_deflate"}),
    "big.jpg": ("RGB", {}),
    "big.progressive.jpg": ("RGB", {"progressive": True, "subsampling": 0}),
    "big.cmyk.jpg": ("CMYK", {"progressive": True}),
}
"""All of a size that JPEGs are decoded at 1/8 of, and turned by EXIF."""


def taken(name: str, budget: int, streams: int) -> int:
    """The most memory that so many streams take for large pictures."""
    command = [sys.executable, "-c", SCRIPT, name, str(budget), str(streams)]
    # What is freed goes back at once: else each thread keeps some of it for its next picture.
    environment = {"PYTHONPATH": ":".join(sys.path), "MALLOC_MMAP_THRESHOLD_": "1000000"}
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    return int(done.stdout)


@pytest.mark.skipif(sys.platform != "linux", reason="by /proc")
@pytest.mark.parametrize("name", KINDS)
def test_streams_that_decode_big_pictures_stay_within_it(name):
    """A budget for two: of four streams no more than two decode."""
    mode, options = KINDS[name]
    exif = Image.Exif()
    exif[0x0112] = 6
    noise = np.random.default_rng(0).integers(0, 256, (30, 30, 4), np.uint8)
    for path, side in ((name, SIDE), ("small" + name, 64)):
        picture = Image.fromarray(noise).resize((side, side))
        picture.convert(mode).save(path, exif=exif, **options)
    decode = decoder(32, 32, 3, (Resize(32, 32),))
    with Path(name).open("rb") as file, Image.open(file) as image:
        planned = decode._bytes_of(file, image)
    one = taken(name, planned, 1)
    assert one < 1.1 * planned + 4e6, "what is planned for a picture must be what it takes"
    assert taken(name, int(2.5 * planned), 4) < 2.5 * planned + 16e6
