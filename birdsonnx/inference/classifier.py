"""A model opened for prediction, in the form that is fastest on this CPU."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from birdsonnx import artifacts
from birdsonnx.config.transforms import Transform
from birdsonnx.errors import ModelError
from birdsonnx.images.decoding import Decoder, decoder
from birdsonnx.inference.tuning import Form
from birdsonnx.model.contract import Value, require_contract
from birdsonnx.model.file_bytes import read_bytes
from birdsonnx.model.metadata import Metadata
from birdsonnx.model.soundness import require_sound, require_versions
from birdsonnx.runtime import isa
from birdsonnx.runtime.sessions import PHOTOS_PER_RUN, Session, streams_for

QUANTIZED = b"QuantizeLinear"
"""The operation that an int8 model's file holds."""

MANY = 500
"""From so many photos on it pays to change the model for this CPU."""

SIDE_BY_SIDE = 2000
"""From so many photos on it pays to lay small maps side by side: that takes 0.3 s for a float32 ResNet50, and
saves 0.7 ms a photo on 2 cores; for int8 0.1 s, and 0.05 (on AMX) to 0.25 ms. It also loads the onnx
package."""

INT8_PHOTOS_PER_RUN = 8
"""With small maps side by side: 1.02 to 1.04 x the images/s of 4. In float32 it is 1.01 x, for 60 MB more."""


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
    where: str
    """The model's name."""

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

    `where` names it in messages, `transforms` override those of its training, and the number of `photos` of
    this rank decides how `threads` are used, unless `form` does. `per_run` overrides the photos per run. With
    `grayscale` photos become gray first.

    Raises:
        ModelError: missing, damaged, or not a birdsonnx model.
        ConfigError: transforms that end at another size than the network's, or at other channels.
    """
    content = model if isinstance(model, bytes) else read_bytes(model)
    require_sound(content, where)  # the runtime would read whatever file it names
    metadata = Metadata.of_file(content, where)
    require_versions(content, where)
    if form is None or photos < MANY:
        streams, per_session = streams_for(photos, threads)
        takes_more = photos >= SIDE_BY_SIDE and QUANTIZED in content
        form = Form(streams, per_session, INT8_PHOTOS_PER_RUN if takes_more else PHOTOS_PER_RUN)
    per_run = per_run or form.per_run
    sha256 = artifacts.sha256_of(content)
    if photos >= MANY or (QUANTIZED in content and isa.adds_in_16_bits()):
        content = fastest(content, per_run if photos >= SIDE_BY_SIDE and form.threads == 1 else 1)
    try:
        session = Session(content, form.threads, where)
    except ModelError:
        _explain(content, where)
        raise
    (height, width, channels), count = require_contract(
        _values(session, session.input_shapes),
        _values(session, session.output_shapes),
        metadata,
        where,
        per_run,
    )
    return Classifier(
        session,
        metadata,
        decoder(
            height, width, channels, metadata.transforms if transforms is None else transforms, grayscale
        ),
        count,
        form.streams,
        per_run,
        sha256,
        where,
    )


def fastest(content: bytes, side_by_side: int = 1, amx: bool | None = None) -> bytes:
    """A model in the form that is fastest on this CPU, or on one with or without AMX units; on a CPU without
    VNNI an int8 model gets the form whose sums are exact there.

    With `side_by_side` above 1, that many photos' small maps lie side by side, and each run takes exactly so
    many. What cannot be parsed stays as it is, for `Session` to refuse.
    """
    amx = (isa.has_amx() if amx is None else amx) and QUANTIZED in content
    exact = QUANTIZED in content and isa.adds_in_16_bits()
    if not (amx or exact) and side_by_side == 1:
        return content
    # Not at the top: prediction itself starts faster without onnx.
    from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
    from onnx import load_model_from_string

    from birdsonnx.passes.side_by_side import lay_side_by_side
    from birdsonnx.passes.uint8_weights import exact_sums, sums_on_amx

    try:
        model = load_model_from_string(content)
    except (DecodeError, ValueError, TypeError):
        return content
    changed = exact_sums(model).applied if exact else sums_on_amx(model).applied if amx else 0
    if side_by_side > 1:
        changed += lay_side_by_side(model, side_by_side).applied
    return bytes(model.SerializeToString()) if changed else content


def _values(session: Session, shapes: Mapping[str, Sequence[object]]) -> list[Value]:
    return [
        Value(name, session.types[name], tuple(size if isinstance(size, int) else None for size in shape))
        for name, shape in shapes.items()
    ]


def _explain(content: bytes, where: str) -> None:
    """Raises ModelError in our own words where the onnx package sees what is wrong with a model."""
    from birdsonnx.model import model_file  # not at the top: prediction itself starts faster without onnx

    model_file.parse(content, where)
