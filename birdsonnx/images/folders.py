"""Which photos there are, what they are called, and which class they show."""

import contextlib
import os
import shlex
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from birdsonnx.config.wording import nearest, nearest_path
from birdsonnx.errors import DataError
from birdsonnx.images.files import Found, Say, photos_below
from birdsonnx.images.photo_list import Files, Folder, Photo, PhotoList, by_folders, relabelled
from birdsonnx.images.sets import TEST, TRAINING, VALIDATION
from birdsonnx.images.walking import Listed, is_folder
from birdsonnx.runtime.audience import Advance

if TYPE_CHECKING:
    from birdsonnx.config.data import Data


TEST_SETS = TEST + VALIDATION


def quiet(line: str) -> None:
    """Whom nothing is reported to."""


@dataclass(frozen=True)
class LabelledFolder:
    """A folder of class folders."""

    root: Path
    classes: tuple[str, ...]
    """Class names; the order is that of the class indices."""
    photos: Sequence[Photo]
    tag: str | None = None
    """Name of the folders that hold the class folders; None: root does."""
    left_out: int = 0
    """Photos below root that the tags do not concern."""

    @property
    def where(self) -> str:
        """What it is called in messages."""
        return str(self.root) if self.tag is None else f"{self.root} (folders {self.tag!r})"


def training_photos(data: "Data", say: Say) -> LabelledFolder:
    """The config's training set. Raises DataError."""
    assert data.input_path is not None
    shared = data.test_tag if data.test_input_path is None else None
    return read_class_folders(Path(data.input_path), data.training_tag, shared, say)


def test_photos(data: "Data", say: Say) -> LabelledFolder | None:
    """The config's test set, if it has one; a class of it may be without photos. Raises DataError."""
    if data.test_folder is None:
        return None
    shared = data.training_tag if data.test_input_path is None else None
    return read_class_folders(Path(data.test_folder), data.test_tag, shared, say, may_lack=True)


def read_class_folders(
    root: Path,
    tag: str | None = None,
    other_tag: str | None = None,
    say: Say = quiet,
    may_lack: bool = False,
    advance: Advance = lambda _: None,
) -> LabelledFolder:
    """List `root/<class>/…/<photo>`; with a tag, `root/…/<tag>/<class>/…/<photo>`, where the tag may also be
    a folder that leads to root. Classes and photos in name order, hidden files and folders left out.

    Args:
        root: the folder.
        tag: the name of the folders that hold the class folders; None: root itself does.
        other_tag: that of another set in the same root; no photo may belong to both.
        say: takes a line about files that are left out.
        may_lack: whether a class folder may be without photos, which is said then.
        advance: is told of photos as they are found.

    Raises:
        DataError: no such folder, no class folder in it, sets in place of class folders, a class folder
            without photos, class folders whose names cannot be kept or differ in their Unicode form only, or
            photos to which a tag gives no class or two sets.
    """
    _require_folder(root)
    found = photos_below(root, advance)
    if tag is not None:
        folder = _read_tagged(root, found, tag, other_tag)
        found.report(say)
        return folder
    names = _kept(root, _class_folders(root, found))
    labels = {name: label for label, name in enumerate(names)}
    parts = [(listed, files) for listed, files in found.photos() if files.count]
    inside = [(listed, files) for listed, files in parts if listed.place.parts]
    empty = sorted(set(labels) - {listed.place.parts[0] for listed, _ in inside})
    if all(name.lower() in TRAINING + TEST_SETS for name in names) and all(
        len(listed.place.parts) > 1 for listed, _ in inside
    ):
        _refuse_sets(root, names, to_test=may_lack)
    if empty and not may_lack:
        raise DataError(f"{root}: the class folder {empty[0]!r} holds no photos")
    for name in empty:
        say(f"{root}: the class folder {name!r} holds no photos")
    beside = sum(files.count for listed, files in parts if not listed.place.parts)
    if beside:
        say(f"{root}: {beside:,} photos lie beside the class folders, in no class: left out")
    found.report(say)
    content = ((folder_of(root, each, labels[each.place.parts[0]]), files) for each, files in inside)
    return LabelledFolder(root, names, PhotoList.in_order(content, by_folders))


