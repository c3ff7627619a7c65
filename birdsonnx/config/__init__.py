"""JSON text in, frozen settings out.

The keys are those of rmldnn's image classification, matched without regard to case, plus one object
`birdsonnx` of our own. A key that does not exist, or that this version cannot honour yet, is refused with its
full path; nothing is ignored.
"""

import difflib
import json
import math
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Protocol, Self, get_args

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainValidator,
    ValidationError,
    WithJsonSchema,
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


def any_case(*names: str, prefix: str = "") -> dict[str, Any]:
    """JSON Schema of `names` in any case, with `prefix` or without; editors offer them as they are."""

    def matching(word: str) -> str:
        return "".join(f"[{c.upper()}{c.lower()}]" if c.isalpha() else c for c in word)

    pattern = f"^({matching(prefix)})?" if prefix else "^"
    return {
        "anyOf": [
            {"enum": list(names)},
            {"type": "string", "pattern": f"{pattern}({'|'.join(map(matching, names))})$"},
        ]
    }


def _one_of(*names: str, elsewhere: Mapping[str, str] | None = None, hint: str = "") -> BeforeValidator:
    """A value out of `names`, in any case; those of `elsewhere` are refused with the task they are for."""

    def match(value: Any) -> Any:
        by_lower = {name.lower(): name for name in names}
        if isinstance(value, str):
            if value.lower() in by_lower:
                return by_lower[value.lower()]
            if elsewhere and value.lower() in elsewhere:
                raise _refusal(
                    f"{shown(value)} is for {elsewhere[value.lower()]}, which birdsonnx does not support (it "
                    f"has {', '.join(names)})"
                )
        guess = nearest(value, names) if isinstance(value, str) else ""
        raise _refusal(f"{shown(value)} is not one of {', '.join(names)}{guess or hint}")

    return BeforeValidator(match)


def _names_a_file(value: str) -> str:
    if not Path(value).name:
        raise _refusal(f"{shown(value)} names no file; give one such as out.txt")
    return value


def _one_folder(value: str) -> str:
    if "/" in value or "\\" in value or value.startswith("."):
        raise _refusal(f"{shown(value)} is not the name of one visible folder, such as train")
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
class ConvertColor:
    """Pixels of one colour space as those of another, by OpenCV's name of the conversion."""

    code: str
    """As `COLOR_CODES` spells it."""

    @property
    def source(self) -> str:
        return COLOR_CODES[self.code][0]

    @property
    def target(self) -> str:
        return COLOR_CODES[self.code][1]

    def as_json(self) -> dict[str, Any]:
        return {"convert_color": self.code}


@dataclass(frozen=True)
class Normalize:
    """`(x - mean) / std` per channel, on values in [0, 1]; one number serves all channels."""

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
    """In training, c x side / 2 pixels less at both ends of each direction, with a c below this for each."""

    most: float

    def as_json(self) -> dict[str, Any]:
        return {"jitter_crop": self.most}


@dataclass(frozen=True)
class RandomHorizontalFlip:
    """In training, left becomes right with this probability."""

    probability: float

    def as_json(self) -> dict[str, Any]:
        return {"random_horizontal_flip": self.probability}


@dataclass(frozen=True)
class RandomVerticalFlip:
    """In training, top becomes bottom with this probability."""

    probability: float

    def as_json(self) -> dict[str, Any]:
        return {"random_vertical_flip": self.probability}


@dataclass(frozen=True)
class RandomZoom:
    """In training, the centre (1 - c) of both sides, enlarged to the size before, with one c below this."""

    most: float

    def as_json(self) -> dict[str, Any]:
        return {"random_zoom": self.most}


@dataclass(frozen=True)
class RandomRotate:
    """In training, a turn by up to so many degrees, either way."""

    degrees: float

    def as_json(self) -> dict[str, Any]:
        return {"random_rotate": self.degrees}


