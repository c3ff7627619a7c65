"""What to predict, with what, and where to."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from birdsonnx.artifacts.commands import Command
from birdsonnx.config.computing import EngineChoice, OutputLayout, Precision
from birdsonnx.config.transforms import Normalize, Transform
from birdsonnx.errors import ConfigError
from birdsonnx.images.crops import BoxRequest
from birdsonnx.inference.judging.criteria import Criteria

if TYPE_CHECKING:
    from birdsonnx.config.settings import Settings


@dataclass(frozen=True)
class Request:
    """What to predict, with what, and where to.

    The command line makes one from its options; with a config it makes one from the config (`from_config`),
    and its options replace what that says (`dataclasses.replace`).
    """

    inputs: Sequence[str]
    model: Path | None = None
    """None: what `settings` loads, else the newest checkpoint."""
    output: Path | None = None
    """Folder of the HDF5 file; None: none is written."""
    layout: OutputLayout | None = None
    """How answers lie in that file; None: one dataset for each photo."""
    settings: "Settings | None" = None
    """The config, of which a prediction also needs the network, and what to draw."""
    tag: str | None = None
    """Of a folder only the photos in folders of this name."""
    transforms: tuple[Transform, ...] | None = None
    """None: those of the model's training."""
    grayscale: bool = False
    """Whether photos become gray first."""
    threads: int | None = None
    """Per rank; None: its share of the cores."""
    per_run: int | None = None
    """Photos per run of a stream; None: as tuned, else the usual."""
    precision: Precision | None = None
    """What the model must be: fp32 or int8; bf16 is a float32 model computed in bf16. None: whatever."""
    engine: EngineChoice = "auto"
    tune: bool = False
    """Whether to measure first how this machine runs the model fastest, and remember it."""
    top_k: int = 1
    """Classes to name for each photo."""
    criteria: Criteria = field(default_factory=Criteria)
    """By what it is decided what is said of a photo."""
    csv: Path | None = None
    """None: none is written."""
    csv_raw: bool = False
    """Whether texts in it stay as they are, also those that a spreadsheet would take for formulas."""
    columns: tuple[str, ...] = ()
    """What else it says of each photo (`csv_columns.asked_for`)."""
    sequence_gap_s: float | None = None
    """Photos of one camera, each taken so long after the one before, or sooner, share what is said of them;
    None: each is by itself."""
    results: Path | None = None
    """File in MegaDetector's format; None: none is written."""
    boxes: BoxRequest | None = None
    """Which of a detector's boxes are named; None: whole photos."""
    sort: Path | None = None
    """Folder to place the photos in, by the classes that they were named; None: nowhere."""
    sort_copies: bool = False
    """Whether to copy them rather than link to them."""
    overwrite: bool = False
    """Whether `output_1.h5` is written over whichever command made it."""
    config: Path | None = None
    """Where `settings` were read."""
    overrides: Sequence[str] = ()
    """`data.batch_size=32` assignments among them."""

    @property
    def command(self) -> Command:
        """What makes it the same command: what was typed about photos, model, and what computes. What lies
        there may have changed: a model that was trained anew gives new answers to the same command. The
        criteria are left out: `output_1.h5` has what the network answered, whatever is said of it."""
        options = {
            "--config": self.config,
            "--model": self.model,
            "--engine": None if self.engine == "auto" else self.engine,
            "--precision": self.precision,
            "--layout": None if self.layout == "datasets" else self.layout,
            **({} if self.boxes is None else self.boxes.options),
        }
        given = {name: str(value) for name, value in options.items() if value is not None}
        overrides = [word for each in self.overrides for word in ("--set", each)]
        typed = (word for option in given.items() for word in option if word)
        words = ("predict", *self.inputs, *typed, *overrides)
        settings = None if self.config is not None else repr(self.settings)
        return Command(words, ["predict", sorted(self.inputs), self.tag, given, sorted(overrides), settings])

    @classmethod
    def from_config(cls, settings: "Settings", inputs: Sequence[str] = ()) -> "Request":
        """What a config asks for. `inputs` replace its test photos, and its tag, which chooses among those.

        Raises:
            ConfigError: neither the config nor `inputs` name photos.
        """
        data = settings.data
        if data.test_folder is None and not inputs:
            raise ConfigError(
                "neural_network.data: neither input_path nor test_input_path is given; nothing to do"
            )
        return cls(
            inputs or [str(data.test_folder)],
            output=None if data.test_output_path is None else Path(data.test_output_path),
            settings=settings,
            tag=None if inputs else data.test_tag,
            transforms=data.transforms,
            grayscale=data.grayscale,
            threads=settings.birdsonnx.threads,
            engine=settings.birdsonnx.engine,
            layout="table" if settings.birdsonnx.output_layout == "table" else None,
        )

    @property
    def bf16(self) -> bool:
        """Whether a float32 model is computed in bf16."""
        return self.precision == "bf16"

    @property
    def replaces_preprocessing(self) -> bool:
        """Whether a `normalize` transform takes the place of the model's own preprocessing."""
        return any(isinstance(step, Normalize) for step in self.transforms or ())
