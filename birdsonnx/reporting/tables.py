"""What a model holds and how right it is, as text and CSV."""

import csv
from collections import Counter
from pathlib import Path
from typing import Any

from birdsonnx import artifacts
from birdsonnx.inference.benchmark import Benchmark
from birdsonnx.inference.calibrating.thresholds import NEVER
from birdsonnx.inference.evaluating.confusion import MOST_IN_MATRIX
from birdsonnx.inference.evaluating.evaluation import Evaluation
from birdsonnx.inference.evaluating.mistakes import Mistake, Mistakes
from birdsonnx.inference.judging.coverage import Sure
from birdsonnx.inference.keeping import csv_file
from birdsonnx.inference.quantizing import Comparison
from birdsonnx.model import card, int8_form
from birdsonnx.model.graph import opset_of
from birdsonnx.model.image_metadata import PREFIX, denotations
from birdsonnx.model.model_file import BirdModel
from birdsonnx.reporting.printable import listed


def model_info(model: BirdModel, path: Path) -> dict[str, Any]:
    """All that `birdsonnx info` reports, ready for JSON."""
    metadata, digest = model.metadata, artifacts.sha256(path)
    beside = int8_form.source_beside(path) if metadata.quantization is not None else None
    return {
        "file": str(path),
        "bytes": path.stat().st_size,
        "sha256": digest,
        "input": {"name": "images", "type": "uint8", "shape": ["batch", *model.input_size]},
        "image": _image(model),
        "output": {"name": "log_probs", "type": "float32", "shape": ["batch", model.num_classes]},
        "opset": opset_of(model.proto),
        "ir_version": model.proto.ir_version,
        "operators": dict(Counter(node.op_type for node in model.proto.graph.node).most_common()),
        "classes": None if metadata.classes is None else list(metadata.classes),
        "preprocessing": metadata.preprocessing.as_json(),
        "transforms": None
        if metadata.transforms is None
        else [transform.as_json() for transform in metadata.transforms],
        "parameters": vars(metadata.parameters),
        "layers": len(metadata.layers),
        "trainable": list(metadata.trainable),
        "history": list(metadata.history),
        "run": metadata.run,
        "quantization": metadata.quantization,
        "calibration": metadata.calibration,
        "thresholds": metadata.thresholds,
        "known": metadata.known,
        "float32": None
        if beside is None
        else {"file": str(beside), "misfit": int8_form.misfit(path, beside) or None},
        "card": None if (found := card.beside(path, digest)) is None else str(found),
        "keras_network": metadata.network is not None,
        "source": metadata.source,
        "versions": metadata.versions,
    }


def info_lines(info: dict[str, Any]) -> list[str]:
    """`model_info` for people."""
    classes, parameters = info["classes"], info["parameters"]
    shown = "not known yet: the first training takes them from its folders"
    if classes is not None:
        shown = f"{len(classes)}: {', '.join(classes[:5])}{', …' if len(classes) > 5 else ''}"
    lines = [
        f"file           {info['file']} ({info['bytes'] / 1e6:.1f} MB, sha256 {info['sha256'][:16]}…)",
        f"input          images uint8 {info['input']['shape']}",
        f"image          {_image_line(info['image'])}",
        f"output         log_probs float32 {info['output']['shape']}",
        f"classes        {shown}",
        f"preprocessing  {info['preprocessing']['name']}",
        f"transforms     {info['transforms'] or 'resize to the input'}",
        f"parameters     {parameters['total'] - parameters['statistics']:,} and "
        f"{parameters['statistics']:,} BatchNorm statistics, as Keras counts them",
        f"trainable      {listed(info['trainable']) or 'nothing'}",
        f"operators      {', '.join(f'{count} {name}' for name, count in info['operators'].items())}",
        f"precision      {_precision(info['quantization'])}",
        *_made_of(info),
        f"probabilities  {_probabilities(info['calibration'])}",
        f"thresholds     {_thresholds(info['thresholds'])}",
        f"known          {_known(info['known'])}",
        f"opset, IR      {info['opset']}, {info['ir_version']}",
        f"Keras network  {'kept, for export --to keras' if info['keras_network'] else 'not kept'}",
        f"source         {', '.join(f'{key} {value}' for key, value in info['source'].items())}",
        f"versions       {', '.join(f'{key} {value}' for key, value in info['versions'].items())}",
        f"model card     {info['card'] or 'none beside it'}",
    ]
    return lines + [
        "epoch          " + ", ".join(f"{key} {value:.6g}" for key, value in epoch.items())
        for epoch in info["history"]
    ]


