"""JSON text in, frozen settings out.

The keys are those of rmldnn's image classification, matched without regard to case, plus one object
`birdsonnx` of our own. A key that does not exist, or that this version cannot honour yet, is refused with its
full path; nothing is ignored.
"""

import difflib
import json
import math
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self, get_args

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainValidator,
    ValidationError,
)
from pydantic import model_validator as validator
from pydantic_core import PydanticCustomError

from birdsonnx.errors import ConfigError

# --- What several sections share ------------------------------------------------------------------------


def nearest(word: str, known: Iterable[str]) -> str:
    """`; did you mean 'x'?` for the closest of `known`, or an empty string."""
    matches = difflib.get_close_matches(word.lower(), [name.lower() for name in known], n=1, cutoff=0.6)
    by_lower = {name.lower(): name for name in known}
    return f"; did you mean '{by_lower[matches[0]]}'?" if matches else ""


def _refusal(message: str, key: str = "") -> PydanticCustomError:
    """A refusal in our own words; `key` completes the path of a key that is no field."""
    # The message is a parameter because braces in it would be read as a format string.
    return PydanticCustomError("refused", "{message}", {"message": message, "key": key})


class Section(BaseModel):
    """One object of the config: frozen, strict types, no unknown keys, names without regard to case."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")

    synonyms: ClassVar[dict[str, str]] = {}
    """Other spellings of a key."""
    later: ClassVar[tuple[str, ...]] = ()
    """Keys of the contract that this version does not honour yet."""
    elsewhere: ClassVar[dict[str, str]] = {}
    """rmldnn's keys for other tasks, with the task."""

    @validator(mode="before")
    @classmethod
    def _read_keys(cls, value: Any) -> Any:
        if isinstance(value, cls):
            return value
        if not isinstance(value, dict):
            raise _refusal(f"must be an object {{…}}, got {shown(value)}")
        section: dict[str, Any] = {}
        for key, content in value.items():
            name = cls.synonyms.get(key.lower(), key.lower())
            if name in cls.later:
                raise _refusal(f"{NOT_YET}; remove the key", key)
            if name in cls.elsewhere:
                raise _refusal(
                    f"this key is for {cls.elsewhere[name]}, which birdsonnx does not support", key
                )
            if name not in cls.model_fields:
                known = [*cls.model_fields, *cls.synonyms]
                guess = nearest(key, known) or f"; known keys: {', '.join(known)}"
                raise _refusal(f"unknown key (with value {shown(content)}){guess}", key)
            if name in section:
                raise _refusal("this key is given twice", key)
            section[name] = content
        return section


def shown(value: Any) -> str:
    """The value as JSON, shortened for a message."""
    text = json.dumps(value, default=str)
    return text if len(text) <= 60 else text[:57] + "…"


def _one_of(*names: str, later: tuple[str, ...] = (), elsewhere: str = "") -> BeforeValidator:
    """A value out of `names`, in any case; `later` and others are refused by name."""

    def match(value: Any) -> Any:
        if isinstance(value, str):
            by_lower = {name.lower(): name for name in names}
            if value.lower() in by_lower:
                return by_lower[value.lower()]
            if value.lower() in {name.lower() for name in later}:
                raise _refusal(
                    f"'{value}' is not available in this version of birdsonnx (it has {', '.join(names)})"
                )
        hint = nearest(value, (*names, *later)) if isinstance(value, str) else ""
        raise _refusal(f"{shown(value)} is not one of {', '.join(names)}{hint or elsewhere}")

    return BeforeValidator(match)


def _only(allowed: Any, why: str) -> BeforeValidator:
    """A key whose other values this version cannot honour yet."""

    def check(value: Any) -> Any:
        if value != allowed or type(value) is not type(allowed):
            raise _refusal(f"{shown(value)} {why}; only {shown(allowed)} works")
        return value

    return BeforeValidator(check)


def _names_a_file(value: str) -> str:
    if not Path(value).name:
        raise _refusal(f"{shown(value)} names no file; give one such as out.txt")
    return value


