"""Class names in text files."""

from pathlib import Path

import pytest

from birdsonnx.errors import DataError
from birdsonnx.keras_io.label_file import read

FILE = Path("labels.txt")


@pytest.mark.parametrize(
    ("content", "names"),
    [
        ("Wren\nCoot\n", ("Wren", "Coot")),
        ("0 Wren\n1 Coot\n", ("Wren", "Coot")),
        ("1 Coot\n0 Wren\n", ("Wren", "Coot")),
        ("0: Grey Heron\r\n1: b\u00e9casse", ("Grey Heron", "b\u00e9casse")),
        ("\ufeff\n  Wren \n\n Coot", ("Wren", "Coot")),
        ("3 toed woodpecker\nCoot", ("3 toed woodpecker", "Coot")),
    ],
)
def test_names_with_and_without_an_index(content, names):
    FILE.write_text(content, encoding="utf-8")
    assert read(FILE) == names


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "no class names in it"),
        (b"\n \n", "no class names in it"),
        (b"Wren\nCoot\nWren", "the class name 'Wren' is there twice"),
        (b"0 Wren\n2 Coot", "its indices must be 0 to 1, each once"),
        (b"1 Wren\n1 Coot", "its indices must be 0 to 1, each once"),
        (b"\xff\xfe", "cannot be read as a list of class names"),
    ],
)
def test_files_that_are_refused(content, said):
    FILE.write_bytes(content)
    with pytest.raises(DataError, match=r"labels\.txt: ") as caught:
        read(FILE)
    assert said in str(caught.value)
