"""Small pictures of photos, as the text that a page holds them in."""

import base64
import contextlib
import io
import itertools
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from birdsonnx.config.transforms import Resize
from birdsonnx.errors import ImageError
from birdsonnx.images.decoding import decoder
from birdsonnx.runtime.audience import Audience
from birdsonnx.runtime.sessions import in_streams

PREFIX = "data:image/webp;base64,"


@dataclass(frozen=True)
class Size:
    """How large thumbnails are, and how good."""

    side: int
    """Pixels of the longer side."""
    quality: int
    """WebP's, of 100."""


LARGE = Size(192, 60)
"""Of a few dozen: about 3 KB each."""

SMALL = Size(96, 50)
"""Of hundreds: about 1.1 KB each."""


def thumbnail(path: Path, size: Size) -> str:
    """The whole photo, upright, as the `src` of an `<img>`; empty where it cannot be decoded.

    It goes the one way from files to pixels, so that a large JPEG is decoded at 1/2 to 1/8 of its size.
    """
    try:
        picture = decoder(size.side, size.side, 3, (Resize(size.side, size.side),)).opened(path)
    except ImageError:
        return ""
    scale = size.side / max(picture.size)
    width, height = (max(1, round(scale * side)) for side in picture.size)
    if scale < 1:
        picture = picture.resize((width, height), Image.Resampling.BILINEAR)
    content = io.BytesIO()
    picture.save(content, "WEBP", quality=size.quality, method=2)
    return PREFIX + base64.b64encode(content.getvalue()).decode()


def thumbnails(
    paths: Iterable[Path | None], most: int, most_bytes: int, size: Size, threads: int, audience: Audience
) -> list[str]:
    """Of the first `most` paths, in order, until there are `most_bytes` of them; empty where there is no
    file, or none that can be decoded."""
    chosen = list(itertools.islice(paths, most))
    made: list[str] = []
    left = most_bytes
    with (
        audience.progress("thumbnails", len(chosen)) as advance,
        contextlib.closing(
            in_streams(threads, lambda path: "" if path is None else thumbnail(path, size), chosen, ahead=16)
        ) as pictures,
    ):
        for picture in pictures:
            left -= len(picture)
            if left < 0:
                break
            made.append(picture)
            advance(1)
    return made
