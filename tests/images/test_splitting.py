"""Class folders become train, valid and test: which photos go where, and all or nothing."""

import random
import shutil
from collections import Counter
from datetime import datetime, timedelta
from fractions import Fraction
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import ExifTags, Image

from birdsonnx.errors import ArtifactError, ConfigError, DataError
from birdsonnx.images.folders import read_class_folders
from birdsonnx.images.photo_list import Photo
from birdsonnx.images.splitting import Request, Split, shared_out, split
from birdsonnx.reporting.console import Console
from birdsonnx.reporting.placed import split_lines
from tests.conftest import disk_of

SOURCE, DESTINATION = Path("photos"), Path("data")
SHARES = {"train": Fraction(70, 100), "valid": Fraction(15, 100), "test": Fraction(15, 100)}
NOON = datetime(2026, 5, 1, 12)


def shot(path: str, after_s: float | None = None, model: str = "TrapCam", serial: str = "") -> None:
    """A photo, taken so long after noon."""
    exif = Image.Exif()
    exif[ExifTags.Base.Model] = model
    details = exif.get_ifd(ExifTags.IFD.Exif)
    if after_s is not None:
        time = NOON + timedelta(seconds=after_s)
        details[ExifTags.Base.DateTimeOriginal] = time.strftime("%Y:%m:%d %H:%M:%S")
    if serial:
        details[ExifTags.Base.BodySerialNumber] = serial
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (8, 8)).save(path, "JPEG", exif=exif)


def folders(**counts: int) -> None:
    for name, count in counts.items():
        for number in range(count):
            shot(f"photos/{name}/{number:03}.jpg")


def run(**options) -> Split:
    return split(Request(SOURCE, DESTINATION, **options), Console(speaks=False))


def made(folder: Path = DESTINATION) -> dict[str, str]:
    """Where each photo lies below its class folder, and in which set; none may be in two."""
    found: dict[str, str] = {}
    for path in folder.rglob("*.jpg"):
        name, _, photo = path.relative_to(folder).as_posix().partition("/")
        assert photo not in found
        found[photo] = name
    return found


# --- Sharing out ----------------------------------------------------------------------------------------


def members(sizes: list[int]) -> list[list[Photo]]:
    return [
        [Photo(Path(f"{group}_{number}"), f"{group}_{number}") for number in range(size)]
        for group, size in enumerate(sizes)
    ]


@settings(derandomize=True, deadline=None, max_examples=300)
@given(
    st.lists(st.integers(1, 9), max_size=40),
    st.sampled_from([(15, 15), (20, 0), (50, 49), (1, 1), (33, 34), (90, 5)]),
    st.integers(0, 5),
)
def test_nothing_is_lost_or_parted_and_training_comes_first(sizes, percent, seed):
    valid, test = (Fraction(share, 100) for share in percent)
    shares = {
        "train": 1 - valid - test,
        **({"valid": valid} if valid else {}),
        **({"test": test} if test else {}),
    }
    groups = members(sizes)
    sets = shared_out(groups, shares, random.Random(seed))
    names = [photo.name for photos in sets.values() for photo in photos]
    assert sorted(names) == sorted(photo.name for group in groups for photo in group)
    for group in groups:
        assert sum(set(group) <= set(photos) for photos in sets.values()) == 1
    filled = [name for name in shares if sets[name]]
    assert len(filled) == min(len(shares), len(groups))
    assert not groups or "train" in filled


@pytest.mark.parametrize("count", [3, 4, 7, 10, 20, 21, 99, 100])
def test_single_photos_are_shared_out_as_asked(count):
    sets = shared_out(members([1] * count), SHARES, random.Random(0))
    for name, share in SHARES.items():
        assert abs(len(sets[name]) - share * count) < 1 or len(sets[name]) == 1
    assert count != 20 or [len(photos) for photos in sets.values()] == [14, 3, 3]


@pytest.mark.parametrize(("count", "expected"), [(1, [1, 0, 0]), (2, [1, 1, 0]), (3, [1, 1, 1])])
def test_few_photos_go_to_training_first(count, expected):
    assert [
        len(photos) for photos in shared_out(members([1] * count), SHARES, random.Random(0)).values()
    ] == expected


def test_sequences_of_many_sizes_come_near_the_shares():
    chance = random.Random(0)
    sizes = [chance.randint(1, 10) for _ in range(200)]
    sets = shared_out(members(sizes), SHARES, chance)
    for name, share in SHARES.items():
        assert abs(len(sets[name]) - share * sum(sizes)) <= 1


# --- Folders --------------------------------------------------------------------------------------------


