"""The section `birdsonnx`: keys that rmldnn does not have."""

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from birdsonnx.config.cache_folder import user_cache
from birdsonnx.config.computing import (
    ENGINE_CHOICES,
    EXCHANGE_PRECISIONS,
    FEATURE_PRECISIONS,
    OUTPUT_LAYOUTS,
    TRAINING_PRECISIONS,
    EngineChoice,
    ExchangePrecision,
    FeaturePrecision,
    OutputLayout,
    TrainingPrecision,
)
from birdsonnx.config.limits import MOST_THREADS
from birdsonnx.config.section import Fraction, Positive, PositiveInt, Section, Text, as_tuple, one_of
from birdsonnx.config.wording import refusal, shown


def _no_zero(value: Any) -> Any:
    """Python takes 0 for False."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        raise refusal(f"takes a folder or false, got {shown(value)}")
    return value


class Own(Section):
    """birdsonnx's own keys."""

    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    """Seed of the shuffle, fresh weights, dropout and random transforms."""
    trainable: Annotated[tuple[Text, ...], BeforeValidator(as_tuple)] | None = None
    """Which layers are trained, as globs of their names; default: the network's own flags."""
    engine: Annotated[
        EngineChoice, one_of(*ENGINE_CHOICES, hint=" (what computes predictions and features)")
    ] = "auto"
    """What computes predictions and features; auto: ONNX Runtime, or OpenVINO where that is installed and
    faster. `birdsonnx doctor` says when. Convolutions are trained in float32 by oneDNN where that is
    installed and faster; onnxruntime leaves them to ONNX Runtime."""
    precision: Annotated[
        TrainingPrecision, one_of(*TRAINING_PRECISIONS, hint=" (precision of trained convolutions)")
    ] = "fp32"
    """Precision in which trained convolutions and their gradients are computed; weights, loss and head stay
    float32. bf16 is faster on CPUs with AMX or AMD's AVX512_BF16, and needs oneDNN; where it is not to be
    had, the summary says why, and float32 is used. auto: bf16 where it is faster."""
    exchange_precision: Annotated[
        ExchangePrecision, one_of(*EXCHANGE_PRECISIONS, hint=" (precision in which hosts exchange gradients)")
    ] = "fp32"
    """Precision in which hosts give each other gradients under MPI. bf16 halves the bytes, which pays where
    many weights are trained on some hosts over 1 Gbit/s; within a host nothing is rounded, and all ranks get
    the same sums."""
    feature_precision: Annotated[
        FeaturePrecision, one_of(*FEATURE_PRECISIONS, hint=" (precision of the cached features)")
    ] = "fp32"
    """Precision of the cached features: fp16 halves their size; int8 computes them 3 times as fast; bf16,
    with OpenVINO on a CPU that has it, is fast and needs no calibration."""
    views: PositiveInt | None = None
    """How many draws of the random transforms are kept of each training photo, as cached features; each epoch
    trains on one of them. Default: none are kept, and each epoch draws anew and runs the whole network."""
    cache: Annotated[Text | Literal[False] | None, BeforeValidator(_no_zero)] = None
    """Folder of features; default: the user's own cache folder. false: none, and every epoch runs the whole
    network."""
    boundary: Text | None = None
    """Layer whose output is cached as features, or `photos` for none; default: the fastest place, measured by
    the first training of a network on its photos, and kept in the cache."""
    threads: Annotated[int, Field(gt=0, le=MOST_THREADS)] | None = None
    """Threads per rank; default: its share of the cores."""
    label_smoothing: Fraction = 0.0
    """How much of each label is spread evenly over all classes (Szegedy et al. 2016, arXiv 1512.00567)."""
    early_stopping: PositiveInt | None = None
    """Epochs without a lower test loss after which the run stops; default: it never stops early."""
    clip_norm: Positive | None = None
    """Largest norm of the gradient of a batch; a larger gradient is scaled down to it. Default: no limit."""

    output_layout: Annotated[
        OutputLayout, one_of(*OUTPUT_LAYOUTS, hint=" (how predictions lie in their file)")
    ] = "datasets"
    """How log-probabilities lie in the files of `test_output_path`: one dataset for each photo, or one table,
    which is smaller and faster for very many photos."""

    rank_timeout: Positive | None = None
    """Seconds that MPI ranks wait for one that does not come before they end the run; more than what one rank
    does alone, such as measuring the boundary. Default: no limit; after 60 s they say whom they wait for."""

    quantize: bool = False
    """Also write the last checkpoint as an int8 model, calibrated on training photos."""
    calibrate: bool = False
    """Also write the last checkpoint with calibrated probabilities, by its answers about the test photos; the
    int8 model of `quantize` is made of it then."""
    model_card: bool = False
    """Also write labels.txt and model_card.md beside the last checkpoint: its class names, and what it is,
    for people who get it."""

    @property
    def cache_folder(self) -> Path | None:
        """Where features are kept, if they are: `cache`, else the user's own. Raises ConfigError where there
        is neither."""
        if self.cache is False:
            return None
        return Path(self.cache) if self.cache is not None else user_cache()