RandomTransform = JitterCrop | RandomHorizontalFlip | RandomVerticalFlip | RandomZoom | RandomRotate
"""These act in training only, and differently on each photo in each epoch."""
Transform = Resize | CenterCrop | Rotate | RandomTransform | ConvertColor | Normalize

RGB, BGR, GRAY = "RGB", "BGR", "GRAY"
ORDERS = (RGB, BGR)
"""The same colours; only the order of the channels differs."""


def _color_codes() -> dict[str, tuple[str, str]]:
    """OpenCV's conversions between 8-bit pixels of one and three channels: from what to what, by name."""
    codes = {"RGB2BGR": (RGB, BGR), "BGR2RGB": (BGR, RGB)}
    for order in ORDERS:
        codes |= {f"{order}2GRAY": (order, GRAY), f"GRAY2{order}": (GRAY, order)}
        for space in ("HSV", "HLS", "YCrCb", "YUV", "XYZ", "Lab", "Luv"):
            codes |= {f"{order}2{space}": (order, space), f"{space}2{order}": (space, order)}
        for space in ("HSV", "HLS"):
            full = f"{space}_FULL"
            codes |= {f"{order}2{full}": (order, full), f"{space}2{order}_FULL": (full, order)}
    return codes


COLOR_CODES = _color_codes()
OTHER_PIXELS = re.compile(r"BAYER|RGBA|BGRA|5[56]5|YUV.*_|420|422|LRGB|LBGR")
"""In the names of OpenCV's other conversions: raw camera data, alpha channels, packed or linear pixels."""


def color_steps(transforms: Iterable[Transform], pixels: str) -> tuple[tuple[Transform, ...], str]:
    """The transforms as they act on `pixels` (RGB or GRAY), and what the pixels are in the end.

    A conversion from RGB or BGR is one from these colours in whichever order they lie, and none at all
    where they are its target already: the colours of the photo count, as where rmldnn's BGR2RGB undoes the
    order in which OpenCV reads.

    Raises:
        ValueError: a conversion from other pixels than there are.
    """
    steps: list[Transform] = []
    for step in transforms:
        if not isinstance(step, ConvertColor):
            steps.append(step)
            continue
        if step.source != pixels and not {step.source, pixels} <= set(ORDERS):
            raise ValueError(
                f"convert_color {step.code} takes {step.source} pixels, but they are {pixels} there"
            )
        if step.target != pixels:
            steps.append(_conversion(pixels, step.target))
        pixels = step.target
    return tuple(steps), pixels


def _conversion(source: str, target: str) -> ConvertColor:
    return ConvertColor(next(code for code, ends in COLOR_CODES.items() if ends == (source, target)))


# --- Their parameters -----------------------------------------------------------------------------------


class Parameter(Protocol):
    """What stands behind a transform's name in the config."""

    def read(self, name: str, value: Any) -> tuple[Any, ...]:
        """The transform's fields. Raises PydanticCustomError."""

    def schema(self) -> dict[str, Any]:
        """The values that `read` takes, as JSON Schema."""


@dataclass(frozen=True)
class _Number:
    """A number within bounds."""

    says: str
    least: float
    most: float
    below: bool = False
    """Whether it stays below `most`."""

    def read(self, name: str, value: Any) -> tuple[float]:
        if (
            not _is_finite(value)
            or not self.least <= value <= self.most
            or (self.below and value == self.most)
        ):
            raise _refusal(f"'{name}' takes {self.says}, got {shown(value)}")
        return (float(value),)

    def schema(self) -> dict[str, Any]:
        bound = "exclusiveMaximum" if self.below else "maximum"
        return {"type": "number", "minimum": self.least, bound: self.most}


