"""Run the command line as a user does: in a process of its own, with or without mpirun."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.forks import forks

MPIRUN = Path(sys.executable).parent / "mpirun"
VERBS = (
    "export",
    "train",
    "init",
    "predict",
    "evaluate",
    "quantize",
    "calibrate",
    "split",
    "sample",
    "plot",
    "report",
    "benchmark",
    "compare",
    "serve",
    "info",
    "configs",
    "schema",
    "doctor",
    "demo",
)


TIMEOUT_S = 300


def birdsonnx(
    *words: Any,
    ranks: int = 1,
    cwd: Path | None = None,
    environment: dict[str, str] | None = None,
    fresh: bool = False,
) -> "subprocess.CompletedProcess[str]":
    """Run `birdsonnx words…`, under mpirun for more than one rank.

    One rank is a fork of a process that has done the imports (`tests.forks`), unless it is to be `fresh`: for
    variables that libraries read when they are imported, for runs that are to have another seed of `hash`,
    and once for each verb, to see that it imports what it needs.
    """
    variables = {**os.environ, **(environment or {})}
    if ranks == 1 and not fresh and sys.platform == "linux":
        texts = [str(word) for word in words]
        return forks(with_keras=texts[:1] == ["export"]).run(texts, cwd, variables, TIMEOUT_S)
    command = [sys.executable, "-m", "birdsonnx", *map(str, words)]
    if ranks > 1:
        command = [str(MPIRUN), "-np", str(ranks), *command]
    return subprocess.run(
        command,
        cwd=cwd,
        env=variables,
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )


def succeed(*words: Any, **options: Any) -> str:
    """Run, expect exit code 0, give stdout."""
    done = birdsonnx(*words, **options)
    assert done.returncode == 0, f"exit {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def succeed_json(*words: Any, **options: Any) -> dict[str, Any]:
    """The same with --json; stdout must be one object and nothing else."""
    result: dict[str, Any] = json.loads(succeed(*words, "--json", **options))
    return result


def refused(*words: Any, code: int = 2, **options: Any) -> str:
    """Run, expect a refusal in one line, give that line."""
    done = birdsonnx(*words, **options)
    assert done.returncode == code, f"exit {done.returncode}\n{done.stdout}\n{done.stderr}"
    lines = done.stderr.strip().splitlines()
    assert len(lines) == 1, done.stderr
    assert "Traceback" not in done.stderr
    return lines[0]
