"""The progress of a prediction: what comes back out of it, whatever has become of its files."""

import json
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from birdsonnx.errors import ArtifactError
from birdsonnx.images.photo_list import Photo
from birdsonnx.images.photo_status import Status
from birdsonnx.inference.deciding import WORDS, Facts
from birdsonnx.inference.forward import Chunk
from birdsonnx.inference.keeping import journal as journals
from birdsonnx.inference.keeping.journal import Journal, folder_beside
from birdsonnx.inference.keeping.unit_records import HEAD, MAGIC, Shape
from birdsonnx.inference.units import Pieces
from tests.conftest import disk_of

FOLDER = Path("output_1.h5.progress")
PHOTOS, PER_RUN, CLASSES = 22, 4, 3
FACTS = Facts(dict.fromkeys(WORDS, "this"))
OTHERS = Facts(dict.fromkeys(WORDS, "that"))
ODD = os.fsdecode(b"bad \xff.png")


STATUS = np.arange(5 * PHOTOS, dtype=np.int64).reshape(PHOTOS, 5)


def shape(has_known: bool = True, status: Status = STATUS) -> Shape:
    photos = [Photo(Path(f"{number}.png"), f"{number}.png") for number in range(PHOTOS)]
    return Shape(Pieces(photos, PER_RUN), CLASSES, has_known, status)


def chunk(photos: range, has_known: bool = True, refused: tuple[int, ...] = (5, 6, 21)) -> Chunk:
    good = [index for index in photos if index not in refused]
    bad = tuple((index, f"{ODD}: is none") for index in photos if index in refused)
    values = np.add.outer(np.array(good), np.arange(CLASSES) / 8).astype(np.float32)
    return Chunk(tuple(good), values, bad, values[:, 0] / 2 if has_known else None)


UNITS = (range(4, 5), range(2), range(5, 6), range(2, 4))
"""As they come from ranks; together all of the six pieces."""


def written(units: tuple[range, ...] = UNITS, has_known: bool = True) -> None:
    journal = Journal(FOLDER, FACTS, shape(has_known))
    for unit in units:
        journal.add(unit, chunk(journal._shape.pieces.positions(unit), has_known))
    journal.close()


def read(has_known: bool = True) -> Iterator[range]:
    """The units that come back, each as it was written."""
    journal = Journal(FOLDER, FACTS, shape(has_known))
    assert list(journal.units) == sorted(journal.units)
    for start in journal.units:
        found = journal.read(start)
        assert found is not None
        unit, got = found
        wanted = chunk(journal._shape.pieces.positions(unit), has_known)
        assert (got.indices, got.refused) == (wanted.indices, wanted.refused)
        if wanted.indices:
            np.testing.assert_array_equal(got.values, wanted.values)
            assert got.values.dtype == np.float32
            assert (got.known is None) == (not has_known)
            if got.known is not None and wanted.known is not None:
                np.testing.assert_array_equal(got.known, wanted.known)
        yield unit
    journal.close()


@pytest.mark.parametrize("has_known", [False, True])
def test_what_was_written_comes_back(has_known):
    written(has_known=has_known)
    assert list(read(has_known)) == sorted(UNITS, key=lambda unit: unit.start)


def test_each_run_adds_a_file_of_its_own(monkeypatch):
    for unit in UNITS:
        written((unit,))
    assert len(list(FOLDER.iterdir())) == len(UNITS)
    assert len(list(read())) == len(UNITS)
    monkeypatch.setattr(journals, "FILE_BYTES", 1)
    Journal(FOLDER, FACTS, shape()).remove()
    assert not FOLDER.exists()
    written()
    assert len(list(FOLDER.iterdir())) == len(UNITS)
    assert len(list(read())) == len(UNITS)


def test_a_unit_that_is_there_twice_counts_once():
    written((range(2), range(2, 4)))
    with (FOLDER / "00001.units").open("rb") as file:
        content = file.read()
    head = content.index(b"\n") + 1
    (FOLDER / "00001.units").write_bytes(content + content[head:])
    journal = Journal(FOLDER, FACTS, shape())
    assert (list(journal.units.values()), journal.damaged) == ([range(2), range(2, 4)], 2)


def test_a_changed_photo_costs_its_unit_and_no_more():
    written()
    for changed, unit in ((0, UNITS[1]), (PHOTOS - 1, UNITS[2])):
        status = STATUS.copy()
        status[changed, -1] += 1
        said: list[str] = []
        with journals.kept(
            Path("output_1.h5"), FACTS, shape(status=status), "photos", said.append
        ) as journal:
            assert journal is not None
            assert sorted(map(str, journal.units.values())) == sorted(
                str(each) for each in UNITS if each != unit
            )
            assert said[0].endswith("; computed anew: records of changed photos 1")
            journal.add(unit, chunk(journal._shape.pieces.positions(unit)))
            journal.close()
            again = Journal(FOLDER, FACTS, shape(status=status))
            assert (len(again.units), again.changed, again.damaged) == (len(UNITS), 0, 0)
        written()


def test_a_torn_end_costs_what_it_cuts():
    written()
    path = FOLDER / "00001.units"
    content = path.read_bytes()
    found = []
    for size in range(len(content) + 1):
        path.write_bytes(content[:size])
        found.append(len(list(read())))
        FOLDER.mkdir(exist_ok=True)
    assert found == sorted(found)
    assert (found[0], found[-2], found[-1]) == (0, len(UNITS) - 1, len(UNITS))


