"""What goes beside a model for people who get it: its class names as a text file, and a page that says what
it is. Both say nothing that the `.onnx` does not hold, but for the photos that it was trained on."""

import json
from collections.abc import Sequence
from pathlib import Path

from birdsonnx import artifacts
from birdsonnx.config.transforms import Normalize, Resize
from birdsonnx.model.image_metadata import image_props
from birdsonnx.model.metadata import Metadata
from birdsonnx.model.model_file import BirdModel

LABELS, CARD = "labels.txt", "model_card.md"

USE = """\
```python
from pathlib import Path

import numpy as np
import onnxruntime
from PIL import Image

session = onnxruntime.InferenceSession({file!a})
photo = Image.open("photo.jpg").convert({mode!r}).resize(({width}, {height}), Image.Resampling.BILINEAR)
pixels = np.asarray(photo, np.uint8).reshape(1, {height}, {width}, {channels})
[log_probs] = session.run(["log_probs"], {{"images": pixels}})
names = Path("labels.txt").read_text("utf-8").splitlines()
print(names[log_probs[0].argmax()], np.exp(log_probs[0].max()))
```
"""


def write(model: BirdModel, path: Path, photos: Sequence[str] = ()) -> Path:
    """Write `labels.txt` and `model_card.md` beside a model's file; gives the card's path.

    Args:
        model: with class names.
        path: its file.
        photos: a line each about what it was trained and tested on.

    Raises:
        ArtifactError: they cannot be written.
    """
    names = [" ".join(name.splitlines()) for name in model.metadata.classes or ()]
    artifacts.write_bytes(path.with_name(LABELS), "".join(f"{name}\n" for name in names).encode())
    card = path.with_name(CARD)
    artifacts.write_bytes(card, _card(model, path, photos).encode())
    return card


def beside(path: Path, sha256: str) -> Path | None:
    """The card of a model's file, where one lies beside it that is of just this file."""
    card = path.with_name(CARD)
    try:
        return card if sha256 in card.read_text(encoding="utf-8") else None
    except (OSError, UnicodeDecodeError):
        return None


def _card(model: BirdModel, path: Path, photos: Sequence[str]) -> str:
    metadata = model.metadata
    height, width, channels = model.input_size
    file = _plain(path.name)
    mode = "L" if channels == 1 else "RGB"
    transforms = "a bilinear, antialiased resize to the input"
    more = ""
    if metadata.transforms is not None:
        transforms = ", then ".join(f"`{json.dumps(step.as_json())}`" for step in metadata.transforms)
        if not all(isinstance(step, Resize | Normalize) for step in metadata.transforms):
            more = " (these lines only resize; the steps above come first)"
    source = metadata.source.get("file", "unknown")
    lines = [
        f"# {file}",
        "",
        "An image classifier as one ONNX file: a photo goes in, a log-probability for each of "
        f"{model.num_classes} classes comes out. `{LABELS}` has their names, in the order of the "
        f"outputs. SHA-256 of the file: `{artifacts.sha256(path)}`.",
        "",
        "## Input and output",
        "",
        f"- `images`: uint8 `[batch, {height}, {width}, {channels}]`, "
        f"{image_props(channels)['Image.BitmapPixelFormat']}, sRGB, 0 to 255",
        f"- `log_probs`: float32 `[batch, {model.num_classes}]`",
        f"- before the input: {transforms}",
        f"- preprocessing, inside the file: {_plain(metadata.preprocessing.name)}",
        "",
        f"With ONNX Runtime{more}:",
        "",
        USE.format(file=file, mode=mode, width=width, height=height, channels=channels).rstrip(),
        "",
        "## Training",
        "",
        *(f"- {_plain(line)}" for line in photos),
        f"- weights it began with: `{_plain(source)}`",
        f"- trained layers: {len(metadata.trainable)} of {len(metadata.layers)} with weights; "
        f"{metadata.parameters.trainable:,} of {metadata.parameters.total:,} parameters",
        *_figures(metadata),
        "",
        "## Limits",
        "",
        "It names one of its classes for every photo, also for one that shows none of them. Its figures are "
        "those of the photos above; on other photos they may be lower.",
        "",
        "## Licence",
        "",
        "Not stated. It depends on the weights that the model began with and on the photos.",
        "",
        "## Made with",
        "",
        *(f"- {_plain(name)} {_plain(number)}" for name, number in sorted(metadata.versions.items())),
    ]
    return "\n".join(lines) + "\n"


def _figures(metadata: Metadata) -> list[str]:
    """Of the last epoch."""
    if not metadata.history:
        return []
    last = metadata.history[-1]
    named = {
        "train_loss": "loss on its training photos",
        "test_loss": "loss on its test photos",
        "test_accuracy": "accuracy on its test photos",
    }
    figures = [f"{text} {last[key]:.4f}" for key, text in named.items() if last.get(key) is not None]
    return [f"- after epoch {last['epoch']}: {', '.join(figures)}"]


def _plain(text: str) -> str:
    """A name of someone's on one line of Markdown, in which it starts nothing."""
    return " ".join(text.split()).replace("`", "'").replace("<", "&lt;")