def test_every_photo_is_in_one_set_and_every_class_in_each():
    folders(COOT=20, WREN=33)
    done = run()
    sets = made()
    assert sorted(sets) == [
        f"{name}/{n:03}.jpg" for name, count in (("COOT", 20), ("WREN", 33)) for n in range(count)
    ]
    assert Counter((path[:4], name) for path, name in sets.items()) == {
        ("COOT", "train"): 14, ("COOT", "valid"): 3, ("COOT", "test"): 3,
        ("WREN", "train"): 23, ("WREN", "valid"): 5, ("WREN", "test"): 5,
    }  # fmt: skip
    assert done.counts["COOT"] == {"train": 14, "valid": 3, "test": 3}
    assert done.photos == {"train": 37, "valid": 8, "test": 8}
    assert read_class_folders(DESTINATION / "train").classes == ("COOT", "WREN")


def test_the_seed_settles_it_and_other_classes_change_nothing():
    folders(COOT=20)
    run(seed=3)
    first = made()
    for seed, more in ((3, {}), (3, {"AUK": 9}), (4, {})):
        shutil.rmtree(DESTINATION)
        folders(**more)
        run(seed=seed)
        same = {photo: name for photo, name in made().items() if photo in first} == first
        assert same == (seed == 3)


@pytest.mark.parametrize("source", ["photos", "./photos/", "../{here}/photos", "{absolute}/photos", "link"])
def test_links_lead_to_the_photos_however_the_folder_is_named(source, tmp_path):
    folders(COOT=6)
    Path("link").symlink_to("photos")
    source = source.format(here=tmp_path.name, absolute=tmp_path)
    split(Request(Path(source), Path("deep/er/data")), Console(speaks=False))
    Path("deep/er/data").rename("moved")
    for path in Path("moved").rglob("*.jpg"):
        assert path.is_symlink()
        assert path.samefile(SOURCE / "COOT" / path.name)
    assert len(made(Path("moved"))) == 6


def test_copies_stay_when_the_source_goes():
    folders(COOT=6)
    content = (SOURCE / "COOT/000.jpg").read_bytes()
    run(copies=True)
    shutil.rmtree(SOURCE)
    paths = list(DESTINATION.rglob("*.jpg"))
    assert len(paths) == 6
    assert all(path.read_bytes() == content and not path.is_symlink() for path in paths)


def test_camera_folders_stay_so_that_no_names_collide():
    for camera in ("cam1", "cam2", "cam2/100MEDIA"):
        for number in range(4):
            shot(f"photos/COOT/{camera}/IMG_{number}.jpg")
    run()
    assert sorted(made()) == sorted(path.relative_to(SOURCE).as_posix() for path in SOURCE.rglob("*.jpg"))


def test_an_empty_folder_is_used_and_stays_the_same_folder():
    folders(COOT=6)
    DESTINATION.mkdir()
    before = DESTINATION.stat().st_ino
    run()
    assert DESTINATION.stat().st_ino == before
    assert sorted(path.name for path in DESTINATION.iterdir()) == ["test", "train", "valid"]


def test_a_share_of_0_makes_no_set():
    folders(COOT=10)
    assert run(test=0.0, valid=0.3).photos == {"train": 7, "valid": 3}
    assert not (DESTINATION / "test").exists()


def test_photos_that_training_would_refuse_are_left_out_by_name():
    folders(COOT=6)
    path = SOURCE / "COOT/003.jpg"
    path.write_bytes(path.read_bytes()[:-40])
    (SOURCE / "COOT/004.jpg").unlink()
    (SOURCE / "COOT/004.jpg").symlink_to("nowhere.jpg")
    done = run()
    assert [line.partition(": ")[0] for line in done.refused] == [
        "photos/COOT/003.jpg",
        "photos/COOT/004.jpg",
    ]
    assert "COOT/003.jpg" not in made()
    assert len(made()) == 4


def test_few_photos_are_told():
    folders(AUK=1, COOT=2, WREN=9)
    done = run()
    assert done.lacking == {"AUK": ["valid", "test"], "COOT": ["test"]}
    assert split_lines(done, Request(SOURCE, DESTINATION)) == [
        "3 classes: 8 train, 3 valid, 1 test (seed 0)",
        "AUK: too few photos for every set; none in valid and test",
        "COOT: too few photos for every set; none in test",
        "wrote data (links to the photos in photos, which must stay there)",
    ]


# --- Sequences ------------------------------------------------------------------------------------------


def sets_of(*groups: list[str]) -> list[set[str]]:
    found = made()
    return [{found[f"COOT/{name}.jpg"] for name in group} for group in groups]


@pytest.mark.parametrize("seed", range(8))
def test_sequences_stay_whole(seed):
    groups = []
    for visit in range(12):
        # 50 s apart, so that a visit lasts longer than a minute; the next one is 10 minutes later
        groups.append([f"{visit:02}_{number}" for number in range(4)])
        for number, name in enumerate(groups[-1]):
            shot(f"photos/COOT/{name}.jpg", visit * 750 + number * 50)
    done = run(keep_sequences=True, seed=seed)
    assert all(len(sets) == 1 for sets in sets_of(*groups))
    assert (done.sequences, done.without_time) == (12, 0)
    assert done.counts["COOT"]["train"] in (32, 36)
    shutil.rmtree(DESTINATION)
    run(seed=seed)
    assert any(len(sets) > 1 for sets in sets_of(*groups))


