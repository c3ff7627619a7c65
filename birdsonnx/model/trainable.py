"""Which layers training changes: those that globs match, else the network's own flags."""

from collections.abc import Sequence
from fnmatch import fnmatchcase

from birdsonnx.config.wording import nearest
from birdsonnx.errors import ConfigError
from birdsonnx.model.metadata import Metadata

SHOWN = 4
"""Paths in one line."""


def trainable_layers(metadata: Metadata, patterns: Sequence[str] | None) -> tuple[str, ...]:
    """The layers to train: those that `patterns` match, else the network's own flags.

    A pattern is a glob of full paths, such as `left/*`, or the plain name of one layer, `conv1` of
    `left/conv1`.

    Raises:
        ConfigError: a pattern that matches no layer with weights, or a plain name that several have.
    """
    if patterns is None:
        return metadata.trainable
    names = [layer.name for layer in metadata.layers]
    chosen = {name for pattern in patterns for name in _matched(pattern, names)}
    return tuple(name for name in names if name in chosen)


def _matched(pattern: str, names: Sequence[str]) -> list[str]:
    found = [name for name in names if fnmatchcase(name, pattern)]
    if found:
        return found
    inner = [name for name in names if name.endswith(f"/{pattern}")]
    if len(inner) > 1:
        shown = ", ".join(map(repr, inner[:SHOWN])) + (" …" if len(inner) > SHOWN else "")
        raise ConfigError(
            f"birdsonnx.trainable: {pattern!r} is the name of {len(inner)} layers; give a full path "
            f"({shown}), or '*/{pattern}' for all of them"
        )
    if not inner:
        raise ConfigError(
            f"birdsonnx.trainable: {pattern!r} matches no layer with weights{nearest(pattern, names)}"
        )
    return inner
