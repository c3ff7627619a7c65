"""Commands that skip the imports: forks of one process that has imported all of birdsonnx.

`python -m birdsonnx` takes 1.2 to 2.8 s for a tiny model, of which 0.2 to 0.5 s are work; an export that is
compared with Keras takes 16 s, of which 5 are. A fork is a process of its own all the same: it has its own
arguments, folder, environment, streams and exit code, and changes nothing for the next. It shares the seed of
`hash` with the others, and does not find a forgotten import: who tests these runs a fresh process.
"""

import contextlib
import gc
import importlib
import json
import multiprocessing
import os
import pkgutil
import runpy
import select
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import birdsonnx

WITH_KERAS = "--with-keras"


class Forks:
    """The process that is forked, which ends with this one."""

    def __init__(self, *options: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.forks", *options],
            cwd=Path(__file__).parents[1],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def run(
        self, words: Sequence[str], cwd: Path | None, environment: Mapping[str, str], timeout_s: float
    ) -> "subprocess.CompletedProcess[str]":
        """Run `birdsonnx words…` in `cwd`, which by default is where we are.

        Raises:
            subprocess.TimeoutExpired: it took longer; it was ended.
        """
        with tempfile.TemporaryDirectory() as folder:
            streams = [str(Path(folder, name)) for name in ("stdout", "stderr")]
            request = {"words": words, "cwd": str(Path.cwd() / (cwd or "")), "environment": {**environment}}
            try:
                code = self._answer_to({**request, "streams": streams}, timeout_s)
            except BaseException:  # its late answer would be taken for the next one's
                os.killpg(self._process.pid, signal.SIGKILL)
                forks.cache_clear()
                raise
            out, err = (Path(stream).read_text() for stream in streams)
        return subprocess.CompletedProcess(words, code, out, err)

    def _answer_to(self, request: dict[str, Any], timeout_s: float) -> int:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        if not select.select([self._process.stdout], [], [], timeout_s)[0]:
            raise subprocess.TimeoutExpired(request["words"], timeout_s)
        return int(self._process.stdout.readline())


@cache
def forks(with_keras: bool) -> Forks:
    """Those that have imported Keras too, or the lighter ones that have not."""
    return Forks(*[WITH_KERAS] * with_keras)


def _import_all(with_keras: bool) -> None:
    for module in pkgutil.walk_packages(birdsonnx.__path__, "birdsonnx."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
    if with_keras:
        from birdsonnx.errors import InstallationError
        from birdsonnx.keras_io.tf2onnx_road.keras_source import import_keras

        with contextlib.suppress(InstallationError):
            import_keras()


def _serve() -> None:
    """Fork for each request, a line of JSON on stdin, and answer with the exit code.

    Forks leave without clearing away all that they hold, which takes 1 s with TensorFlow in it.
    """
    gc.freeze()
    for line in sys.stdin:
        fork = multiprocessing.get_context("fork").Process(target=_command, args=(json.loads(line),))
        fork.start()
        fork.join()
        print(fork.exitcode, flush=True)


def _command(request: dict[str, Any]) -> None:
    _become(request)
    runpy.run_module("birdsonnx", run_name="__main__", alter_sys=True)  # as `python -m birdsonnx` does


def _become(request: dict[str, Any]) -> None:
    os.chdir(request["cwd"])
    os.environ.clear()
    os.environ.update(request["environment"])
    sys.argv = ["birdsonnx", *request["words"]]
    for number, file in enumerate((os.devnull, *request["streams"])):
        descriptor = os.open(file, os.O_RDWR | os.O_CREAT)
        os.dup2(descriptor, number)
        os.close(descriptor)


if __name__ == "__main__":
    _import_all(WITH_KERAS in sys.argv)
    _serve()
