"""What the trained part sees: cached features, when they are computed anew and how hosts exchange them; and
photos that are decoded for each batch."""

import itertools
import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import numpy_helper
from PIL import Image

from birdsonnx.config.transforms import CenterCrop, JitterCrop, RandomHorizontalFlip, RandomRotate, Resize
from birdsonnx.errors import ArtifactError, DataError, TrainingError
from birdsonnx.images.decoding import Decoder, decoder
from birdsonnx.images.folders import read_class_folders
from birdsonnx.images.transforms import Views, chance_of
from birdsonnx.model.weights import with_weights
from birdsonnx.runtime.ranks import Ranks
from birdsonnx.runtime.sessions import PHOTOS_PER_RUN, in_streams
from birdsonnx.training import backbone as backbones
from birdsonnx.training import feature_table, features, int8_backbone, photo_contents
from tests.command import MPIRUN
from tests.tiny import FEATURES, make_class_folders, photo, tiny_model
from tests.training.backbones import KINDS, backbone


def oracle(photos, kind="one tensor"):
    """Pillow and the bare runtime on the whole model, one photo at a time."""
    make, _, half, tensors = KINDS[kind]
    proto = make().proto
    proto.graph.output.extend(
        onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None) for name, _ in tensors
    )
    session = onnxruntime.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    rows = []
    for shown in photos:
        image = Image.open(shown.path).convert("RGB").resize((32, 32), Image.Resampling.BILINEAR)
        found = session.run([name for name, _ in tensors], {"images": np.asarray(image)[None]})
        assert [value.shape[1:] for value in found] == [shape for _, shape in tensors]
        rows.append(np.concatenate([value.ravel() for value in found]))
    return np.array(rows, np.float16 if half else np.float32)


def assert_rows(found, expected):
    """A float16 may be rounded to the other neighbour."""
    assert found.dtype == expected.dtype
    assert found.shape == expected.shape
    error = 2e-3 if found.dtype == np.float16 else 1e-5
    np.testing.assert_allclose(found, expected, rtol=error, atol=error)


def table(photos, seed=0, transforms=None, folder="cache", kind="one tensor"):
    advanced = []
    made = backbone(seed, transforms, kind)
    found = feature_table.cached(made, photos, Path(folder), Ranks(), advanced.append)
    return found.rows(range(len(photos)), 1), sum(advanced)


def tables(*folder):
    """All but the hashes of the photos."""
    return [path for path in Path(*folder).iterdir() if not path.name.startswith("photos-")]


def with_another_byte(place):
    return lambda old: old[:place] + bytes([old[place] ^ 1]) + old[place + 1 :]


def decoded(photos, transforms=None, preload=False, seed=None, ranks=None, advance=lambda _: None):
    return features.decoded(
        decoder(32, 32, 3, transforms), photos, preload, seed, 2, ranks or Ranks(), advance
    )


@pytest.fixture
def photos():
    """15, one of them of another size."""
    found = read_class_folders(make_class_folders(Path("photos"), per_class=5)).photos
    photo(1, np.random.default_rng(9), size=53).save(found[6].path)
    return found


@pytest.mark.parametrize("kind", KINDS)
def test_they_are_the_tensors_at_the_boundary(photos, kind):
    rows, computed = table(photos, kind=kind)
    assert computed == 15
    assert_rows(rows, oracle(photos, kind))


def test_they_are_the_same_in_any_order_and_epoch(photos):
    rows, _ = table(photos)
    found = feature_table.cached(backbone(), photos, Path("cache"), Ranks(), lambda _: None)
    for epoch in (1, 7, None):
        np.testing.assert_array_equal(found.rows([7, 3, 11, 3], epoch), rows[[7, 3, 11, 3]])


def test_float16_takes_half_the_space_and_a_table_of_its_own(photos):
    table(photos)
    _, computed = table(photos, kind="half")
    assert computed == 15
    small, large = sorted(path.stat().st_size for path in tables("cache"))
    assert large - small == 15 * FEATURES * 2


