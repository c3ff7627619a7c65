"""Run the command line as a user does: a process of its own, with or without mpirun."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

MPIRUN = Path(sys.executable).parent / "mpirun"
VERBS = (
    "export",
    "train",
    "predict",
    "evaluate",
    "quantize",
    "sample",
    "plot",
    "benchmark",
    "info",
    "schema",
    "doctor",
    "demo",
)


def birdsonnx(
    *words: Any, ranks: int = 1, cwd: Path | None = None, environment: dict[str, str] | None = None
) -> "subprocess.CompletedProcess[str]":
    """Run `birdsonnx words…`, under mpirun for more than one rank."""
    command = [sys.executable, "-m", "birdsonnx", *map(str, words)]
    if ranks > 1:
        command = [str(MPIRUN), "-np", str(ranks), *command]
    return subprocess.run(
        command,
        cwd=cwd,
        env={**os.environ, **(environment or {})},
        capture_output=True,
        text=True,
        timeout=300,
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
