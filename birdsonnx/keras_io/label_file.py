"""Class names in a text file, as pages that train in the browser write them beside their `.h5`."""

import re
from pathlib import Path

from birdsonnx.errors import DataError

NUMBERED = re.compile(r"\s*(\d+)[\s,:;]+(.*\S)\s*")
LARGEST = 2**24
"""Bytes: 11,000 species take 300 KB."""


def read(path: Path) -> tuple[str, ...]:
    """The names, one a line, in the order of the outputs; where every line begins with an index, by that.

    Raises:
        DataError: a file that cannot be read, holds no names, one twice, or indices with gaps.
    """
    try:
        if path.stat().st_size > LARGEST:
            raise DataError(f"{path}: too large for a list of class names; give one name a line")
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot be read as a list of class names ({error})") from None
    lines = [line.strip() for line in lines if line.strip()]
    if not lines:
        raise DataError(f"{path}: no class names in it; give one a line")
    numbered = [NUMBERED.fullmatch(line) for line in lines]
    names = lines
    if all(numbered):
        by_index = {int(found[1]): found[2] for found in numbered if found is not None}
        if sorted(by_index) != list(range(len(lines))):
            raise DataError(f"{path}: its indices must be 0 to {len(lines) - 1}, each once")
        names = [by_index[index] for index in range(len(lines))]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise DataError(f"{path}: the class name {twice!r} is there twice")
    return tuple(names)
