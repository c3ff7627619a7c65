"""`birdsonnx predict`."""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from birdsonnx.cli.boxes import (
    CropPadding,
    CropSquare,
    DetectionCategories,
    DetectionsFile,
    MinConfidence,
    boxes_of,
)
from birdsonnx.cli.job import Job, agreed, running, same_config
from birdsonnx.cli.options import (
    CSVRaw,
    Debug,
    Json,
    Overwrite,
    Precision,
    SequenceGap,
    SpeciesFile,
    Threads,
    engine_of,
    layout_of,
    precision_of,
    require_csv,
)
from birdsonnx.errors import ConfigError

if TYPE_CHECKING:
    from birdsonnx.inference.requests import Request


Inputs = Annotated[
    list[str] | None, typer.Argument(metavar="INPUT...", help="Photos, folders, glob patterns.")
]
Model = Annotated[
    Path | None,
    typer.Option(
        help="The .onnx (default: the newest checkpoint in model_checkpoints_save/, else in runs/)."
    ),
]
Config = Annotated[
    Path | None,
    typer.Option(help="Take model, input, output and transforms from a JSON config; options replace them."),
]
Output = Annotated[
    Path | None, typer.Option("-o", "--output", help="Folder for output_1.h5 (default: predictions/).")
]
Layout = Annotated[
    str | None,
    typer.Option(
        help="How output_1.h5 keeps them: datasets, one for each photo (default), or table, one for all: "
        "smaller and faster for very many photos."
    ),
]
BatchSize = Annotated[
    int | None,
    typer.Option(
        min=1,
        help="Photos per run of a thread (default: as tuned; else 4, OpenVINO: up to 8); only speed changes.",
    ),
]
Computed = Annotated[
    str | None,
    typer.Option(
        "--engine",
        help="auto, onnxruntime or openvino: what computes (default: the config's, else auto, which takes "
        "the faster one for so many photos; `birdsonnx doctor` says which).",
    ),
]
Tune = Annotated[
    bool,
    typer.Option("--tune", help="First measure how this machine runs the model fastest, and remember it."),
]
TopK = Annotated[int, typer.Option(min=1, help="Classes to name for each photo.")]
Threshold = Annotated[
    float | None,
    typer.Option(
        help="Probability below which a photo is said to be unsure (default: the model's own thresholds, "
        "where it has them; 0: none)."
    ),
]
TaxonomyFile = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        help="CSV of class,genus,family,order: where the class is below the threshold, say the most specific "
        "level that reaches it.",
    ),
]
CSV = Annotated[Path | None, typer.Option(help="Also write name, class, probability as CSV.")]
Columns = Annotated[
    list[str] | None,
    typer.Option(
        metavar="NAMES",
        help="With --csv: more columns, of the photo's EXIF data and its path: some of "
        "date,camera,place,size,path with commas between them, or all.",
    ),
]
Results = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        help="Also write the results in MegaDetector's format (JSON), for Timelapse and other tools.",
    ),
]
Sort = Annotated[
    Path | None,
    typer.Option(
        metavar="DIR",
        help="Also place the photos in DIR, new or empty, in a folder for each class, as symbolic links.",
    ),
]
SortCopy = Annotated[bool, typer.Option("--sort-copy", help="With --sort: copies instead of links.")]


