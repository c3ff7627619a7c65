"""The sampled test set: which photos, called what, and all or nothing."""

import shutil
from pathlib import Path

import pytest

from birdsonnx.errors import ArtifactError, BirdsonnxError, DataError
from birdsonnx.images import sampling
from birdsonnx.images.sampling import sample

SOURCE, DESTINATION = Path("data"), Path("samples")


def make(*paths: str) -> None:
    """Files that hold their own path."""
    for path in map(Path, paths):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(path.as_posix())


def copies() -> dict[str, str]:
    return {path.name: path.read_text() for path in DESTINATION.iterdir()}


@pytest.fixture
def source() -> None:
    make(*(f"data/{name}/{number}.jpg" for name in ("ANT BIRD", "COOT") for number in range(6)))
    make("data/COOT/notes.txt", "data/COOT/.hidden.jpg")


@pytest.mark.parametrize("per_class", [1, 3, 6])
def test_so_many_of_each_class_named_class_and_file(source, per_class):
    made = sample(SOURCE, DESTINATION, per_class, seed=0)
    found = copies()
    assert made.names == sorted(found)
    assert made.in_class_order
    for name in ("ANT BIRD", "COOT"):
        assert sum(copy.startswith(name) for copy in found) == per_class
    for copy, content in found.items():
        _, label, file = content.split("/")
        assert copy == label + file
    assert not list(Path().glob(".*"))


def test_the_seed_settles_the_choice(source):
    chosen = {}
    for seed in (0, 0, 1, 2):
        folder = Path(f"samples_{len(chosen)}_{seed}")
        made = sample(SOURCE, folder, 3, seed).names
        assert chosen.setdefault(seed, made) == made
    assert len(set(map(tuple, chosen.values()))) > 1


def test_every_photo_has_its_turn(source):
    seen = {name for seed in range(60) for name in sample(SOURCE, Path(f"samples_{seed}"), 1, seed).names}
    assert len(seen) == 12


@pytest.mark.parametrize(
    ("files", "in_order"),
    [(["data/A/1.jpg", "data/B/1.jpg"], True), (["data/A/X.jpg", "data/A B/Y.jpg"], False)],
)
def test_it_tells_whether_name_order_is_class_order(files, in_order):
    make(*files)
    assert sample(SOURCE, DESTINATION, 1, seed=0).in_class_order == in_order


def test_an_empty_folder_is_used_and_stays_the_same_folder(source):
    DESTINATION.mkdir()
    before = DESTINATION.stat().st_ino
    made = sample(SOURCE, DESTINATION, 1, seed=0)
    assert sorted(copies()) == made.names
    assert DESTINATION.stat().st_ino == before


@pytest.mark.parametrize("name", [".", "../samples", "./", "../link"])
def test_the_folder_one_is_in_or_a_link_to_one(source, monkeypatch, name):
    DESTINATION.mkdir()
    Path("link").symlink_to(DESTINATION)
    monkeypatch.chdir(DESTINATION)
    made = sample(Path("../data"), Path(name), 2, seed=0)
    assert sorted(path.name for path in Path().iterdir()) == made.names
    assert len(made.names) == 4
    with pytest.raises(DataError, match="exists and is not empty"):
        sample(Path("../data"), Path(name), 2, seed=0)


def test_a_move_that_fails_leaves_the_folder_empty(source, monkeypatch):
    DESTINATION.mkdir()
    rename = Path.rename

    def fail(path, target):
        if target.name.startswith("COOT"):
            raise OSError(5, "broken disk")
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", fail)
    with pytest.raises(ArtifactError, match="cannot write samples: broken disk"):
        sample(SOURCE, DESTINATION, 2, seed=0)
    assert copies() == {}


def test_a_signal_in_the_move_leaves_the_folder_empty(source, monkeypatch):
    DESTINATION.mkdir()
    rename = Path.rename

    def interrupted(path, target):
        if target.name.startswith("COOT"):
            raise KeyboardInterrupt
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", interrupted)
    with pytest.raises(KeyboardInterrupt):
        sample(SOURCE, DESTINATION, 2, seed=0)
    assert copies() == {}


