"""How fast a model is on this machine: load, first prediction, the model alone, and prediction from files.

A fixed budget of seconds is shared out among the parts, warm-up included. A part whose share is too short
still gets its warm-up and one run, and the result says so.
"""

import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
from PIL import Image

from birdsonnx.artifacts.temporary import scratch_folder
from birdsonnx.config.computing import EngineChoice, EngineName, Precision
from birdsonnx.errors import BirdsonnxError, DataError
from birdsonnx.images.batches import decode
from birdsonnx.images.decoding import Pixels
from birdsonnx.images.inputs import collect
from birdsonnx.images.photo_file import write_jpeg
from birdsonnx.images.photo_list import Photo
from birdsonnx.inference import engines, speed
from birdsonnx.inference.classifier import Classifier, open_classifier
from birdsonnx.inference.forms import Form
from birdsonnx.inference.opening import require_precision
from birdsonnx.inference.speed import MANY_PHOTOS
from birdsonnx.inference.timing import Timing, timed
from birdsonnx.model.checkpoint_names import default_folder, newest_checkpoint
from birdsonnx.model.file_bytes import read_bytes
from birdsonnx.model.metadata import INPUT
from birdsonnx.runtime import interpreter, threads
from birdsonnx.runtime.audience import Audience
from birdsonnx.runtime.engine import Engine
from birdsonnx.runtime.ranks import Ranks

FIRST_ENDS, LOAD_ENDS, BARE_ENDS = 0.1, 0.15, 0.75
"""Shares of the budget after which each part has to end; prediction from files gets the rest."""

PHOTOS = 64
"""At most so many photos, spread evenly over those given, are predicted over and over."""

MADE_PHOTOS = 16

SEVERAL = 5
"""Fewer runs than this say little of a latency's spread."""


@dataclass(frozen=True)
class Request:
    """What to measure."""

    model: Path | None = None
    """None: the newest checkpoint."""
    data: str | None = None
    """Photos, as `predict` takes them; None: JPEGs made for the purpose."""
    seconds: float = 60
    batch_sizes: tuple[int, ...] = (1, 4, 8)
    threads: tuple[int, ...] | None = None
    """None: powers of two up to what `predict` would use."""
    precision: Precision | None = None
    """What the model must be, as in a prediction."""
    engine: EngineChoice = "auto"


@dataclass(frozen=True)
class BareSession:
    """The model alone, on pixels in memory. Latencies are those of one run of `batch` photos."""

    streams: int
    threads_per_run: int
    batch: int
    runs: int
    """Over all streams."""
    images: int
    elapsed_s: float
    images_per_second: float
    p50_ms: float
    p90_ms: float
    p99_ms: float

    @property
    def cores(self) -> str:
        """How the threads are used, for people."""
        return f"{_count(self.streams, 'stream')} x {_count(self.threads_per_run, 'thread')}"


@dataclass(frozen=True)
class FromFiles:
    """What `predict` does: files decoded and named, log-probabilities in a closed HDF5 file."""

    photos: str
    """Which ones."""
    streams: int
    batch: int
    images: int
    elapsed_s: float
    images_per_second: float
    ratio_to_bare: float
    """To the fastest of the model alone."""


