"""Which columns the CSV of predictions has, known before its first line, and what stands in them."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from birdsonnx.config.wording import nearest
from birdsonnx.errors import ConfigError, ImageError
from birdsonnx.images.crops import Crop
from birdsonnx.images.exif import Header, header_of, iso_time
from birdsonnx.images.photo_list import Photo
from birdsonnx.inference.judging.verdicts import Judge, Judged

DATE, CAMERA, PLACE, SIZE, PATH = "date", "camera", "place", "size", "path"

OF_HEADER = {
    DATE: ("date",),
    CAMERA: ("camera_make", "camera_model", "camera_serial"),
    PLACE: ("latitude", "longitude", "altitude"),
    SIZE: ("width", "height"),
}
"""The columns of what can be asked for, as far as the photo's header is read for them."""

NUMBERS = ("said_probability", "known")
"""Columns of what is said that hold numbers, of which a negative one is no formula."""

ASKED_FOR = (*OF_HEADER, PATH)
ALL = "all"


def asked_for(words: Sequence[str]) -> tuple[str, ...]:
    """What `--columns` asks for, in its order: names with commas between them, and several such lists.

    Raises:
        ConfigError: there is no such column, or none is named.
    """
    names = [name.strip().lower() for text in words for name in text.split(",") if name.strip()]
    for name in names:
        if name not in (*ASKED_FOR, ALL):
            choices = (*ASKED_FOR, ALL)
            raise ConfigError(f"--columns {name!r} is none of {', '.join(choices)}{nearest(name, choices)}")
    if words and not names:
        raise ConfigError(f"--columns names none; give some of {', '.join(ASKED_FOR)}, or {ALL}")
    return tuple(dict.fromkeys(each for name in names for each in (ASKED_FOR if name == ALL else (name,))))


@dataclass(frozen=True)
class Columns:
    """The columns of a CSV of predictions."""

    top_k: int = 1
    said: tuple[str, ...] = ()
    """What there is to say of each photo beside its likeliest classes (`Judge.columns`)."""
    in_sequences: bool = False
    asked: tuple[str, ...] = ()
    """What is asked for (`asked_for`)."""
    folders: int = 0
    """Of the deepest photo."""

    @classmethod
    def of(
        cls, judge: Judge, photos: Sequence[Photo], asked: tuple[str, ...] = (), in_sequences: bool = False
    ) -> "Columns":
        """Those that all photos need."""
        deepest = max((_file_of(photo).count("/") for photo in photos), default=0) if PATH in asked else 0
        return cls(judge.top_k, judge.columns, in_sequences, asked, deepest)

    def names(self) -> list[str]:
        """The first line."""
        names = ["name"]
        names += [f"{what}_{k + 1}" for k in range(self.top_k) for what in ("class", "probability")]
        names += self.said
        names += ["sequence"] * self.in_sequences
        folders = [f"folder_{k + 1}" for k in range(self.folders)]
        for what in self.asked:
            names += [*folders, "file"] if what == PATH else OF_HEADER[what]
        return names

    def cells(self, judged: Judged, text: Callable[[str], str]) -> Iterator[object]:
        """A photo's line; `text` makes a cell of what is no number."""
        verdict = judged.verdict
        yield text(judged.photo.name)
        for name, probability in verdict.top:
            yield text(name)
            yield f"{probability:.6f}"
        said = verdict.cells if self.said else {}
        for column in self.said:
            yield said[column] if column in NUMBERS else text(said[column])
        if self.in_sequences:
            yield judged.sequence
        header = _header_of(judged.photo) if any(what in OF_HEADER for what in self.asked) else None
        for what in self.asked:
            if what == PATH:
                *folders, file = _file_of(judged.photo).split("/")
                yield from map(text, (*folders, *[""] * (self.folders - len(folders)), file))
            elif header is None:
                yield from [""] * len(OF_HEADER[what])
            else:
                yield from _told_by(header, what, text)


def _file_of(photo: Photo) -> str:
    """The name of the photo's file in results, also where only a part of it is named."""
    return photo.name.rpartition("/")[0] if isinstance(photo, Crop) else photo.name


def _header_of(photo: Photo) -> Header | None:
    # Read once more, on rank 0: a fraction of a millisecond of a file that is still in memory, against one
    # more thing that every decoder would hand on.
    try:
        return header_of(photo.path)
    except ImageError:  # it was read before: it has gone meanwhile
        return None


def _told_by(header: Header, what: str, text: Callable[[str], str]) -> Iterator[object]:
    if what == DATE:
        yield "" if header.time is None else iso_time(header.time)
    elif what == CAMERA:
        yield from map(text, (header.make, header.model, header.serial))
    elif what == PLACE:
        yield _number(header.latitude, 6)  # 0.1 m
        yield _number(header.longitude, 6)
        yield _number(header.altitude_m, 1)
    else:
        yield header.width
        yield header.height


def _number(value: float | None, digits: int) -> str:
    return "" if value is None else f"{value:.{digits}f}"
