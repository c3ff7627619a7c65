"""One table of all photos: what plain h5py sees, what the reader gives back, and all or nothing."""

from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from birdsonnx.errors import ArtifactError, DataError
from birdsonnx.images.photo_list import Photo
from birdsonnx.inference.keeping import hdf5_table
from birdsonnx.inference.keeping.hdf5 import reading, writing
from birdsonnx.inference.keeping.hdf5_table import Size
from tests.conftest import disk_of
from tests.inference.keeping.test_hdf5 import CLASSES, FILE, read

LETTERS = st.characters(exclude_characters="\0", exclude_categories=["Cs"])


def write(names, classes=CLASSES, known=False, refused=0, path=FILE):
    """Random log-probabilities, the same each time, float32 `[names, classes]`."""
    rows = np.random.default_rng(1).normal(-2, 1, (len(names), len(classes))).astype(np.float32)
    size = Size.of([Photo(Path(name), name) for name in names])
    with writing(path, classes, "0123abc", "model.onnx", "a record", size) as writer:
        for number, (name, row) in enumerate(zip(names, rows, strict=True)):
            writer.put(name, row, float(number) if known else None)
        writer.refused = refused
    return rows


def test_as_plain_h5py_sees_it():
    names = ["b.jpg", "COOT/ü.jpg", "a.jpg"]
    rows = write(names, known=True, refused=2)
    with h5py.File(FILE) as file:
        assert list(file) == ["known", "log_probs", "names"]
        assert list(file["names"].asstr()[:]) == names
        np.testing.assert_array_equal(file["log_probs"][()], rows)
        np.testing.assert_array_equal(file["known"][()], np.arange(3, dtype=np.float32))
        assert {file[name].dtype.str for name in ("log_probs", "known")} == {"<f4"}
        assert dict(file.attrs, classes=tuple(file.attrs["classes"])) == {
            "classes": CLASSES,
            "command": "a record",
            "layout": "table",
            "model": "model.onnx",
            "model_sha256": "0123abc",
            "photos": 3,
            "refused": 2,
        }


@pytest.mark.parametrize("count", [1, 4, 5, 8, 19])
def test_pieces(count, monkeypatch):
    monkeypatch.setattr(hdf5_table, "MOST_ROWS", 4)
    names = [f"{number}.jpg" for number in range(count)]
    rows = write(names)
    found = read(FILE)
    assert found.names == tuple(names)
    assert found.classes == CLASSES
    assert found.log_probs.dtype == np.float32
    np.testing.assert_array_equal(found.log_probs, rows)


@pytest.mark.parametrize("count", [1, 400, 10_000])
def test_any_number_of_classes(count):
    classes = tuple(f"CLASS OF BIRDS {index:05}" for index in range(count))
    rows = write([f"{number}.jpg" for number in range(60)], classes)
    np.testing.assert_array_equal(read(FILE).log_probs, rows)
    with h5py.File(FILE) as file:
        pieces = file["log_probs"].chunks
        assert pieces[1] == count
        assert pieces[0] * count * 4 <= 2**20


def test_the_same_predictions_are_the_same_bytes():
    names = [f"{number}.jpg" for number in range(1000)]
    write(names, known=True)
    write(names, known=True, path=Path("again.h5"))
    assert FILE.read_bytes() == Path("again.h5").read_bytes()


def test_it_may_stay_smaller_than_was_thought():
    with writing(FILE, CLASSES, "", table=Size(1000, 20)) as writer:
        writer.put("a.jpg", np.zeros(3, np.float32))
    assert read(FILE).names == ("a.jpg",)
    with h5py.File(FILE) as file:
        assert file["log_probs"].shape == (1, 3)


@settings(derandomize=True, deadline=None, max_examples=200)
@given(
    st.lists(
        st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1), min_size=1
    )
)
@example([" leading and trailing "])
@example(["x" * 255, "/".join(["y" * 255] * 8)])
@example(["\U0001f426.jpg", "a"])
@example(["e\u0301", "\u00e9"])
def test_any_file_name_round_trips(names):
    write(names)
    assert read(FILE).names == tuple(names)
    with h5py.File(FILE) as file:
        assert list(file["names"].asstr()[:]) == names


@pytest.mark.parametrize("size", [10, 1000, 5000, 20_000])
def test_a_full_disk_keeps_the_old_file_and_leaves_no_litter(size, capfd, monkeypatch):
    monkeypatch.setattr(hdf5_table, "MOST_ROWS", 64)
    write(["old.jpg"])
    before = FILE.read_bytes()
    with pytest.raises(ArtifactError, match=r"cannot write output_1\.h5: File too large"), disk_of(size):
        write([f"{number}.jpg" for number in range(2000)])
    assert [path.read_bytes() for path in Path().iterdir()] == [before]
    assert capfd.readouterr().err == ""


def test_truncated_files_are_refused():
    write([f"{number}.jpg" for number in range(50)])
    content = FILE.read_bytes()
    for kept in (100, len(content) // 2, len(content) - 1):
        FILE.write_bytes(content[:kept])
        with pytest.raises(DataError, match="not a complete predictions file"):
            read(FILE)


NAMES = np.array([b"a", b"b"])


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ({}, "no log-probabilities with a name each"),
        ({"names": NAMES}, "no log-probabilities with a name each"),
        ({"names": NAMES, "log_probs": np.zeros((3, 4), "f4")}, "no log-probabilities with a name each"),
        ({"names": NAMES, "log_probs": np.zeros(2, "f4")}, "no log-probabilities with a name each"),
        ({"names": NAMES, "log_probs": np.zeros((2, 3), "i4")}, "no floating-point numbers"),
        ({"names": np.zeros(2), "log_probs": np.zeros((2, 3))}, "no texts of fixed length"),
        ({"names": ["a", "b"], "log_probs": np.zeros((2, 3))}, "no texts of fixed length"),
        ({"names": np.array([b"a", b"\xff"]), "log_probs": np.zeros((2, 3))}, "no UTF-8"),
        ({"names": NAMES[:0], "log_probs": np.zeros((0, 3))}, "no predictions in it"),
    ],
)
def test_foreign_tables_are_refused(content, said):
    with h5py.File(FILE, "w") as file:
        file.attrs["layout"] = "table"
        for name, value in content.items():
            file.create_dataset(name, data=value)
    with pytest.raises(DataError, match=said):
        read(FILE)


def test_a_table_that_says_it_is_huge_is_refused():
    with h5py.File(FILE, "w") as file:
        file.attrs["layout"] = "table"
        file.create_dataset("names", (10**9,), "S8", chunks=(1000,))
        file.create_dataset("log_probs", (10**9, 400), "f4", chunks=(1000, 400))
    with pytest.raises(DataError, match="far larger than the file"):
        read(FILE)


def test_a_photo_may_be_called_as_the_table():
    rows = np.zeros(3, np.float32)
    with writing(FILE, CLASSES, "") as writer:
        for name in ("log_probs", "names"):
            writer.put(name, rows)
    with reading(FILE) as found:
        assert list(found.names) == ["log_probs", "names"]
