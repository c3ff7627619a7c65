"""Name photos: a stream of log-probabilities from files to one HDF5 file, on any number of ranks."""

import contextlib
import csv
import json
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO

import numpy as np
import numpy.typing as npt

from birdsonnx import artifacts
from birdsonnx.config.transforms import Transform
from birdsonnx.errors import DataError, ImageError, ModelError
from birdsonnx.images.decoding import Decoder, decoder
from birdsonnx.images.folders import Photo
from birdsonnx.inference import hdf5
from birdsonnx.inference.forward import forward
from birdsonnx.inference.tuning import Form
from birdsonnx.model.metadata import INPUT, OUTPUT, PREFIX, Metadata
from birdsonnx.runtime import isa
from birdsonnx.runtime.ranks import Ranks
from birdsonnx.runtime.sessions import PHOTOS_PER_RUN, Session, streams_for

EXTERNAL_DATA = b"location"
"""The key under which an ONNX file names another file that holds a tensor."""

QUANTIZED = b"QuantizeLinear"
"""The operation that an int8 model's file holds."""

MANY = 500
"""From here on it pays to make the model over for this CPU."""

SIDE_BY_SIDE = 2000
"""From here on it pays to lay small maps side by side: that takes 0.3 s for a float32 ResNet50, and saves
0.7 ms a photo on 2 cores; for int8 0.1 s, and 0.05 (on AMX) to 0.25 ms. It also loads the onnx package."""

INT8_PHOTOS_PER_RUN = 8
"""With small maps side by side: 1.02 to 1.04 x the images/s of 4. In float32 it is 1.01 x, for 60 MB more."""

CHUNKS_AHEAD = 8
"""Per stream. Small ones, of log-probabilities; to take fewer at a time costs more: of an int8 ResNet50 on
2 cores, writing takes 0.13 ms a photo with 2 and 0.065 with 8 (of 8.9)."""

HOW_TO_QUANTIZE = "make one first: birdsonnx quantize MODEL --calibrate PHOTOS"

SHOWN = 50
"""Up to this many photos are listed one by one; beyond it a summary is enough."""


