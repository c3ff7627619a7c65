"""What a birdsonnx `.onnx` knows about itself: JSON under `birdsonnx.*` keys of its metadata_props.

Free of the onnx package, so that prediction starts without it.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any

from birdsonnx.config.transforms import Transform
from birdsonnx.errors import ModelError
from birdsonnx.model.metadata_props import PREFIX, all_props
from birdsonnx.model.preprocessing import Preprocessing

INPUT, OUTPUT = "images", "log_probs"
KNOWN = "known"
"""Of a graph's optional second output, float32 `[photos]`: how much a photo is like those of the trained
classes; the higher, the more."""


@dataclass(frozen=True)
class Layer:
    """A Keras layer that holds weights."""

    name: str
    kind: str
    """Keras class name."""
    units: int | None
    """Output width: units of a Dense, filters of a convolution; None for other layers."""
    trainable: bool


@dataclass(frozen=True)
class Parameters:
    """Keras' own counts of the network's weights, before BatchNorm was folded."""

    total: int
    trainable: int
    statistics: int
    """BatchNorm moving means and variances, counted in `total`; torch calls them buffers."""


@dataclass(frozen=True)
class Dropout:
    """Where a network drops values in training; prediction never does."""

    node: str
    """Name of the Dropout node in the graph."""
    rate: float
    """Share of the values that become 0; the others grow by `1 / (1 - rate)`."""
    shape: tuple[int, ...]
    """Of one photo's mask; 1 where all values along an axis are kept or dropped together."""


@dataclass(frozen=True)
class Metadata:
    """All that birdsonnx stores in the file. Absent keys have the defaults below."""

    preprocessing: Preprocessing
    layers: tuple[Layer, ...]
    trainable: tuple[str, ...]
    """Names of the layers that training changes."""
    parameters: Parameters
    dropout: tuple[Dropout, ...] = ()
    """In the order of the graph."""
    classes: tuple[str, ...] | None = None
    """Class names in index order; None until a data folder has given them."""
    transforms: tuple[Transform, ...] | None = None
    """Deterministic transforms of its training; None: a plain resize."""
    history: tuple[dict[str, Any], ...] = ()
    """One entry per epoch trained: epoch, learning_rate, train_loss, test_loss, test_accuracy."""
    run: dict[str, Any] | None = None
    """Which training wrote this file (`run` counts the trainings of a folder, `epoch` within it)."""
    quantization: dict[str, Any] | None = None
    """How the float32 network became int8: precision, method, photos, the SHA-256 of its file; None: it is
    float32."""
    calibration: dict[str, Any] | None = None
    """How its probabilities were calibrated: the temperature, on how many photos, the expected calibration
    error before and after, the SHA-256 of the file it was made of; None: they are as trained."""
    thresholds: dict[str, Any] | None = None
    """Per class the least probability with which it is named (`values`, in index order), and the share of
    right answers above it that they were fitted for (`precision`); None: there are none."""
    known: dict[str, Any] | None = None
    """Of the output `known`: which `score` it is, the `threshold` below which a photo shows none of the
    classes, and the share of validation photos above it (`kept`); None: there is no such output."""
    source: dict[str, str] = field(default_factory=dict)
    """Where the weights came from: file name and SHA-256."""
    versions: dict[str, str] = field(default_factory=dict)
    network: str | None = None
    """The Keras network that it was made of, for the way back (`keras_io.packed_network`)."""

    def as_props(self) -> dict[str, str]:
        """The metadata_props: one JSON text per field."""
        content: dict[str, Any] = {member.name: getattr(self, member.name) for member in fields(self)}
        content["preprocessing"] = self.preprocessing.as_json()
        content["layers"] = [[layer.name, layer.kind, layer.units, layer.trainable] for layer in self.layers]
        content["parameters"] = vars(self.parameters)
        # A file name may be bytes that are no text.
        content["source"] = {
            key: value.encode(errors="backslashreplace").decode() for key, value in self.source.items()
        }
        content["dropout"] = [[each.node, each.rate, each.shape] for each in self.dropout] or None
        if self.transforms is not None:
            content["transforms"] = [transform.as_json() for transform in self.transforms]
        return {
            PREFIX + name: json.dumps(value, sort_keys=True, allow_nan=False)
            for name, value in content.items()
            if value is not None
        }

    @classmethod
    def from_props(cls, props: Mapping[str, str], where: str) -> "Metadata":
        """Read metadata_props; `where` names the file in messages.

        Raises:
            ModelError: the file was not made by birdsonnx, or its metadata are damaged.
        """
        known = {member.name: PREFIX + member.name for member in fields(cls)}
        texts = {name: props[key] for name, key in known.items() if key in props}
        if not texts:
            raise ModelError(
                f"{where}: this ONNX file was not made by birdsonnx (it has no {PREFIX}* metadata); "
                "make one from the Keras network with 'birdsonnx export'"
            )
        # Not at the top: an export, which reads no model, starts sooner without pydantic's types.
        from birdsonnx.model import metadata_values

        content = metadata_values.read(texts, where)
        content["preprocessing"] = Preprocessing(**content["preprocessing"])
        content["layers"] = tuple(Layer(*layer) for layer in content["layers"])
        content["parameters"] = Parameters(**content["parameters"])
        content["dropout"] = tuple(Dropout(*each) for each in content.get("dropout", ()))
        return cls(**content)

    @classmethod
    def of_file(cls, content: bytes, where: str) -> "Metadata":
        """Read those of a whole `.onnx` file. Raises ModelError."""
        try:
            props = all_props(content, PREFIX)
        except ValueError as error:
            raise ModelError(f"{where}: its metadata are damaged: {error}") from None
        return cls.from_props(props, where)

    def having(self, **changes: Any) -> "Metadata":
        """A copy with some fields replaced."""
        return replace(self, **changes)