@dataclass(frozen=True)
class _Size:
    """`[width, height]` in pixels."""

    most: int = 16384

    def read(self, name: str, value: Any) -> tuple[int, int]:
        pair = isinstance(value, list) and len(value) == 2
        if not pair or not all(type(side) is int and 0 < side <= self.most for side in value):
            raise _refusal(f"'{name}' takes [width, height] in pixels, got {shown(value)}")
        return value[0], value[1]

    def schema(self) -> dict[str, Any]:
        side = {"type": "integer", "minimum": 1, "maximum": self.most}
        return {"type": "array", "items": side, "minItems": 2, "maxItems": 2}


class _ColorCode:
    """A name of `COLOR_CODES`, in any case, with OpenCV's COLOR_ in front or without."""

    def read(self, name: str, value: Any) -> tuple[str]:
        if not isinstance(value, str):
            raise _refusal(
                f"'{name}' takes OpenCV's name of a conversion, such as RGB2GRAY, got {shown(value)}"
            )
        word = value.upper().removeprefix("COLOR_")
        by_upper = {code.upper(): code for code in COLOR_CODES}
        if word in by_upper:
            return (by_upper[word],)
        if "2" in word and OTHER_PIXELS.search(word):
            raise _refusal(
                f"'{name}' {shown(value)} is for pixels of other kinds than RGB or gray ones of 8 bits, "
                "which birdsonnx does not support"
            )
        guess = nearest(word, COLOR_CODES) or f"; known: {', '.join(COLOR_CODES)}"
        raise _refusal(f"'{name}' does not know {shown(value)}{guess}")

    def schema(self) -> dict[str, Any]:
        return any_case(*COLOR_CODES, prefix="COLOR_")


class _MeanAndStd:
    """`{"mean": …, "std": …}`, each one number or one per channel; without one of them, 0 or 1."""

    def read(self, name: str, value: Any) -> tuple[tuple[float, ...], tuple[float, ...]]:
        settings = {key.lower(): number for key, number in value.items()} if isinstance(value, dict) else {}
        if not settings or not settings.keys() <= {"mean", "std"}:
            raise _refusal(f'\'{name}\' takes {{"mean": …, "std": …}}, got {shown(value)}')
        mean, std = (
            self._numbers(f"{name}.{key}", settings.get(key, absent))
            for key, absent in (("mean", 0), ("std", 1))
        )
        if any(number <= 0 for number in std):
            raise _refusal(f"'{name}.std' must be above 0, got {shown(value)}")
        return mean, std

    def _numbers(self, name: str, value: Any) -> tuple[float, ...]:
        numbers = value if isinstance(value, list) else [value]
        if len(numbers) not in (1, 3) or not all(_is_finite(number) for number in numbers):
            raise _refusal(f"'{name}' takes one number or one per channel, got {shown(value)}")
        return tuple(float(number) for number in numbers)

    def schema(self) -> dict[str, Any]:
        def numbers(says: str, **bounds: float) -> dict[str, Any]:
            number = {"type": "number", **bounds}
            lists = [{"type": "array", "items": number, "minItems": n, "maxItems": n} for n in (1, 3)]
            return {"description": says, "anyOf": [number, *lists]}

        means, deviations = numbers("Default: 0."), numbers("Default: 1.", exclusiveMinimum=0)
        return {
            "type": "object",
            "properties": {"mean": means, "std": deviations},
            "minProperties": 1,
            "additionalProperties": False,
        }


def _is_finite(value: Any) -> bool:
    try:
        return type(value) in (int, float) and math.isfinite(value)
    except OverflowError:  # an integer beyond floating point
        return False


_SHARE = _Number("a number from 0 to below 1, a share of each side", 0, 1, below=True)
_PROBABILITY = _Number("a probability from 0 to 1", 0, 1)

