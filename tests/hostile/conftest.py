"""The command line inside this process: hundreds of hostile files in the time of a few processes."""

import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest

from birdsonnx.cli.app import main


@dataclass(frozen=True)
class Done:
    """What a command did."""

    code: int
    out: str
    err: str

    @property
    def refusal(self) -> str:
        """The one line of a request that could not be carried out."""
        assert self.code == 2, self
        [line] = self.err.splitlines()
        assert "internal error" not in line, line
        assert "Traceback" not in line
        return line


@pytest.fixture
def run(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Callable[..., Done]:
    """Runs `birdsonnx words…`; what libraries print counts as well."""

    def run(*words: Any) -> Done:
        monkeypatch.setattr(sys, "argv", ["birdsonnx", *map(str, words)])
        capfd.readouterr()
        with pytest.raises(SystemExit) as ended:
            main()
        out, err = capfd.readouterr()
        return Done(int(ended.value.code or 0), out, err)

    return run
