"""Shell completion, as bash asks for it."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = Path(sys.executable).parent / "birdsonnx"

pytestmark = [
    pytest.mark.skipif(not PROGRAM.exists(), reason="the command is not installed beside this Python"),
    pytest.mark.skipif(shutil.which("bash") is None, reason="no bash"),
]


def in_bash(script: str) -> str:
    """What a script prints. Its shell stays until the end: typer looks for which one it is to complete."""
    done = subprocess.run(
        ["bash", "-c", f"set -eu\n{script}\nexit 0"],
        env={**os.environ, "PATH": f"{PROGRAM.parent}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    return done.stdout


@pytest.mark.parametrize(
    ("typed", "completed"),
    [
        ("birdsonnx pr", ["predict"]),
        ("birdsonnx e", ["evaluate", "export"]),
        ("birdsonnx predict --top", ["--top-k"]),
        ("birdsonnx predict phot", []),  # bash then completes file names
    ],
)
def test_bash_completes(typed, completed):
    """With the script that --show-completion prints."""
    words = typed.split()
    shown = in_bash(
        f"source <(birdsonnx --show-completion)\nCOMP_WORDS=({typed})\nCOMP_CWORD={len(words) - 1}\n"
        '_birdsonnx_completion birdsonnx\nprintf "%s\\n" "${COMPREPLY[@]}"'
    )
    assert sorted(shown.split()) == completed


def test_it_installs_itself(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert "completion installed" in in_bash("birdsonnx --install-completion")
    assert "birdsonnx" in (tmp_path / ".bashrc").read_text()