def _describes_a_network(value: Any) -> Any:
    if value is not None and not isinstance(value, dict | list) and not (isinstance(value, str) and value):
        raise _refusal(
            "must be the path of a Keras JSON, a Keras model object, or an array of layers, "
            f"got {shown(value)}"
        )
    return value


def _tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


NOT_YET = "is not available in this version of birdsonnx"
PositiveInt = Annotated[int, Field(gt=0)]
NonNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Fraction = Annotated[float, Field(ge=0, lt=1)]
Finite = Annotated[float, Field(allow_inf_nan=False)]
Text = Annotated[str, Field(min_length=1)]

# --- Transforms -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Resize:
    """Pillow's antialiased bilinear resize to `width` x `height` pixels."""

    width: int
    height: int

    def as_json(self) -> dict[str, Any]:
        return {"resize": [self.width, self.height]}


@dataclass(frozen=True)
class CenterCrop:
    """The centre `width` x `height` pixels."""

    width: int
    height: int

    def as_json(self) -> dict[str, Any]:
        return {"center_crop": [self.width, self.height]}


@dataclass(frozen=True)
class Normalize:
    """`(x - mean) / std` per RGB channel, on values in [0, 1]; one number serves all channels."""

    mean: tuple[float, ...]
    std: tuple[float, ...]

    def as_json(self) -> dict[str, Any]:
        return {"normalize": {"mean": list(self.mean), "std": list(self.std)}}


@dataclass(frozen=True)
class Rotate:
    """A turn by so many degrees, clockwise; the size stays, and the corners become black."""

    degrees: float

    def as_json(self) -> dict[str, Any]:
        return {"rotate": self.degrees}


@dataclass(frozen=True)
class JitterCrop:
    """c x side / 2 pixels less at both ends of each direction; c below `most`, drawn for each direction."""

    most: float

    def as_json(self) -> dict[str, Any]:
        return {"jitter_crop": self.most}


@dataclass(frozen=True)
class RandomHorizontalFlip:
    """Left becomes right with this probability."""

    probability: float

    def as_json(self) -> dict[str, Any]:
        return {"random_horizontal_flip": self.probability}


@dataclass(frozen=True)
class RandomVerticalFlip:
    """Top becomes bottom with this probability."""

    probability: float

    def as_json(self) -> dict[str, Any]:
        return {"random_vertical_flip": self.probability}


@dataclass(frozen=True)
class RandomZoom:
    """The centre (1 - c) of both sides, enlarged to the size before; one c below `most` for both."""

    most: float

    def as_json(self) -> dict[str, Any]:
        return {"random_zoom": self.most}


@dataclass(frozen=True)
class RandomRotate:
    """A turn by an angle between -`degrees` and `degrees`."""

    degrees: float

    def as_json(self) -> dict[str, Any]:
        return {"random_rotate": self.degrees}


RandomTransform = JitterCrop | RandomHorizontalFlip | RandomVerticalFlip | RandomZoom | RandomRotate
"""These act in training only, and differently on each photo in each epoch."""
Transform = Resize | CenterCrop | Rotate | RandomTransform | Normalize
LATER_TRANSFORMS = ("convert_color",)


def _size(name: str, value: Any) -> tuple[int, int]:
    pair = isinstance(value, list) and len(value) == 2
    if not pair or not all(type(side) is int and 0 < side <= 16384 for side in value):
        raise _refusal(f"'{name}' takes [width, height] in pixels, got {shown(value)}")
    return value[0], value[1]


def _channels(name: str, value: Any) -> tuple[float, ...]:
    numbers = value if isinstance(value, list) else [value]
    if len(numbers) not in (1, 3) or not all(_is_finite(number) for number in numbers):
        raise _refusal(f"'normalize.{name}' takes one number or one per channel, got {shown(value)}")
    return tuple(float(number) for number in numbers)


def _is_finite(value: Any) -> bool:
    try:
        return type(value) in (int, float) and math.isfinite(value)
    except OverflowError:  # an integer beyond floating point
        return False


