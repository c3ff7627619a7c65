"""Lists of species: what a line names, what is left of the probabilities."""

import codecs
import math
from pathlib import Path

import numpy as np
import pytest

from birdsonnx.errors import DataError
from birdsonnx.inference.judging.species import SpeciesList, of_names

CLASSES = ("ANT BIRD", "BEE-EATER", "COOT", "Ä  OWL", "JAY, BLUE")


def found(content: str | bytes, classes=CLASSES) -> tuple[list[str], list[str]]:
    """Which classes a list names, and what is said of it."""
    path = Path("list.txt")
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    said: list[str] = []
    species = SpeciesList.read(path).among(classes, said.append)
    return [classes[index] for index in species.indices], said


@pytest.mark.parametrize(
    "content",
    [
        "COOT\nANT BIRD\n",
        "COOT\r\nANT BIRD",
        "COOT\rANT BIRD\r",
        codecs.BOM_UTF8 + b"COOT\nANT BIRD\n",
        "# what occurs here\n\n  \nCOOT  # common\nANT BIRD\n# BEE-EATER\n#BEE-EATER\n",
        "COOT\nCOOT\nANT BIRD\n",
        "name\nCOOT\nANT BIRD\n",
        "Species,count\nCOOT,3\nANT BIRD,4\n",
        "\ncLaSs\nCOOT\nANT BIRD\n",
        'species;"n"\n"COOT";3\n"ANT BIRD";\n',
        "species\tfamily\nCOOT\tRallidae, rails\nANT BIRD\tx;y\n",
        "COOT,,\n,,\nANT BIRD,,\n",
        '"COOT\nANT BIRD\n',  # a quotation mark that nothing closes swallows no lines
    ],
)
def test_a_list_is_read_whatever_program_wrote_it(content):
    names, said = found(content)
    assert names == ["ANT BIRD", "COOT"]
    assert said == ["species: 2 of 5 classes can occur (list.txt)"]


@pytest.mark.parametrize(
    ("line", "name"),
    [
        ("coot", "COOT"),
        ("Ant_bird", "ANT BIRD"),
        ("ANT   BIRD", "ANT BIRD"),
        ("a\u0308 owl", "Ä  OWL"),
        ("jay, Blue", "JAY, BLUE"),
        ('"jay, Blue",7', "JAY, BLUE"),
        ("bee-eater,Meropidae", "BEE-EATER"),
    ],
)
def test_a_name_that_is_written_otherwise_is_found_and_said(line, name):
    names, said = found(f"{line}\n")
    assert names == [name]
    assert said[0].endswith(f" is {name!r}")


def test_exact_names_come_before_those_that_are_alike():
    classes = ("Coot", "COOT", "coot, black", "name", "a#b")
    assert found("COOT\n", classes)[0] == ["COOT"]
    assert found("coot, black\n", classes)[0] == ["coot, black"]
    assert found("name\nCoot\n", classes)[0] == ["Coot", "name"]
    assert found("a#b\n", classes)[0] == ["a#b"]
    with pytest.raises(DataError, match=r"list.txt: line 2: 'coot' may be the class 'Coot' or 'COOT'"):
        found("# x\ncoot\n", classes)


def test_names_of_others_are_said_with_what_they_may_mean():
    _, said = found("COOTT\nCOOT\nWREN\nAUK\nEMU\nOWL\nAUK\n")
    assert said[0] == (
        "list.txt: 5 names are none of the model's classes: 'COOTT' (did you mean 'COOT'?), 'WREN', 'AUK' "
        "and 2 more"
    )
    assert found(f"COOT\n{'W' * 10**6}\n")[1][0].endswith("W…'")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("", "no names in it"),
        ("# COOT\n\n", "no names in it"),
        ("name\n", "no names in it"),
        ("WREN\nCOOOT\n", r"none of its 2 names is a class of the model: 'WREN', 'COOOT' \(did you mean"),
        ("COOT\n".encode("utf-16"), "no text in UTF-8"),
        (b"CO\xffT\n", r"no text in UTF-8 \(invalid start byte at byte 2\)"),
        (b"\0" * 50, "none of its 1 names"),
    ],
)
def test_what_names_nothing_is_refused(content, said):
    with pytest.raises(DataError, match=rf"^list.txt: {said}"):
        found(content)


@pytest.mark.parametrize("make", [Path.mkdir, lambda path: None, lambda path: path.symlink_to("/dev/zero")])
def test_what_is_no_file_is_refused(make):
    make(Path("list.txt"))
    with pytest.raises(DataError, match=r"^list.txt: cannot be read as a list of species"):
        SpeciesList.read(Path("list.txt"))


def test_a_file_that_is_too_large_is_not_read():
    with Path("list.txt").open("wb") as file:
        file.truncate(2**24 + 1)
    with pytest.raises(DataError, match="larger than 16,777,216 bytes"):
        SpeciesList.read(Path("list.txt"))


def test_names_of_a_program_are_taken_as_they_are():
    said: list[str] = []
    assert of_names(["jay, blue", "COOT", "#x"]).among(CLASSES, said.append).indices.tolist() == [2, 4]
    with pytest.raises(DataError, match="species: 3 is no name"):
        of_names(["COOT", 3])  # type: ignore[list-item]


@pytest.mark.parametrize("shift", [0.0, -50.0, -800.0, -3e4])
def test_what_is_left_of_the_probability(shift):
    """`shift` lets all that can occur underflow: exp(-800) is 0 in float64."""
    generator = np.random.default_rng(3)
    log_probs = generator.normal(-3, 2, 40).astype(np.float32)
    allowed = sorted(generator.choice(40, 7, replace=False).tolist())
    log_probs[allowed] += np.float32(shift)
    species = of_names([str(index) for index in allowed]).among([str(i) for i in range(40)], lambda _: None)
    conditional = species.conditional(log_probs)

    largest = max(float(log_probs[index]) for index in allowed)
    total = math.fsum(math.exp(float(log_probs[index]) - largest) for index in allowed)
    for index in range(40):
        if index in allowed:
            expected = math.exp(float(log_probs[index]) - largest) / total
            assert math.exp(conditional[index]) == pytest.approx(expected, rel=1e-12)
        else:
            assert conditional[index] == -np.inf
    assert math.fsum(np.exp(conditional)) == pytest.approx(1, abs=1e-12)
    assert conditional.dtype == np.float64
