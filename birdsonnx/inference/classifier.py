"""A model opened for prediction, in the form that is fastest on this CPU."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from birdsonnx import artifacts
from birdsonnx.config.computing import EngineName
from birdsonnx.config.transforms import Transform
from birdsonnx.images.decoding import Decoder, decoder
from birdsonnx.inference import engines, forms
from birdsonnx.inference.forms import Form
from birdsonnx.model.contract import Value, require_contract
from birdsonnx.model.file_bytes import read_bytes
from birdsonnx.model.metadata import Metadata
from birdsonnx.model.soundness import require_sound, require_versions
from birdsonnx.runtime.engine import Engine


@dataclass(frozen=True)
class Classifier:
    """A loaded model and the decoder that its input needs."""

    engine: Engine
    metadata: Metadata
    decoder: Decoder
    num_classes: int
    streams: int
    per_run: int
    """Photos per run of a stream."""
    threads: int
    """Inside a run."""
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
    engine: EngineName = "onnxruntime",
    bf16: bool = False,
) -> Classifier:
    """Load a birdsonnx `.onnx`, a file or its content, through the engine alone (no onnx package: it
    starts faster).

    `where` names it in messages, `transforms` override those of its training, and the number of `photos` of
    this rank decides how `threads` are used, unless `form` does, whose engine is then the one. `per_run`
    overrides the photos per run. With `grayscale` photos become gray first.

    Raises:
        EngineError: OpenVINO cannot run it.
        ModelError: missing, damaged, or not a birdsonnx model.
        ConfigError: transforms that end at another size than the network's, or at other channels.
    """
    content = model if isinstance(model, bytes) else read_bytes(model)
    require_sound(content, where)  # the runtime would read whatever file it names
    metadata = Metadata.of_file(content, where)
    require_versions(content, where)
    form = forms.chosen(form, engine, photos, threads)
    if per_run is not None:
        form = replace(form, per_run=per_run)
    computing = engines.opened(content, where, form, photos, bf16)
    (height, width, channels), count = require_contract(
        _values(computing, computing.input_shapes),
        _values(computing, computing.output_shapes),
        metadata,
        where,
        form.per_run,
    )
    return Classifier(
        computing,
        metadata,
        decoder(
            height, width, channels, metadata.transforms if transforms is None else transforms, grayscale
        ),
        count,
        form.streams,
        form.per_run,
        form.threads,
        artifacts.sha256_of(content),
        where,
    )


def _values(engine: Engine, shapes: Mapping[str, Sequence[object]]) -> list[Value]:
    return [
        Value(name, engine.types[name], tuple(size if isinstance(size, int) else None for size in shape))
        for name, shape in shapes.items()
    ]
