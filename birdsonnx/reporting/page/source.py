"""What a report can be of, and what lies there: config, logs, the newest checkpoint, predictions."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from birdsonnx.artifacts.regular_files import read_bytes
from birdsonnx.config import reading as configs
from birdsonnx.config.json_text import decoded
from birdsonnx.config.settings import Settings
from birdsonnx.errors import DataError, ModelError
from birdsonnx.model.checkpoint_names import CHECKPOINTS_OF_RUN, newest_checkpoint
from birdsonnx.reporting import training_log
from birdsonnx.reporting.training_log import Curves
from birdsonnx.training import checkpoints, run

CONFIG = "config.json"
"""Of a run's own folder."""

REPORT = "report.html"

KINDS = (
    "a run's folder (runs/train_1), the config of a training, a folder of checkpoints, a checkpoint, or an "
    "output_*.h5"
)


@dataclass(frozen=True)
class Source:
    """What is known of a run before any photo is read."""

    where: Path
    """As it was named."""
    output: Path
    """Where its report goes unless somebody says otherwise."""
    predictions: Path | None = None
    """An output_*.h5; all below is None then."""
    model: Path | None = None
    """The newest checkpoint; None where none was kept."""
    settings: Settings | None = None
    config: tuple[str, ...] = ()
    """The config's JSON, line by line."""
    curves: Curves | None = None
    """The logs of the run; None where there are none."""

    @property
    def test_folder(self) -> Path | None:
        """Where the config's test photos lie, if they do."""
        folder = None if self.settings is None else self.settings.data.test_folder
        return Path(folder) if folder is not None and Path(folder).is_dir() else None

    @property
    def test_tag(self) -> str | None:
        return None if self.settings is None else self.settings.data.test_tag


def find(where: Path) -> Source:
    """What `birdsonnx report WHERE` is about.

    Raises:
        DataError: nothing there, nothing that a report can be of, or a training that left nothing yet.
        ConfigError: the config cannot be read.
        ModelError: a folder of checkpoints without a readable one.
    """
    if where.is_dir():
        if (where / CONFIG).is_file():
            return _of_config(where / CONFIG, where, where)
        if any(where.glob("model_checkpoint_*.onnx")):
            return Source(where, where / REPORT, model=newest_checkpoint(where))
        raise DataError(f"{where}: neither a {CONFIG} nor a model_checkpoint_*.onnx in it; give {KINDS}")
    if not where.exists():
        raise DataError(f"{where}: there is no such file or folder; give {KINDS}")
    match where.suffix.lower():
        case ".h5" | ".hdf5":
            return Source(where, where.with_suffix(".html"), predictions=where)
        case ".onnx":
            return Source(where, where.with_suffix(".html"), model=where)
        case ".json":
            own = (
                where.parent
                if where.name == CONFIG and (where.parent / CHECKPOINTS_OF_RUN).is_dir()
                else None
            )
            return _of_config(where, where, own)
    raise DataError(f"{where}: no report can be of this file; give {KINDS}")


def _of_config(path: Path, where: Path, own: Path | None) -> Source:
    """A training by its config; `own` is the run's folder, whose files come before those that the config
    names: it may have been moved."""
    settings = configs.read(path)
    if settings.data.input_path is None:
        raise DataError(f"{path}: this config trains nothing; give the output_*.h5 of its predictions")
    model = _checkpoint(settings, own)
    curves = _curves(settings, path, own, model)
    if model is None and curves is None:
        raise DataError(
            f"{path}: this training has left neither a checkpoint nor logs; first birdsonnx train {path}"
        )
    if own is not None:
        output = own / REPORT
    elif settings.outfile is not None:
        output = Path(settings.outfile).with_suffix("")
        output = output.with_name(f"{output.name}_{REPORT}")
    else:
        output = Path(settings.checkpoints.save or ".") / REPORT
    return Source(where, output, None, model, settings, _lines_of(path), curves)


def _checkpoint(settings: Settings, own: Path | None) -> Path | None:
    save = settings.checkpoints.save
    for folder in (own and own / CHECKPOINTS_OF_RUN, save and Path(save)):
        if folder and folder.is_dir():
            try:
                return newest_checkpoint(folder)
            except ModelError:  # none was kept so far
                continue
    return None


def _curves(settings: Settings, config: Path, own: Path | None, model: Path | None) -> Curves | None:
    """The logs of the run that left the model, which need not be the only ones with the config's outfile."""
    outfile = settings.outfile
    if outfile is None:
        return None
    for place in (None if own is None else str(own / Path(outfile).name), outfile):
        if not place:
            continue
        record = _record(settings, config, Path(place), model)
        stem = training_log.outfile_of(place, record)
        if stem is not None:
            curves = training_log.read_curves(stem)
            return curves if len(curves.train) else None
    return None


def _record(settings: Settings, config: Path, outfile: Path, model: Path | None) -> str | None:
    """What the logs of this training hold; None where that is not known, as of an earlier version's."""
    known = None if model is None else checkpoints.log_of(model)
    if known is not None:
        return known
    record = run.command_of(settings, (str(config),)).record(outfile.parent)
    return record if training_log.outfile_of(str(outfile), record) else None


def _lines_of(path: Path) -> tuple[str, ...]:
    """The config as it was written, in our indentation; of a network in it only the number of layers."""
    content = decoded(read_bytes(path, configs.LARGEST).decode("utf-8-sig"))
    return tuple(json.dumps(_without_layers(content), indent=2, ensure_ascii=False).splitlines())


def _without_layers(content: Any) -> Any:
    network: dict[str, Any] = next(
        (value for key, value in content.items() if key.lower() == "neural_network"), {}
    )
    for key, value in network.items():
        if key.lower() == "layers" and not isinstance(value, str):
            network[key] = f"… {len(json.dumps(value)):,} characters of layers"
    return content