@dataclass(frozen=True)
class Classifier:
    """A loaded model and the decoder that its input needs."""

    session: Session
    metadata: Metadata
    decoder: Decoder
    num_classes: int
    streams: int
    per_run: int
    """Photos per run of a stream."""
    sha256: str
    """Of the model."""

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names by index; `class 7` where the model has none yet."""
        return self.metadata.classes or tuple(f"class {index}" for index in range(self.num_classes))


def open_classifier(
    model: Path | bytes,
    where: str,
    photos: int,
    threads: int,
    transforms: tuple[Transform, ...] | None = None,
    form: Form | None = None,
    per_run: int | None = None,
    grayscale: bool = False,
) -> Classifier:
    """Load a birdsonnx `.onnx`, a file or its content, through the runtime alone (no onnx package: it
    starts faster).

    `where` names it in messages, `transforms` override those of its training, and `photos` (of this rank)
    decides how `threads` are used, unless `form` says it. `per_run` overrides the photos per run. With
    `grayscale` photos must start gray.

    Raises:
        ModelError: missing, damaged, or not a birdsonnx model.
        ConfigError: transforms that end at another size than the network's, or at other channels.
    """
    content = model if isinstance(model, bytes) else read_model(model)
    if EXTERNAL_DATA in content:
        _explain(content, where)  # the runtime would read whatever file it names
    if form is None or photos < MANY:
        streams, per_session = streams_for(photos, threads)
        takes_more = photos >= SIDE_BY_SIDE and QUANTIZED in content
        form = Form(streams, per_session, INT8_PHOTOS_PER_RUN if takes_more else PHOTOS_PER_RUN)
    per_run = per_run or form.per_run
    sha256 = artifacts.sha256_of(content)
    if photos >= MANY:
        content = fastest(content, per_run if photos >= SIDE_BY_SIDE and form.threads == 1 else 1)
    try:
        session = Session(content, form.threads, where)
    except ModelError:
        _explain(content, where)
        raise
    metadata = Metadata.from_props(session.metadata_props, where)
    inputs, outputs = session.input_shapes, session.output_shapes
    if list(inputs) != [INPUT] or list(outputs) != [OUTPUT]:
        raise ModelError(f"{where}: it does not have the one input '{INPUT}' and the one output '{OUTPUT}'")
    height, width, channels = inputs[INPUT][1:]
    return Classifier(
        session,
        metadata,
        decoder(
            height, width, channels, metadata.transforms if transforms is None else transforms, grayscale
        ),
        outputs[OUTPUT][1],
        form.streams,
        per_run,
        sha256,
    )


def read_model(path: Path) -> bytes:
    """A model file's content. Raises ModelError where it cannot be read, or is Keras' own."""
    if path.suffix.lower() in (".h5", ".hdf5", ".keras"):
        raise ModelError(f"{path}: a Keras file; convert it first: birdsonnx export {path} -o model.onnx")
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise ModelError(f"{path}: there is no such model") from None
    except OSError as error:
        raise ModelError(f"{path}: cannot be read ({error.strerror})") from None


def fastest(content: bytes, side_by_side: int = 1, amx: bool | None = None) -> bytes:
    """A model in the form that is fastest on this CPU, or on one with or without AMX units.

    With `side_by_side` above 1, that many photos' small maps lie side by side, and each run takes exactly so
    many. What cannot be parsed stays as it is, for `Session` to refuse.
    """
    amx = (isa.has_amx() if amx is None else amx) and QUANTIZED in content
    if not amx and side_by_side == 1:
        return content
    # Not at the top: prediction itself starts faster without onnx.
    from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
    from onnx import load_model_from_string

    from birdsonnx.passes.quantization import sums_on_amx
    from birdsonnx.passes.side_by_side import lay_side_by_side

    try:
        model = load_model_from_string(content)
    except (DecodeError, ValueError, TypeError):
        return content
    changed = sums_on_amx(model) if amx else 0
    if side_by_side > 1:
        changed += lay_side_by_side(model, side_by_side)
    return bytes(model.SerializeToString()) if changed else content


def _explain(content: bytes, where: str) -> None:
    """Raises ModelError in our own words where the onnx package sees what is wrong with a model."""
    from birdsonnx.model import model_file  # not at the top: prediction itself starts faster without onnx

    model_file.parse(content, where)


@dataclass(frozen=True)
class Named:
    """One photo's outcome: log-probabilities, or why there are none."""

    photo: Photo
    log_probs: npt.NDArray[np.float32] | None
    refusal: str = ""


def name_photos(classifier: Classifier, photos: Sequence[Photo], ranks: Ranks) -> Iterator[Named]:
    """The outcome of every photo on rank 0 (in order with one rank); nothing on the others, which work."""

    def chunks() -> Iterator[tuple[tuple[int, ...], npt.NDArray[np.float32], tuple[tuple[int, str], ...]]]:
        for chunk in forward(
            classifier.session,
            classifier.decoder,
            photos,
            ranks.share(len(photos)),
            classifier.streams,
            classifier.per_run,
            ahead=CHUNKS_AHEAD,
        ):
            yield chunk.indices, chunk.values, chunk.refused

    for indices, values, refused in ranks.merge(chunks()):
        for index, log_probs in zip(indices, values, strict=True):
            yield Named(photos[index], log_probs)
        for index, reason in refused:
            yield Named(photos[index], None, reason)


@dataclass
class Summary:
    """What a prediction run did."""

    photos: int = 0
    refused: list[str] = field(default_factory=list)
    shown: list[dict[str, Any]] = field(default_factory=list)
    """The first photos: name and top classes with probabilities."""
    counts: dict[str, int] = field(default_factory=dict)
    """Photos per named class."""
    seconds: float = 0.0
    output: Path | None = None
    csv: Path | None = None


