"""Where the library is looked for, and what is said of one that cannot be used. Needs none."""

import ctypes
import site
import sys
from pathlib import Path

import pytest

from birdsonnx.onednn import library
from birdsonnx.onednn.library import OnednnError, Version
from tests.onednn.trunks import needs_onednn


@pytest.fixture(autouse=True)
def looked_for_anew():
    library.load.cache_clear()
    yield
    library.load.cache_clear()


class Function:
    """As ctypes has it: called, with types that may be set."""

    def __init__(self, result: object = 0) -> None:
        self._result = result

    def __call__(self, *_: object) -> object:
        return self._result


class StandIn:
    """A shared library of some version, whose functions return 0."""

    def __init__(self, major: int = 3, runtime: int = library.OPENMP, without: str = "") -> None:
        version = Version(major, 9, 1, b"", runtime, 0)
        self.dnnl_version = Function(ctypes.pointer(version))
        self._without = without

    def __getattr__(self, name: str) -> Function:
        if name == self._without:
            raise AttributeError(f"undefined symbol: {name}")
        function = Function()
        setattr(self, name, function)
        return function


def of(monkeypatch, stand_in: StandIn) -> library.Library:
    monkeypatch.setattr(ctypes, "CDLL", lambda _: stand_in)
    return library.Library("/some/libdnnl.so.3")


@pytest.mark.parametrize("runtime", [library.SEQUENTIAL, library.OPENMP])
def test_any_version_3_is_taken(monkeypatch, runtime):
    assert of(monkeypatch, StandIn(runtime=runtime)).version == "3.9.1"


@pytest.mark.parametrize(
    ("stand_in", "why"),
    [
        (StandIn(major=2), "is oneDNN 2.9.1, and 3.x is needed"),
        (StandIn(major=4), "is oneDNN 4.9.1, and 3.x is needed"),
        (StandIn(runtime=4), "is built for another threading library than OpenMP"),
        (StandIn(runtime=512), "is built for another threading library than OpenMP"),
        (
            StandIn(without="dnnl_concat_primitive_desc_create"),
            "cannot be loaded (undefined symbol: dnnl_concat_primitive_desc_create)",
        ),
        (
            StandIn(without="omp_set_num_threads"),
            "cannot be loaded (undefined symbol: omp_set_num_threads)",
        ),
    ],
    ids=["2", "4", "TBB", "SYCL", "a function less", "no OpenMP"],
)
def test_others_are_refused(monkeypatch, stand_in, why):
    with pytest.raises(OnednnError) as caught:
        of(monkeypatch, stand_in)
    assert str(caught.value) == f"/some/libdnnl.so.3 {why}"


def test_a_refusal_says_what_and_its_number(monkeypatch):
    stand_in = StandIn()
    stand_in.dnnl_engine_create = Function(5)
    with pytest.raises(OnednnError, match=r"^oneDNN 3\.9\.1 refuses dnnl_engine_create \(status 5\)$"):
        of(monkeypatch, stand_in)


def a_shared_library() -> str:
    """Of this process, one that is another's."""
    maps = Path("/proc/self/maps").read_text().split()
    return next(word for word in maps if word.startswith("/") and "libc.so" in word)


def some_text(folder: Path) -> str:
    path = folder / "libdnnl.so.3"
    path.write_text("not a library")
    return str(path)


@pytest.mark.skipif(sys.platform != "linux", reason="it is used on Linux only")
@pytest.mark.parametrize(
    ("make", "why"),
    [
        (lambda folder: str(folder / "missing.so"), "cannot open shared object file"),
        (some_text, "file too short|invalid ELF header"),
        (lambda folder: str(folder), "cannot read file data"),
        (lambda _: a_shared_library(), "undefined symbol: dnnl_version"),
    ],
    ids=["missing", "text", "folder", "libc"],
)
def test_a_named_file_that_is_none_is_said_with_the_variable(tmp_path, monkeypatch, make, why):
    """No other one is looked for then."""
    path = make(tmp_path)
    monkeypatch.setenv(library.VARIABLE, path)
    with pytest.raises(OnednnError, match=why) as caught:
        library.load()
    message = str(caught.value)
    assert message.startswith(f"BIRDSONNX_ONEDNN: {path} cannot be loaded (")
    assert "\n" not in message


def test_where_there_is_none_the_extra_is_named(monkeypatch, tmp_path):
    monkeypatch.setattr(sys, "prefix", str(tmp_path))
    monkeypatch.setattr(library, "NAME", "libdnnl-that-nobody-has.so.3")
    monkeypatch.delenv(library.VARIABLE, raising=False)
    with pytest.raises(OnednnError, match=r"^oneDNN is not installed \(.*(bf16|onednn).*\)$"):
        library.load()


def test_a_broken_one_of_the_environment_is_said(monkeypatch, tmp_path):
    """Rather than that none is installed."""
    (tmp_path / "lib").mkdir()
    monkeypatch.setattr(sys, "prefix", str(tmp_path))
    monkeypatch.setattr(library, "NAME", "libdnnl-that-nobody-has.so.3")
    monkeypatch.delenv(library.VARIABLE, raising=False)
    path = tmp_path / "lib" / library.NAME
    path.write_text("not a library")
    with pytest.raises(OnednnError) as caught:
        library.load()
    assert str(caught.value).startswith(f"{path} cannot be loaded (")


def test_other_systems_have_none(monkeypatch):
    monkeypatch.setattr(sys, "platform", "darwin")
    with pytest.raises(OnednnError, match=r"^oneDNN is used on Linux only$"):
        library.load()


@needs_onednn
def test_a_named_library_is_taken(monkeypatch):
    path = library.load().path
    library.load.cache_clear()
    if not Path(path).is_absolute():
        pytest.skip("it was found by its name alone")
    monkeypatch.setenv(library.VARIABLE, path)
    assert library.load().path == path


@pytest.mark.skipif(sys.platform != "linux", reason="oneDNN is used on Linux only")
@pytest.mark.parametrize("enabled", [True, False])
def test_what_pip_put_below_the_home_is_found(monkeypatch, tmp_path, enabled):
    """As it does where it may not write into the environment."""
    monkeypatch.delenv(library.VARIABLE, raising=False)
    monkeypatch.setattr(library, "NAME", "libdnnl-that-nobody-has.so.3")
    monkeypatch.setattr(site, "getuserbase", lambda: str(tmp_path))
    monkeypatch.setattr(site, "ENABLE_USER_SITE", enabled)
    (tmp_path / "lib").mkdir()
    path = tmp_path / "lib" / library.NAME
    path.touch()
    assert library.candidates() == [*([str(path)] if enabled else []), library.NAME]