@dataclass(frozen=True)
class Benchmark:
    """All that was measured."""

    model: str
    engine: str
    """Its name and version."""
    sha256: str
    input_shape: tuple[int, int, int]
    """`(height, width, channels)`."""
    classes: int
    budget_s: float
    elapsed_s: float
    load_s: float
    """Median of reading the file, from the system's cache, and opening a session on it for many photos."""
    loads: int
    first_prediction_s: float
    """Median of `birdsonnx predict` with one photo: the whole process, from its start to its end."""
    first_predictions: int
    bare: tuple[BareSession, ...]
    from_files: FromFiles
    peak_rss_mb: float | None
    """Of this process over all settings; None where the system does not say."""
    first_prediction_peak_rss_mb: float | None
    notes: tuple[str, ...]
    refused: tuple[str, ...]
    """Photos that could not be decoded, with reasons."""

    @property
    def fastest(self) -> BareSession:
        return max(self.bare, key=lambda bare: bare.images_per_second)

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def run(request: Request, audience: Audience) -> Benchmark:
    """Measure one part after the other, in this process alone.

    Raises:
        BirdsonnxError: a model or photos that cannot be used.
    """
    photos: Sequence[Photo] | None = None if request.data is None else collect([request.data])
    model = request.model or newest_checkpoint(default_folder(audience.say))
    share = threads.share(Ranks())
    if share.note:
        audience.say(share.note)
    counts = sorted(set(request.threads or powers_of_two(share.threads)))
    name = _engine(request, model)
    forms = _forms(counts, request.batch_sizes, name)
    started = perf_counter()
    with (
        scratch_folder() as folder,
        audience.progress("measuring: seconds", round(request.seconds)) as spend,
    ):
        bench = _Bench(model, max(counts), folder, started, request, name)
        classifier = bench.opened()
        require_precision(request.precision, classifier, str(model))
        height, width = classifier.decoder.height, classifier.decoder.width
        if photos is None:
            photos = make_photos(bench.folder / "made", height, width)
            source = f"{len(photos)} made JPEGs of {width} x {height}"
        else:
            source = f"{min(len(photos), PHOTOS)} of {len(photos)} in {request.data}"
        audience.say(f"measuring {model} for about {request.seconds:g} s, with {source}")
        usable, pixels, refused = decodable(classifier, photos)
        del classifier  # one session at a time, or two would show in the peak
        # Before anything larger is held here: Linux counts a process's peak at the start as its child's.
        first = bench.first_prediction(usable[0])
        child_peak = _peak_rss_mb(children=True)
        budget = _Spent(spend, started)
        budget.tell()
        load = bench.load()
        budget.tell()
        bare = bench.bare_sessions(forms, pixels, budget)
        classifier = bench.opened()
        from_files = bench.from_files(classifier, usable, source, bare)
    return Benchmark(
        str(model),
        classifier.engine.title,
        classifier.sha256,
        (height, width, classifier.decoder.channels),
        classifier.num_classes,
        request.seconds,
        perf_counter() - started,
        load.percentile_s(50),
        len(load.durations_s),
        first.percentile_s(50),
        len(first.durations_s),
        bare,
        from_files,
        _peak_rss_mb(),
        child_peak,
        _notes(bare, request.seconds),
        tuple(refused),
    )


class _Spent:
    """Tells how many whole seconds of the budget are over."""

    def __init__(self, spend: Callable[[int], None], started: float) -> None:
        self._spend = spend
        self._started = started
        self._told = 0

    def tell(self) -> None:
        whole = int(perf_counter() - self._started)
        self._spend(whole - self._told)
        self._told = whole


@dataclass(frozen=True)
class _Bench:
    """What every part of a benchmark needs: the model, the cores, a folder to write to, and the budget."""

    model: Path
    streams: int
    """As many as `predict` would use."""
    folder: Path
    started: float
    request: Request
    engine: EngineName

    def opened(self, form: Form | None = None) -> Classifier:
        """As `predict` opens it for many photos; with a form of its own, where that is measured."""
        streams = self.streams if form is None else form.streams
        bf16 = self.request.precision == "bf16"
        return open_classifier(
            self.model, str(self.model), MANY_PHOTOS, streams, form=form, engine=self.engine, bf16=bf16
        )

    def ends(self, part: float) -> float:
        """When a part of the budget has to end that ends there in it."""
        return self.started + part * self.request.seconds

    def first_prediction(self, photo: Photo) -> Timing:
        return timed(
            lambda: _predict_one(self.request, self.model, photo, self.folder), self.ends(FIRST_ENDS)
        )

    def load(self) -> Timing:
        return timed(self.opened, self.ends(LOAD_ENDS))

    def bare_sessions(
        self, forms: Sequence[Form], pixels: Pixels, budget: "_Spent"
    ) -> tuple[BareSession, ...]:
        bare: list[BareSession] = []
        for form in forms:
            session = self.opened(form).engine
            images = np.resize(pixels, (form.per_run, *pixels.shape[1:]))  # the same photos over and over
            until = _slice(self.ends(BARE_ENDS), len(forms) - len(bare))
            bare.append(_bare_session(session, images, form, until))
            budget.tell()
            del session  # before the next one is opened
        return tuple(bare)

    def from_files(
        self, classifier: Classifier, photos: Sequence[Photo], source: str, bare: Sequence[BareSession]
    ) -> FromFiles:
        images, seconds = speed.from_files(classifier, photos, self.folder, self.ends(1))
        rate = images / seconds
        ratio = rate / max(setting.images_per_second for setting in bare)
        return FromFiles(source, classifier.streams, classifier.per_run, images, seconds, rate, ratio)