TRANSFORMS: dict[str, tuple[type[Transform], Parameter]] = {
    "resize": (Resize, _Size()),
    "center_crop": (CenterCrop, _Size()),
    "jitter_crop": (JitterCrop, _SHARE),
    "random_horizontal_flip": (RandomHorizontalFlip, _PROBABILITY),
    "random_vertical_flip": (RandomVerticalFlip, _PROBABILITY),
    "random_zoom": (RandomZoom, _SHARE),
    "rotate": (Rotate, _Number("degrees from -360 to 360", -360, 360)),
    "random_rotate": (RandomRotate, _Number("degrees from 0 to 180", 0, 180)),
    "convert_color": (ConvertColor, _ColorCode()),
    "normalize": (Normalize, _MeanAndStd()),
}
OTHER_TRANSFORMS = {"random_patches": "self-supervised inpainting"}


def parse_transforms(value: Any) -> tuple[Transform, ...]:
    """Read rmldnn's list of one-key objects, e.g. `[{"resize": [224, 224]}]`.

    Raises:
        PydanticCustomError: an unknown transform, one with bad parameters, or a `normalize` that is no last
            step.
    """
    if not isinstance(value, list):
        raise _refusal(f'must be a list such as [{{"resize": [224, 224]}}], got {shown(value)}')
    transforms: list[Transform] = []
    for item in value:
        if not isinstance(item, dict) or len(item) != 1:
            raise _refusal(f"each transform is an object with one key, got {shown(item)}")
        [(key, content)] = item.items()
        name = key.lower()
        if name in OTHER_TRANSFORMS:
            raise _refusal(
                f"the transform '{key}' is for {OTHER_TRANSFORMS[name]}, which birdsonnx does not support"
            )
        if name not in TRANSFORMS:
            guess = nearest(key, TRANSFORMS) or f"; known: {', '.join(TRANSFORMS)}"
            raise _refusal(f"unknown transform '{key}'{guess}")
        kind, parameter = TRANSFORMS[name]
        transforms.append(kind(*parameter.read(name, content)))
    _require_normalize_last(transforms)
    return tuple(transforms)


def _require_normalize_last(transforms: Sequence[Transform]) -> None:
    """`normalize` is arithmetic in the network's graph, behind all that is done to pixels."""
    places = [place for place, step in enumerate(transforms) if isinstance(step, Normalize)]
    if len(places) > 1:
        raise _refusal("'normalize' is given twice")
    for place in places:
        normalize = transforms[place]
        assert isinstance(normalize, Normalize)
        alike = len(set(normalize.mean)) == len(set(normalize.std)) == 1
        for step in transforms[place:]:
            # Where all channels are treated alike it may as well come first; else it would mean others.
            if isinstance(step, ConvertColor) and not (alike and step.target in (*ORDERS, GRAY)):
                raise _refusal(f"'normalize' must stand behind convert_color {step.code}, not before it")


# --- Sections -------------------------------------------------------------------------------------------

OTHER_DATA = {
    "numpy": "numpy arrays",
    "hdf5": "HDF5 arrays",
    "mnist": "MNIST's binary files",
    "pde": "PDE solvers",
}
ImageType = Annotated[
    Literal["images"],
    _one_of("images", elsewhere=OTHER_DATA, hint=" (the input birdsonnx reads)"),
]
LabelType = Annotated[
    Literal["labels"],
    _one_of(
        "labels",
        elsewhere={**OTHER_DATA, "images": "segmentation", "mask": "segmentation", "masks": "segmentation"},
        hint=" (class folders)",
    ),
]
Tag = Annotated[
    Text,
    AfterValidator(_one_folder),
    WithJsonSchema({"type": "string", "pattern": r"^[^./\\][^/\\]*$"}),
]


