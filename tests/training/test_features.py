"""Cached features: what they are, when they are computed anew, and how hosts exchange them."""

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnxruntime
import pytest
from PIL import Image

from birdsonnx.config import CenterCrop, Resize
from birdsonnx.errors import ArtifactError, DataError
from birdsonnx.images.decoding import decoder
from birdsonnx.images.folders import read_class_folders
from birdsonnx.network.head import split, with_weights
from birdsonnx.runtime.ranks import Ranks
from birdsonnx.training import features
from birdsonnx.training.features import Backbone
from tests.command import MPIRUN
from tests.tiny import FEATURES, make_class_folders, photo, tiny_model


def backbone(seed=0, transforms=None):
    return Backbone(split(tiny_model(seed=seed), ["dense"]), decoder(32, 32, 3, transforms), 2)


def oracle(photos):
    """Pillow and the bare runtime, one photo at a time."""
    session = onnxruntime.InferenceSession(backbone().split.backbone, providers=["CPUExecutionProvider"])
    pixels = [
        np.asarray(Image.open(photo.path).convert("RGB").resize((32, 32), Image.Resampling.BILINEAR))
        for photo in photos
    ]
    return np.concatenate([session.run(None, {"images": image[None]})[0] for image in pixels])


def table(photos, seed=0, transforms=None, folder="cache"):
    advanced = []
    found = features.cached(backbone(seed, transforms), photos, Path(folder), Ranks(), advanced.append)
    return found.rows(np.arange(len(photos))), sum(advanced)


@pytest.fixture
def photos():
    """15, one of them of another size."""
    found = read_class_folders(make_class_folders(Path("photos"), per_class=5)).photos
    photo(1, np.random.default_rng(9), size=53).save(found[6].path)
    return found


def test_they_are_the_backbones_output(photos):
    rows, computed = table(photos)
    assert rows.shape == (15, FEATURES)
    assert computed == 15
    np.testing.assert_allclose(rows, oracle(photos), rtol=1e-5, atol=1e-5)


def test_recomputed_ones_are_the_same_with_and_without_preload(photos):
    for preload in (False, True):
        found = features.recomputed(backbone(), photos, preload, Ranks(), lambda _: None)
        for _ in range(2):
            np.testing.assert_allclose(
                found.rows(np.array([7, 3, 11])), oracle(photos)[[7, 3, 11]], rtol=1e-5, atol=1e-5
            )


def test_a_second_time_nothing_is_computed(photos):
    first, _ = table(photos)
    again, computed = table(photos)
    assert computed == 0
    np.testing.assert_array_equal(again, first)


def touch(photos):
    os.utime(photos[3].path, ns=(1, 1))


def rewrite(photos):
    status = photos[3].path.stat()
    Image.open(photos[4].path).save(photos[3].path, compress_level=0)
    os.utime(photos[3].path, ns=(status.st_atime_ns, status.st_mtime_ns))


def rename(photos):
    photos[3].path.rename(photos[3].path.with_name("0035.png"))


@pytest.mark.parametrize("change", [touch, rewrite, rename])
def test_a_changed_photo_is_seen(photos, change):
    table(photos)
    change(photos)
    photos = read_class_folders(Path("photos")).photos
    rows, computed = table(photos)
    assert computed == 15
    np.testing.assert_allclose(rows, oracle(photos), rtol=1e-5, atol=1e-5)


def test_a_moved_folder_is_the_same_folder(photos):
    first, _ = table(photos)
    Path("photos").rename("moved")
    again, computed = table(read_class_folders(Path("moved")).photos)
    assert computed == 0
    np.testing.assert_array_equal(again, first)


@pytest.mark.parametrize(
    "other",
    [{"seed": 1}, {"transforms": (Resize(40, 40), CenterCrop(32, 32))}],
    ids=["weights", "transforms"],
)
def test_other_weights_and_other_transforms_have_features_of_their_own(photos, other):
    first, _ = table(photos)
    second, computed = table(photos, **other)
    assert computed == 15
    assert np.abs(second - first).max() > 1e-3
    assert table(photos)[1] == 0, "the first are still there"


def test_another_order_of_the_photos_has_a_table_of_its_own(photos):
    first, _ = table(photos)
    second, computed = table(photos[::-1])
    assert computed == 15
    np.testing.assert_allclose(second, first[::-1], rtol=1e-5, atol=1e-5)


def test_another_head_shares_the_features(photos):
    table(photos)
    trained = with_weights(tiny_model(), {"dense/bias": np.ones(3, np.float32)})
    other = Backbone(split(trained, ["dense"]), backbone().decoder, 2)
    done = []
    features.cached(other, photos, Path("cache"), Ranks(), done.append)
    assert done == []


def test_bad_photos_are_refused_all_at_once(photos):
    photos[2].path.write_bytes(b"no photo")
    photos[9].path.write_bytes(photos[9].path.read_bytes()[:90])
    photos[14].path.unlink()
    with pytest.raises(DataError, match="3 of 15 photos cannot be used, nothing was trained") as refusal:
        features.recomputed(backbone(), photos, False, Ranks(), lambda _: None)
    lines = str(refusal.value).splitlines()[1:]
    assert len(lines) == 3
    for line, index in zip(lines, (2, 9, 14), strict=True):
        assert str(photos[index].path) in line