def _image(model: BirdModel) -> dict[str, Any]:
    """What ONNX' own metadata in the file say of the input."""
    denotation, axes = denotations(model.proto.graph)
    # protobuf gives bytes for a key that is no UTF-8, which others may have written
    texts = {str(each.key): each.value for each in model.proto.metadata_props}
    texts = {key: value for key, value in texts.items() if key.startswith(PREFIX)}
    return {"denotation": denotation, "axes": list(axes), **texts}


def _image_line(image: dict[str, Any]) -> str:
    formats = ", ".join(value for key, value in image.items() if key.startswith(PREFIX))
    if not formats:
        return "not described in ONNX' own terms (a file of an earlier version)"
    return f"{image['denotation']} of {', '.join(image['axes'])}; {formats}"


def _precision(quantization: dict[str, Any] | None) -> str:
    if quantization is None:
        return "float32"
    method = f" ({quantization['method']})" if quantization.get("method") else ""
    return f"int8, calibrated on {quantization['photos']} photos{method}"


def _probabilities(calibration: dict[str, Any] | None) -> str:
    if calibration is None:
        return "as trained"
    before, after = (calibration.get(f"expected_error_{when}") for when in ("before", "after"))
    errors = "" if before is None or after is None else f", error {before:.4f} before, {after:.4f} after"
    found = f"temperature {calibration['temperature']:.4g}, by {calibration['photos']:,} photos"
    return f"calibrated: {found}{errors}"


def _known(found: dict[str, Any] | None) -> str:
    if found is None:
        return "no such output"
    return (
        f"{found['score']}; {found['threshold']:.4f} or more keeps {found['kept']:.4f} of "
        f"{found['photos']:,} validation photos"
    )


def _thresholds(found: dict[str, Any] | None) -> str:
    if found is None:
        return "none"
    named = [value for value in found["values"] if value < NEVER]
    shown = f"from {min(named):.4f} to {max(named):.4f}" if named else "no class is ever named"
    never = len(found["values"]) - len(named)
    return f"for {found['precision']:g} of right answers: {shown}" + (
        f"; {never} of {len(found['values'])} classes are never named" if never and named else ""
    )


MOST_WRONG = 20
"""Photos that were named wrongly, of those listed for people."""

WIDEST_CLASS = 26
"""Characters up to which classes' names make a column: beside it, 54 are left of the 80 of a line."""

WIDEST_NAME = 40
"""Characters up to which photos' names make a column."""


def _made_of(info: dict[str, Any]) -> list[str]:
    """Of which float32 model an int8 one is."""
    if info["quantization"] is None:
        return []
    digest, beside = info["quantization"].get(int8_form.SOURCE), info["float32"]
    lines = [] if digest is None else [f"made of        the model of SHA-256 {digest[:16]}…"]
    if beside is not None:
        fits = f"it {beside['misfit']}" if beside["misfit"] else f"{beside['file']} beside it is that model"
        lines.append(f"float32        {fits}")
    return lines


def evaluation_lines(evaluation: Evaluation) -> list[str]:
    """Figures, the per-class table, and which classes were taken for which; names apart, none of the lines is
    longer than 80."""
    low, high = evaluation.accuracy_interval
    lines = [
        f"accuracy {evaluation.accuracy:.4f}   top-5 {evaluation.top5:.4f}   loss {evaluation.loss:.6f}   "
        f"photos {evaluation.photos}",
        f"accuracy between {low:.4f} and {high:.4f} (95 %)   calibration error "
        f"{evaluation.calibration_error:.4f}",
        f"mean over the classes: recall {evaluation.macro_accuracy:.4f}   F1 {evaluation.macro_f1:.4f}",
        *_sure_lines(evaluation.sure),
        "",
        *_class_lines(evaluation),
    ]
    mistakes = evaluation.confusion.mistakes()
    if mistakes:
        lines += ["", "taken for another:"]
        lines += [
            f"{count:>4} x {evaluation.classes[label]} -> {evaluation.classes[named]}"
            for count, label, named in mistakes[:20]
        ]
    return lines


def _sure_lines(sure: Sure | None) -> list[str]:
    """How many photos are named at the thresholds, and how right these are."""
    if sure is None:
        return []
    limits = sure.thresholds
    which = f"threshold {limits.of_taxa:g}" if limits.precision is None else "the model's thresholds"
    right = "" if sure.accuracy is None else f"   accuracy of these {sure.accuracy:.4f}"
    return [f"sure enough ({which}) {sure.sure} of {sure.photos}   coverage {sure.coverage:.4f}{right}"]


