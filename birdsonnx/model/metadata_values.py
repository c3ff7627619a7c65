"""Which values the metadata of a model may have: every file's are read here, key by key, before they are
believed."""

from collections import Counter
from collections.abc import Iterable, Mapping
from functools import cache
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from birdsonnx.config.json_text import decoded
from birdsonnx.config.section import Finite, NonNegative, Positive, PositiveInt, Text
from birdsonnx.config.transform_list import parse_transforms
from birdsonnx.config.wording import shown
from birdsonnx.errors import ModelError
from birdsonnx.model.metadata_props import PREFIX

MOST = 2**53
"""Of a whole number: floating point, in which other programs read JSON, is exact so far."""

MOST_PACKED = 2**22
"""Characters of a packed network; the largest of keras.applications takes 30,000."""

Count = Annotated[int, Field(ge=0, le=MOST)]
Side = Annotated[int, Field(ge=1, le=2**31 - 1)]
Rate = Annotated[float, Field(ge=0, lt=1)]
Share = Annotated[float, Field(ge=0, le=1)]
PerChannel = Annotated[tuple[Finite, ...], Field(min_length=1, max_length=1024)]


class _Object(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid")


class _Preprocessing(_Object):
    name: Text
    bgr: bool
    scale: PerChannel
    offset: PerChannel


class _Parameters(_Object):
    total: Count
    trainable: Count
    statistics: Count


class _Epoch(_Object):
    epoch: PositiveInt
    learning_rate: NonNegative
    train_loss: Finite
    test_loss: Finite | None = None
    test_accuracy: Share | None = None


class _Run(_Object):
    run: Count
    epoch: Count
    """The last whole one."""
    step: Count | None = None
    """Of the next epoch, where the run was stopped within it."""


class _Quantization(_Object, extra="allow"):
    """`extra`: it may come to say more."""

    photos: Count
    precision: Text | None = None
    method: Text | None = None
    agreement: Share | None = None
    source_sha256: Text | None = None


class _Calibration(_Object, extra="allow"):
    photos: Count
    temperature: Positive
    expected_error_before: Share | None = None
    expected_error_after: Share | None = None
    source_sha256: Text | None = None


class _Thresholds(_Object, extra="allow"):
    precision: Share
    values: Annotated[tuple[Share, ...], Field(min_length=1)]


class _Known(_Object, extra="allow"):
    score: Text
    threshold: Finite
    kept: Share
    photos: Count


TYPES: dict[str, Any] = {
    "preprocessing": _Preprocessing,
    "layers": tuple[tuple[Text, Text, PositiveInt | None, bool], ...],
    "trainable": tuple[Text, ...],
    "parameters": _Parameters,
    "dropout": tuple[tuple[Text, Rate, tuple[Side, ...]], ...],
    "classes": Annotated[tuple[Text, ...], Field(min_length=1)],
    "transforms": list[dict[str, Any]],
    "history": tuple[_Epoch, ...],
    "run": _Run,
    "quantization": _Quantization,
    "calibration": _Calibration,
    "thresholds": _Thresholds,
    "known": _Known,
    "source": dict[str, str],
    "versions": dict[str, str],
    "network": Annotated[str, Field(max_length=MOST_PACKED)],
}
"""What the JSON of each key is."""

REQUIRED = ("preprocessing", "layers", "trainable", "parameters")


def read(texts: Mapping[str, str], where: str) -> dict[str, Any]:
    """The values of JSON texts by their keys, which are among `TYPES`.

    Args:
        where: the file's name in messages.

    Raises:
        ModelError: one that is missing, no JSON, of another type, or contradicts another; it names the key.
    """
    values = {}
    for key in REQUIRED:
        if key not in texts:
            raise ModelError(f"{where}: its metadata are damaged: {PREFIX}{key} is missing")
    for key, text in texts.items():
        try:
            values[key] = value_of(key, text)
        except ValueError as error:
            raise ModelError(f"{where}: its metadata are damaged: {PREFIX}{key}: {error}") from None
    for key, problem in _contradictions(values):
        raise ModelError(f"{where}: its metadata are damaged: {PREFIX}{key}: {problem}")
    return values


def value_of(key: str, text: str) -> Any:
    """The value of one key, one of `TYPES`, by its JSON.

    Raises:
        ValueError: no JSON, or of another type.
    """
    decoded(text)
    kind = _type(key)
    try:
        value = kind.dump_python(kind.validate_json(text, strict=True), exclude_unset=True)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = "".join(f"[{part!r}]" for part in first["loc"])
        raise ValueError(f"{place} {first['msg']}, got {shown(first['input'])}".strip()) from None
    return parse_transforms(value) if key == "transforms" else value


@cache
def _type(key: str) -> TypeAdapter[Any]:
    return TypeAdapter(TYPES[key])


def _contradictions(values: Mapping[str, Any]) -> Iterable[tuple[str, str]]:
    """The key and what is wrong with it, where values do not fit each other."""
    before = values["preprocessing"]
    if len(before["scale"]) != len(before["offset"]):
        yield "preprocessing", f"{len(before['scale'])} scales and {len(before['offset'])} offsets"
    layers = {name for name, *_ in values["layers"]}
    for name in values["trainable"]:
        if name not in layers:
            yield "trainable", f"{name!r} is none of its layers"
    classes = values.get("classes", ())
    if len(set(classes)) < len(classes):
        twice = Counter(classes).most_common(1)[0][0]
        yield "classes", f"the name {twice!r} is there twice"
    limits = values.get("thresholds", {}).get("values")
    if limits is not None and len(limits) != len(classes):
        yield "thresholds", f"{len(limits)} for {len(classes)} class names"
    epochs = [entry["epoch"] for entry in values.get("history", ())]
    if epochs != list(range(1, len(epochs) + 1)):
        yield "history", "its epochs are not 1, 2, 3 …"