def test_a_cache_that_is_no_folder_is_refused(photos):
    Path("file").touch()
    with pytest.raises(ArtifactError, match="file: the feature cache folder cannot be used"):
        table(photos, folder="file")


def test_a_full_disk_is_told_before_anything_is_computed(photos, monkeypatch):
    monkeypatch.setattr(features.shutil, "disk_usage", lambda folder: SimpleNamespace(free=15 * FEATURES * 4))
    with pytest.raises(ArtifactError, match=r'the features need .* "cache": false'):
        table(photos)
    assert list(Path("cache").iterdir()) == []


SCRIPT = """
import sys
from pathlib import Path
import numpy as np
from birdsonnx.config import parse
from birdsonnx.errors import DataError
from birdsonnx.images.folders import read_class_folders
from birdsonnx.runtime.ranks import join
from birdsonnx.training import features
from tests.training.test_features import backbone

photos = read_class_folders(Path("photos")).photos
cache = parse('{"neural_network": {}}', "c").birdsonnx.cache_folder  # below XDG_CACHE_HOME
ranks, done = join(), []
try:
    table = features.cached(backbone(), photos, cache, ranks, done.append)
except DataError as refusal:
    assert refusal.agreed
    Path(f"refusal{ranks.rank}").write_text(str(refusal))
else:
    np.savez(f"rank{ranks.rank}.npz", rows=table.rows(np.arange(len(photos))), computed=sum(done))
"""


def run_ranks(*homes):
    """One rank per cache home, each told of it by its environment: as on hosts with disks of their own."""
    Path("script.py").write_text(SCRIPT)
    command = []
    for home in homes:
        command += [":", "-np", "1", "env", f"XDG_CACHE_HOME={home}", sys.executable, "script.py"]
    done = subprocess.run(
        [str(MPIRUN), *command[1:]],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def results(ranks):
    """Per rank: the rows that it got, and how many photos it computed."""
    found = [dict(np.load(f"rank{rank}.npz")) for rank in range(ranks)]
    return [rank["rows"] for rank in found], [int(rank["computed"]) for rank in found]


@pytest.mark.parametrize(
    ("homes", "shares"),
    [
        (["one", "one"], [7, 8]),
        (["one", "one", "one"], [5, 5, 5]),
        (["one", "two"], [7, 8]),
        (["one", "two", "one"], [5, 5, 5]),
        (["one", "two", "three"], [5, 5, 5]),
    ],
    ids=["2 share", "3 share", "2 hosts", "2 of 3 share", "3 hosts"],
)
def test_ranks_compute_their_shares_and_all_get_everything(photos, homes, shares):
    run_ranks(*homes)
    rows, computed = results(len(homes))
    assert computed == shares
    for found in rows:
        np.testing.assert_allclose(found, oracle(photos), rtol=1e-5, atol=1e-5)
    for home in set(homes):
        assert len(list(Path(home, "birdsonnx").iterdir())) == 1


@pytest.mark.parametrize("has", ["one", "two"])
def test_a_host_without_the_features_gets_those_of_the_other(photos, has):
    expected, _ = table(photos, folder=f"{has}/birdsonnx")
    run_ranks("one", "two")
    rows, computed = results(2)
    assert computed == [0, 0]
    for found in rows:
        np.testing.assert_array_equal(found, expected)
    [first], [second] = (list(Path(home, "birdsonnx").iterdir()) for home in ("one", "two"))
    assert first.name == second.name
    assert first.read_bytes() == second.read_bytes()


def test_one_process_and_many_make_the_same_table(photos):
    expected, _ = table(photos, folder="one/birdsonnx")
    run_ranks("two", "two", "two")
    rows, _ = results(3)
    # Shares begin elsewhere, so photos meet others in a run of four.
    np.testing.assert_allclose(rows[0], expected, rtol=1e-5, atol=1e-5)
    [one], [two] = (list(Path(home, "birdsonnx").iterdir()) for home in ("one", "two"))
    assert one.name == two.name


@pytest.mark.parametrize("homes", [["one"], ["one", "one"], ["one", "two"]])
def test_bad_photos_are_told_to_every_rank_and_nothing_is_kept(photos, homes):
    photos[2].path.write_bytes(b"no photo")
    photos[14].path.write_bytes(b"no photo")
    run_ranks(*homes)
    told = {Path(f"refusal{rank}").read_text() for rank in range(len(homes))}
    [lines] = (text.splitlines() for text in told)
    assert "2 of 15 photos cannot be used" in lines[0]
    assert str(photos[2].path) in lines[1]
    assert str(photos[14].path) in lines[2]
    assert [path for home in homes for path in Path(home, "birdsonnx").iterdir()] == []


@pytest.mark.parametrize("content", [b"", b"no table", b"\x93NUMPY" + bytes(500)])
def test_a_damaged_table_is_made_again(photos, content):
    first, _ = table(photos)
    [path] = Path("cache").glob("features-*.npy")
    path.write_bytes(content)
    again, computed = table(photos)
    assert computed == len(photos)
    np.testing.assert_array_equal(again, first)