class Data(Section):
    """Where the photos lie, and how they become the network's input."""

    input_type: ImageType = "images"
    """What is read: photos."""
    target_type: LabelType = "labels"
    """What a photo shows is told by the name of its class folder."""
    input_path: Text | None = None
    """Folder of class folders to train on; without it nothing is trained."""
    test_input_path: Text | None = None
    """Folder to evaluate or predict; without it (and `test_tag`) nothing is evaluated."""
    training_tag: Tag | None = None
    """Name of folders, anywhere in a photo's path: below `input_path`, the photos in them are the training
    photos, and the folder directly below is the class."""
    test_tag: Tag | None = None
    """The same for the test photos, below `test_input_path`, or without that below `input_path`."""
    test_output_path: Text | None = None
    """Folder for HDF5 predictions; without it none are kept."""
    batch_size: PositiveInt = 64
    """Training photos per step, over all ranks."""
    test_batch_size: PositiveInt = 64
    """Evaluation photos per step, over all ranks."""
    preload: bool = False
    """Keep decoded photos in memory where they are read more than once (only with `cache: false`)."""
    grayscale: bool = False
    """Photos become one channel of gray, as networks of one channel get them anyway; a network of three needs
    the transform `{"convert_color": "GRAY2RGB"}` too."""
    transforms: Annotated[
        tuple[Transform, ...] | None, PlainValidator(parse_transforms, json_schema_input_type=list[Any])
    ] = None
    """What becomes of each photo, in order; default: a plain resize to the network's input."""

    @property
    def test_folder(self) -> str | None:
        """Where the test photos lie, if there are any."""
        return self.test_input_path or (self.input_path if self.test_tag else None)

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

    synonyms = {
        "type": "input_type",
        "input_transforms": "transforms",
        "input_grayscale": "grayscale",
        "testing_tag": "test_tag",
    }
    elsewhere = {
        "target_path": "segmentation",
        "test_target_path": "segmentation",
        "target_is_mask": "segmentation",
        "target_transforms": "segmentation",
        "target_grayscale": "segmentation",
        "slicers": "numpy arrays",
        "hdf5_outfile": "numpy arrays",
        "domain_size": "PDE solvers",
        "num_examples": "PDE solvers",
        "num_test_examples": "PDE solvers",
        "bc_frequency": "PDE solvers",
        "bc_type": "PDE solvers",
    }

    @validator(mode="after")
    def _tags_tell_the_sets_apart(self) -> Self:
        if self.test_tag and not self.test_folder:
            raise _refusal("there is no folder to look in; give test_input_path or input_path", "test_tag")
        if self.test_tag and not self.test_input_path:
            if self.training_tag is None:
                raise _refusal(
                    "without test_input_path the test photos lie in input_path; give training_tag too, which "
                    "tells the training photos from them",
                    "test_tag",
                )
            if self.training_tag == self.test_tag:
                raise _refusal("is training_tag too: the same photos would train and test", "test_tag")
        return self

    @validator(mode="after")
    def _colors_follow_from_each_other(self) -> Self:
        try:
            color_steps(self.transforms or (), GRAY if self.grayscale else RGB)
        except ValueError as error:
            why = "grayscale is true" if self.grayscale else "grayscale is not true"
            raise _refusal(f"{error} ({why})", "transforms") from None
        return self


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
    """Factor of the learning rate."""
    step_size: PositiveInt
    """Epochs between two changes."""


class MultiStep(_Schedule):
    """Multiply the learning rate by `gamma` after each number of epochs in `milestones` (MultiStepLR)."""

    type: Literal["MultiStep"] = "MultiStep"
    gamma: Positive = 0.1
    """Factor of the learning rate."""
    milestones: Annotated[tuple[PositiveInt, ...], Field(min_length=1), BeforeValidator(_tuple)]
    """Numbers of epochs, rising."""

    @validator(mode="after")
    def _milestones_rise(self) -> "MultiStep":
        if any(later <= earlier for earlier, later in pairwise(self.milestones)):
            raise _refusal(f"must rise, got {shown(self.milestones)}", "milestones")
        return self


class Exponential(_Schedule):
    """Multiply the learning rate by `gamma` every epoch (PyTorch's ExponentialLR)."""

    type: Literal["Exponential"] = "Exponential"
    gamma: Positive
    """Factor of the learning rate."""