@pytest.mark.parametrize("bit", [0, 7])
def test_a_flipped_bit_anywhere_is_never_believed(bit):
    written()
    path = FOLDER / "00001.units"
    content = bytearray(path.read_bytes())
    for place in range(len(content)):
        content[place] ^= 1 << bit
        path.write_bytes(content)
        assert len(list(read())) < len(UNITS)
        content[place] ^= 1 << bit


def test_damage_inside_a_record_costs_that_record():
    written()
    path = FOLDER / "00001.units"
    content = bytearray(path.read_bytes())
    content[content.index(b"is none") - 40] ^= 1  # values before the text of the second record
    path.write_bytes(content)
    journal = Journal(FOLDER, FACTS, shape())
    assert (len(journal.units), journal.damaged) == (len(UNITS) - 1, 1)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\n",
        b"no JSON\n",
        b"[" * 60_000 + b"\n",
        b'{"birdsonnx_progress": 1}\n',
        b"[1, 2]\n",
        b'{"model": NaN}\n',
        b"\xff\xfe\0\n",
        b"1" * 10_000 + b"\n",
        bytes(10**6),
        OTHERS.line() + b"unit" + bytes(100),
    ],
)
def test_another_file_goes_and_leaves_a_fresh_start(content):
    FOLDER.mkdir()
    (FOLDER / "00007.units").write_bytes(content)
    (FOLDER / "mine.txt").write_text("mine")
    said = []
    with journals.kept(Path("output_1.h5"), FACTS, shape(), "photos", said.append) as journal:
        assert journal is not None
        assert journal.units == {}
        assert [path.name for path in FOLDER.iterdir()] == ["mine.txt"]
        journal.add(range(1), chunk(range(4)))
        assert (FOLDER / "00008.units").exists()
    assert [path.name for path in FOLDER.iterdir()] == ["mine.txt"]
    [line] = said
    assert line.startswith(f"{FOLDER}: of a run that did not end, but ")
    assert line.endswith("; beginning anew")


@pytest.mark.parametrize(
    "text",
    [
        b"[[0, 1]]",
        b"[0]",
        b"{}",
        b'[[true, "x"]]',
        b'[[99, "x"]]',
        b"[" * 9000,
        b'[[1, "x"], [1, "x"]]',
        b"\xff",
    ],
)
def test_a_record_of_our_key_that_says_nonsense_is_not_believed(text):
    written((range(1),))
    path = FOLDER / "00001.units"
    journal = Journal(FOLDER, FACTS, shape())
    head = HEAD.pack(MAGIC, 1, 1, 0, len(text), shape().stamp_of(range(1, 2)))
    record = head + journals.fingerprint(head + text, journal._key) + text
    with path.open("ab") as file:
        file.write(record)
    journal = Journal(FOLDER, FACTS, shape())
    assert (list(journal.units.values()), journal.damaged) == ([range(1)], 1)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_nothing_that_is_not_finite_comes_out(bad):
    journal = Journal(FOLDER, FACTS, shape(False))
    values = np.full((4, CLASSES), bad, np.float32)
    journal.add(range(1), Chunk((0, 1, 2, 3), values, ()))
    journal.close()
    assert list(read(False)) == []


@pytest.mark.parametrize(
    "sizes", [(0, 1, 2**32 - 1, 0), (0, 1, 4, 2**32 - 1), (2**64 - 1, 1, 0, 0), (0, 0, 0, 0)]
)
def test_sizes_are_compared_before_memory_is_taken(sizes):
    written((range(1),))
    with (FOLDER / "00001.units").open("ab") as file:
        file.write(HEAD.pack(MAGIC, *sizes, bytes(16)) + bytes(16))
        file.truncate(file.tell() + 2**33)  # sparse
    assert list(read()) == [range(1)]


def test_irregular_files_are_removed():
    written((range(1),))
    os.mkfifo(FOLDER / "00002.units")
    Path("secret").write_text("secret")
    (FOLDER / "00003.units").symlink_to(Path("secret").resolve())
    assert list(read()) == [range(1)]
    assert [path.name for path in FOLDER.iterdir()] == ["00001.units"]
    assert Path("secret").read_text() == "secret"


def test_a_file_that_changes_under_a_run_is_said():
    written()
    journal = Journal(FOLDER, FACTS, shape())
    (FOLDER / "00001.units").write_bytes(b"else")
    with pytest.raises(ArtifactError, match=r"00001\.units: changed while this run read it"):
        journal.read(0)
    journal.close()


def test_a_full_disk_keeps_what_there_is():
    def run() -> None:
        with journals.kept(Path("output_1.h5"), FACTS, shape(), "photos", print) as journal:
            assert journal is not None
            journal.add(range(4), chunk(range(16)))
            with disk_of((FOLDER / "00001.units").stat().st_size + 20):
                journal.add(range(4, 5), chunk(range(16, 20)))

    advice = "the same command goes on after 16 of 22 photos"
    with pytest.raises(ArtifactError, match=f"cannot write {FOLDER}: File too large.*; {advice}"):
        run()
    assert list(read()) == [range(4)]


def test_a_name_as_long_as_any_may_be():
    longest = Path("x" * 252 + ".h5")
    longest.touch()
    folder_beside(longest).mkdir()
    assert folder_beside(longest) != folder_beside(Path("y" * 252 + ".h5"))


def test_the_line_is_json_of_ascii():
    line = Facts({**FACTS.values, "pixels": "é\n"}).line()
    assert line.count(b"\n") == 1
    assert json.loads(line)["pixels"] == "é\n"
    assert FACTS.unlike(OTHERS.line()).startswith("the model is another, and ")
