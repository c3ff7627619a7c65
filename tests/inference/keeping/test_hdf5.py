"""Predictions as HDF5: names, values and attributes as plain h5py sees them, and all or nothing."""

import io
import os
from pathlib import Path
from types import SimpleNamespace

import h5py
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from birdsonnx.errors import ArtifactError, DataError, ImageError
from birdsonnx.inference.keeping.disk_file import DiskFile
from birdsonnx.inference.keeping.hdf5 import reading, require_storable, writing
from tests.conftest import disk_of

FILE = Path("output_1.h5")
CLASSES = ("ANT BIRD", "BEE-EATER", "ÇA")
GENERATOR = np.random.default_rng(0)


def read(path):
    """All that the reader finds in a file."""
    with reading(path) as found:
        return SimpleNamespace(
            names=tuple(found.names), classes=found.classes, log_probs=np.stack(list(found.rows()))
        )


def write(names, classes=CLASSES, refused: int = 0) -> dict[str, np.ndarray]:
    """Write random log-probabilities for the names; give them by name."""
    width = len(classes or CLASSES)
    rows = {name: GENERATOR.normal(-2, 1, width).astype(np.float32) for name in names}
    with writing(FILE, classes, "0123abc") as writer:
        for name, row in rows.items():
            writer.put(name, row)
        writer.refused = refused
    return rows


# --- What is written ------------------------------------------------------------------------------------


def test_datasets_and_attributes():
    rows = write(["b.jpg", "COOT/1.jpg", "a.jpg", "COOT/0.jpg"], refused=2)
    with h5py.File(FILE) as file:
        assert list(file) == ["COOT", "a.jpg", "b.jpg"]
        assert list(file["COOT"]) == ["0.jpg", "1.jpg"]
        for name, row in rows.items():
            assert (file[name].dtype, file[name].shape) == (np.float32, (3,))
            np.testing.assert_array_equal(file[name][()], row)
        assert dict(file.attrs, classes=tuple(file.attrs["classes"])) == {
            "classes": CLASSES,
            "model_sha256": "0123abc",
            "photos": 4,
            "refused": 2,
        }


def test_names_come_in_name_order_whatever_the_order_of_writing():
    names = [f"{number}.jpg" for number in GENERATOR.permutation(300)]
    write(names)
    with h5py.File(FILE) as file:
        assert list(file) == sorted(names)


def test_a_model_without_class_names():
    write(["a.jpg"], classes=None)
    with h5py.File(FILE) as file:
        assert "classes" not in file.attrs
    assert read(FILE).classes is None


@pytest.mark.parametrize("count", [1, 400, 3000, 3001, 10_000])
def test_any_number_of_classes(count):
    classes = tuple(f"CLASS OF BIRDS {index:05}" for index in range(count))
    write(["a.jpg"], classes)
    with h5py.File(FILE) as file:
        assert tuple(file.attrs["classes"]) == classes


def test_reading_back():
    rows = write(["b.jpg", "x/2.jpg", "x/1.jpg", "a.jpg"])
    found = read(FILE)
    assert found.names == ("a.jpg", "b.jpg", "x/1.jpg", "x/2.jpg")
    assert found.classes == CLASSES
    assert found.log_probs.dtype == np.float32
    np.testing.assert_array_equal(found.log_probs, [rows[name] for name in found.names])


# --- File names -----------------------------------------------------------------------------------------

TEXT = st.text(st.characters(exclude_characters="/\0", exclude_categories=()), min_size=1, max_size=12)
BYTES = st.binary(min_size=1, max_size=12).map(lambda name: os.fsdecode(name.translate(None, b"/\0") or b"_"))
COMPONENT = (TEXT | BYTES).filter(lambda name: name not in (".", ".."))


@settings(derandomize=True, deadline=None, max_examples=300)
@given(st.lists(COMPONENT, min_size=1, max_size=3).map("/".join))
@example("with space.jpg")
@example(" leading and trailing ")
@example("...")
@example(".hidden")
@example("a./.b/..c")
@example("日本/ünï çödé.jpg")
@example("e\u0301 and \u00e9")
@example("#%&'\"\\:*?<>|$~`^{}[]\n\t\x7f")
@example("\U0001f426.jpg")
@example(os.fsdecode(b"latin \xe9.jpg"))
@example("lone \ud800.jpg")
def test_any_file_name_round_trips_or_is_refused(name):
    try:
        name.encode()
    except UnicodeEncodeError:
        with pytest.raises(ImageError, match="not valid UTF-8"):
            require_storable(name)
        return
    require_storable(name)
    rows = write([name])
    assert read(FILE).names == (name,)
    with h5py.File(FILE) as file:
        inner = file
        for component in name.split("/"):
            assert list(inner) == [component]
            inner = inner[component]
        np.testing.assert_array_equal(inner[()], rows[name])