def test_features_too_large_for_float16_are_told(photos):
    model = tiny_model()
    [bias] = [tensor for tensor in model.proto.graph.initializer if tensor.name == "conv2/bias"]
    bias.CopyFrom(numpy_helper.from_array(np.full(FEATURES, 1e5, np.float32), bias.name))
    with pytest.raises(TrainingError, match=r"too large for float16.*feature_precision"):
        feature_table.cached(
            backbone(kind="half", model=model), photos, Path("cache"), Ranks(), lambda _: None
        )
    assert not tables("cache")


def test_a_second_time_nothing_is_computed(photos):
    first, _ = table(photos)
    again, computed = table(photos)
    assert computed == 0
    np.testing.assert_array_equal(again, first)


def rewrite(photos):
    status = photos[3].path.stat()
    Image.open(photos[4].path).save(photos[3].path, compress_level=0)
    os.utime(photos[3].path, ns=(status.st_atime_ns, status.st_mtime_ns))


def rename(photos):
    photos[3].path.rename(photos[3].path.with_name("0035.png"))


def overwrite(photos):
    """With another of the same size."""
    status = photos[3].path.stat()
    for place in (3, 4):
        content = photos[place].path.read_bytes()
        photos[place].path.write_bytes(content.ljust(8000, b"\0"))
    table(photos)
    photos[3].path.write_bytes(photos[4].path.read_bytes())
    os.utime(photos[3].path, ns=(status.st_atime_ns, status.st_mtime_ns))


@pytest.mark.parametrize("change", [rewrite, rename, overwrite])
def test_a_changed_photo_is_seen(photos, change):
    table(photos)
    change(photos)
    photos = read_class_folders(Path("photos")).photos
    rows, computed = table(photos)
    assert computed == 15
    assert_rows(rows, oracle(photos))


def test_a_photo_that_was_only_touched_is_the_same(photos):
    table(photos)
    os.utime(photos[3].path, ns=(1, 1))
    assert table(photos)[1] == 0


def test_photos_of_the_same_names_sizes_and_times_have_features_of_their_own(photos):
    shutil.copytree("photos", "others")
    others = read_class_folders(Path("others")).photos
    for other, source in zip(others, photos[::-1], strict=True):
        other.path.write_bytes(source.path.read_bytes())
    for one, other in zip(photos, others, strict=True):
        size = max(one.path.stat().st_size, other.path.stat().st_size)
        for path in (one.path, other.path):
            path.write_bytes(path.read_bytes().ljust(size, b"\0"))
            os.utime(path, ns=(1, 1))
    table(photos)
    rows, computed = table(others)
    assert computed == 15
    assert_rows(rows, oracle(others))


@pytest.fixture
def read_again(monkeypatch):
    """The photos whose content is read for its hash."""
    paths = []
    digest = photo_contents._digest
    monkeypatch.setattr(photo_contents, "_digest", lambda path: paths.append(path) or digest(path))
    return paths


def test_photos_are_hashed_once(photos, read_again, monkeypatch):
    monkeypatch.setattr(photo_contents, "SETTLED_S", -10)
    table(photos)
    assert sorted(read_again) == [shown.path for shown in photos]
    read_again.clear()
    table(photos)
    assert read_again == []
    os.utime(photos[3].path, ns=(1, 1))
    table(photos)
    assert read_again == [photos[3].path]


def test_a_photo_that_changed_just_now_is_hashed_again(photos, read_again):
    """It may change once more within one step of the disk's clock."""
    table(photos)
    read_again.clear()
    table(photos)
    assert len(read_again) == 15


@pytest.mark.parametrize("damage", [lambda old: b"", lambda old: old[:300], lambda old: bytes(len(old))])
def test_damaged_hashes_are_made_again(photos, read_again, monkeypatch, damage):
    monkeypatch.setattr(photo_contents, "SETTLED_S", -10)
    first, _ = table(photos)
    read_again.clear()
    [path] = Path("cache").glob("photos-*")
    path.write_bytes(damage(path.read_bytes()))
    again, computed = table(photos)
    assert (computed, len(read_again)) == (0, 15)
    np.testing.assert_array_equal(again, first)


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


@pytest.mark.parametrize("what", ["__version__", "PIXELS_VERSION", "runtime_version"])
def test_after_an_upgrade_they_are_computed_anew(photos, monkeypatch, what):
    """Of birdsonnx, of its way from file to pixels, of the runtime."""
    table(photos)
    if what == "runtime_version":
        monkeypatch.setattr(backbones, what, lambda: "another")
    else:
        monkeypatch.setattr(feature_table, what, "another")
    assert table(photos)[1] == 15


