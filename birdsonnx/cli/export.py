"""`birdsonnx export`."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from birdsonnx.cli.job import Job, running
from birdsonnx.cli.options import Debug, Json, Tag
from birdsonnx.errors import ConfigError

ONLY_TO_ONNX = (
    "arch",
    "weights",
    "size",
    "channels",
    "classes",
    "labels",
    "preprocess",
    "opset",
    "seed",
    "save_layers",
    "tag",
)
"""Options of an export that mean nothing on the way back to Keras."""


def export(
    context: typer.Context,
    source: Annotated[
        Path | None,
        typer.Argument(
            help="A Keras .h5 or .keras full model (or none: --arch, --weights); the .onnx for --to keras."
        ),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "-o",
            "--output",
            help="The file to write (default: models/<arch>_birds.onnx, or SOURCE with .keras).",
        ),
    ] = None,
    to: Annotated[
        str, typer.Option(help="onnx, or keras: put an .onnx's weights back into the network of --layers.")
    ] = "onnx",
    arch: Annotated[
        str | None,
        typer.Option(
            help="Network of keras.applications, built without SOURCE (default: resnet50); 'list' names all."
        ),
    ] = None,
    weights: Annotated[
        str, typer.Option(help="imagenet (Keras' download), none (random), or a weights file.")
    ] = "imagenet",
    layers: Annotated[
        Path | None,
        typer.Option(
            help="Keras 2 or 3 JSON of the network, or an array of layers; weights by name from SOURCE."
        ),
    ] = None,
    size: Annotated[
        str | None,
        typer.Option(
            help="Input of --arch, such as 160 or 192x160 (width first; default: the network's own)."
        ),
    ] = None,
    channels: Annotated[
        int | None,
        typer.Option(help="Channels of --arch: 3, or 1 for grayscale (not imagenet)."),
    ] = None,
    classes: Annotated[
        int | None, typer.Option(min=2, help="Number of classes of the new head (default 400).")
    ] = None,
    labels: Annotated[
        Path | None, typer.Option(help="Folder of class folders that names and counts the classes.")
    ] = None,
    tag: Tag = None,
    preprocess: Annotated[
        str, typer.Option(help="auto (recognised by the layers), caffe, torch, tf, unit or none.")
    ] = "auto",
    opset: Annotated[int, typer.Option(help="ONNX opset, 13 to 18.")] = 17,
    seed: Annotated[int, typer.Option(min=0, help="Seed of weights that start fresh.")] = 0,
    save_layers: Annotated[
        Path | None, typer.Option(help="Also write the network as Keras JSON, for the config's 'layers'.")
    ] = None,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Convert a Keras network to one self-contained ONNX file, or back, and compare both."""
    with running(json, debug) as job:
        from birdsonnx.keras_io import architectures
        from birdsonnx.keras_io import export as exporting

        if _direction(to) == "keras":
            _refuse_options(context, ONLY_TO_ONNX, "--to keras")
            _export_to_keras(job, source, layers, output)
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
            opset=opset,
            seed=seed,
            save_layers=save_layers,
            tag=tag,
        )
        converted = exporting.export(request)
        metadata, rewritten = converted.model.metadata, converted.rewritten
        job.result = {
            "output": str(request.file),
            "classes": converted.model.num_classes,
            "preprocessing": metadata.preprocessing.name,
            "trainable": list(metadata.trainable),
            "parameters": vars(metadata.parameters),
            "parity": converted.parity.differences,
            "rewrites": rewritten,
            "notes": converted.notes,
        }
        job.say(
            *converted.notes,
            f"preprocessing  {metadata.preprocessing.name}",
            f"rewrites       {', '.join(f'{name} {count}' for name, count in rewritten.items() if count)}",
            f"parity         {converted.parity}",
            f"wrote          {request.file} ({converted.model.num_classes} classes, "
            f"trainable: {', '.join(metadata.trainable) or 'nothing'})",
        )


def _export_to_keras(job: Job, source: Path | None, layers: Path | None, output: Path | None) -> None:
    from birdsonnx.keras_io import export as exporting

    if source is None or layers is None:
        raise ConfigError(
            "--to keras needs an .onnx and its network: "
            "birdsonnx export --to keras birds.onnx --layers layers.json"
        )
    output = output or source.with_suffix(".keras")
    returned = exporting.to_keras(exporting.BackToKeras(source, layers, output))
    job.result = {
        "output": str(output),
        "preprocessing": returned.preprocessing.as_json(),
        "parity": returned.parity.differences,
    }
    job.say(
        f"preprocessing  {returned.preprocessing.name}; not in the Keras file, its input must have it",
        f"parity         {returned.parity}",
        f"wrote          {output}",
    )


def _direction(value: str) -> str:
    if value not in ("onnx", "keras"):
        raise ConfigError(f"--to {value!r} is neither onnx nor keras")
    return value


def _refuse_options(context: typer.Context, names: Sequence[str], what: str) -> None:
    """Raises ConfigError where one of these options was given."""
    for name in names:
        source = context.get_parameter_source(name)
        if source is not None and source.name == "COMMANDLINE":
            raise ConfigError(f"--{name.replace('_', '-')} has no meaning with {what}; leave it out")