def _normalize(value: Any) -> Normalize:
    settings = {key.lower(): number for key, number in value.items()} if isinstance(value, dict) else {}
    if set(settings) != {"mean", "std"}:
        raise _refusal(f'\'normalize\' takes {{"mean": …, "std": …}}, got {shown(value)}')
    mean, std = _channels("mean", settings["mean"]), _channels("std", settings["std"])
    if any(number <= 0 for number in std):
        raise _refusal(f"'normalize.std' must be above 0, got {shown(value)}")
    return Normalize(mean, std)


def _share(name: str, value: Any) -> float:
    if not _is_finite(value) or not 0 <= value < 1:
        raise _refusal(f"'{name}' takes a number from 0 to below 1, a share of each side, got {shown(value)}")
    return float(value)


def _probability(name: str, value: Any) -> float:
    if not _is_finite(value) or not 0 <= value <= 1:
        raise _refusal(f"'{name}' takes a probability from 0 to 1, got {shown(value)}")
    return float(value)


def _degrees(name: str, value: Any, least: int, most: int) -> float:
    if not _is_finite(value) or not least <= value <= most:
        raise _refusal(f"'{name}' takes degrees from {least} to {most}, got {shown(value)}")
    return float(value)


_TRANSFORMS: dict[str, Callable[[Any], Transform]] = {
    "resize": lambda value: Resize(*_size("resize", value)),
    "center_crop": lambda value: CenterCrop(*_size("center_crop", value)),
    "jitter_crop": lambda value: JitterCrop(_share("jitter_crop", value)),
    "random_horizontal_flip": lambda value: RandomHorizontalFlip(
        _probability("random_horizontal_flip", value)
    ),
    "random_vertical_flip": lambda value: RandomVerticalFlip(_probability("random_vertical_flip", value)),
    "random_zoom": lambda value: RandomZoom(_share("random_zoom", value)),
    "rotate": lambda value: Rotate(_degrees("rotate", value, -360, 360)),
    "random_rotate": lambda value: RandomRotate(_degrees("random_rotate", value, 0, 180)),
    "normalize": _normalize,
}


def parse_transforms(value: Any) -> tuple[Transform, ...]:
    """Read rmldnn's list of one-key objects, e.g. `[{"resize": [224, 224]}]`.

    Raises:
        PydanticCustomError: an unknown transform, or one with bad parameters.
    """
    if not isinstance(value, list):
        raise _refusal(f'must be a list such as [{{"resize": [224, 224]}}], got {shown(value)}')
    transforms: list[Transform] = []
    for item in value:
        if not isinstance(item, dict) or len(item) != 1:
            raise _refusal(f"each transform is an object with one key, got {shown(item)}")
        [(key, content)] = item.items()
        if key.lower() in LATER_TRANSFORMS:
            raise _refusal(f"the transform '{key}' {NOT_YET} (it has {', '.join(_TRANSFORMS)})")
        if key.lower() not in _TRANSFORMS:
            guess = nearest(key, _TRANSFORMS) or f"; known: {', '.join(_TRANSFORMS)}"
            raise _refusal(f"unknown transform '{key}'{guess}")
        transforms.append(_TRANSFORMS[key.lower()](content))
    if sum(isinstance(transform, Normalize) for transform in transforms) > 1:
        raise _refusal("'normalize' is given twice")
    return tuple(transforms)


# --- Sections -------------------------------------------------------------------------------------------

ImageType = Annotated[Literal["images"], _one_of("images", elsewhere=" (the input birdsonnx reads)")]
LabelType = Annotated[Literal["labels"], _one_of("labels", elsewhere=" (class folders)")]