def test_cameras_are_told_apart_by_folder_model_and_serial_number():
    for number in range(3):
        shot(f"photos/COOT/a/{number}.jpg", number)
        shot(f"photos/COOT/b/{number}.jpg", number)
        shot(f"photos/COOT/b/other{number}.jpg", number, model="Handy")
        shot(f"photos/COOT/b/third{number}.jpg", number, serial="17")
    assert run(keep_sequences=True).sequences == 4


def test_photos_without_a_time_are_by_themselves():
    for number in range(5):
        shot(f"photos/COOT/{number}.jpg", number)
        shot(f"photos/COOT/timeless{number}.jpg")
    exif = Image.Exif()
    exif.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.DateTimeOriginal] = "0000:00:00 00:00:00"
    Image.new("RGB", (8, 8)).save("photos/COOT/reset.jpg", exif=exif)
    done = run(keep_sequences=True)
    assert (done.sequences, done.without_time) == (7, 6)
    assert "7 sequences, each in one set; 6 photos do not say when they were taken" in split_lines(
        done, Request(SOURCE, DESTINATION)
    )


def test_sequences_are_refused_where_no_photo_has_a_time():
    folders(COOT=6)
    with pytest.raises(DataError, match="no photo says when it was taken"):
        run(keep_sequences=True)
    assert not DESTINATION.exists()


# --- Refusals -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("valid", "test"), [(0, 0), (0.5, 0.5), (1, 0), (-0.1, 0.2), (2, 0.1), (float("nan"), 0.1)]
)
def test_shares_that_make_no_sets_are_refused(valid, test):
    folders(COOT=6)
    with pytest.raises(ConfigError, match=r"--valid .* and --test .*: give shares"):
        run(valid=valid, test=test)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: shot("data/old.jpg"), "data: exists and is not empty"),
        (
            lambda: shot("photos/train/COOT/1.jpg"),
            "photos: is split already (photos/train)",
        ),
        (lambda: Path("photos/AUK").mkdir(), "the class folder 'AUK' holds no photos"),
        (
            lambda: (SOURCE / "COOT/000.jpg").write_bytes(b""),
            "photos/COOT: not one of its photos can be used:",
        ),
    ],
)
def test_folders_that_are_refused(make, said):
    folders(COOT=1)
    make()
    before = sorted(Path().rglob("*"))
    with pytest.raises(DataError) as caught:
        run()
    assert said in str(caught.value)
    assert sorted(Path().rglob("*")) == before


@pytest.mark.parametrize("there", [False, True])
@pytest.mark.parametrize("failure", [OSError(28, "No space left on device"), KeyboardInterrupt()])
@pytest.mark.parametrize("copies", [False, True])
def test_a_full_disk_or_a_signal_leaves_nothing(monkeypatch, there, failure, copies):
    folders(COOT=9)
    if there:
        DESTINATION.mkdir()
    before = sorted(Path().rglob("*"))
    left = [4]

    def fail(real):
        def step(*words):
            left[0] -= 1
            if not left[0]:
                raise failure
            return real(*words)

        return step

    monkeypatch.setattr(shutil, "copyfile", fail(shutil.copyfile))
    monkeypatch.setattr(Path, "symlink_to", fail(Path.symlink_to))
    expected = ArtifactError if isinstance(failure, OSError) else KeyboardInterrupt
    with pytest.raises(expected):
        run(copies=copies)
    assert sorted(Path().rglob("*")) == before


def test_a_move_that_fails_leaves_the_folder_empty(monkeypatch):
    folders(COOT=9)
    DESTINATION.mkdir()
    rename = Path.rename

    def fail(path, target):
        if target.name == "test":
            raise OSError(5, "broken disk")
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", fail)
    with pytest.raises(ArtifactError, match="cannot write data: broken disk"):
        run()
    assert not list(DESTINATION.iterdir())


def test_a_disk_without_links_asks_for_copies(monkeypatch):
    folders(COOT=3)

    def refuse(*_):
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(Path, "symlink_to", refuse)
    with pytest.raises(
        ArtifactError, match=r"cannot write data: no links can be made there .*; ask for copies"
    ):
        run()
    assert run(copies=True).photos == {"train": 1, "valid": 1, "test": 1}


def test_copies_that_do_not_fit_on_the_disk_leave_nothing():
    folders(COOT=4)
    with (SOURCE / "COOT/000.jpg").open("ab") as file:
        file.write(bytes(100_000))  # after the picture's end
    with disk_of(50_000), pytest.raises(ArtifactError, match="cannot write data: File too large"):
        run(copies=True)
    assert sorted(path.name for path in Path().iterdir()) == ["photos"]
