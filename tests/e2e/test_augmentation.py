"""Random transforms as a user meets them: `plot --augmented`, and predictions that know nothing of them."""

import json
from pathlib import Path

import h5py
import numpy as np
import onnxruntime
import pytest
from PIL import Image

from birdsonnx.config.transforms import Resize, Rotate
from birdsonnx.model.metadata import Metadata
from birdsonnx.model.model_file import BirdModel, load
from tests.command import birdsonnx, refused, succeed, succeed_json

RANDOM = [
    {"jitter_crop": 0.3},
    {"resize": [32, 32]},
    {"random_horizontal_flip": 0.5},
    {"random_vertical_flip": 0.5},
    {"random_zoom": 0.2},
    {"random_rotate": 30},
]


@pytest.fixture
def write(workspace, training_config):
    def config(name: str, transforms: list, **data) -> str:
        content = training_config()
        content["neural_network"]["data"].update(transforms=transforms, **data)
        Path(name).parent.mkdir(exist_ok=True)
        Path(name).write_text(json.dumps(content))
        return name

    return config


def log_probs(path: str) -> dict[str, np.ndarray]:
    found: dict[str, np.ndarray] = {}
    with h5py.File(path) as file:
        file.visititems(
            lambda name, item: found.update({name: item[()]}) if isinstance(item, h5py.Dataset) else None
        )
    return found


def test_plot_augmented(write):
    text = succeed("plot", "--augmented", write("configs/birds.json", RANDOM))
    assert "wrote configs/birds_augmented.png" in text
    assert "seed 0: jitter_crop 0.3" in text
    with Image.open("configs/birds_augmented.png") as image:
        assert image.height > image.width > 900
    found = succeed_json("plot", "--augmented", "configs/birds.json", "-o", "again.png")
    with Image.open("configs/birds_augmented.png") as first, Image.open("again.png") as again:
        assert first.tobytes() == again.tobytes()
    assert found["output"] == "again.png"
    assert found["epochs"] == [1, 2, 3]
    assert found["photos"] == [
        f"{name}/{photo}.png" for name in ("ANT BIRD", "BEE-EATER", "COOT") for photo in ("000", "004")
    ]


def test_plot_augmented_without_anything_random(write):
    text = succeed("plot", "--augmented", write("config.json", [{"resize": [32, 32]}]))
    assert "no transform is random" in text
    assert Path("config_augmented.png").is_file()


def test_plot_takes_one_of_the_two(write):
    config = write("config.json", RANDOM)
    for words in (["plot"], ["plot", "out.txt", "--augmented", config]):
        assert "either an outfile or --augmented CONFIG" in refused(*words)
    done = birdsonnx("plot", "--json")
    assert (done.returncode, list(json.loads(done.stdout))) == (2, ["error"])


def test_plot_augmented_refuses_what_training_would(write):
    assert "there is no such config file" in refused("plot", "--augmented", "nothing.json")
    config = write("config.json", [{"resize": [32, 32]}, {"jitter_crop": 0.3}])
    assert "put a resize after it" in refused("plot", "--augmented", config)
    assert not Path("config_augmented.png").exists()


def test_views_are_computed_once_and_trained_on_in_turn(write):
    """A second training computes nothing, and both learn the same; 2 ranks too, but for rounding."""
    config = Path(write("config.json", RANDOM))
    content = json.loads(config.read_text())
    network = content["neural_network"]
    network.update(num_epochs=5, birdsonnx={"views": 2, "cache": "cache"})
    network["checkpoints"]["save"] = None
    config.write_text(json.dumps(content))

    def losses(**options) -> np.ndarray:
        text = succeed("train", "config.json", **options)
        assert f"random_rotate 30; {network['birdsonnx']['views']} views of each training photo" in text
        return np.loadtxt("out_test.txt")[:, 2]

    first = losses()
    tables = {path.name: path.stat().st_mtime_ns for path in Path("cache").glob("features-*.npy")}
    np.testing.assert_array_equal(losses(), first)
    np.testing.assert_allclose(losses(ranks=2), first, rtol=1e-4)
    assert {path.name: path.stat().st_mtime_ns for path in Path("cache").glob("features-*.npy")} == tables
    assert "seed 0, 2 views: jitter_crop 0.3" in succeed("plot", "--augmented", "config.json")
    network["birdsonnx"]["views"] = 3
    config.write_text(json.dumps(content))
    assert np.abs(losses() - first).max() > 1e-4


@pytest.mark.parametrize(
    ("transforms", "own", "message"),
    [
        ([{"resize": [32, 32]}], {}, "views: no transform is random"),
        (RANDOM, {"cache": False}, "views: views are cached features; remove cache false"),
    ],
)
def test_views_that_cannot_be(write, transforms, own, message):
    config = Path(write("config.json", transforms))
    content = json.loads(config.read_text())
    content["neural_network"]["birdsonnx"] = {"views": 2, **own}
    config.write_text(json.dumps(content))
    assert message in refused("train", "config.json")


def test_predictions_know_nothing_of_random_transforms(write):
    still = [step for step in RANDOM if "resize" in step]
    for name, transforms in (("random", RANDOM), ("still", still)):
        config = write(f"{name}.json", transforms, test_output_path=name)
        succeed("predict", "--config", config)
    random, plain = log_probs("random/output_1.h5"), log_probs("still/output_1.h5")
    assert len(random) == 9
    assert all(np.array_equal(random[name], plain[name]) for name in plain)


def test_a_rotate_in_a_models_metadata_acts_in_prediction(workspace):
    model = load(Path("model.onnx"))
    metadata = model.metadata.having(transforms=(Resize(32, 32), Rotate(90.0)))
    props = metadata.as_props()
    assert json.loads(props["birdsonnx.transforms"]) == [{"resize": [32, 32]}, {"rotate": 90.0}]
    assert Metadata.from_props(props, "model.onnx").transforms == metadata.transforms
    BirdModel(model.proto, metadata, "turned").save(Path("turned.onnx"))
    succeed("predict", "data/valid", "--model", "turned.onnx")
    session = onnxruntime.InferenceSession("turned.onnx", providers=["CPUExecutionProvider"])
    for name, found in log_probs("predictions/output_1.h5").items():
        pixels = np.rot90(np.asarray(Image.open(Path("data/valid") / name)), -1)
        [expected] = session.run(None, {"images": np.ascontiguousarray(pixels)[None]})
        np.testing.assert_allclose(found, expected[0], atol=1e-5)
