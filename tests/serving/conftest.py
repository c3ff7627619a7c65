"""A server as a user starts it, and what a client can do to it."""

import contextlib
import http.client
import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from tests.tiny import make_class_folders, tiny_model

pytest.importorskip("starlette", reason="the extra serve is not installed")
pytest.importorskip("uvicorn", reason="the extra serve is not installed")

CLASSES = ("ANT BIRD", "BEE-EATER", "COOT")
BOUNDARY = "limit"


@dataclass
class Answer:
    status: int
    headers: dict[str, str]
    content: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.content)


@dataclass
class Server:
    """A process of `birdsonnx serve`."""

    process: "subprocess.Popen[str]"
    about: dict[str, Any] = field(default_factory=dict)

    @property
    def url(self) -> str:
        return str(self.about["url"])

    @property
    def address(self) -> tuple[str, int]:
        place = urlsplit(self.url)
        assert place.hostname is not None
        assert place.port is not None
        return place.hostname, place.port

    def ask(self, method: str, path: str, content: bytes | None = None, **headers: str) -> Answer:
        """One request on a connection of its own; `content_type` is the header Content-Type."""
        with contextlib.closing(http.client.HTTPConnection(*self.address, timeout=60)) as connection:
            named = {name.replace("_", "-"): value for name, value in headers.items()}
            connection.request(method, path, content, named)
            response = connection.getresponse()
            found = {name.lower(): value for name, value in response.getheaders()}
            return Answer(response.status, found, response.read())

    def send(self, *photos: tuple[str, bytes], query: str = "") -> Answer:
        """Photos as a form."""
        kind = f"multipart/form-data; boundary={BOUNDARY}"
        return self.ask("POST", f"/predict{query}", form(*photos), content_type=kind)

    def metric(self, beginning: str) -> float:
        lines = self.ask("GET", "/metrics").content.decode().splitlines()
        return sum(float(line.split()[-1]) for line in lines if line.startswith(beginning))

    def end(self) -> tuple[int, str, str]:
        """What is left of its lines, once it has ended."""
        out, error = self.process.communicate(timeout=60)
        return self.process.returncode, out, error


def form(*photos: tuple[str, bytes]) -> bytes:
    """The body of multipart/form-data."""
    parts = (
        f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="photo"; filename="{name}"\r\n\r\n'.encode()
        + content
        + b"\r\n"
        for name, content in photos
    )
    return b"".join(parts) + f"--{BOUNDARY}--\r\n".encode()


@contextlib.contextmanager
def served(*words: str, cwd: Path) -> Iterator[Server]:
    """A server on a free port, killed at the end where it has not ended by itself."""
    command = [sys.executable, "-m", "birdsonnx", "serve", *words, "--port", "0", "--json"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(command, cwd=cwd, text=True, restore_signals=True, **pipes) as process:
        try:
            server = Server(process)
            assert process.stdout is not None
            line = process.stdout.readline()
            assert line, process.communicate()[1]
            server.about = json.loads(line)
            yield server
        finally:
            process.kill()


@pytest.fixture(scope="session")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`model.onnx` and `data/<class>/<number>.png`."""
    folder = tmp_path_factory.mktemp("served")
    tiny_model(3, CLASSES).save(folder / "model.onnx")
    make_class_folders(folder / "data", CLASSES, per_class=4)
    return folder


@pytest.fixture(scope="module")
def server(place: Path) -> Iterator[Server]:
    with served("model.onnx", "--max-upload", "1", "--queue", "8", cwd=place) as server:
        yield server