class Warmup(_Schedule):
    """Raise the learning rate in equal steps, from `start_factor` times itself in the first epoch to itself
    after `num_epochs` (PyTorch's LinearLR)."""

    type: Literal["Warmup"] = "Warmup"
    num_epochs: PositiveInt
    """Epochs until the full learning rate."""
    start_factor: Annotated[float, Field(gt=0, lt=1)]
    """Of the learning rate, in the first epoch."""


class Cosine(_Schedule):
    """Lower the learning rate along half a cosine over the run's epochs, towards `min_factor` times itself
    (PyTorch's CosineAnnealingLR)."""

    type: Literal["Cosine"] = "Cosine"
    min_factor: Fraction = 0.0
    """Of the learning rate, at the end."""


ScheduleSettings = Step | MultiStep | Exponential | Warmup | Cosine
Schedule = Annotated[ScheduleSettings, Field(discriminator="type"), _typed(_kinds(ScheduleSettings))]


class _Optimizer(Section):
    """What every optimizer has. Defaults are PyTorch's, but for the learning rate."""

    learning_rate: Positive = 0.01
    """Size of a step; `lr_scheduler` changes it from epoch to epoch."""
    weight_decay: NonNegative = 0.0
    """How strongly weights are pulled towards 0 (L2)."""
    lr_scheduler: Schedule | None = None
    """How the learning rate changes over the epochs; none: it stays."""

    elsewhere = dict.fromkeys(
        ("max_iterations", "max_func_eval", "absolute_tolerance", "relative_tolerance"),
        "the second-order optimizer Hessian",
    )


class _Momentum(_Optimizer):
    """The keys of SGD."""

    momentum: NonNegative = 0.0
    """Share of the last step that is taken again."""
    dampening: Finite = 0.0
    """Share of the gradient that momentum leaves out."""
    nesterov: bool = False
    """Nesterov's momentum, which looks one step ahead."""

    @validator(mode="after")
    def _nesterov_needs_momentum(self) -> Self:
        if self.nesterov and (self.momentum <= 0 or self.dampening != 0):
            raise _refusal("'nesterov' needs a momentum above 0 and no dampening")
        return self


class _Moments(_Optimizer):
    """The keys of Adam."""

    beta1: Fraction = 0.9
    """Decay of the running mean of gradients."""
    beta2: Fraction = 0.999
    """Decay of the running mean of squared gradients."""
    eps: Positive = 1e-8
    """Added to the denominator."""
    amsgrad: bool = False
    """Divide by the largest mean square so far (AMSGrad)."""


class SGD(_Momentum):
    """PyTorch's torch.optim.SGD."""

    type: Literal["SGD"] = "SGD"


class Adagrad(_Optimizer):
    """PyTorch's torch.optim.Adagrad."""

    type: Literal["Adagrad"] = "Adagrad"
    lr_decay: NonNegative = 0.0
    """How fast the learning rate falls with the steps."""


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
    """Share of the last step that is taken again."""
    alpha: Fraction = 0.99
    """Decay of the running mean of squared gradients."""
    eps: Positive = 1e-8
    """Added to the denominator."""
    centered: bool = False
    """Divide by the gradients' variance, not their mean square."""


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


OTHER_LOSSES = {
    **dict.fromkeys(("bce", "binary_cross_entropy"), "segmentation and auto-encoders"),
    **dict.fromkeys(("mse", "mae", "l1", "l2", "huber"), "regression and auto-encoders"),
    **dict.fromkeys(("dice", "jaccard", "iou", "lovasz"), "segmentation"),
    "wasserstein": "GANs",
    "yolov3": "object detection",
    **dict.fromkeys(("burgers_pde", "poisson2d_pde", "poisson3d_pde"), "PDE solvers"),
}