def before(folder: str) -> str:
    """What stands before the name of a file in its path, where it lies in `folder`."""
    place = str(Path(folder))  # as `Path` spells it
    return "" if place == "." else os.path.join(place, "")  # noqa: PTH118 - with a separator at its end


def folder_of(root: Path, listed: Listed, label: int | None = None) -> Folder:
    """What the photos of a folder below `root` have in common."""
    place = root.joinpath(*listed.place.parts)
    return Folder(before(str(place)), "".join(f"{part}/" for part in listed.place.parts), label)


def _class_folders(root: Path, found: Found) -> list[str]:
    """Names of the class folders of a folder. Raises DataError."""
    names = [*found.folders[0].folders, *found.folders[0].links]
    if not names:
        raise DataError(f"{root}: no class folders in it; expected {root}/<class name>/<photo>.jpg")
    return names


def _refuse_sets(root: Path, sets: Sequence[str], to_test: bool) -> NoReturn:
    """Raises DataError: the folder that was named is above the one that was meant."""
    usual = TEST_SETS + TRAINING if to_test else TRAINING + TEST_SETS
    meant = min(sets, key=lambda name: usual.index(name.lower()) if name.lower() in usual else len(usual))
    are = f"{_some(sorted(sets))}: {'it holds' if len(sets) == 1 else 'they hold'} the class folders"
    raise DataError(
        f"{root}: its folders are no classes but sets ({are}); give {root / meant}, or name the set: "
        f"--tag {shlex.quote(meant)}, in a config {'test_tag' if to_test else 'training_tag'}"
    )


def _kept(root: Path, names: Iterable[str]) -> tuple[str, ...]:
    """Class names in order. Raises DataError for those that a model's metadata cannot hold, or mix up."""
    by_form: dict[str, str] = {}
    for name in sorted(names):
        try:
            name.encode()
        except UnicodeEncodeError:
            raise DataError(
                f"{root}: the name of the class folder {name!a} is not UTF-8, and no model can hold it; "
                "rename the folder"
            ) from None
        other = by_form.setdefault(unicodedata.normalize("NFC", name), name)
        if other != name:
            raise DataError(
                f"{root}: the class folders {other!a} and {name!a} differ in their Unicode form only; "
                "put their photos into one of them"
            )
    return tuple(by_form.values())


def _read_tagged(root: Path, found: Found, tag: str, other_tag: str | None) -> LabelledFolder:
    parts = list(found.photos())
    tagged = below_tag(root, parts, tag)
    others = [] if other_tag is None else below_tag(root, parts, other_tag)
    places = {listed.place for listed, _, _ in others}
    both = [(listed, files) for listed, files, _ in tagged if listed.place in places]
    if both:
        raise DataError(
            f"{root}: photos lie both in a folder {tag!r} and in one {other_tag!r}, and could be of either "
            f"set: {_some(_names(both))}; rename one of the folders"
        )
    bare = [(listed, files) for listed, files, below in tagged if not below]
    if bare:
        raise DataError(
            f"{root}: photos lie directly in a folder {tag!r}, without a class folder between: "
            f"{_some(_names(bare))}"
        )
    classes = _kept(root, {below[0] for _, _, below in tagged})
    labels = {name: label for label, name in enumerate(classes)}
    content = ((folder_of(root, listed, labels[below[0]]), files) for listed, files, below in tagged)
    photos = PhotoList.in_order(content, by_folders)
    left_out = len(found) - len(photos) - sum(files.count for _, files, _ in others)
    return LabelledFolder(root, classes, photos, tag, left_out)


Parts = Sequence[tuple[Listed, Files]]
"""Folders, each with its photos."""