def predict(
    inputs: Inputs = None,
    model: Model = None,
    config: Config = None,
    output: Output = None,
    layout: Layout = None,
    threads: Threads = None,
    batch_size: BatchSize = None,
    engine: Computed = None,
    precision: Precision = None,
    tune: Tune = False,
    top_k: TopK = 1,
    species: SpeciesFile = None,
    threshold: Threshold = None,
    taxonomy: TaxonomyFile = None,
    sequence_gap: SequenceGap = None,
    csv: CSV = None,
    csv_raw: CSVRaw = False,
    columns: Columns = None,
    results: Results = None,
    detections: DetectionsFile = None,
    min_confidence: MinConfidence = None,
    detection_categories: DetectionCategories = None,
    crop_padding: CropPadding = None,
    crop_square: CropSquare = None,
    sort: Sort = None,
    sort_copy: SortCopy = False,
    overwrite: Overwrite = False,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Name photos; keep the log-probabilities in predictions/output_1.h5."""
    with running(json, debug, ranks="all") as job:
        begun = _begun(job, config, inputs or [])

        def asked() -> "Request":
            request = _computed(
                replace(begun, model=model, tune=tune), threads, batch_size, engine, precision
            )
            request = _judged(request, top_k, species, threshold, taxonomy, sequence_gap)
            request = _kept(request, output, layout, csv, csv_raw, columns, results)
            request = replace(request, sort=sort, sort_copies=sort_copy, overwrite=overwrite)
            boxes = boxes_of(detections, min_confidence, detection_categories, crop_padding, crop_square)
            return _whole(replace(request, boxes=boxes))

        run_prediction(job, agreed(asked))


def _computed(
    request: "Request",
    threads: int | None,
    batch_size: int | None,
    engine: str | None,
    precision: str | None,
) -> "Request":
    """With what is asked for about the computation. Raises ConfigError."""
    return replace(
        request,
        threads=threads or request.threads,
        per_run=batch_size,
        engine=request.engine if engine is None else engine_of(engine),
        precision=precision_of(precision),
    )


def _judged(
    request: "Request",
    top_k: int,
    species: Path | None,
    threshold: float | None,
    taxonomy: Path | None,
    sequence_gap: float | None,
) -> "Request":
    """With what is asked for about what is said of photos. Raises ConfigError."""
    from birdsonnx.inference.judging import bursts
    from birdsonnx.inference.judging.criteria import Criteria

    bursts.require_gap(sequence_gap)
    criteria = Criteria(species, threshold, taxonomy)
    return replace(request, top_k=top_k, criteria=criteria, sequence_gap_s=sequence_gap)


def _kept(
    request: "Request",
    output: Path | None,
    layout: str | None,
    csv: Path | None,
    csv_raw: bool,
    columns: list[str] | None,
    results: Path | None,
) -> "Request":
    """With what is asked for about files. Raises ConfigError."""
    from birdsonnx.inference.keeping import csv_columns

    require_csv(csv_raw, csv)
    if columns and csv is None:
        raise ConfigError("--columns is for the file of --csv, and there is none")
    if output is not None and output.suffix.lower() in (".h5", ".hdf5"):
        raise ConfigError(f"-o {output}: name a folder; output_1.h5 is written into it")
    return replace(
        request,
        output=output or request.output,
        layout=layout_of(layout) or request.layout,
        csv=csv,
        csv_raw=csv_raw,
        columns=csv_columns.asked_for(columns or ()),
        results=results,
    )


def _whole(request: "Request") -> "Request":
    """The same, where its parts go together. Raises ConfigError where they do not."""
    if request.layout is not None and request.output is None:
        raise ConfigError(
            "--layout (birdsonnx.output_layout) is for the file of -o (data.test_output_path), and there is "
            "none"
        )
    if request.sort_copies and request.sort is None:
        raise ConfigError("--sort-copy is for the folder of --sort, and there is none")
    detections = None if request.boxes is None else request.boxes.file
    if detections is not None and request.sort is not None:
        raise ConfigError("--sort places whole photos, and --detections names parts of them; leave one out")
    if detections is not None and request.sequence_gap_s is not None:
        raise ConfigError(
            "--sequence-gap lets photos share an answer, and --detections names several animals of one "
            "photo; leave one out"
        )
    return request


def _begun(job: Job, config: Path | None, inputs: list[str]) -> "Request":
    """What is asked for before the options count."""
    from birdsonnx.config import reading as configs
    from birdsonnx.inference.requests import Request

    if config is None:
        return Request(inputs, output=Path("predictions"))
    settings = job.ranks.first(lambda: configs.read(config))
    same_config(job.ranks, config)
    return agreed(lambda: replace(Request.from_config(settings, inputs), config=config))


def run_prediction(job: Job, request: "Request") -> None:
    """Predict, and print what people and programs read of it."""
    from birdsonnx import artifacts
    from birdsonnx.inference import prediction
    from birdsonnx.reporting import predictions

    summary = prediction.predict(request, job.ranks, job.console())
    if not job.speaks:
        return
    job.result = summary.as_json()
    job.say(*predictions.named_lines(summary))
    job.refuse(summary.refused)
    job.say(
        predictions.model_line(summary.model, summary.model_sha256),
        predictions.total_line(summary),
        *predictions.species_lines(summary),
        *predictions.sequence_lines(summary.sequences, summary.without_time, request.sequence_gap_s),
        *predictions.sorted_lines(summary, request.sort_copies),
        *(artifacts.written(path) for path in (summary.csv, summary.results) if path is not None),
        *predictions.next_lines(summary, request.inputs),
    )