class Data(Section):
    """Where the photos lie, and how they become the network's input."""

    input_type: ImageType = "images"
    target_type: LabelType = "labels"
    input_path: Text | None = None
    """Folder of class folders to train on; without it nothing is trained."""
    test_input_path: Text | None = None
    """Folder to evaluate or predict; without it nothing is evaluated."""
    test_output_path: Text | None = None
    """Folder for HDF5 predictions; without it none are kept."""
    batch_size: PositiveInt = 64
    """Training photos per step, over all ranks."""
    test_batch_size: PositiveInt = 64
    """Evaluation photos per step, over all ranks."""
    preload: bool = False
    """Keep decoded photos in memory where they are read more than once (only with `cache: false`)."""
    grayscale: Annotated[Literal[False], _only(False, NOT_YET)] = False
    transforms: Annotated[tuple[Transform, ...] | None, PlainValidator(parse_transforms)] = None
    """None: a plain resize to the network's input."""

    @property
    def augments(self) -> bool:
        """Whether training sees a photo differently in each epoch."""
        return any(isinstance(step, RandomTransform) for step in self.transforms or ())

    @property
    def lasting_transforms(self) -> tuple[Transform, ...] | None:
        """What becomes of a photo's pixels everywhere, not only in training; a trained model records it.
        Without `normalize`, which lives in the graph. None: a plain resize to the network's input."""
        if self.transforms is None:
            return None
        return tuple(step for step in self.transforms if not isinstance(step, RandomTransform | Normalize))

    synonyms = {"type": "input_type", "input_transforms": "transforms", "input_grayscale": "grayscale"}
    later = ("training_tag", "test_tag", "testing_tag")
    elsewhere = {
        "target_path": "segmentation",
        "test_target_path": "segmentation",
        "target_is_mask": "segmentation",
        "target_transforms": "segmentation",
        "target_grayscale": "segmentation",
        "slicers": "numpy inputs",
        "hdf5_outfile": "numpy inputs",
    }


def _kinds(union: Any) -> tuple[str, ...]:
    """The names of a union's section classes, which are the values of their `type`."""
    return tuple(section.__name__ for section in get_args(union))