def predict(
    classifier: Classifier,
    photos: Sequence[Photo],
    ranks: Ranks,
    output: Path | None,
    top_k: int = 1,
    csv_path: Path | None = None,
    advance: Callable[[int], None] = lambda _: None,
) -> Summary:
    """Name all photos and keep the log-probabilities in `output`; the summary is complete on rank 0.

    Raises:
        ArtifactError: `output` or `csv_path` cannot be written.
        DataError: not one photo can be used; nothing is written then.
    """
    started = time.perf_counter()
    summary = Summary(output=output, csv=csv_path)
    names = classifier.class_names
    top_k = min(top_k, classifier.num_classes)
    with contextlib.ExitStack() as stack:
        writer = rows = None
        if ranks.is_first and output is not None:
            writer = stack.enter_context(hdf5.writing(output, classifier.metadata.classes, classifier.sha256))
        if ranks.is_first and csv_path is not None:
            rows = csv.writer(stack.enter_context(_replacing_text(csv_path)))
            rows.writerow(
                ["name", *(f"{what}_{k + 1}" for k in range(top_k) for what in ("class", "probability"))]
            )
        for named in name_photos(classifier, photos, ranks):
            advance(1)
            try:
                if writer is not None:
                    hdf5.require_storable(named.photo.name)
            except ImageError as error:
                named = Named(named.photo, None, str(error))
            if named.log_probs is None:
                summary.refused.append(named.refusal)
                continue
            summary.photos += 1
            if writer is not None:
                writer.add(named.photo.name, named.log_probs)
            top = [
                (names[index], float(np.exp(named.log_probs[index])))
                for index in _top(named.log_probs, top_k)
            ]
            summary.counts[top[0][0]] = summary.counts.get(top[0][0], 0) + 1
            if rows is not None:
                rows.writerow([named.photo.name, *(value for name, p in top for value in (name, f"{p:.6f}"))])
            if len(summary.shown) < SHOWN:
                summary.shown.append({"name": named.photo.name, "top": top})
        if summary.refused and not summary.photos:  # raised here, so that an older file stays
            raise DataError(
                f"none of the {len(summary.refused)} photos can be used:\n  " + "\n  ".join(summary.refused)
                if len(summary.refused) > 1
                else summary.refused[0]
            )
        if writer is not None:
            writer.refused = len(summary.refused)
    summary.shown.sort(key=lambda entry: str(entry["name"]))
    summary.seconds = time.perf_counter() - started
    return summary


INT8_SUFFIX = ".int8.onnx"


def newest_checkpoint(folder: Path, int8: bool = False) -> Path:
    """The newest `model_checkpoint_*.onnx` of a folder, by the run and epoch in its own metadata; of the
    float32 ones, or of their int8 forms (`*.int8.onnx`).

    Raises:
        ModelError: no readable checkpoint there.
    """
    found = []
    for path in sorted(folder.glob("model_checkpoint_*.onnx")):
        if path.name.endswith(INT8_SUFFIX) != int8:
            continue
        run = run_record(path)
        if run is not None:
            found.append((int(run.get("run", 0)), int(run.get("epoch", 0)), path))
    if not found:
        if int8:
            raise ModelError(f"{folder}: no *{INT8_SUFFIX} there; {HOW_TO_QUANTIZE}")
        raise ModelError(f"{folder}: no model_checkpoint_*.onnx there; train first, or name a model")
    return max(found)[2]


def run_record(path: Path) -> dict[str, Any] | None:
    """Which training wrote a checkpoint, or None where the file does not say."""
    import onnx  # not at the top: prediction itself starts faster without it

    try:
        props = {prop.key: prop.value for prop in onnx.load(path, load_external_data=False).metadata_props}
        record = json.loads(props[PREFIX + "run"])
    except Exception:  # truncated, foreign, without metadata: not a checkpoint of ours
        return None
    return record if isinstance(record, dict) else None


def _top(log_probs: npt.NDArray[np.float32], count: int) -> list[int]:
    if count == 1:
        return [int(log_probs.argmax())]
    return [int(index) for index in np.argsort(-log_probs, kind="stable")[:count]]


@contextlib.contextmanager
def _replacing_text(path: Path) -> Iterator[TextIO]:
    with (
        artifacts.replacing(path) as temporary,
        temporary.open("w", encoding="utf-8", errors="surrogateescape", newline="") as file,
    ):
        yield file