def _class_lines(evaluation: Evaluation) -> list[str]:
    """The table of the classes. A name that is longer than its column has a line of its own."""
    width = min(WIDEST_CLASS, max(len(name) for name in ("class", *evaluation.classes)))
    lines = [f"{'class':<{width}}  photos  correct  recall       95 %  precision     F1"]
    for row in evaluation.per_class():
        recall, precision, f1 = (
            "-" if row[name] is None else f"{row[name]:.3f}" for name in ("recall", "precision", "f1")
        )
        interval = "-" if row["recall_interval"] is None else "{:.2f}-{:.2f}".format(*row["recall_interval"])
        name = row["class"]
        if len(name) > width:
            lines.append(name)
            name = ""
        lines.append(
            f"{name:<{width}}  {row['photos']:>6}  {row['correct']:>7}  {recall:>6}  {interval:>9}  "
            f"{precision:>9}  {f1:>5}"
        )
    return lines


def wrong_lines(wrong: Mistakes, where_all: str) -> list[str]:
    """The photos that were named wrongly, what was said of each and how surely.

    Args:
        wrong: all of them.
        where_all: where to find those that are not listed.
    """
    if not wrong:
        return []
    shown = list(wrong.surest_first(MOST_WRONG))
    width = min(WIDEST_NAME, max(len(each.name) for each in shown))
    lines = ["", "named wrongly, the surest first:"]
    lines += [f"{each.name:<{width}}  {_verdict(each)}" for each in shown]
    if len(wrong) > len(shown):
        lines.append(f"and {len(wrong) - len(shown):,} more; {where_all}")
    return lines


def _verdict(mistake: Mistake) -> str:
    right = "right class" if mistake.name.startswith(mistake.label) else mistake.label
    return f"{mistake.named} {mistake.named_probability:.4f}, {right} {mistake.label_probability:.4f}"


def quantization_lines(comparison: Comparison) -> list[str]:
    """float32 and int8 side by side."""
    return [
        f"{name:<9}accuracy {found.accuracy:.4f}   top-5 {found.top5:.4f}   loss {found.loss:.6f}"
        for name, found in (("float32", comparison.float32), ("int8", comparison.int8))
    ] + [f"agreement {comparison.agreement:.4f} on {comparison.float32.photos} photos"]


def write_evaluation(evaluation: Evaluation, path: Path, raw: bool = False) -> None:
    """Per class: figures, then the confusion matrix, one column per named class, up to `MOST_IN_MATRIX` of
    them, then F1 and the interval of the recall. Unless `raw`, the names are made harmless to spreadsheets.
    Raises ArtifactError."""
    names = evaluation.classes
    whole = len(names) <= MOST_IN_MATRIX
    matrix = evaluation.confusion.matrix().tolist() if whole else [[]] * len(names)
    with artifacts.replacing(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        rows = csv.writer(file)
        figures = ("class", "photos", "correct", "recall", "precision")
        more = ("f1", "recall_low", "recall_high")  # behind the matrix, where older readers expect no figures
        rows.writerow([*figures, *(f"named {name}" for name in names if whole), *more])
        for row, counts in zip(evaluation.per_class(), matrix, strict=True):
            shown = row["class"] if raw else csv_file.harmless(row["class"])
            interval = row["recall_interval"] or (None, None)
            rows.writerow([shown, *(row[name] for name in figures[1:]), *counts, row["f1"], *interval])


def benchmark_lines(benchmark: Benchmark) -> list[str]:
    """The figures of a benchmark: of the model alone one line for each setting, then from files."""
    files = benchmark.from_files
    width = max(len(bare.cores) for bare in benchmark.bare)
    lines = [
        f"engine            {benchmark.engine}",
        f"load              {benchmark.load_s:.3f} s (median of {benchmark.loads})",
        f"first prediction  {benchmark.first_prediction_s:.3f} s from the start of the process (median of "
        f"{benchmark.first_predictions})",
        "",
        "model alone, pixels in memory:",
        f"{'cores':<{width}}  batch  images/s    p50 ms    p90 ms    p99 ms  runs",
    ]
    lines += [
        f"{bare.cores:<{width}}  {bare.batch:>5}  {bare.images_per_second:>8.1f}  {bare.p50_ms:>8.2f}  "
        f"{bare.p90_ms:>8.2f}  {bare.p99_ms:>8.2f}  {bare.runs:>4}"
        for bare in benchmark.bare
    ]
    lines += [
        "",
        f"from photo files  {files.images_per_second:.1f} images/s, {files.ratio_to_bare:.3f} of the fastest "
        f"line above ({files.images} photos in {files.elapsed_s:.1f} s)",
    ]
    peak, alone = benchmark.peak_rss_mb, benchmark.first_prediction_peak_rss_mb
    if peak is not None and alone is not None:
        lines.append(f"peak memory       {peak:.0f} MB; {alone:.0f} MB to predict one photo")
    return [*lines, *(f"note: {note}" for note in benchmark.notes)]