def test_long_names():
    names = ["x" * 255, "/".join(["y" * 255] * 8)]
    write(names)
    assert sorted(read(FILE).names) == names


# --- All or nothing -------------------------------------------------------------------------------------


@pytest.mark.parametrize("kept", [True, False])
@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt, DataError, OSError])
def test_an_error_keeps_the_old_file_and_leaves_no_litter(kept, error):
    if kept:
        write(["old.jpg"])
    before = FILE.read_bytes() if kept else b""

    def fail() -> None:
        with writing(FILE, CLASSES, "") as writer:
            writer.put("new.jpg", np.zeros(3, np.float32))
            raise error

    with pytest.raises(error):
        fail()
    assert [path.read_bytes() for path in Path().iterdir()] == ([before] if kept else [])


@pytest.mark.parametrize("size", [10, 1000, 5000, 50_000, 200_000])
def test_a_full_disk_keeps_the_old_file_and_leaves_no_litter(size, capfd):
    write(["old.jpg"])
    before = FILE.read_bytes()
    too_large = pytest.raises(ArtifactError, match=r"cannot write output_1\.h5: File too large; .* is intact")
    with too_large, disk_of(size):
        write([f"{number}.jpg" for number in range(2000)])
    assert [path.read_bytes() for path in Path().iterdir()] == [before]
    assert capfd.readouterr().err == ""


def test_a_disk_that_is_full_at_the_very_end():
    names = ["a.jpg", "b/1.jpg"]
    write(names)
    whole = FILE.stat().st_size
    write(["old.jpg"])
    before = FILE.read_bytes()
    for size in (*range(0, whole, 97), whole - 1):
        with pytest.raises(ArtifactError), disk_of(size):
            write(names)
        assert [path.read_bytes() for path in Path().iterdir()] == [before]
    with disk_of(whole):
        write(names)
    assert read(FILE).names == tuple(names)


@pytest.mark.parametrize("size", [0, 1, 300, 2000, 2**20])
@pytest.mark.parametrize("seed", range(3))
def test_what_does_not_fit_on_the_disk_is_still_read_back(size, seed):
    generator = np.random.default_rng(seed)
    oracle = io.BytesIO()
    with disk_of(size), DiskFile(Path("disk")) as disk:
        for _ in range(60):
            offset = int(generator.integers(0, len(oracle.getvalue()) + 1))
            piece = generator.bytes(int(generator.integers(1, 1000)))
            for file in (disk, oracle):
                file.seek(offset)
                file.write(piece)
            assert disk.tell() == oracle.tell()
            assert disk.seek(0, os.SEEK_END) == oracle.seek(0, os.SEEK_END)
            start, stop = sorted(generator.integers(0, disk.tell() + 1, 2).tolist())
            disk.seek(start)
            assert disk.read(stop - start) == oracle.getvalue()[start:stop]
        if len(oracle.getvalue()) <= size:
            disk.check()
        else:
            with pytest.raises(OSError, match="File too large"):
                disk.check()


# --- Files that are not ours ----------------------------------------------------------------------------


def test_truncated_files_are_refused():
    write([f"{number}.jpg" for number in range(50)])
    content = FILE.read_bytes()
    for kept in (0, 7, 100, 2000, len(content) // 2, len(content) - 1):
        FILE.write_bytes(content[:kept])
        with pytest.raises(DataError, match="not a complete predictions file"):
            read(FILE)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ({}, "no predictions in it"),
        ({"group/inner": None}, "no predictions in it"),
        ({"a": np.zeros(3), "b": np.zeros(4)}, "not log-probabilities of one set of classes"),
        ({"a": np.zeros((2, 3))}, "not log-probabilities of one set of classes"),
        ({"a": np.float32(1)}, "not log-probabilities of one set of classes"),
        ({"a": "text"}, "not log-probabilities of one set of classes"),
        ({"a": np.array([b"a", b"b"])}, "not a complete predictions file"),
    ],
)
def test_foreign_hdf5_is_refused(content, said):
    with h5py.File(FILE, "w") as file:
        for name, value in content.items():
            file.create_group(name) if value is None else file.create_dataset(name, data=value)
    with pytest.raises(DataError) as caught:
        read(FILE)
    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: None, "output_1.h5: there is no such file or folder$"),
        (lambda: Path("Output_2.h5").touch(), "no such file or folder; did you mean 'Output_2.h5'"),
        (FILE.mkdir, "output_1.h5: no file of predictions"),
    ],
)
def test_a_missing_file_is_refused(make, said):
    make()
    with pytest.raises(DataError, match=said):
        read(FILE)
