"""Which photos there are, what they are called, and which class they show."""

import glob
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from birdsonnx.config.data import Data
from birdsonnx.config.section import nearest
from birdsonnx.errors import DataError

IMAGE_SUFFIXES = frozenset(
    (".bmp", ".gif", ".jpeg", ".jpg", ".pbm", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")
)


@dataclass(frozen=True, slots=True)
class Photo:
    """A file, and its name in results: its path relative to the folder that was named."""

    path: Path
    name: str
    label: int | None = None
    """Index of its class, where class folders give one."""


@dataclass(frozen=True)
class LabelledFolder:
    """A folder of class folders."""

    root: Path
    classes: tuple[str, ...]
    """Class names; the order is that of the class indices."""
    photos: tuple[Photo, ...]
    tag: str | None = None
    """Name of the folders that hold the class folders; None: root does."""
    left_out: int = 0
    """Photos below root that the tags do not concern."""

    @property
    def where(self) -> str:
        """What it is called in messages."""
        return str(self.root) if self.tag is None else f"{self.root} (folders {self.tag!r})"


def training_photos(data: Data) -> LabelledFolder:
    """The config's training set. Raises DataError."""
    assert data.input_path is not None
    shared = data.test_tag if data.test_input_path is None else None
    return read_class_folders(Path(data.input_path), data.training_tag, shared)


def test_photos(data: Data) -> LabelledFolder | None:
    """The config's test set, if it has one. Raises DataError."""
    if data.test_folder is None:
        return None
    shared = data.training_tag if data.test_input_path is None else None
    return read_class_folders(Path(data.test_folder), data.test_tag, shared)


def read_class_folders(root: Path, tag: str | None = None, other_tag: str | None = None) -> LabelledFolder:
    """List `root/<class>/…/<photo>`; with a tag, `root/…/<tag>/<class>/…/<photo>`, where the tag may also be
    a folder that leads to root. Classes and photos in name order, hidden files and folders left out.

    Args:
        root: the folder.
        tag: the name of the folders that hold the class folders; None: root itself does.
        other_tag: that of another set in the same root; no photo may belong to both.

    Raises:
        DataError: no such folder, no class folder in it, a class folder without photos, or photos that a
            tag gives no class or two sets.
    """
    _require_folder(root)
    if tag is not None:
        return _read_tagged(root, tag, other_tag)
    try:
        with os.scandir(root) as entries:
            folders = [entry for entry in entries if _is_folder(entry) and not entry.name.startswith(".")]
    except OSError as error:
        raise DataError(f"{root}: cannot be read ({error.strerror})") from None
    folders.sort(key=lambda entry: entry.name)
    if not folders:
        raise DataError(f"{root}: no class folders in it; expected {root}/<class name>/<photo>.jpg")
    photos: list[Photo] = []
    for label, folder in enumerate(folders):
        found = [
            Photo(path, f"{folder.name}/{path.relative_to(folder.path).as_posix()}", label)
            for path in _images_below(Path(folder.path))
        ]
        if not found:
            raise DataError(f"{root}: the class folder {folder.name!r} holds no photos")
        photos += found
    return LabelledFolder(root, tuple(folder.name for folder in folders), tuple(photos))


def _read_tagged(root: Path, tag: str, other_tag: str | None) -> LabelledFolder:
    found = _images_below(root)
    tagged = _below_tag(root, found, tag)
    others = dict(_below_tag(root, found, other_tag)) if other_tag is not None else {}
    both = [path for path, _ in tagged if path in others]
    if both:
        raise DataError(
            f"{root}: photos lie both in a folder {tag!r} and in one {other_tag!r}, and could be of either "
            f"set: {_some(_names(root, both))}; rename one of the folders"
        )
    bare = [path for path, below in tagged if len(below) < 2]
    if bare:
        raise DataError(
            f"{root}: photos lie directly in a folder {tag!r}, without a class folder between: "
            f"{_some(_names(root, bare))}"
        )
    classes = tuple(sorted({below[0] for _, below in tagged}))
    labels = {name: label for label, name in enumerate(classes)}
    photos = [Photo(path, path.relative_to(root).as_posix(), labels[below[0]]) for path, below in tagged]
    return LabelledFolder(root, classes, tuple(photos), tag, len(found) - len(tagged) - len(others))


def _below_tag(root: Path, paths: Sequence[Path], tag: str) -> list[tuple[Path, tuple[str, ...]]]:
    """The photos in folders called `tag`, and the rest of each path after that folder.

    The first such folder below root counts: the folders after it are a class and what the class holds,
    whatever their names are. Where no photo has one, the last folder of that name on the way to root counts.

    Raises:
        DataError: no photo has one.
    """
    found = []
    for path in paths:
        parts = path.relative_to(root).parts
        if tag in parts[:-1]:
            found.append((path, parts[parts.index(tag) + 1 :]))
    if found:
        return found
    if tag in root.parts and paths:
        start = len(root.parts) - root.parts[::-1].index(tag)
        return [(path, path.parts[start:]) for path in paths]
    folders = {part for path in paths for part in path.relative_to(root).parts[:-1]}
    raise DataError(f"{root}: no photo in a folder called {tag!r}, here or below{nearest(tag, folders)}")


def _names(root: Path, paths: Iterable[Path]) -> list[str]:
    return [path.relative_to(root).as_posix() for path in paths]


def require_same_classes(found: Sequence[str], expected: Sequence[str], where: str, reference: str) -> None:
    """Raises DataError, with the repr of each difference, unless both name the same classes."""
    if list(found) == list(expected):
        return
    missing = [name for name in expected if name not in set(found)]
    extra = [name for name in found if name not in set(expected)]
    differences = []
    if extra:
        differences.append(f"only in {where}: {_some(extra)}")
    if missing:
        differences.append(f"only in {reference}: {_some(missing)}")
    if not differences:
        differences.append("the order differs")
    raise DataError(
        f"class names differ between {where} ({len(found)}) and {reference} ({len(expected)}): "
        + "; ".join(differences)
        + "; rename the folders so that they agree"
    )


def require_fit(
    folder: LabelledFolder, names: Sequence[str] | None, count: int, where: str, mend: str = ""
) -> None:
    """Refuse class folders that are not the classes of a model.

    Args:
        folder: the class folders.
        names: of the model's classes, in index order; None: it knows none, so that only
            their number is compared.
        count: of the model's classes.
        where: names the model in the message.
        mend: what to do where the numbers differ; then the numbers are compared before the names.

    Raises:
        DataError: the numbers or the names differ.
    """
    if len(folder.classes) != count and (mend or names is None):
        raise DataError(
            f"{where} has {count} classes, {folder.where} has {len(folder.classes)} class folders"
            + (f"; {mend}" if mend else "")
        )
    if names is not None:
        require_same_classes(folder.classes, names, folder.where, where)


def collect(inputs: Iterable[str], tag: str | None = None) -> list[Photo]:
    """Photos to name, from files, folders (walked) and glob patterns, in name order.

    A photo's name is its path relative to the folder that was given, to a pattern's last folder without
    wildcards, or just its file name where the file itself was given. With a tag, of a folder only the photos
    in folders of that name.

    Raises:
        DataError: an input that does not exist or holds no photos, or two photos that get one name.
    """
    photos: list[Photo] = []
    for given in inputs:
        path = Path(given)
        if path.is_dir():
            files = _images_below(path)
            if not files:
                raise DataError(f"{given}: no photos in this folder ({', '.join(sorted(IMAGE_SUFFIXES))})")
            if tag is not None:
                files = [file for file, _ in _below_tag(path, files, tag)]
            found = [Photo(file, file.relative_to(path).as_posix()) for file in files]
        elif tag is not None:
            raise DataError(f"{given}: photos in folders called {tag!r} are asked for, but this is no folder")
        elif os.path.lexists(path):
            found = [Photo(path, path.name)]
        elif glob.has_magic(given):
            found = list(_matching(given))
            if not found:
                raise DataError(f"{given}: no photo matches this pattern")
        else:
            raise DataError(f"{given}: no such file or folder")
        photos += found
    if not photos:
        raise DataError("no photos to name; give files, folders or glob patterns")
    photos.sort(key=lambda photo: photo.name)
    _require_distinct(photos)
    return photos


def _matching(pattern: str) -> Iterator[Photo]:
    fixed = Path(pattern)
    while glob.has_magic(str(fixed)):
        fixed = fixed.parent
    for match in sorted(glob.glob(pattern, recursive=True)):  # noqa: PTH207 - a pattern may be absolute
        path = Path(match)
        files = _images_below(path) if path.is_dir() else [path] if _is_image(path.name) else []
        for file in files:
            yield Photo(file, file.relative_to(fixed).as_posix())


def _require_distinct(photos: Sequence[Photo]) -> None:
    names: dict[str, Path] = {}
    for photo in photos:
        if photo.name in names and not _same_path(names[photo.name], photo.path):
            raise DataError(
                f"{names[photo.name]} and {photo.path} would both be called {photo.name!r}; "
                "give the folder above them, or predict them one after the other"
            )
        if photo.name in names:
            raise DataError(f"{photo.path} is given twice")
        names[photo.name] = photo.path
    for photo in photos:
        for parent in Path(photo.name).parents:
            if parent.as_posix() in names:
                raise DataError(
                    f"{names[parent.as_posix()]} and {photo.path} cannot lie in one file: "
                    f"{parent.as_posix()!r} would be both a photo and a folder; predict them separately"
                )


def _same_path(one: Path, other: Path) -> bool:
    return os.path.abspath(one) == os.path.abspath(other)  # noqa: PTH100 - links stay distinct photos


def _require_folder(root: Path) -> None:
    if not root.exists():
        raise DataError(f"{root}: there is no such folder")
    if not root.is_dir():
        raise DataError(f"{root}: this is a file; a folder of class folders is needed")


def _is_image(name: str) -> bool:
    return not name.startswith(".") and os.path.splitext(name)[1].lower() in IMAGE_SUFFIXES  # noqa: PTH122


def _images_below(folder: Path) -> list[Path]:
    """Image files under `folder` by suffix, in path order. A broken link is listed: it is refused later,
    by name, rather than passed over. Folder links are followed, but never into their own ancestors.

    Raises:
        DataError: a folder that cannot be read.
    """
    found: list[Path] = []

    def walk(directory: str, ancestors: frozenset[tuple[int, int]]) -> None:
        status = os.stat(directory)  # noqa: PTH116 - strings all the way: twice as fast on large folders
        identity = (status.st_dev, status.st_ino)
        if identity in ancestors:
            return
        with os.scandir(directory) as entries:
            for entry in entries:
                if entry.name.startswith("."):
                    continue
                if _is_folder(entry):
                    walk(entry.path, ancestors | {identity})
                elif _is_image(entry.name):
                    found.append(Path(entry.path))

    try:
        walk(str(folder), frozenset())
    except OSError as error:
        raise DataError(f"{error.filename or folder}: cannot be read ({error.strerror})") from None
    return sorted(found)


def _is_folder(entry: "os.DirEntry[str]") -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False


def _some(names: Sequence[str], most: int = 5) -> str:
    listed = ", ".join(repr(name) for name in names[:most])
    return listed if len(names) <= most else f"{listed} and {len(names) - most} more"
