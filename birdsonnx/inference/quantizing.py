"""A model in int8: calibrated on photos, compared with float32 before anything is written."""

import os
from array import array
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from birdsonnx import artifacts
from birdsonnx.errors import ConfigError, DataError, ModelError
from birdsonnx.images.batches import decode
from birdsonnx.images.decoding import Decoder, decoder
from birdsonnx.images.folders import fitted, read_class_folders
from birdsonnx.images.inputs import collect
from birdsonnx.images.photo_list import Photo, paths_of
from birdsonnx.inference import int8_agreement
from birdsonnx.inference.classifier import open_classifier
from birdsonnx.inference.evaluating import evaluation
from birdsonnx.inference.evaluating.evaluation import Evaluation
from birdsonnx.inference.naming import name_photos
from birdsonnx.model import int8_form, model_file
from birdsonnx.model.file_bytes import read_bytes
from birdsonnx.model.model_file import BirdModel
from birdsonnx.passes import quantization
from birdsonnx.passes.quantization import Method
from birdsonnx.runtime import isa
from birdsonnx.runtime.audience import NOBODY, Audience
from birdsonnx.runtime.ranks import Ranks
from birdsonnx.runtime.sessions import PHOTOS_PER_RUN, in_streams, slices

PHOTOS = 128
"""To calibrate with: 32 gave the same accuracy on 12 classes of birds; each more costs 0.05 s."""


@dataclass(frozen=True)
class Request:
    """What to quantise, with which photos, and how much accuracy it may cost."""

    model: Path
    calibrate: Path
    output: Path | None = None
    """None: beside the model."""
    photos: int = PHOTOS
    method: Method = "minmax"
    validate: Path | None = None
    """Class folders that the accuracy is measured on; None: it is not."""
    max_drop: float = 0.01
    """Of accuracy, in [0, 1]; beyond it nothing is written."""
    min_agreement: float = int8_agreement.LEAST
    """Share of the calibration photos that int8 must give float32's class; below it nothing is written."""
    tag: str | None = None
    """Name of the folders in `validate` that hold the class folders; None: it does."""


@dataclass(frozen=True)
class Comparison:
    """float32 and int8 over the same labelled photos."""

    float32: Evaluation
    int8: Evaluation
    agreement: float
    """Share of photos that both give the same class."""

    @property
    def drop(self) -> float:
        """Of accuracy; negative where int8 is the better one."""
        return self.float32.accuracy - self.int8.accuracy

    def as_json(self) -> dict[str, Any]:
        def figures(found: Evaluation) -> dict[str, float]:
            return {"accuracy": found.accuracy, "top5": found.top5, "loss": found.loss}

        return {
            "photos": self.float32.photos,
            "float32": figures(self.float32),
            "int8": figures(self.int8),
            "agreement": self.agreement,
        }


@dataclass(frozen=True)
class Outcome:
    """The file that was written, and how it compares."""

    output: Path
    photos: int
    """Calibrated with."""
    bytes_before: int
    bytes_after: int
    agreement: float
    """Share of the photos calibrated with that int8 and float32 give the same class."""
    comparison: Comparison | None


def quantize(request: Request, threads: int, audience: Audience) -> Outcome:
    """Write the int8 form of a model; metadata, input and output stay.

    Raises:
        BirdsonnxError: a model, folder or photo that cannot be used, or an accuracy that drops too far;
            nothing is written then.
    """
    source = read_bytes(request.model)
    model = model_file.parse(source, str(request.model))
    output = request.output or int8_form.of(request.model)
    if output.resolve() == request.model.resolve():
        raise ConfigError(f"--output {output} is the model itself; give another name")
    if not isa.has_int8_products():
        audience.say("this CPU has neither VNNI nor AMX: int8 will hardly be faster than float32 here")
    if request.tag is not None and request.validate is None:
        raise ConfigError("--tag is for the folder of --validate, and there is none")
    photos = evenly(collect([str(request.calibrate)], say=audience.say), request.photos)
    made_of = artifacts.sha256_of(source)
    quantized = quantized_model(
        model, photos, request.method, threads, made_of, audience, request.min_agreement
    )
    content = quantized.serialized()
    comparison = None
    if request.validate is not None:
        comparison = compare(model, quantized, request.validate, threads, audience, request.tag)
        if comparison.drop > request.max_drop:
            raise ModelError(
                f"{request.model}: int8 takes the accuracy on {request.validate} from "
                f"{comparison.float32.accuracy:.4f} to {comparison.int8.accuracy:.4f}, more than --max-drop "
                f"{request.max_drop:g}; nothing was written; try more --photos or --method percentile"
            )
    quantized.save(output)
    agreement = float((quantized.metadata.quantization or {})["agreement"])
    return Outcome(output, len(photos), len(source), len(content), agreement, comparison)


