"""What to predict, with what, and where to."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from birdsonnx.config.settings import Settings
from birdsonnx.config.transforms import Transform
from birdsonnx.errors import ConfigError

Precision = Literal["fp32", "int8"]


@dataclass(frozen=True)
class Request:
    """What to predict, with what, and where to. Config and command line both end up here."""

    inputs: Sequence[str]
    model: Path | None = None
    """None: what `settings` loads, else the newest checkpoint."""
    output: Path | None = None
    """Folder of the HDF5 file; None: none is written."""
    settings: Settings | None = None
    tag: str | None = None
    """Of a folder only the photos in folders of this name."""
    transforms: tuple[Transform, ...] | None = None
    """None: those of the model's training."""
    grayscale: bool = False
    """Whether photos must start gray."""
    threads: int | None = None
    per_run: int | None = None
    """Photos per run of a stream; None: as tuned, else the usual."""
    precision: Precision | None = None
    """What the model must be; None: whatever it is."""
    tune: bool = False
    """Whether to measure first how this machine runs the model fastest, and remember it."""
    top_k: int = 1
    csv: Path | None = None


def request_of(settings: Settings, **options: Any) -> Request:
    """The request that a config makes; `options` that are not None replace what it says.

    Raises:
        ConfigError: the config names nothing to predict.
    """
    data = settings.data
    named = options.get("inputs")
    if data.test_folder is None and not named:
        raise ConfigError(
            "neural_network.data: neither input_path nor test_input_path is given; nothing to do"
        )
    said: dict[str, Any] = {
        "inputs": [data.test_folder],
        "tag": None if named else data.test_tag,
        "output": None if data.test_output_path is None else Path(data.test_output_path),
        "settings": settings,
        "transforms": data.transforms,
        "grayscale": data.grayscale,
        "threads": settings.birdsonnx.threads,
    }
    return Request(**{**said, **{name: value for name, value in options.items() if value}})