@pytest.mark.parametrize("what", ["__version__", "PIXELS_VERSION"])
def test_after_an_upgrade_the_int8_form_is_made_anew(photos, monkeypatch, what):
    def made():
        int8_backbone.quantized(backbone(), tiny_model().metadata.preprocessing, photos, Path("cache"))
        return len(list(Path("cache").glob("backbone-*.int8.onnx")))

    assert made() == 1
    assert made() == 1
    monkeypatch.setattr(feature_table, what, "another")
    assert made() == 2


def test_another_quantiser_makes_another_int8_form(photos, monkeypatch):
    make = [backbone(), tiny_model().metadata.preprocessing, photos, Path("cache")]
    int8_backbone.quantized(*make)
    monkeypatch.setattr(onnx, "__version__", "another")
    int8_backbone.quantized(*make)
    assert len(list(Path("cache").glob("backbone-*.int8.onnx"))) == 2


@pytest.mark.parametrize(
    "damage",
    [
        lambda old: b"",
        lambda old: old[:-10],
        lambda old: old[:-16],  # a whole model
        lambda old: bytes(len(old)),
        *(with_another_byte(place) for place in (2000, -200, -1)),
    ],
)
def test_a_damaged_int8_form_is_made_again(photos, damage):
    make = [backbone(), tiny_model().metadata.preprocessing, photos, Path("cache")]
    content = int8_backbone.quantized(*make)
    [path] = Path("cache").glob("backbone-*.int8.onnx")
    whole = path.read_bytes()
    path.write_bytes(damage(whole))
    assert int8_backbone.quantized(*make) == content
    assert path.read_bytes() == whole


def test_a_sound_int8_form_is_taken_as_it_is(photos, monkeypatch):
    make = [backbone(), tiny_model().metadata.preprocessing, photos, Path("cache")]
    content = int8_backbone.quantized(*make)
    monkeypatch.setattr(int8_backbone.quantization, "quantize", None)
    assert int8_backbone.quantized(*make) == content


def test_another_networks_int8_form_is_not_taken(photos):
    preprocessing, contents = tiny_model().metadata.preprocessing, []
    for seed in (0, 1):
        made = [backbone(seed), preprocessing, photos, Path("cache")]
        contents.append(int8_backbone.quantized(*made))
    one, other = Path("cache").glob("backbone-*.int8.onnx")
    shutil.copy(one, other)
    assert contents[0] != contents[1]
    for seed in (0, 1):
        assert int8_backbone.quantized(backbone(seed), preprocessing, photos, Path("cache")) == contents[seed]


def test_another_networks_table_is_not_taken(photos):
    """Its rows are of the same type, and its checksums right; but they are not under its name."""
    expected = [table(photos, seed)[0] for seed in (0, 1)]
    one, other = tables("cache")
    shutil.copy(one, other)
    computed = 0
    for seed in (0, 1):
        rows, count = table(photos, seed)
        np.testing.assert_array_equal(rows, expected[seed])
        computed += count
    assert computed == 15


def test_another_order_of_the_photos_has_a_table_of_its_own(photos):
    first, _ = table(photos)
    second, computed = table(photos[::-1])
    assert computed == 15
    np.testing.assert_allclose(second, first[::-1], rtol=1e-5, atol=1e-5)


