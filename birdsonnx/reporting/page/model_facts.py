"""The model of a report: what it is, and its files."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from birdsonnx.model import int8_form, model_file
from birdsonnx.model.metadata import Metadata
from birdsonnx.reporting.printable import listed
from birdsonnx.reporting.tables import model_info


@dataclass(frozen=True)
class File:
    """One file of a model."""

    name: str
    what: str
    bytes: int


@dataclass(frozen=True)
class ModelFacts:
    """What the newest checkpoint says of itself."""

    where: Path
    metadata: Metadata
    sha256: str
    facts: tuple[tuple[str, str], ...]
    files: tuple[File, ...]
    """Itself, and its int8 form where there is one beside it."""
    versions: tuple[tuple[str, str], ...]
    """Of what made it."""


def model_facts(path: Path) -> ModelFacts:
    """Read a checkpoint. Raises ModelError."""
    loaded = model_file.load(path)
    info = model_info(loaded, path)
    metadata = loaded.metadata
    is_int8 = metadata.quantization is not None
    files = [File(path.name, "int8" if is_int8 else "float32", info["bytes"])]
    twin = int8_form.of(path)
    if not is_int8 and twin.is_file():
        misfit = int8_form.misfit(twin, path)
        files.append(File(twin.name, f"int8, but {misfit}" if misfit else "int8", twin.stat().st_size))
    return ModelFacts(
        path, metadata, info["sha256"], _facts(info), tuple(files), tuple(sorted(metadata.versions.items()))
    )


def _facts(info: dict[str, Any]) -> tuple[tuple[str, str], ...]:
    height, width, channels = info["input"]["shape"][1:]
    parameters, run = info["parameters"], info["run"]
    facts = [
        ("Checkpoint", Path(info["file"]).name),
        (
            "Made from",
            ", ".join(f"{value}" for key, value in info["source"].items() if key != "sha256") or "unknown",
        ),
        ("Input", f"{width} x {height} pixels, {channels} channel{'s' if channels > 1 else ''}"),
        ("Layers with weights", f"{info['layers']}"),
        ("Parameters", f"{parameters['total'] - parameters['statistics']:,}"),
        ("Trained layers", listed(info["trainable"]) or "none"),
        ("Preprocessing", info["preprocessing"]["name"]),
        ("Transforms", _transforms(info["transforms"])),
        ("SHA-256", info["sha256"][:16] + "…"),
    ]
    if run is not None:
        facts.insert(1, ("Epoch", f"{run['epoch']}, of training {run['run']} in its folder"))
    return tuple(facts)


def _transforms(found: list[dict[str, Any]] | None) -> str:
    if found is None:
        return "resize to the input"
    steps = (", ".join(f"{name} {value}" for name, value in step.items()) for step in found)
    return "; ".join(steps) or "none"
