"""The one writer of results: the old file or the new one, and nothing else."""

import contextlib
import hashlib
import json
import os
import sys
from pathlib import Path

import pytest

from birdsonnx import artifacts
from birdsonnx.errors import ArtifactError
from tests.conftest import disk_of

TARGET = Path("result.bin")


def test_the_new_file_is_complete_and_alone():
    content = os.urandom(300_000)
    artifacts.write_bytes(TARGET, content)
    assert TARGET.read_bytes() == content
    assert list(Path().iterdir()) == [TARGET]


def test_folders_are_made():
    target = Path("some/where/result.bin")
    artifacts.write_bytes(target, b"new")
    assert [path.as_posix() for path in Path().rglob("*")] == ["some", "some/where", "some/where/result.bin"]


def test_a_reader_sees_the_old_file_until_the_new_one_is_whole():
    TARGET.write_bytes(b"old")
    with artifacts.replacing(TARGET) as temporary:
        assert temporary.parent == TARGET.parent
        with temporary.open("wb") as file:
            file.write(b"ne")
            file.flush()
            assert TARGET.read_bytes() == b"old"
            file.write(b"w")
        assert TARGET.read_bytes() == b"old"
    assert TARGET.read_bytes() == b"new"
    assert list(Path().iterdir()) == [TARGET]


def test_a_reader_that_opened_the_old_file_keeps_it():
    TARGET.write_bytes(b"old")
    with TARGET.open("rb") as reader:
        artifacts.write_bytes(TARGET, b"new")
        assert reader.read() == b"old"
    assert TARGET.read_bytes() == b"new"


def test_content_is_flushed_to_disk_before_the_rename_and_the_folder_after(monkeypatch):
    TARGET.write_bytes(b"old")
    seen = []
    fsync = os.fsync

    def recording(descriptor: int) -> None:
        seen.append((os.fstat(descriptor).st_size == 3, TARGET.read_bytes()))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", recording)
    artifacts.write_bytes(TARGET, b"new")
    assert seen == [(True, b"old"), (False, b"new")]


@pytest.mark.parametrize("before", [b"old", None])
@pytest.mark.parametrize(
    ("error", "raised"),
    [
        (ValueError("no such format"), ValueError),
        (KeyboardInterrupt(), KeyboardInterrupt),
        (OSError(28, "No space left on device"), ArtifactError),
    ],
)
def test_an_error_while_writing_keeps_the_old_file_and_leaves_no_litter(before, error, raised):
    if before is not None:
        TARGET.write_bytes(before)

    def write() -> None:
        with artifacts.replacing(TARGET) as temporary:
            temporary.write_bytes(b"half")
            raise error

    with pytest.raises(raised):
        write()
    assert [path.read_bytes() for path in Path().iterdir()] == ([] if before is None else [before])


@pytest.mark.parametrize(
    ("writes", "raised", "said"),
    [
        (contextlib.nullcontext(), OSError, "broken disk"),
        (
            artifacts.naming(TARGET),
            ArtifactError,
            r"cannot write result\.bin: broken disk; the file that was there is intact",
        ),
    ],
)
def test_an_error_of_other_work_is_not_one_of_the_file(writes, raised, said):
    TARGET.write_bytes(b"old")

    def work() -> None:
        with artifacts.completing(TARGET) as temporary, writes:
            temporary.write_bytes(b"half")
            raise OSError(5, "broken disk")

    with pytest.raises(raised, match=said):
        work()
    assert list(Path().iterdir()) == [TARGET]
    assert TARGET.read_bytes() == b"old"


def test_the_file_is_flushed_through_a_descriptor_that_may_write(monkeypatch):
    """Windows flushes no other."""
    fcntl = pytest.importorskip("fcntl")
    modes = []

    def recording(descriptor: int) -> None:
        if not os.path.isdir(f"/proc/self/fd/{descriptor}"):  # noqa: PTH112
            modes.append(fcntl.fcntl(descriptor, fcntl.F_GETFL) & os.O_ACCMODE)

    monkeypatch.setattr(os, "fsync", recording)
    artifacts.write_bytes(TARGET, b"new")
    assert modes == [os.O_RDWR]


def test_a_writer_that_writes_nothing_is_an_error():
    TARGET.write_bytes(b"old")
    with pytest.raises(ArtifactError), artifacts.replacing(TARGET):
        pass
    assert TARGET.read_bytes() == b"old"


@pytest.mark.parametrize("before", [b"old", None])
def test_a_full_disk(before):
    if before is not None:
        TARGET.write_bytes(before)
    too_large = pytest.raises(ArtifactError, match=r"cannot write result\.bin: File too large")
    with too_large as caught, disk_of(1000):
        artifacts.write_bytes(TARGET, bytes(5000))
    assert ("the file that was there is intact" in str(caught.value)) == (before is not None)
    assert [path.read_bytes() for path in Path().iterdir()] == ([] if before is None else [before])


def test_a_target_that_is_a_folder():
    TARGET.mkdir()
    with pytest.raises(ArtifactError, match=r"cannot write result\.bin"):
        artifacts.write_bytes(TARGET, b"new")
    assert list(Path().iterdir()) == [TARGET]


@pytest.mark.skipif(sys.platform == "win32" or os.geteuid() == 0, reason="needs a user whom permissions bind")
def test_a_folder_without_permission():
    folder = Path("closed")
    folder.mkdir()
    folder.chmod(0o555)
    with pytest.raises(ArtifactError, match="cannot write closed/result"):
        artifacts.write_bytes(folder / "result.bin", b"new")
    assert not list(folder.iterdir())


@pytest.mark.parametrize("content", [{"b": [1, 2.5, None], "a": "ünï"}, [], "text", 7])
def test_json(content):
    artifacts.write_json(TARGET, content)
    assert json.loads(TARGET.read_text()) == content
    assert TARGET.read_bytes().endswith(b"\n")


@pytest.mark.parametrize("content", [b"", b"abc", bytes(range(256)) * 5000])
def test_sha256(content):
    TARGET.write_bytes(content)
    expected = hashlib.sha256(content).hexdigest()
    assert artifacts.sha256(TARGET) == artifacts.sha256_of(content) == expected


def test_a_name_as_long_as_the_file_system_allows():
    artifacts.write_bytes(Path("n" * 255), b"content")
    assert Path("n" * 255).read_bytes() == b"content"


@pytest.mark.parametrize("name", ["file/x.bin", "file/y/x.bin"])
def test_a_parent_that_is_a_file(name):
    Path("file").write_text("x")
    with pytest.raises(ArtifactError, match="cannot write"):
        artifacts.write_bytes(Path(name), b"new")