class TestViews:
    """Each photo as often as is asked for, with other draws of the random transforms each time."""

    RANDOM = (JitterCrop(0.3), Resize(32, 32), RandomHorizontalFlip(0.5), RandomRotate(30.0))

    def of(self, photos, views, epoch):
        done = []
        made = backbone(transforms=self.RANDOM)
        found = feature_table.cached(made, photos, Path("cache"), Ranks(), done.append, views)
        return found.rows(range(len(photos)), epoch), sum(done)

    def drawn(self, photos, seed, view):
        """The bare runtime on each photo with these draws."""
        made = backbone(transforms=self.RANDOM)
        session = onnxruntime.InferenceSession(made.model, providers=["CPUExecutionProvider"])
        rows = []
        for number, shown in enumerate(photos):
            pixels = made.decoder(shown.path, chance_of(seed, view(number), number))
            rows.append(session.run(None, {"images": pixels[None]})[0].ravel())
        return np.array(rows)

    @pytest.mark.parametrize("epoch", [1, 2, 3, 7])
    def test_an_epoch_sees_one_of_each_photo(self, photos, epoch):
        rows, computed = self.of(photos, Views(3, seed=5), epoch)
        assert computed == 45
        assert_rows(rows, self.drawn(photos, 5, lambda number: (number + epoch) % 3))

    def test_all_are_seen_in_turn_and_come_again(self, photos):
        seen = [self.of(photos, Views(3, seed=5), epoch)[0] for epoch in range(1, 7)]
        for first, second in itertools.combinations(seen[:3], 2):
            assert (np.abs(first - second).max(axis=1) > 1e-3).all()
        np.testing.assert_array_equal(seen[:3], seen[3:])

    def test_a_second_time_nothing_is_computed(self, photos):
        self.of(photos, Views(3, seed=5), 1)
        assert self.of(photos, Views(3, seed=5), 2)[1] == 0

    @pytest.mark.parametrize("views", [None, Views(2, seed=5), Views(3, seed=6)], ids=str)
    def test_other_views_have_a_table_of_their_own(self, photos, views):
        self.of(photos, Views(3, seed=5), 1)
        assert self.of(photos, views, 1)[1] == 15 * (views.count if views else 1)

    def test_a_photo_is_read_once(self, photos, monkeypatch):
        read = []
        original = Decoder.opened
        monkeypatch.setattr(Decoder, "opened", lambda self, path: read.append(path) or original(self, path))
        self.of(photos, Views(PHOTOS_PER_RUN, seed=5), 1)
        assert sorted(read) == sorted(shown.path for shown in photos)

    def test_a_bad_photo_is_told_once(self, photos):
        photos[6].path.write_bytes(b"no photo")
        with pytest.raises(DataError, match=r"1 of 15 photos cannot be used"):
            self.of(photos, Views(3, seed=5), 1)
        assert not tables("cache")


def test_another_head_shares_the_features(photos):
    table(photos)
    trained = with_weights(tiny_model(), {"dense/bias": np.ones(3, np.float32)})
    done = []
    feature_table.cached(backbone(model=trained), photos, Path("cache"), Ranks(), done.append)
    assert done == []


def test_bad_photos_are_refused_all_at_once(photos):
    photos[2].path.write_bytes(b"no photo")
    photos[9].path.write_bytes(photos[9].path.read_bytes()[:90])
    photos[14].path.unlink()
    with pytest.raises(DataError, match="3 of 15 photos cannot be used, nothing was trained") as refusal:
        decoded(photos)
    lines = str(refusal.value).splitlines()[1:]
    assert len(lines) == 3
    for line, index in zip(lines, (2, 9, 14), strict=True):
        assert str(photos[index].path) in line


def test_a_cache_that_is_no_folder_is_refused(photos):
    Path("file").touch()
    with pytest.raises(ArtifactError, match="file: the feature cache folder cannot be used"):
        table(photos, folder="file")


def test_a_full_disk_is_told_before_anything_is_computed(photos, monkeypatch):
    monkeypatch.setattr(
        feature_table.shutil, "disk_usage", lambda folder: SimpleNamespace(free=15 * FEATURES * 4)
    )
    with pytest.raises(ArtifactError, match=r'the features need .* "cache": false'):
        table(photos)
    assert not tables("cache")


SCRIPT = """
import sys
from pathlib import Path
import numpy as np
from birdsonnx.config.reading import parse
from birdsonnx.errors import DataError
from birdsonnx.images.folders import read_class_folders
from birdsonnx.runtime.ranks import join
from birdsonnx.training import feature_table, features
from tests.training.backbones import backbone

photos = read_class_folders(Path("photos")).photos
cache = parse('{"neural_network": {}}', "c").birdsonnx.cache_folder  # below XDG_CACHE_HOME
feature_table.EXCHANGED_BYTES = 70_000  # several messages, the last one shorter
ranks, done = join(), []
try:
    table = feature_table.cached(backbone(kind=sys.argv[1]), photos, cache, ranks, done.append)
except DataError as refusal:
    assert refusal.agreed
    Path(f"refusal{ranks.rank}").write_text(str(refusal))
else:
    np.savez(f"rank{ranks.rank}.npz", rows=table.rows(range(len(photos)), 1), computed=sum(done))
"""


