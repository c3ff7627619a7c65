"""`birdsonnx export`."""

from collections.abc import Iterator, Mapping
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from birdsonnx.cli.job import Job, running
from birdsonnx.cli.next_steps import after_export, as_lines
from birdsonnx.cli.options import Debug, Json, Tag, one_of
from birdsonnx.errors import ConfigError
from birdsonnx.reporting.printable import listed

if TYPE_CHECKING:
    from birdsonnx.keras_io.conversion import Conversion
    from birdsonnx.keras_io.export import Exported, Request

Source = Annotated[
    Path | None,
    typer.Argument(
        help="A full Keras model, .h5 or .keras (without it: --arch, --weights); for --to keras the .onnx."
    ),
]
Output = Annotated[
    Path | None,
    typer.Option(
        "-o",
        "--output",
        help="The file to write (default: models/<arch>_birds.onnx, or SOURCE with .keras).",
    ),
]
To = Annotated[
    str,
    typer.Option(help="onnx, or keras: the weights of an .onnx back in the Keras network that it came from."),
]
Arch = Annotated[
    str | None,
    typer.Option(
        help="Network of keras.applications, built without SOURCE (default: resnet50); 'list' names all."
    ),
]
Weights = Annotated[
    str, typer.Option(help="imagenet (Keras downloads them), none (random), or a weights file.")
]
Layers = Annotated[
    Path | None,
    typer.Option(
        help="Keras 2 or 3 JSON of the network, or an array of layers; SOURCE gives the weights, by name. "
        "For --to keras: in place of the one that the .onnx holds."
    ),
]
Size = Annotated[
    str | None,
    typer.Option(help="Input of --arch, such as 160 or 192x160 (width first; default: the network's own)."),
]
Channels = Annotated[
    int | None, typer.Option(help="Channels of --arch: 3, or 1 for grayscale (not imagenet).")
]
Classes = Annotated[int | None, typer.Option(min=2, help="Number of classes of the new head (default 400).")]
Labels = Annotated[
    Path | None,
    typer.Option(help="Names the classes: a folder of class folders, or a text file, one name a line."),
]
Preprocess = Annotated[
    str,
    typer.Option(
        help="How pixels become input: auto (known from the layers), caffe, torch, tf, unit or none."
    ),
]
Converter = Annotated[
    str, typer.Option(help="own, or tf2onnx: by Keras and tf2onnx, for layers that own does not know.")
]
Opset = Annotated[int, typer.Option(help="ONNX opset, 13 to 18.")]
Seed = Annotated[int, typer.Option(min=0, help="Seed of random weights.")]
SaveLayers = Annotated[
    Path | None, typer.Option(help="Also write the network as Keras JSON, for the config's 'layers'.")
]


def export(
    context: typer.Context,
    source: Source = None,
    output: Output = None,
    to: To = "onnx",
    arch: Arch = None,
    weights: Weights = "imagenet",
    layers: Layers = None,
    size: Size = None,
    channels: Channels = None,
    classes: Classes = None,
    labels: Labels = None,
    tag: Tag = None,
    preprocess: Preprocess = "auto",
    converter: Converter = "own",
    opset: Opset = 17,
    seed: Seed = 0,
    save_layers: SaveLayers = None,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Convert a Keras network to one ONNX file, or back.

    The file holds all that naming photos needs. Where Keras is installed, both are compared."""
    with running(json, debug, ranks="first") as job:
        from birdsonnx.keras_io import architectures
        from birdsonnx.keras_io import export as exporting

        converter = one_of("--converter", converter, ("own", "tf2onnx"))
        if one_of("--to", to, ("onnx", "keras")) == "keras":
            _export_to_keras(job, context, source, layers, output)
            return
        if arch == "list":
            job.result = {"architectures": list(architectures.DEFAULT_SIZES)}
            job.say(*architectures.DEFAULT_SIZES)
            return
        request = exporting.Request(
            source=source,
            output=output,
            arch=arch,
            weights=weights,
            layers=layers,
            size=size,
            channels=channels,
            classes=classes,
            labels=labels,
            preprocess=preprocess,
            converter=converter,
            opset=opset,
            seed=seed,
            save_layers=save_layers,
            tag=tag,
        )
        exported = exporting.export(request, job.console(), lambda found: _show_conversion(job, found))
        _show(job, exported, request)


def _show_conversion(job: Job, converted: "Conversion") -> None:
    rewritten = (f"{name} {count}" for name, count in converted.rewritten.items() if count)
    job.say(
        *converted.notes,
        f"preprocessing  {converted.model.metadata.preprocessing.name}",
        f"rewrites       {', '.join(rewritten) or 'none'}",
        *(f"not fused      {line}" for line in _not_fused(converted.declined)),
    )


def _show(job: Job, exported: "Exported", request: "Request") -> None:
    converted, file = exported.conversion, request.file
    metadata, rewritten = converted.model.metadata, converted.rewritten
    job.result = {
        "output": str(file),
        "classes": converted.model.num_classes,
        "preprocessing": metadata.preprocessing.name,
        "trainable": list(metadata.trainable),
        "parameters": vars(metadata.parameters),
        "parity": getattr(exported.parity, "differences", None),
        "parity_not_checked": getattr(exported.parity, "reason", None),
        "rewrites": rewritten,
        "not_fused": converted.declined,
        "notes": converted.notes,
        "next": after_export(file, bool(metadata.trainable), request.labels),
    }
    job.say(
        f"parity         {exported.parity}",
        f"{_written(file)} ({converted.model.num_classes} classes, "
        f"trainable: {listed(metadata.trainable) or 'nothing'})",
        *as_lines(job.result["next"]),
    )


def _written(file: Path) -> str:
    from birdsonnx import artifacts

    done, _, path = artifacts.written(file).partition(" ")
    return f"{done:<14} {path}"


def _not_fused(declined: Mapping[str, Mapping[str, int]]) -> Iterator[str]:
    """`batch norm 2 (its convolution is called twice)`, a line for each kind of place and reason."""
    for subject, reasons in declined.items():
        for reason, count in reasons.items():
            yield f"{subject} {count} ({reason})"


def _export_to_keras(
    job: Job, context: typer.Context, source: Path | None, layers: Path | None, output: Path | None
) -> None:
    from birdsonnx.keras_io import export as exporting

    # An option is a field of the request that it is for: what only the other one has means nothing here.
    known = {field.name for field in fields(exporting.BackToKeras)}
    for field in fields(exporting.Request):
        given = context.get_parameter_source(field.name)
        if field.name not in known and given is not None and given.name == "COMMANDLINE":
            raise ConfigError(
                f"--{field.name.replace('_', '-')} has no meaning with --to keras; leave it out"
            )
    if source is None or not source.name:
        raise ConfigError("--to keras needs an .onnx: birdsonnx export --to keras birds.onnx")
    output = output or source.with_suffix(".keras")
    returned = exporting.to_keras(exporting.BackToKeras(source, layers, output), job.console())
    job.result = {
        "output": str(output),
        "preprocessing": returned.preprocessing.as_json(),
        "parity": getattr(returned.parity, "differences", None),
        "parity_not_checked": getattr(returned.parity, "reason", None),
        "notes": list(returned.notes),
    }
    job.say(
        *(f"note           {note}" for note in returned.notes),
        f"preprocessing  {returned.preprocessing.name}; not in the Keras file, its input must have it",
        f"parity         {returned.parity}",
        _written(output),
    )