def below_tag(root: Path, found: Parts, tag: str) -> list[tuple[Listed, Files, tuple[str, ...]]]:
    """The photos in folders called `tag`, and the rest of the path of each folder after that one.

    The first such folder below root counts: the folders after it are a class and what the class holds,
    whatever their names are. Where no photo has one, the last folder of that name on the way to root counts.

    Raises:
        DataError: no photo has one.
    """
    found = [(listed, files) for listed, files in found if files.count]
    tagged = []
    for listed, files in found:
        parts = listed.place.parts
        if tag in parts:
            tagged.append((listed, files, parts[parts.index(tag) + 1 :]))
    if tagged:
        return tagged
    if tag in root.parts and found:
        start = len(root.parts) - root.parts[::-1].index(tag)
        return [(listed, files, (*root.parts[start:], *listed.place.parts)) for listed, files in found]
    folders = {part for listed, _ in found for part in listed.place.parts}
    raise DataError(f"{root}: no photo in a folder called {tag!r}, here or below{nearest(tag, folders)}")


def _names(found: Parts) -> list[str]:
    paths = sorted((*listed.place.parts, name) for listed, files in found for name in files.names())
    return ["/".join(path) for path in paths]


def fitted(
    folder: LabelledFolder,
    names: Sequence[str] | None,
    count: int,
    where: str,
    mend: str = "",
    say: Say | None = None,
) -> LabelledFolder:
    """The same photos with a model's class indices: class folders are matched by name, in whichever Unicode
    form either is.

    Args:
        folder: the class folders.
        names: of the model's classes, in index order; None: it knows none, so that only their number is
            compared.
        count: of the model's classes.
        where: names the model, or the folder that it is trained on, in the message.
        mend: what to do where the numbers differ; then the numbers are compared before the names.
        say: takes a line about classes without a folder; None: every class must have one.

    Raises:
        DataError: the numbers differ, or a class that only one of them has.
    """
    above = _folders_above(folder, names or ())
    if above:
        _refuse_sets(folder.root, above, to_test=say is not None)
    if len(folder.classes) != count and (mend or names is None):
        raise DataError(
            f"{where} has {count} classes, {folder.where} has {len(folder.classes)} class folders"
            + (f"; {mend}" if mend else "")
        )
    if names is None:
        return folder
    labels = {unicodedata.normalize("NFC", name): label for label, name in enumerate(names)}
    forms = [unicodedata.normalize("NFC", name) for name in folder.classes]
    extra = [name for name, form in zip(folder.classes, forms, strict=True) if form not in labels]
    lacking = [names[label] for form, label in labels.items() if form not in set(forms)]
    if extra or (lacking and say is None):
        _refuse_classes(folder, len(names), extra, lacking, where)
    if lacking and say is not None:
        say(f"{folder.where}: no folder of {len(lacking)} of the {len(names)} classes: {_some(lacking)}")
    label_of = {label: labels[form] for label, form in enumerate(forms)}
    photos = relabelled(folder.photos, label_of)
    return replace(folder, classes=tuple(names), photos=photos)


def _folders_above(folder: LabelledFolder, names: Iterable[str]) -> list[str]:
    """Those of the class folders that are no classes of `names` but hold folders of these."""
    forms = {unicodedata.normalize("NFC", name) for name in names}
    if folder.tag is not None or not forms:
        return []
    others = [name for name in folder.classes if unicodedata.normalize("NFC", name) not in forms]
    found = []
    for name in others:
        with contextlib.suppress(OSError), os.scandir(folder.root / name) as entries:
            inside = (unicodedata.normalize("NFC", entry.name) for entry in entries if is_folder(entry))
            if not forms.isdisjoint(inside):
                found.append(name)
    return found


def _refuse_classes(
    folder: LabelledFolder, count: int, extra: Sequence[str], lacking: Sequence[str], where: str
) -> NoReturn:
    differences = [f"only in {folder.where}: {_some(extra)}"] if extra else []
    differences += [f"only in {where}: {_some(lacking)}"] if lacking else []
    raise DataError(
        f"class names differ between {folder.where} ({len(folder.classes)}) and {where} ({count}): "
        + "; ".join(differences)
        + "; rename the folders so that they agree"
    )


def _require_folder(root: Path) -> None:
    if not root.exists():
        raise DataError(f"{root}: there is no such folder{nearest_path(root)}")
    if not root.is_dir():
        raise DataError(f"{root}: this is a file; a folder of class folders is needed")


def _some(names: Sequence[str], most: int = 5) -> str:
    listed = ", ".join(repr(name) for name in names[:most])
    return listed if len(names) <= most else f"{listed} and {len(names) - most} more"
