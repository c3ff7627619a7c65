"""The right class of each photo in a predictions file: by its group, its name, or a CSV."""

import csv
from collections.abc import Mapping
from pathlib import Path

from birdsonnx.artifacts.regular_files import opener
from birdsonnx.errors import DataError, UnlabelledError
from birdsonnx.inference.keeping.hdf5 import Predictions


def labels_of(
    predictions: Predictions, where: str, csv_path: Path | None
) -> tuple[tuple[str, ...], list[int]]:
    """Class names and each prediction's label: from `csv_path`, else from its group, else, at the root,
    the longest class name that begins the file name.

    Raises:
        UnlabelledError: no class names in the file, or a photo whose class is not known.
        DataError: a CSV that cannot be used, or class names that do not fit the scores.
    """
    classes = predictions.classes
    if classes is None:
        raise UnlabelledError(
            f"{where}: it holds no class names (the model had none); evaluate a folder with --model"
        )
    if len(classes) != predictions.width:
        raise DataError(f"{where}: {len(classes)} class names for {predictions.width} scores")
    index = {name: position for position, name in enumerate(classes)}
    given = _read_labels(csv_path, index) if csv_path else {}
    labels = []
    for name in predictions.names:
        label = given.get(name) if csv_path is not None else label_in(name, index)
        if label is None:
            source = (
                f"{csv_path} has no line for it" if csv_path else "neither a group nor its name gives one"
            )
            raise UnlabelledError(
                f"{where}: the class of {name!r} is unknown: {source}; give --labels FILE.csv (name,class)"
            )
        labels.append(label)
    return classes, labels


def label_in(name: str, index: Mapping[str, int]) -> int | None:
    """The class that a photo's name says, of those in `index`; None where it says none."""
    group, _, file = name.rpartition("/")
    if group:
        folders = group.split("/")
        found = next((index[part] for part in (folders[0], *folders[::-1]) if part in index), None)
        if found is None and len(folders) == 1 and "." in group and file.isdecimal():
            return label_in(group, index)  # a box of a photo at the root: `COOT 7.jpg/0`
        return found
    beginnings = (file[:length] for length in range(len(file), 0, -1))
    return next((index[known] for known in beginnings if known in index), None)


def _read_labels(path: Path, index: dict[str, int]) -> dict[str, int]:
    labels: dict[str, int] = {}
    try:
        with open(path, encoding="utf-8-sig", newline="", opener=opener) as file:
            for number, row in enumerate(filter(None, csv.reader(file)), 1):
                if len(row) != 2 or row[1] not in index:
                    if number == 1 and row[:2] == ["name", "class"]:
                        continue
                    raise DataError(
                        f"{path}: line {number}: expected name,class with a class of the model, got {row}"
                    )
                if labels.setdefault(row[0], index[row[1]]) != index[row[1]]:
                    raise DataError(f"{path}: line {number}: {row[0]!r} is there before with another class")
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path}: cannot be read as a CSV of name,class ({error})") from None
    return labels