def _typed(
    kinds: tuple[str, ...], elsewhere: dict[str, str] | None = None, default: str = ""
) -> BeforeValidator:
    """Settle an object's `type`, in any case, so that pydantic can pick the section class."""

    def settle(value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        section = {key: content for key, content in value.items() if key.lower() != "type"}
        name = next((content for key, content in value.items() if key.lower() == "type"), default)
        if not name:
            raise _refusal(f"'type' is missing; it is one of {', '.join(kinds)}")
        if not isinstance(name, str):
            raise _refusal(f"type {shown(name)} is not one of {', '.join(kinds)}")
        canonical = {kind.lower(): kind for kind in kinds}.get(name.lower())
        if canonical is None:
            if elsewhere and name.lower() in elsewhere:
                raise _refusal(
                    f"type '{name}' is {elsewhere[name.lower()]}, which birdsonnx does not support"
                )
            hint = nearest(name, kinds) or f"; it is one of {', '.join(kinds)}"
            raise _refusal(f"unknown type '{name}'{hint}")
        return {**section, "type": canonical}

    return BeforeValidator(settle)


class _Schedule(Section):
    """What every schedule has."""

    verbose: bool = False
    """Print the learning rate whenever it changes."""


class Step(_Schedule):
    """Multiply the learning rate by `gamma` every `step_size` epochs (PyTorch's StepLR)."""

    type: Literal["Step"] = "Step"
    gamma: Positive = 0.1
    step_size: PositiveInt


class MultiStep(_Schedule):
    """Multiply the learning rate by `gamma` after each number of epochs in `milestones` (MultiStepLR)."""

    type: Literal["MultiStep"] = "MultiStep"
    gamma: Positive = 0.1
    milestones: Annotated[tuple[PositiveInt, ...], BeforeValidator(_tuple), Field(min_length=1)]

    @validator(mode="after")
    def _milestones_rise(self) -> "MultiStep":
        if any(later <= earlier for earlier, later in pairwise(self.milestones)):
            raise _refusal(f"must rise, got {shown(self.milestones)}", "milestones")
        return self


class Exponential(_Schedule):
    """Multiply the learning rate by `gamma` every epoch (PyTorch's ExponentialLR)."""

    type: Literal["Exponential"] = "Exponential"
    gamma: Positive


class Warmup(_Schedule):
    """Raise the learning rate in equal steps, from `start_factor` times itself in the first epoch to itself
    after `num_epochs` (PyTorch's LinearLR)."""

    type: Literal["Warmup"] = "Warmup"
    num_epochs: PositiveInt
    start_factor: Annotated[float, Field(gt=0, lt=1)]


class Cosine(_Schedule):
    """Lower the learning rate along half a cosine over the run's epochs, towards `min_factor` times itself
    (PyTorch's CosineAnnealingLR)."""

    type: Literal["Cosine"] = "Cosine"
    min_factor: Fraction = 0.0


ScheduleSettings = Step | MultiStep | Exponential | Warmup | Cosine
Schedule = Annotated[ScheduleSettings, Field(discriminator="type"), _typed(_kinds(ScheduleSettings))]


class _Optimizer(Section):
    """What every optimizer has. Defaults are PyTorch's, but for the learning rate."""

    learning_rate: Positive = 0.01
    weight_decay: NonNegative = 0.0
    lr_scheduler: Schedule | None = None


class _Momentum(_Optimizer):
    """The keys of SGD."""

    momentum: NonNegative = 0.0
    dampening: Finite = 0.0
    nesterov: bool = False

    @validator(mode="after")
    def _nesterov_needs_momentum(self) -> Self:
        if self.nesterov and (self.momentum <= 0 or self.dampening != 0):
            raise _refusal("'nesterov' needs a momentum above 0 and no dampening")
        return self


class _Moments(_Optimizer):
    """The keys of Adam."""

    beta1: Fraction = 0.9
    beta2: Fraction = 0.999
    eps: Positive = 1e-8
    amsgrad: bool = False


class SGD(_Momentum):
    """PyTorch's torch.optim.SGD."""

    type: Literal["SGD"] = "SGD"


class Adagrad(_Optimizer):
    """PyTorch's torch.optim.Adagrad."""

    type: Literal["Adagrad"] = "Adagrad"
    lr_decay: NonNegative = 0.0


class Adam(_Moments):
    """PyTorch's torch.optim.Adam: weight decay is added to the gradient."""

    type: Literal["Adam"] = "Adam"


class AdamW(_Moments):
    """PyTorch's torch.optim.AdamW: weight decay shrinks the weights. As for all others here, and not as in
    PyTorch (0.01), there is none by default."""

    type: Literal["AdamW"] = "AdamW"


class RMSprop(_Optimizer):
    """PyTorch's torch.optim.RMSprop."""

    type: Literal["RMSprop"] = "RMSprop"
    momentum: NonNegative = 0.0
    alpha: Fraction = 0.99
    eps: Positive = 1e-8
    centered: bool = False


class LARS(_Momentum):
    """SGD with a rate of its own for each layer's weights (You et al. 2017, arXiv 1708.03888)."""

    type: Literal["LARS"] = "LARS"
    eta: Positive = 1e-3
    """The trust coefficient: how large a step is against the weights."""


class LAMB(_Moments):
    """Adam with a rate of its own for each layer's weights (You et al. 2019, arXiv 1904.00962)."""

    type: Literal["LAMB"] = "LAMB"


OptimizerSettings = SGD | Adagrad | Adam | AdamW | RMSprop | LARS | LAMB
Optimizer = Annotated[
    OptimizerSettings,
    Field(discriminator="type"),
    _typed(_kinds(OptimizerSettings), elsewhere={"hessian": "a second-order optimizer"}, default="SGD"),
]


class Loss(Section):
    """How far the predictions are from the labels, averaged over the batch."""

    function: Annotated[
        Literal["NLL", "Focal"], _one_of("NLL", "Focal", elsewhere="; other losses are for other tasks")
    ] = "NLL"
    """Negative log-likelihood of the right class, or the focal loss (Lin et al. 2017, arXiv 1708.02002)."""
    weight: Annotated[tuple[NonNegative, ...], BeforeValidator(_tuple)] | None = None
    """One factor per class; None: all 1."""
    gamma: NonNegative = 2.0
    """Focal: how much less a photo counts that is already recognised."""

    @validator(mode="after")
    def _settings_fit(self) -> "Loss":
        if self.weight is not None and not any(self.weight):
            raise _refusal("at least one class needs a weight above 0", "weight")
        if self.function != "Focal" and "gamma" in self.model_fields_set:
            raise _refusal(f"{self.function} has none; it belongs to the function Focal", "gamma")
        return self


class Checkpoints(Section):
    """Where weights come from and where they go."""

    load: Text | None = None
    """An .onnx, .h5 or .keras file; a `.pt` name means the .onnx of the same stem."""
    save: Text | None = None
    """Folder for `model_checkpoint_<epoch>.onnx`; without it no checkpoint is kept."""
    interval: PositiveInt = 1
    """Epochs between checkpoints; the last epoch is always kept."""


class Own(Section):
    """birdsonnx's own keys."""

    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    """Of the shuffle, fresh weights, dropout and random transforms."""
    trainable: Annotated[tuple[Text, ...], BeforeValidator(_tuple)] | None = None
    """Layer-name globs; None: the network's own flags."""
    feature_precision: Annotated[
        Literal["fp32", "fp16", "int8"],
        _one_of("fp32", "fp16", "int8", elsewhere=" (precision of the cached features)"),
    ] = "fp32"
    """How features are made and kept: fp16 halves their size; int8 computes them in int8, 3 times as fast."""
    cache: Text | Literal[False] | None = None
    """Folder of the feature cache; false: none, every epoch runs the whole network; None: the user's own
    cache folder."""
    threads: PositiveInt | None = None
    """Threads per rank; None: this rank's share of the cores."""
    label_smoothing: Fraction = 0.0
    """How much of each label is spread evenly over all classes (Szegedy et al. 2016, arXiv 1512.00567)."""
    early_stopping: PositiveInt | None = None
    """Epochs without a lower test loss before the run stops; None: it never does."""
    clip_norm: Positive | None = None
    """The largest norm of the whole gradient, which is scaled down to it; None: any."""

    quantize: bool = False
    """Whether the final checkpoint also gets an int8 form, calibrated on training photos."""

    @property
    def cache_folder(self) -> Path | None:
        """Where features and converted networks are kept, if they are: `cache`, else the user's own."""
        if self.cache is False:
            return None
        return Path(self.cache) if self.cache is not None else user_cache()


def user_cache() -> Path:
    """The user's own cache folder for birdsonnx."""
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "birdsonnx"


class Settings(Section):
    """The whole config: the object `neural_network`."""

    outfile: Annotated[Text, AfterValidator(_names_a_file)] | None = None
    """Stem of the two logs; without it none are written."""
    num_epochs: PositiveInt = 1
    layers: Annotated[Text | dict[str, Any] | list[Any] | None, BeforeValidator(_describes_a_network)] = None
    """The network: the path of a Keras JSON, the model object itself, or an array of layers."""
    debug: Annotated[Literal[False], _only(False, NOT_YET)] = False
    data: Data = Data()
    optimizer: Optimizer = SGD()
    loss: Loss = Loss()
    checkpoints: Checkpoints = Checkpoints()
    birdsonnx: Own = Own()

    later = ("debug_interval",)

    @validator(mode="after")
    def _sections_fit(self) -> "Settings":
        if self.birdsonnx.label_smoothing and self.loss.function == "Focal":
            raise _refusal("does not go with the loss function Focal", "birdsonnx.label_smoothing")
        # Without input_path nothing is trained, and what a training run needs is of no concern.
        if self.birdsonnx.early_stopping and self.data.input_path and not self.data.test_input_path:
            raise _refusal("needs a test loss; give data.test_input_path", "birdsonnx.early_stopping")
        return self


# --- Text to settings -----------------------------------------------------------------------------------


def read(path: Path, overrides: Iterable[str] = ()) -> Settings:
    """Read a config file; `overrides` are `data.batch_size=32` assignments inside `neural_network`.

    Raises:
        ConfigError: the file is missing, not JSON, or asks for something birdsonnx does not know.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise ConfigError(f"{path}: there is no such config file") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read as a JSON config ({error})") from None
    return parse(text, str(path), overrides)


def parse(text: str, source: str, overrides: Iterable[str] = ()) -> Settings:
    """Validate the JSON `text`; `source` names it in messages. Raises ConfigError."""
    root = _json(text, source)
    if not isinstance(root, dict):
        raise ConfigError(f'{source}: the root must be an object {{"neural_network": {{…}}}}')
    sections = {key.lower(): content for key, content in root.items()}
    extra = [key for key in root if key.lower() != "neural_network"]
    if "neural_network" not in sections or extra:
        guess = "".join(nearest(key, ["neural_network"]) for key in extra)
        found = f", found {', '.join(map(repr, extra))}" if extra else ""
        raise ConfigError(f"{source}: the root must hold one object 'neural_network'{found}{guess}")
    network = sections["neural_network"]
    for override in overrides:
        _assign(network, override)
    try:
        return Settings.model_validate(network)
    except ValidationError as error:
        raise ConfigError(f"{source}: {_first_line(error)}") from None


def _json(text: str, source: str) -> Any:
    try:
        return _loads(text, source)
    except json.JSONDecodeError as error:
        missing = text.count("{") - text.count("}")
        hint = f"; {missing} closing brace{'s' * (missing > 1)} '}}' missing" if missing > 0 else ""
        raise ConfigError(
            f"{source}: line {error.lineno}, column {error.colno}: {error.msg} (not valid JSON{hint})"
        ) from None


def _loads(text: str, source: str) -> Any:
    """The JSON value, without what JSON allows and nobody means.

    Raises:
        json.JSONDecodeError: not JSON.
        ConfigError: JSON, but a key twice, NaN, half a character, or beyond what Python reads.
    """

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        names = [key.lower() for key, _ in pairs]
        if len(set(names)) < len(names):
            twice = next(key for key, _ in reversed(pairs) if names.count(key.lower()) > 1)
            raise ConfigError(f"{source}: the key '{twice}' is given twice in one object (case aside)")
        return dict(pairs)

    def no_constants(name: str) -> Any:
        raise ConfigError(f"{source}: {name} is not a JSON number")

    try:
        value = json.loads(text, object_pairs_hook=unique, parse_constant=no_constants)
        json.dumps(value, ensure_ascii=False).encode()
    except json.JSONDecodeError:
        raise
    except RecursionError:
        raise ConfigError(f"{source}: nested too deeply to be a config") from None
    except UnicodeEncodeError:
        raise ConfigError(f"{source}: a text in it holds half a character (a lone \\ud800…\\udfff)") from None
    except ValueError:  # Python's limit on the digits of a number
        raise ConfigError(f"{source}: a number in it has too many digits") from None
    return value


def _assign(network: Any, override: str) -> None:
    path, equals, text = override.partition("=")
    keys = [key.strip() for key in path.split(".")]
    if keys[0].lower() == "neural_network":
        keys = keys[1:]
    if not equals or not keys or not all(keys):
        raise ConfigError(f"--set {override[:60]}: write KEY=VALUE, for example data.batch_size=32")
    try:
        value = _loads(text, f"--set {path}")
    except json.JSONDecodeError:
        value = text  # a bare word, such as a path
    section = network
    for depth, key in enumerate(keys):
        if not isinstance(section, dict):
            raise ConfigError(f"--set {override}: '{'.'.join(keys[:depth])}' is not an object")
        name = next((existing for existing in section if existing.lower() == key.lower()), key)
        if depth == len(keys) - 1:
            section[name] = value
        else:
            section = section.setdefault(name, {})


def _first_line(error: ValidationError) -> str:
    problems = error.errors(include_url=False)
    first = problems[0]
    # A union's location names the class that was tried; only keys and indices say where.
    classes = {*_kinds(ScheduleSettings), *_kinds(OptimizerSettings)}
    parts = ["neural_network"]
    parts += [
        str(part)
        for part in first["loc"]
        if part not in classes and not str(part).startswith(("function-", "constrained", "literal", "str"))
    ]
    where = ".".join(parts)
    if first["type"] == "refused":
        where = ".".join(filter(None, (where, first["ctx"]["key"])))
        return f"{where}: {first['msg']}"
    if first["type"] == "missing":
        return f"{where}: this key is required"
    return f"{where}: {first['msg']}, got {shown(first['input'])}"
