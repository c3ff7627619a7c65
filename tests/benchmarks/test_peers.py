"""Every installed peer names the same photos as birdsonnx does: same weights, same preprocessing."""

import importlib.util
import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import pytest
from onnx import numpy_helper

from benchmarks import inference
from benchmarks.peers import protocol
from birdsonnx.demo import make_photos
from birdsonnx.invented_birds import SPECIES, picture
from tests.command import succeed

PHOTOS = 24


def contender(peer: str, **settings: Any) -> inference.Contender:
    return inference.Contender(peer, "fp32", peer, Path(inference.PYTHON), {"batch": 4, **settings})


def test_a_missing_package_is_reported_by_name(tmp_path: Path, capsys: Any, monkeypatch: Any) -> None:
    np.save(tmp_path / "photos.npy", np.zeros((1, 8, 8, 3), np.uint8))
    settings = json.dumps({"photos": str(tmp_path / "photos.npy"), "batch": 1})
    monkeypatch.setattr("sys.argv", ["peer", settings])

    def load(settings: dict[str, Any]) -> protocol.Peer:
        import not_installed_anywhere  # type: ignore[import-not-found]

        return protocol.Peer(not_installed_anywhere, ())

    protocol.serve(load)

    assert json.loads(capsys.readouterr().out) == {"missing": "not_installed_anywhere"}


def test_a_peer_that_cannot_run_is_reported_with_its_reason(tmp_path: Path) -> None:
    np.save(tmp_path / "photos.npy", np.zeros((1, 224, 224, 3), np.uint8))
    files = {"work": tmp_path, "photos": tmp_path / "photos.npy"}
    row = contender("birdsonnx", model="no.onnx")

    assert inference.choose(row, files, seconds=0.1) == []
    assert "there is no such model" in row.missing
    assert inference.measure(row, files, seconds=0.1) == {}


def test_work_of_other_inputs_is_refused(tmp_path: Path) -> None:
    arguments = inference.parsed(["--data", "some"])
    inference.require_same_inputs(tmp_path, arguments)
    inference.require_same_inputs(tmp_path, arguments)

    with pytest.raises(SystemExit, match="another --work"):
        inference.require_same_inputs(tmp_path, inference.parsed(["--data", "other"]))


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Photos, Keras weights, the exported model and the plain tf2onnx graph."""
    for package in ("keras", "tensorflow", "tf2onnx"):
        if importlib.util.find_spec(package) is None:
            pytest.skip(f"{package} is not installed")
    work = tmp_path_factory.mktemp("peers")
    files = {name: work / name for name in ("photos.npy", "random.h5", "model.onnx", "plain.onnx")}
    generator = np.random.default_rng(0)
    species = list(SPECIES.values())
    birds = [picture(species[number % len(species)], generator) for number in range(PHOTOS)]
    np.save(files["photos.npy"], np.stack([np.asarray(bird) for bird in birds]))
    make_photos(work / "data")

    def make(what: str, *sources: str) -> None:
        done = inference.run(
            inference.PYTHON, "benchmarks.peers.making", what, *(str(files[name]) for name in sources)
        )
        assert done.returncode == 0, done.stderr

    make("weights", "photos.npy", "random.h5")
    succeed(
        "export", "--weights", files["random.h5"], "--labels", work / "data/train", "-o", files["model.onnx"]
    )
    # A fresh head names all photos alike; without its mean answer they differ.
    mean = answers(contender("birdsonnx", model=str(files["model.onnx"])), files, work).mean(0)
    model = onnx.load(files["model.onnx"])
    [bias] = [tensor for tensor in model.graph.initializer if tensor.name == "dense/bias"]
    bias.CopyFrom(numpy_helper.from_array(-mean, "dense/bias"))
    onnx.save(model, files["model.onnx"])
    make("tf2onnx", "random.h5", "model.onnx", "plain.onnx")
    return files


def answers(row: inference.Contender, files: dict[str, Path], folder: Path) -> npt.NDArray[np.float32]:
    """Log-probabilities of all photos from a process of the peer."""
    out = folder / "answers.npy"
    found = inference.measure(row, {"work": folder, "photos": files["photos.npy"]}, log_probs=str(out))
    if row.missing.endswith("is not installed"):
        pytest.skip(row.missing)
    assert found, row.missing
    result: npt.NDArray[np.float32] = np.load(out)
    return result


@pytest.mark.slow
@pytest.mark.parametrize(
    ("peer", "settings"),
    [
        ("openvino", {"precision": "f32", "hint": "THROUGHPUT"}),
        ("openvino", {"precision": "f32", "hint": "LATENCY"}),
        ("torch", {"precision": "f32"}),
        ("torch", {"precision": "f32", "compiled": True}),
        ("keras", {"call": "predict", "per_call": 16}),
        ("keras", {"call": "tf.function"}),
        ("onnxruntime", {}),
        ("onnxruntime", {"graph": "plain.onnx"}),
    ],
)
def test_a_peer_names_photos_as_birdsonnx_does(
    peer: str, settings: dict[str, Any], files: dict[str, Path], tmp_path: Path
) -> None:
    ours = answers(contender("birdsonnx", model=str(files["model.onnx"])), files, tmp_path)
    model = str(files[settings.get("graph", "model.onnx")])
    theirs = answers(
        contender(peer, model=model, weights=str(files["random.h5"]), **settings), files, tmp_path
    )

    assert len(set(ours.argmax(1))) > 2  # else equality would say little
    assert theirs.argmax(1).tolist() == ours.argmax(1).tolist()
    np.testing.assert_allclose(theirs, ours, atol=1e-3)