def test_two_at_once_do_not_mix(source, monkeypatch):
    """The second begins and ends while the first looks for photos; then it begins while the first copies."""
    DESTINATION.mkdir()
    Path("link").symlink_to(DESTINATION)
    copy, read = shutil.copyfile, sampling.read_class_folders

    def read_late(*words):
        monkeypatch.setattr(sampling, "read_class_folders", read)
        sample(SOURCE, Path("link"), 2, seed=1)
        return read(*words)

    def copy_late(*words):
        monkeypatch.setattr(shutil, "copyfile", copy)
        with pytest.raises(BirdsonnxError, match="link: "):
            sample(SOURCE, Path("link"), 2, seed=1)
        return copy(*words)

    monkeypatch.setattr(shutil, "copyfile", copy_late)
    first = sample(SOURCE, DESTINATION, 2, seed=0).names
    assert sorted(copies()) == first
    for path in DESTINATION.iterdir():
        path.unlink()
    monkeypatch.setattr(sampling, "read_class_folders", read_late)
    with pytest.raises(DataError, match="samples: exists and is not empty"):
        sample(SOURCE, DESTINATION, 2, seed=0)
    assert len(copies()) == 4


def test_the_lock_that_a_killed_run_left_is_nothing(source):
    make("samples/.birdsonnx.lock")
    assert sample(SOURCE, DESTINATION, 2, seed=0).names == sorted(copies())


@pytest.mark.parametrize(
    ("files", "per_class", "said"),
    [
        (["samples/old.jpg"], 1, "samples: exists and is not empty"),
        (["samples"], 1, "samples: exists and is not empty"),
        ([], 7, "data/ANT BIRD: 6 photos, 7 are asked for"),
    ],
)
def test_requests_that_are_refused(source, files, per_class, said):
    make(*files)
    before = sorted(Path().rglob("*"))
    with pytest.raises(DataError) as caught:
        sample(SOURCE, DESTINATION, per_class, seed=0)
    assert said in str(caught.value)
    assert sorted(Path().rglob("*")) == before


def test_a_photo_of_a_nested_folder_keeps_only_its_file_name():
    make("data/A/june/1.jpg")
    assert sample(SOURCE, DESTINATION, 1, seed=0).names == ["A1.jpg"]


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        (
            ["data/A/june/1.jpg", "data/A/july/1.jpg", "data/A/2.jpg"],
            ["A2.jpg", "A_july_1.jpg", "A_june_1.jpg"],
        ),
        (["data/A/B1.jpg", "data/AB/1.jpg"], ["AB_1.jpg", "A_B1.jpg"]),
    ],
)
def test_two_photos_that_would_get_one_name_keep_their_folders(files, expected):
    make(*files)
    per_class = 1 if "data/AB/1.jpg" in files else 3
    assert sample(SOURCE, DESTINATION, per_class, seed=0).names == expected
    assert sorted(copies().values()) == sorted(files)


def test_photos_of_two_tagged_folders_keep_those():
    make("data/siteA/test/COOT/1.jpg", "data/siteB/test/COOT/1.jpg")
    expected = ["COOT_siteA_test_1.jpg", "COOT_siteB_test_1.jpg"]
    assert sample(SOURCE, DESTINATION, 2, 0, tag="test").names == expected


def test_two_photos_that_get_one_name_with_their_folders_too_are_refused():
    make("data/A/B/1.jpg", "data/A/1.jpg", "data/A/B_1.jpg", "data/A/C/B_1.jpg")
    with pytest.raises(DataError, match=r"would both be called 'A_B_1\.jpg'"):
        sample(SOURCE, DESTINATION, 4, seed=0)
    assert not DESTINATION.exists()


@pytest.mark.parametrize("name", ["data/samples", "data/COOT/new/samples", "link/samples", "data/EMPTY"])
def test_a_folder_among_the_photos_is_refused(source, name):
    Path("link").symlink_to("data/COOT")
    Path("data/EMPTY").mkdir()
    with pytest.raises(DataError, match=f"{name}: lies in data, whose photos would be found there again"):
        sample(SOURCE, Path(name), 2, seed=0)


def test_a_copy_that_fails_leaves_nothing():
    make("data/A/1.jpg")
    Path("data/B").mkdir()
    Path("data/B/1.jpg").symlink_to("nowhere.jpg")
    with pytest.raises(ArtifactError, match="cannot write samples"):
        sample(SOURCE, DESTINATION, 1, seed=0)
    assert [path.name for path in Path().iterdir()] == ["data"]