def quantized_model(
    model: BirdModel,
    photos: Sequence[Photo],
    method: Method,
    threads: int,
    source_sha256: str,
    audience: Audience = NOBODY,
    min_agreement: float = int8_agreement.LEAST,
) -> BirdModel:
    """The int8 form of a model, which remembers how it was made, of which file, and how well it agrees with
    float32.

    Raises:
        ModelError: it cannot be quantised, or names too many of the photos otherwise.
        DataError: photos that cannot be decoded, all of them listed.
    """
    decode_photo = decoder(*model.input_size, model.metadata.transforms)
    with audience.progress("calibrating: photos", len(photos)) as advance:
        batches = pixels(decode_photo, photos, threads, advance)
        try:
            proto = quantization.quantize(model.proto, model.metadata.preprocessing, batches, method)
        except ModelError as error:
            raise ModelError(f"{model.where}: {error}") from None
    record = {"precision": "int8", "method": method, "photos": len(photos), int8_form.SOURCE: source_sha256}
    quantized = BirdModel(proto, model.metadata.having(quantization=record, network=None), model.where)
    return int8_agreement.settled(model, quantized, photos, threads, min_agreement, audience)


def pixels(
    decoder: Decoder, photos: Sequence[Photo], threads: int, advance: Callable[[int], None]
) -> Iterator[npt.NDArray[np.uint8]]:
    """The photos in batches, uint8 `[batch, height, width, channels]`. Raises DataError for bad ones."""
    bad: list[str] = []
    pieces = slices(range(len(photos)), PHOTOS_PER_RUN)
    for decoded, good, refused in in_streams(threads, lambda piece: decode(decoder, photos, piece), pieces):
        bad += [reason for _, reason in refused]
        advance(len(good) + len(refused))
        if good and not bad:
            yield decoded
    if bad:
        start = f"{len(bad)} of {len(photos)} photos to calibrate with cannot be used; repair or remove "
        raise DataError(f"{start}it: {bad[0]}") if len(bad) == 1 else DataError(f"{start}them:", bad)


def evenly(photos: Sequence[Photo], count: int, seed: int = 0) -> list[Photo]:
    """`count` photos drawn at random, as many of each folder as of any other (while it has some)."""
    generator = np.random.default_rng(seed)
    folders: dict[str, array[int]] = {}
    for place, path in enumerate(paths_of(photos)):
        folders.setdefault(os.path.dirname(path), array("q")).append(place)  # noqa: PTH120 - texts
    drawn = [generator.permutation(len(folder)).tolist() for folder in folders.values()]
    turns = range(max(map(len, drawn), default=0))
    chosen = (
        members[order[turn]]
        for turn in turns
        for members, order in zip(folders.values(), drawn, strict=True)
        if turn < len(order)
    )
    return [photos[place] for place in islice(chosen, count)]


def compare(
    model: BirdModel,
    quantized: BirdModel,
    folder: Path,
    threads: int,
    audience: Audience,
    tag: str | None = None,
) -> Comparison:
    """Both over a folder of class folders; a photo that cannot be read counts for neither.

    Raises:
        DataError: folders that are not the model's classes, or no photo that can be read.
        ModelError: int8 has no finite answer for a photo for which float32 has one.
    """
    labelled = read_class_folders(folder, tag, say=audience.say, may_lack=True)
    names, count = model.metadata.classes, model.num_classes
    labelled = fitted(labelled, names, count, model.where, say=audience.say)
    found, named = [], []
    refused: dict[str, str] = {}
    for title, each in (("float32", model), ("int8", quantized)):
        classifier = open_classifier(each.serialized(), each.where, len(labelled.photos), threads)
        answers: list[evaluation.Answer] = []
        with audience.progress(f"validating {title}: photos", len(labelled.photos)) as advance:
            for outcome in name_photos(classifier, labelled.photos, Ranks()):
                advance(1)
                if outcome.log_probs is not None and outcome.photo.label is not None:
                    answers.append((outcome.photo.name, outcome.log_probs, outcome.photo.label))
                elif each is model:
                    refused[outcome.photo.name] = outcome.refusal
                elif outcome.photo.name not in refused:
                    raise ModelError(f"{model.where}: in int8: {outcome.refusal}")
        figures = evaluation.evaluate(answers, labelled.classes)
        if figures is None:
            raise DataError(f"{folder}: none of its photos can be used")
        found.append(figures)
        named.append(np.array([int(log_probs.argmax()) for _, log_probs, _ in answers]))
    return Comparison(found[0], found[1], float((named[0] == named[1]).mean()))