def run_ranks(*homes, kind="one tensor"):
    """One rank per cache home, which its environment names: as on hosts with disks of their own. Each closes
    its files: Python would warn of a handle that it had to close itself."""
    Path("script.py").write_text(SCRIPT)
    command = []
    for home in homes:
        command += [":", "-np", "1", "env", f"XDG_CACHE_HOME={home}", sys.executable, "script.py", kind]
    done = subprocess.run(
        [str(MPIRUN), *command[1:]],
        env={
            **os.environ,
            "PYTHONPATH": os.pathsep.join(sys.path),
            "PYTHONWARNINGS": "always::ResourceWarning",
        },
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "unclosed file" not in done.stderr


def results(ranks):
    """Per rank: the rows that it got, and of how many computed photos it has been told."""
    found = [dict(np.load(f"rank{rank}.npz")) for rank in range(ranks)]
    return [rank["rows"] for rank in found], [int(rank["computed"]) for rank in found]


@pytest.mark.parametrize(
    "homes",
    [["one", "one"], ["one", "two", "one"], ["one", "two", "three"]],
    ids=["2 share", "2 of 3 share", "3 hosts"],
)
def test_ranks_compute_what_they_are_ready_for_and_all_get_everything(photos, homes):
    run_ranks(*homes)
    rows, computed = results(len(homes))
    assert computed == [15, *[0] * (len(homes) - 1)]  # the first one shows how far all are
    for found in rows:
        assert_rows(found, oracle(photos))
    for home in set(homes):
        assert len(tables(home, "birdsonnx")) == 1


@pytest.mark.parametrize("kind", list(KINDS)[1:])
def test_hosts_exchange_rows_of_any_kind(photos, kind):
    run_ranks("one", "two", kind=kind)
    rows, computed = results(2)
    assert computed == [15, 0]
    for found in rows:
        assert_rows(found, oracle(photos, kind))
    [one], [two] = (tables(home, "birdsonnx") for home in ("one", "two"))
    assert one.read_bytes() == two.read_bytes()


@pytest.mark.parametrize("has", ["one", "two"])
def test_a_host_without_the_features_gets_those_of_the_other(photos, has):
    expected, _ = table(photos, folder=f"{has}/birdsonnx")
    run_ranks("one", "two")
    rows, computed = results(2)
    assert computed == [0, 0]
    for found in rows:
        np.testing.assert_array_equal(found, expected)
    [first], [second] = (tables(home, "birdsonnx") for home in ("one", "two"))
    assert first.name == second.name
    assert first.read_bytes() == second.read_bytes()


def test_one_process_and_many_make_the_same_table(photos):
    expected, _ = table(photos, folder="one/birdsonnx")
    run_ranks("two", "two", "two")
    rows, _ = results(3)
    np.testing.assert_array_equal(rows[0], expected)
    [one], [two] = (tables(home, "birdsonnx") for home in ("one", "two"))
    assert one.name == two.name
    assert one.read_bytes() == two.read_bytes()


@pytest.mark.parametrize("homes", [["one"], ["one", "one"], ["one", "two"]])
def test_bad_photos_are_told_to_every_rank_and_nothing_is_kept(photos, homes):
    photos[2].path.write_bytes(b"no photo")
    photos[14].path.write_bytes(b"no photo")
    run_ranks(*homes)
    refusals = {Path(f"refusal{rank}").read_text() for rank in range(len(homes))}
    [lines] = (text.splitlines() for text in refusals)
    assert "2 of 15 photos cannot be used" in lines[0]
    assert str(photos[2].path) in lines[1]
    assert str(photos[14].path) in lines[2]
    assert not [path for home in homes for path in tables(home, "birdsonnx")]


@pytest.mark.parametrize(
    "damage",
    [
        lambda old: b"",
        lambda old: b"no table",
        lambda old: b"\x93NUMPY" + bytes(500),
        lambda old: bytes(len(old)),
        lambda old: old[:128] + bytes(len(old) - 128),
        lambda old: old[:-1],
        *(with_another_byte(place) for place in (130, 700, -40, -1)),
    ],
)
@pytest.mark.parametrize("piece", [2**24, 100])
def test_a_damaged_table_is_made_again(photos, damage, piece, monkeypatch):
    monkeypatch.setattr("birdsonnx.training.table_file.PIECE_BYTES", piece)
    first, _ = table(photos)
    [path] = tables("cache")
    path.write_bytes(damage(path.read_bytes()))
    again, computed = table(photos)
    assert computed == len(photos)
    np.testing.assert_array_equal(again, first)


RANDOM = (JitterCrop(0.4), Resize(32, 32), RandomHorizontalFlip(0.5), RandomRotate(40.0))
ORDER = [7, 3, 11, 0]


@pytest.mark.parametrize("preload", [False, True])
def test_decoded_photos_are_the_pixels(photos, preload):
    found = decoded(photos, preload=preload)
    expected = [
        np.asarray(Image.open(photos[index].path).convert("RGB").resize((32, 32), Image.Resampling.BILINEAR))
        for index in ORDER
    ]
    for epoch in (1, 2, None):
        rows = found.rows(ORDER, epoch)
        assert rows.dtype == np.uint8
        np.testing.assert_array_equal(rows, expected)


def test_all_photos_are_seen_to_decode_before(photos):
    advanced = []
    decoded(photos, advance=advanced.append)
    assert sum(advanced) >= 15


def test_random_ones_follow_from_seed_epoch_and_photo_alone(photos):
    first = decoded(photos, RANDOM, seed=5).rows(ORDER, 3)
    again = decoded(photos, RANDOM, seed=5)
    again.rows([1, 2], 3)
    again.rows(ORDER, 2)
    np.testing.assert_array_equal(again.rows(ORDER, 3), first)
    np.testing.assert_array_equal(again.rows(ORDER[::-1], 3)[::-1], first)
    for index, row in zip(ORDER, first, strict=True):
        expected = decoder(32, 32, 3, RANDOM)(photos[index].path, chance_of(5, 3, index))
        np.testing.assert_array_equal(row, expected)


def test_another_seed_epoch_or_photo_gives_others(photos):
    photos[3].path.write_bytes(photos[7].path.read_bytes())
    found = decoded(photos, RANDOM, seed=5)
    [seven, three] = found.rows([7, 3], 1)
    others = [three, found.rows([7], 2)[0], decoded(photos, RANDOM, seed=6).rows([7], 1)[0]]
    assert all((other != seven).any() for other in others)
    assert (others[1] != others[2]).any()


@pytest.mark.parametrize("preload", [False, True])
def test_nothing_is_random_without_an_epoch_or_a_seed(photos, preload):
    still = tuple(step for step in RANDOM if isinstance(step, Resize))
    expected = decoded(photos, still).rows(ORDER, 1)
    seeded = decoded(photos, RANDOM, preload, seed=5)
    seeded.rows(ORDER, 1)
    np.testing.assert_array_equal(seeded.rows(ORDER, None), expected)
    np.testing.assert_array_equal(decoded(photos, RANDOM, preload).rows(ORDER, 1), expected)


@pytest.mark.parametrize("seed", [None, 5])
def test_preload_changes_nothing_and_reads_each_photo_once(photos, seed):
    plain, kept = (decoded(photos, RANDOM, preload, seed) for preload in (False, True))
    expected = [plain.rows(ORDER, epoch) for epoch in (1, 2, 3)]
    np.testing.assert_array_equal(kept.rows(ORDER, 1), expected[0])
    for index in ORDER:
        photos[index].path.unlink()
    for epoch in (2, 3):
        np.testing.assert_array_equal(kept.rows(ORDER, epoch), expected[epoch - 1])


@pytest.mark.parametrize("preload", [False, True])
def test_several_threads_may_ask_at_once(photos, preload):
    found = decoded(photos, RANDOM, preload, seed=5)
    expected = decoded(photos, RANDOM, seed=5).rows(range(15), 1)
    asked = [[index, (index + 1) % 15] for index in range(15)] * 4
    for piece, rows in zip(asked, in_streams(4, lambda piece: found.rows(piece, 1), asked), strict=True):
        np.testing.assert_array_equal(rows, expected[piece])
