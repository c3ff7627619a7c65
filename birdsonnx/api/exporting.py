"""`birdsonnx.export`: the verb as a function."""

import os
import re
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from birdsonnx.api.calls import PathLike, joined_ranks
from birdsonnx.api.model import Model, load
from birdsonnx.errors import ModelError

if TYPE_CHECKING:
    from birdsonnx.keras_io import export as keras_export


class KerasModel(Protocol):
    """A model of Keras 2 or 3, in memory."""

    @property
    def name(self) -> str: ...
    def save(self, filepath: Any, /) -> Any: ...


def export(
    network: KerasModel | PathLike | None,
    output: PathLike,
    *,
    labels: PathLike | Sequence[str] | None = None,
    tag: str | None = None,
    classes: int | None = None,
    arch: str | None = None,
    weights: str = "imagenet",
    layers: PathLike | None = None,
    size: str | None = None,
    channels: int | None = None,
    preprocess: str = "auto",
    opset: int = 17,
    seed: int = 0,
) -> Model:
    """Convert a Keras network to one self-contained `.onnx`, and compare both where Keras is installed.

    Args:
        network: a Keras model, in memory or in its file (`.h5`, `.keras`); None: `arch` and `weights` say
            which, or `layers`.
        output: the file to write.
        labels: names of the classes: themselves, a folder of class folders, or a text file with one a line.

    The others are the options of the verb.

    Returns:
        The model, opened.

    Raises:
        ConfigError: arguments that contradict each other.
        ModelError: a network that cannot be read, or whose answers are not those of Keras.
    """
    from birdsonnx.keras_io import export as keras_export  # with onnx, which a prediction does without

    request = keras_export.Request(
        source=Path(network) if isinstance(network, str | os.PathLike) else None,
        output=Path(output),
        arch=arch,
        weights=weights,
        layers=None if layers is None else Path(layers),
        size=size,
        channels=channels,
        classes=classes,
        labels=Path(labels) if isinstance(labels, str | os.PathLike) else None,
        names=None if labels is None or isinstance(labels, str | os.PathLike) else tuple(labels),
        preprocess=preprocess,
        opset=opset,
        seed=seed,
        tag=tag,
    )
    with joined_ranks() as all_ranks:
        all_ranks.wait_quietly()
        all_ranks.first(lambda: _export(network, request))
    return load(output)


def _export(network: KerasModel | PathLike | None, request: "keras_export.Request") -> None:
    """On the first rank. A model in memory is saved as Keras saves it, and read from there."""
    from birdsonnx.keras_io import export as keras_export

    if network is None or isinstance(network, str | os.PathLike):
        keras_export.export(request)
        return
    with tempfile.TemporaryDirectory(prefix="birdsonnx-") as folder:
        file = Path(folder) / f"{re.sub(r'[^A-Za-z0-9_.-]', '_', network.name)}.keras"
        try:
            network.save(str(file))
        except Exception as error:  # whatever a layer of the user's own raises
            reason = " ".join(str(error).split())
            raise ModelError(f"{network.name}: Keras cannot save it ({reason})") from error
        keras_export.export(replace(request, source=file))
