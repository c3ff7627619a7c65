"""A few training photos as the network sees them: once in evaluation, then in each of the first epochs."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from birdsonnx.config.color_codes import GRAY, RGB
from birdsonnx.config.settings import Settings
from birdsonnx.config.transforms import CenterCrop, Resize, color_steps
from birdsonnx.errors import ConfigError
from birdsonnx.images.decoding import Pixels, decoder
from birdsonnx.images.folders import LabelledFolder, training_photos
from birdsonnx.images.transforms import Views, chance_of
from birdsonnx.keras_io import loading
from birdsonnx.model import model_file

PHOTOS = 6
MOST_EPOCHS = 5

Say = Callable[[str], None]


@dataclass(frozen=True)
class Row:
    """One photo, uint8 `[height, width, channels]` each time."""

    name: str
    """Its class folder and file."""
    evaluated: Pixels
    trained: tuple[Pixels, ...]
    """In each of the epochs."""


@dataclass(frozen=True)
class Preview:
    """Photos before and after the transforms."""

    rows: tuple[Row, ...]
    epochs: tuple[int, ...]
    """The first ones; none where all see what evaluation does."""
    note: str
    """The transforms, or that none of them is random."""


def preview(settings: Settings, say: Say) -> Preview:
    """Photos from all over the training folder, with the same random draws as a training by this config.

    Raises:
        ConfigError: no training folder, an input size of the network that nothing says, or transforms that
            end at another.
        DataError: a training folder that cannot be used.
        ImageError: a photo that cannot be decoded.
        ModelError: an `.onnx` in `checkpoints.load` that cannot be used.
    """
    data, seed = settings.data, settings.birdsonnx.seed
    if data.input_path is None:
        raise ConfigError("neural_network.data.input_path: this key is required to show training photos")
    decode = decoder(*_input_size(settings, say), data.transforms, data.grayscale)
    folder = training_photos(data, say)
    epochs = tuple(range(1, min(MOST_EPOCHS, settings.num_epochs) + 1)) if data.augments else ()
    rows = []
    for index in _spread(folder):
        photo = folder.photos[index]
        trained = tuple(decode(photo.path, _chance(settings, epoch, index)) for epoch in epochs)
        rows.append(Row(photo.name, decode(photo.path), trained))
    if data.augments:
        steps = [pair for step in data.transforms or () for pair in step.as_json().items()]
        views = "" if settings.birdsonnx.views is None else f", {settings.birdsonnx.views} views"
        note = f"seed {seed}{views}: " + ", ".join(f"{name} {json.dumps(value)}" for name, value in steps)
    else:
        note = "no transform is random: every epoch sees a photo as evaluation does"
    return Preview(tuple(rows), epochs, note)


def _chance(settings: Settings, epoch: int, photo: int) -> np.random.Generator:
    own = settings.birdsonnx
    if own.views is None:
        return chance_of(own.seed, epoch, photo)
    views = Views(own.views, own.seed)
    return views.chance(int(views.rows(np.array(photo), epoch)))


def _input_size(settings: Settings, say: Say) -> tuple[int, int, int]:
    """`(height, width, channels)`: of `layers`, else of the `.onnx`, else (converting a Keras file takes
    long) that at which the transforms end."""
    described = loading.described_size(settings)
    if described is not None:
        height, width, channels = described
        return height, width, channels
    if settings.checkpoints.load is not None:
        path = loading.checkpoint_file(settings.checkpoints.load, say)
        if path.suffix.lower() not in loading.KERAS_SUFFIXES:
            return model_file.load(path).input_size
    sizes = [step for step in settings.data.transforms or () if isinstance(step, Resize | CenterCrop)]
    if not sizes:
        raise ConfigError(
            "the network's input size is not known: name an .onnx in checkpoints.load, or end transforms "
            "with a resize or a center_crop"
        )
    _, pixels = color_steps(settings.data.transforms or (), GRAY if settings.data.grayscale else RGB)
    return sizes[-1].height, sizes[-1].width, 1 if pixels == GRAY else 3


def _spread(folder: LabelledFolder) -> Sequence[int]:
    """Indices of up to PHOTOS photos, from classes at even distances, and apart within a class."""
    classes = [row * len(folder.classes) // PHOTOS for row in range(PHOTOS)]
    chosen = []
    for label in dict.fromkeys(classes):
        members = [index for index, photo in enumerate(folder.photos) if photo.label == label]
        count = min(classes.count(label), len(members))
        chosen += [members[row * len(members) // count] for row in range(count)]
    return chosen