class Loss(Section):
    """How far the predictions are from the labels, averaged over the batch."""

    function: Annotated[
        Literal["NLL", "Focal"],
        _one_of("NLL", "Focal", elsewhere=OTHER_LOSSES, hint="; other losses are for other tasks"),
    ] = "NLL"
    """Negative log-likelihood of the right class, or the focal loss (Lin et al. 2017, arXiv 1708.02002)."""
    weight: Annotated[tuple[NonNegative, ...], BeforeValidator(_tuple)] | None = None
    """One factor per class, in class order; default: all 1."""
    gamma: NonNegative = 2.0
    """Focal: how much less a photo counts that is already recognised."""

    elsewhere = {
        "source": "the losses of segmentation",
        "diffusion_coeff": "PDE solvers",
        "boundary_factor": "PDE solvers",
    }

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
    """Layer-name globs of what is trained; default: the network's own flags."""
    feature_precision: Annotated[
        Literal["fp32", "fp16", "int8"],
        _one_of("fp32", "fp16", "int8", elsewhere=" (precision of the cached features)"),
    ] = "fp32"
    """How features are made and kept: fp16 halves their size; int8 computes them in int8, 3 times as fast."""
    cache: Text | Literal[False] | None = None
    """Folder of features and converted networks; default: the user's own cache folder. false: none, and every
    epoch runs the whole network."""
    threads: PositiveInt | None = None
    """Threads per rank; default: its share of the cores."""
    label_smoothing: Fraction = 0.0
    """How much of each label is spread evenly over all classes (Szegedy et al. 2016, arXiv 1512.00567)."""
    early_stopping: PositiveInt | None = None
    """Epochs without a lower test loss before the run stops; default: it never does."""
    clip_norm: Positive | None = None
    """The largest norm of the whole gradient, which is scaled down to it; default: any."""

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

    outfile: (
        Annotated[
            Text,
            AfterValidator(_names_a_file),
            WithJsonSchema({"type": "string", "pattern": r"[^./]|\.\."}),
        ]
        | None
    ) = None
    """Stem of the two logs; without it none are written."""
    num_epochs: PositiveInt = 1
    """How often training goes through all photos."""
    layers: Annotated[Text | dict[str, Any] | list[Any] | None, BeforeValidator(_describes_a_network)] = None
    """The network: the path of a Keras JSON, the model object itself, or an array of layers."""
    debug: bool = False
    """Also write the network's graph, as Graphviz' `<outfile stem>.dot`."""
    data: Data = Data()
    """Where the photos lie, and how they become the network's input."""
    optimizer: Optimizer = SGD()
    """How gradients change the weights."""
    loss: Loss = Loss()
    """How far the predictions are from the labels."""
    checkpoints: Checkpoints = Checkpoints()
    """Where weights come from and where they go."""
    birdsonnx: Own = Own()
    """birdsonnx's own keys."""

    elsewhere = {"debug_interval": "the debug images of segmentation"}

    @validator(mode="after")
    def _sections_fit(self) -> "Settings":
        if self.birdsonnx.label_smoothing and self.loss.function == "Focal":
            raise _refusal("does not go with the loss function Focal", "birdsonnx.label_smoothing")
        if self.debug and self.outfile is None:
            raise _refusal("the graph is named after outfile; give outfile too", "debug")
        # Without input_path nothing is trained, and what a training run needs is of no concern.
        if self.birdsonnx.early_stopping and self.data.input_path and not self.data.test_folder:
            raise _refusal("needs a test loss; give data.test_input_path", "birdsonnx.early_stopping")
        return self


SCHEMA_KEY = "$schema"
"""Beside `neural_network`: where editors find what `birdsonnx schema` wrote. It settles nothing."""

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
    if not isinstance(root.get(SCHEMA_KEY, ""), str):
        raise ConfigError(
            f"{source}: {SCHEMA_KEY}: must be the place of a JSON Schema, got {shown(root[SCHEMA_KEY])}"
        )
    extra = [key for key in root if key.lower() != "neural_network" and key != SCHEMA_KEY]
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
