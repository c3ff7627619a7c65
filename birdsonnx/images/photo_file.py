"""A photo's file, on disk or as it was sent, opened and judged by its header: what it may be, how many pixels
it may have."""

import contextlib
import ctypes
import io
import logging
import os
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from PIL import AvifImagePlugin, Image, TiffImagePlugin, UnidentifiedImageError, WebPImagePlugin

from birdsonnx.artifacts.regular_files import LARGEST, IrregularError, opener, require_size
from birdsonnx.errors import ImageError
from birdsonnx.images.files import HEAD, how_to_read_heif, is_heif, reads_heif

# Formats that only decode pixels. Pillow's other plug-ins (EPS starts Ghostscript) never see a file.
FORMATS = (
    "JPEG",
    "PNG",
    "BMP",
    "GIF",
    "PPM",
    TiffImagePlugin.TiffImageFile.format,
    WebPImagePlugin.WebPImageFile.format,
    AvifImagePlugin.AvifImageFile.format,
)

MAX_PIXELS = 16_384 * 16_384
"""A third more than the largest phone cameras take (16,320 x 12,240); 805 MB of RGB. Checked in the header,
before any pixel is decoded."""
Image.MAX_IMAGE_PIXELS = MAX_PIXELS

# Filters are set once: changing them around each photo is not safe with decoding threads.
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)  # refused below, by name
warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.")  # remarks on odd metadata
logging.getLogger("PIL").addHandler(logging.NullHandler())  # else they go to stderr, beside our one line
with contextlib.suppress(OSError, AttributeError):  # where Pillow was built without libtiff, or on Windows
    # libtiff writes its errors to stderr by itself; Pillow raises them as well.
    ctypes.CDLL(Image.core.__file__).TIFFSetErrorHandler(None)  # type: ignore[attr-defined]


@dataclass(frozen=True)
class Upload:
    """A photo's file that is in memory, as a client of `serve` sent it."""

    name: str
    """As the client calls it; it may be anything."""
    content: bytes

    def __str__(self) -> str:
        return self.name


Source = Path | Upload
"""What a photo is read from; its text is what it is called in messages."""


@contextlib.contextmanager
def opened(source: Source) -> Iterator[BinaryIO]:
    """A photo's file. Whatever is wrong with it, there or while the caller reads its pixels, is raised as
    ImageError."""
    try:
        if isinstance(source, Upload):
            yield io.BytesIO(source.content)
            return
        with open(source, "rb", opener=opener) as file:
            require_size(file, LARGEST)
            yield file
    except FileNotFoundError:
        raise ImageError(f"{source}: no such file (a broken link?)") from None
    except IrregularError as error:
        raise ImageError(f"{source}: {error.strerror}") from None
    except UnidentifiedImageError:
        raise ImageError(f"{source}: not an image that can be read ({', '.join(FORMATS)})") from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise ImageError(
            f"{source}: its header announces more pixels than the {MAX_PIXELS:,} allowed"
        ) from None
    except ImageError:
        raise
    except Exception as error:
        # What decoders raise on damaged files has no end: OSError, SyntaxError, ValueError, EOFError,
        # IndexError, KeyError and TypeError were met, and of AVIF RuntimeError.
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise ImageError(f"{source}: cannot be decoded ({reason})") from None


@contextlib.contextmanager
def image_in(file: BinaryIO, source: Source) -> Iterator[Image.Image]:
    """The photo in a file, of which only the header has been read, and found good. Raises ImageError, and
    whatever Pillow raises."""
    with Image.open(file, formats=_formats_of(file, source)) as image:
        if image.width * image.height > MAX_PIXELS:
            raise ImageError(
                f"{source}: {image.width} x {image.height} pixels are more than the {MAX_PIXELS:,} allowed"
            )
        if image.mode.startswith(("I", "F")) or _is_deep(image):
            raise ImageError(
                f"{source}: {image.mode} pixels (16 bits or floating point); save it with 8 bits"
            )
        yield image


def size_of(file: BinaryIO) -> int:
    """Bytes of an open file, on disk or in memory; where it is read next stays the same."""
    place = file.tell()
    size = file.seek(0, os.SEEK_END)
    file.seek(place)
    return size


def write_jpeg(image: Image.Image, path: Path) -> None:
    """Write a picture that was made here. Raises OSError: of a file itself Pillow does not notice that a disk
    took only a part."""
    content = io.BytesIO()
    image.save(content, "JPEG", quality=92)
    path.write_bytes(content.getvalue())


def _formats_of(file: BinaryIO, source: Source) -> tuple[str, ...]:
    """Pillow's formats that may read a file. Raises ImageError for HEIC without the `heic` extra."""
    head = file.read(HEAD)
    file.seek(0)
    if not is_heif(head):
        return FORMATS
    if not reads_heif():
        raise ImageError(f"{source}: a HEIC photo; to read it, {how_to_read_heif()}")
    import pillow_heif  # only for these files

    pillow_heif.register_heif_opener()
    return ("HEIF",)


def _is_deep(image: Image.Image) -> bool:
    """Whether Pillow would cut 16-bit channels to 8: only the raw modes of its tiles show it."""
    for tile in getattr(image, "tile", ()):
        arguments = tile[3] if isinstance(tile[3], tuple) else (tile[3],)
        if any(isinstance(value, str) and ";16" in value for value in arguments):
            return True
        if image.format == "PPM" and any(isinstance(value, int) and value > 255 for value in arguments):
            return True
    return False
