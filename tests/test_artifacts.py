"""The one writer of results: the old file or the new one, and nothing else."""

import contextlib
import errno
import hashlib
import json
import os
import stat
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from birdsonnx import artifacts
from birdsonnx.artifacts import locks, temporary
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


# --- The folder's own entry -----------------------------------------------------------------------------


def failing_folder_flush(monkeypatch, number: int) -> None:
    fsync = os.fsync

    def failing(descriptor: int) -> None:
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise OSError(number, os.strerror(number))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", failing)


def test_a_folder_that_cannot_be_flushed_has_the_new_file_and_the_message_says_so(monkeypatch):
    TARGET.write_bytes(b"old")
    failing_folder_flush(monkeypatch, errno.EIO)
    with pytest.raises(ArtifactError, match="the new file is there and whole") as caught:
        artifacts.write_bytes(TARGET, b"new")
    assert "intact" not in str(caught.value)
    assert TARGET.read_bytes() == b"new"
    assert list(Path().iterdir()) == [TARGET]


@pytest.mark.parametrize("number", [errno.EINVAL, errno.ENOTSUP])
def test_a_file_system_that_flushes_no_folders_is_none_that_fails(monkeypatch, number):
    failing_folder_flush(monkeypatch, number)
    artifacts.write_bytes(TARGET, b"new")
    assert TARGET.read_bytes() == b"new"


# --- Litter ---------------------------------------------------------------------------------------------


@pytest.fixture
def dead() -> int:
    """The number of a process that has ended."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def named(process: int, start: int | str, where: str | None = None) -> Path:
    """A temporary file as another process would have called it."""
    mine = temporary.NAME.fullmatch(temporary.name_for("abc"))
    path = Path(f".abc.{where or mine['where']}.{process}.{start}.tmp")
    path.write_bytes(b"half")
    return path


def test_what_a_dead_process_left_goes(dead):
    left = [named(dead, 1234), named(os.getpid(), 1), Path(named(dead, 7).name)]  # this number, but earlier
    folder = Path(f"{left[0].name[:-4]}0.tmp")
    folder.mkdir()
    (folder / "file").write_bytes(b"half")
    artifacts.write_bytes(TARGET, b"new")
    assert list(Path().iterdir()) == [TARGET]


def test_what_a_process_has_ended_with_that_nobody_has_waited_for_goes():
    process = subprocess.Popen(["sleep", "60"])
    start = temporary._start_of(process.pid)
    path = named(process.pid, start)
    temporary.remove_litter(Path())
    assert path.exists()
    process.kill()
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    temporary.remove_litter(Path())
    assert not path.exists()
    process.wait()


def test_what_a_living_process_has_stays():
    paths = [Path(temporary.name_for("mine")), named(os.getppid(), temporary._start_of(os.getppid()))]
    paths[0].write_bytes(b"half")
    temporary.remove_litter(Path())
    assert all(path.exists() for path in paths)


def test_what_another_host_has_stays_for_a_day(dead):
    recent, old = named(dead, 1, where="00000000"), named(dead, 2, where="00000000")
    os.utime(old, (time.time() - 90_000,) * 2)
    temporary.remove_litter(Path())
    assert recent.exists()
    assert not old.exists()


@pytest.mark.parametrize("name", [".abc.tmp", "abc.12345678.1.1.tmp", ".abc.12345678.1.1.tmp.keras", ".tmp"])
def test_what_is_not_ours_stays(name):
    Path(name).write_bytes(b"theirs")
    os.utime(name, (1, 1))
    temporary.remove_litter(Path())
    assert Path(name).exists()


def test_a_scratch_folder_takes_what_libraries_put_beside_it_and_goes(tmp_path, monkeypatch, dead):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    litter = named(dead, 3)
    with temporary.scratch_folder() as folder:
        assert folder.parent == tmp_path
        assert Path(tempfile.mkdtemp()).parent == folder
        assert not litter.exists()
    assert tempfile.gettempdir() == str(tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_full_scratch_folder_is_the_reason_whatever_a_library_says(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    full = pytest.raises(ArtifactError, match=r"cannot write temporary files .* set TMPDIR")
    with full, disk_of(1000), temporary.scratch_folder():
        raise RuntimeError("[ONNXRuntimeError] : 1 : FAIL")
    with pytest.raises(RuntimeError, match="its own"), temporary.scratch_folder():
        raise RuntimeError("its own")
    assert not list(tmp_path.iterdir())


def test_no_place_for_temporary_files(monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", None)
    monkeypatch.setattr(tempfile, "_candidate_tempdir_list", lambda: ["nowhere"])
    with pytest.raises(ArtifactError, match="cannot write temporary files"), temporary.scratch_folder():
        pass


# --- Locks ----------------------------------------------------------------------------------------------


def hold(body: str) -> "subprocess.Popen[str]":
    """Another process that holds a lock until its stdin is closed."""
    script = f"""
from pathlib import Path
from birdsonnx.artifacts import locks
with {body}:
    print("held", flush=True)
    input()
"""
    process = subprocess.Popen(
        [sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "held\n"
    return process


@pytest.mark.parametrize(
    ("body", "take"),
    [
        ("locks.sole_writer_in(Path('a/b'), print)", lambda: locks.sole_writer_in(Path("a/b"), print)),
        (
            "locks.sole_writer_of(Path('log.txt'), print)",
            lambda: locks.sole_writer_of(Path("log.txt"), print),
        ),
    ],
    ids=["folder", "file"],
)
def test_a_lock_is_another_process_s_until_it_ends_however_it_does(body, take):
    with hold(body) as process:
        with pytest.raises(ArtifactError, match=f"another run writes there now .process {process.pid} on"):
            take().__enter__()
        process.kill()
        process.wait()
        with take():
            pass
    assert not [path for path in Path().rglob("*") if path.is_file()]


def test_a_folder_that_was_made_stays_where_something_is_in_it():
    with locks.sole_writer_in(Path("a/b"), print):
        Path("a/b/kept").write_text("x")
    assert [path.name for path in Path("a/b").iterdir()] == ["kept"]


def test_a_file_system_without_locks_is_said_and_no_obstacle(monkeypatch):
    def unlockable(*_) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(locks.fcntl, "flock", unlockable)
    lines: list[str] = []
    with locks.sole_writer_in(Path("a"), lines.append):
        Path("a/kept").write_text("x")
    assert lines == ["a: no locks on this file system (No locks available); let no second run write there"]
