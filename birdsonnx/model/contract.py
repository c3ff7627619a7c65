"""What every model of ours has: one input of photos, one output of scores, and metadata that fit both."""

import contextlib
from collections.abc import Sequence
from typing import NamedTuple

from birdsonnx.errors import ConfigError, InstallationError, ModelError
from birdsonnx.model.metadata import INPUT, KNOWN, OUTPUT, Metadata
from birdsonnx.model.metadata_props import PREFIX

LARGEST_SIDE = 8192
"""Pixels of a network's input; the largest that are in use take 1,000."""
MOST_CLASSES = 1_000_000


class Value(NamedTuple):
    """An input or output of a graph."""

    name: str
    kind: str
    """Data type as the runtime writes it: `tensor(uint8)`."""
    dims: tuple[int | None, ...]
    """None: it differs from run to run."""


def require_contract(
    inputs: Sequence[Value],
    outputs: Sequence[Value],
    metadata: Metadata,
    where: str,
    per_run: int | None = None,
) -> tuple[tuple[int, int, int], int]:
    """`(height, width, channels)` of a model's photos, and the number of its classes.

    A second output, `known`, is there where the metadata say so.

    Args:
        where: the file's name in messages.
        per_run: how many photos each run takes, where the graph was made for so many.

    Raises:
        ModelError: other inputs or outputs than ours; sizes that are not fixed; metadata for others.
    """
    names = [value.name for value in outputs]
    if [value.name for value in inputs] != [INPUT] or names not in ([OUTPUT], [OUTPUT, KNOWN]):
        raise ModelError(
            f"{where}: it does not have the one input '{INPUT}' and the output '{OUTPUT}', after which only "
            f"'{KNOWN}' may come"
        )
    _require_known(outputs[1:], metadata, where, per_run)
    photos, scores = inputs[0], outputs[0]
    if len(photos.dims) != 4 or len(scores.dims) != 2:
        raise ModelError(f"{where}: '{INPUT}' must have 4 dimensions and '{OUTPUT}' 2")
    if photos.kind != "tensor(uint8)" or scores.kind != "tensor(float)":
        raise ModelError(
            f"{where}: '{INPUT}' must be tensor(uint8) and '{OUTPUT}' tensor(float); they are {photos.kind} "
            f"and {scores.kind}"
        )
    if not {photos.dims[0], scores.dims[0]} <= {None, per_run}:
        raise ModelError(f"{where}: the first size of '{INPUT}' and '{OUTPUT}' must be free, for any batch")
    height, width, channels = (_fixed(dim, LARGEST_SIDE, INPUT, where) for dim in photos.dims[1:])
    count = _fixed(scores.dims[1], MOST_CLASSES, OUTPUT, where)
    if channels not in (1, 3) or channels != len(metadata.preprocessing.scale):
        raise ModelError(
            f"{where}: '{INPUT}' has {channels} channels and {PREFIX}preprocessing is for "
            f"{len(metadata.preprocessing.scale)}; both must be 3, or 1 for gray photos"
        )
    classes = metadata.classes
    if classes is not None and len(classes) != count:
        raise ModelError(
            f"{where}: its metadata are damaged: {PREFIX}classes: {len(classes)} names for {count} scores"
        )
    from birdsonnx.images.decoding import (
        decoder,  # not at the top: an export, which reads no photo, starts sooner
    )

    try:
        with contextlib.suppress(InstallationError):  # OpenCV is missing: decoding will say so
            decoder(height, width, channels, metadata.transforms)
    except ConfigError as error:
        raise ModelError(f"{where}: its metadata are damaged: {PREFIX}transforms: {error}") from None
    return (height, width, channels), count


def _require_known(found: Sequence[Value], metadata: Metadata, where: str, per_run: int | None) -> None:
    """Raises ModelError where the output `known` and what the metadata say of it do not fit."""
    if bool(found) != (metadata.known is not None):
        raise ModelError(
            f"{where}: its metadata are damaged: {PREFIX}known and the output '{KNOWN}' come together or not "
            "at all"
        )
    for value in found:
        if value.kind != "tensor(float)" or len(value.dims) != 1 or value.dims[0] not in (None, per_run):
            raise ModelError(f"{where}: '{KNOWN}' must be tensor(float) with one number for each photo")


def _fixed(dim: int | None, most: int, name: str, where: str) -> int:
    if dim is None or not 1 <= dim <= most:
        raise ModelError(f"{where}: each size of '{name}' after the batch must be fixed, from 1 to {most}")
    return dim
