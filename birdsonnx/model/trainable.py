"""Which layers training changes: those that globs match, else the network's own flags."""

from collections.abc import Sequence
from fnmatch import fnmatchcase

from birdsonnx.config.section import nearest
from birdsonnx.errors import ConfigError
from birdsonnx.model.metadata import Metadata


def trainable_layers(metadata: Metadata, patterns: Sequence[str] | None) -> tuple[str, ...]:
    """The layers to train: those that `patterns` (layer-name globs) match, else the network's own flags.

    Raises:
        ConfigError: a pattern that matches no layer with weights.
    """
    if patterns is None:
        return metadata.trainable
    names = [layer.name for layer in metadata.layers]
    for pattern in patterns:
        if not any(fnmatchcase(name, pattern) for name in names):
            raise ConfigError(
                f"birdsonnx.trainable: {pattern!r} matches no layer with weights{nearest(pattern, names)}"
            )
    return tuple(name for name in names if any(fnmatchcase(name, pattern) for pattern in patterns))