def powers_of_two(most: int) -> tuple[int, ...]:
    """1, 2, 4 … up to `most`, and `most` itself."""
    return tuple(sorted({2**power for power in range(most.bit_length())} | {most}))


def make_photos(folder: Path, height: int, width: int) -> Sequence[Photo]:
    """A few smooth colourful JPEGs of that size, in a new folder."""
    folder.mkdir()
    generator = np.random.default_rng(0)
    for number in range(MADE_PHOTOS):
        coarse = Image.fromarray(generator.integers(0, 256, (8, 8, 3), np.uint8))
        write_jpeg(coarse.resize((width, height), Image.Resampling.BICUBIC), folder / f"{number:02}.jpg")
    return collect([str(folder)])


def decodable(classifier: Classifier, photos: Sequence[Photo]) -> tuple[list[Photo], Pixels, list[str]]:
    """Of at most `PHOTOS` photos: those that can be used, their pixels, uint8 `[photos, height, width,
    channels]`, and why the others cannot.

    Raises:
        DataError: none of them can be used.
    """
    spread = photos[:: -(-len(photos) // PHOTOS)]
    pixels, good, bad = decode(classifier.decoder, spread, range(len(spread)))
    refused = [reason for _, reason in bad]
    if not good:
        raise DataError(
            refused[0] if len(bad) == 1 else f"none of {len(bad)} photos can be used; the first: {refused[0]}"
        )
    return [spread[index] for index in good], pixels, refused


def _forms(counts: Sequence[int], batch_sizes: Sequence[int], engine: EngineName) -> list[Form]:
    """Single-threaded streams beside each other, as in prediction; and the plain form, one pool."""
    uses = [(count, 1) for count in counts] + [(1, count) for count in counts if count > 1]
    return [Form(*use, batch, engine) for use in uses for batch in sorted(set(batch_sizes))]


def _engine(request: Request, model: Path) -> EngineName:
    """The one that `predict` would take for many photos."""
    bf16 = request.precision == "bf16"
    return engines.choose(request.engine, bf16, MANY_PHOTOS, lambda: engines.QUANTIZED in read_bytes(model))


def _predict_one(request: Request, model: Path, photo: Photo, folder: Path) -> None:
    words: list[str | Path] = ["predict", photo.path, "--model", model, "-o", folder]
    if request.engine != "auto":
        words += ["--engine", request.engine]
    if request.precision is not None:
        words += ["--precision", request.precision]
    done = subprocess.run(
        interpreter.command(words), capture_output=True, text=True, errors="replace", check=False
    )
    if done.returncode:
        reason = " ".join(done.stderr.split())
        raise BirdsonnxError(f"predicting {photo.path} ended with exit code {done.returncode} ({reason})")


def _slice(until: float, parts: int) -> float:
    """When the first of so many equal parts of the time from now has to end."""
    now = perf_counter()
    return now + (until - now) / parts


def _bare_session(session: Engine, images: Pixels, form: Form, until: float) -> BareSession:
    timing = timed(lambda: session.run({INPUT: images}), until, form.streams)
    runs = len(timing.durations_s)
    p50, p90, p99 = (1000 * timing.percentile_s(percent) for percent in (50, 90, 99))
    return BareSession(
        form.streams,
        form.threads,
        form.per_run,
        runs,
        runs * form.per_run,
        timing.elapsed_s,
        runs * form.per_run / timing.elapsed_s,
        p50,
        p90,
        p99,
    )


def _notes(bare: Sequence[BareSession], seconds: float) -> tuple[str, ...]:
    short = sum(setting.runs < SEVERAL for setting in bare)
    if not short:
        return ()
    return (
        f"{seconds:g} s are short for this model: {short} of {len(bare)} settings had fewer than {SEVERAL} "
        "runs, which say little of their spread; give more --seconds, or fewer --batch-sizes and --threads",
    )


def _peak_rss_mb(children: bool = False) -> float | None:
    """The most memory this process, or the largest of its ended children, has held at once."""
    try:
        import resource
    except ImportError:  # Windows
        return None
    peak = resource.getrusage(resource.RUSAGE_CHILDREN if children else resource.RUSAGE_SELF).ru_maxrss
    return peak * (1 if sys.platform == "darwin" else 1024) / 1e6  # macOS counts bytes, Linux KB


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"
