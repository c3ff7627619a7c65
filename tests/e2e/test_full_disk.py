"""A full disk: one clear line, the old file intact, no litter. A limit on the file size stands for it."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import h5py
import pytest

from tests.command import MPIRUN, succeed
from tests.tiny import make_class_folders

LIMITED = """
import resource, sys
limit, ranks = map(int, sys.argv[1:3])
sys.argv[:3] = ["birdsonnx"]
from birdsonnx.cli.app import main
if ranks > 1:
    from birdsonnx.runtime.ranks import import_mpi
    import_mpi()  # which needs files of its own
resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
main()
"""


def litter() -> list[Path]:
    return [path for path in Path().rglob(".*") if path.suffix in (".tmp", ".lock")]


def refused_with_limit(kilobytes: int, *words: str, ranks: int = 1) -> str:
    launcher = [str(MPIRUN), "-np", str(ranks)] * (ranks > 1)
    done = subprocess.run(
        [*launcher, sys.executable, "-c", LIMITED, str(1024 * kilobytes), str(ranks), *words],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2, done.stderr
    [line] = done.stderr.strip().splitlines()
    return line


@pytest.mark.parametrize("per_class", [4, 150])  # too large when the file is closed, and while it grows
def test_predictions(workspace, per_class):
    shutil.copytree("data/valid", "many")
    words = ("predict", "many", "--model", "model.onnx")
    succeed(*words)
    before = Path("predictions/output_1.h5").read_bytes()
    make_class_folders(Path("many"), per_class=per_class)
    line = refused_with_limit(4 if per_class == 4 else 64, *words)
    assert "cannot write predictions/output_1.h5: File too large" in line
    assert "intact" in line
    assert Path("predictions/output_1.h5").read_bytes() == before
    kept = ["output_1.h5", "output_1.h5.progress"] if per_class == 150 else ["output_1.h5"]
    assert sorted(path.name for path in Path("predictions").iterdir()) == kept
    with h5py.File("predictions/output_1.h5") as file:
        assert file.attrs["photos"] == 9
    if per_class == 150:
        assert "; the same command goes on after " in line
        assert "going on after " in succeed(*words)
        assert [path.name for path in Path("predictions").iterdir()] == ["output_1.h5"]


@pytest.mark.parametrize("ranks", [1, 2])
def test_checkpoints(workspace, training_config, ranks):
    Path("config.json").write_text(json.dumps(training_config()))
    line = refused_with_limit(8, "train", "config.json", ranks=ranks)
    assert "cannot write saved/model_checkpoint_2.onnx: File too large" in line
    assert not Path("saved").exists()
    assert not litter()


@pytest.mark.parametrize("ranks", [1, 2])
def test_predictions_of_a_training(workspace, training_config, ranks):
    """Their file is larger than a checkpoint: that stays, and all ranks have the error."""
    make_class_folders(Path("data/valid"), per_class=100)
    config = training_config(checkpoints={"load": "model.onnx", "save": "saved/", "interval": 1})
    config["neural_network"]["data"]["test_output_path"] = "tests"
    Path("config.json").write_text(json.dumps(config))
    line = refused_with_limit(64, "train", "config.json", ranks=ranks)
    assert line == "birdsonnx: cannot write tests/output_1.h5: File too large"
    assert {path.name for path in Path("saved").iterdir()} == {
        "model_checkpoint_1.onnx",
        "model_checkpoint_1.state.npz",
    }
    assert not Path("tests").exists()
    assert not litter()


def test_the_log_of_a_training(workspace, training_config):
    """What did not fit must not come up again when the log is closed."""
    network = training_config(num_epochs=60, checkpoints={"load": "model.onnx"}, birdsonnx={"cache": False})
    Path("config.json").write_text(json.dumps(network))
    line = refused_with_limit(2, "train", "config.json")
    assert line == "birdsonnx: cannot write out_train.txt: File too large"
    assert not litter()


@pytest.mark.parametrize("kilobytes", [0, 1, 2])  # from the first byte, in the first photos, in the last
@pytest.mark.parametrize("ranks", [1, 2])
def test_cached_features(workspace, training_config, kilobytes, ranks):
    """All ranks have the same error, whoever meets it, and the one who made the file removes it."""
    network = training_config(outfile=None, checkpoints={"load": "model.onnx"}, birdsonnx={"cache": "kept"})
    Path("config.json").write_text(json.dumps(network))
    line = refused_with_limit(kilobytes, "train", "config.json", ranks=ranks)
    assert line.startswith("birdsonnx: cannot write ")
    assert "kept" in line
    assert "File too large" in line
    assert not litter()
    assert not list(Path("kept").glob("features-*"))


@pytest.mark.parametrize("suffix", [".h5", ".keras"])
def test_a_network_put_back_into_keras(tmp_path, suffix):
    if suffix == ".keras":
        pytest.importorskip("keras")
    layers = {
        "Flatten": {"batch_input_shape": [None, 8, 8, 3]},
        "Dense": {"units": 64, "activation": "softmax", "name": "dense"},
    }
    network = [{"class_name": kind, "config": config} for kind, config in layers.items()]
    Path("layers.json").write_text(json.dumps(network))
    options = ("--weights", "none", "--preprocess", "none")
    succeed("export", "--layers", "layers.json", *options, "-o", "model.onnx")
    target = Path(f"back{suffix}")
    target.write_bytes(b"old")
    line = refused_with_limit(
        8, "export", "--to", "keras", "model.onnx", "--layers", "layers.json", "-o", str(target)
    )
    assert f"cannot write {target}: File too large; the file that was there is intact" in line
    assert target.read_bytes() == b"old"
    assert not litter()


@pytest.mark.parametrize("words", [("quantize", "model.onnx", "--calibrate", "data/train")])
def test_temporary_files(workspace, monkeypatch, words):
    Path("temporary").mkdir()
    monkeypatch.setenv("TMPDIR", "temporary")
    line = refused_with_limit(4, *words)
    assert "cannot write temporary files (" in line
    assert "temporary: File too large); set TMPDIR to a folder with room for them" in line
    assert not list(Path("temporary").iterdir())
    assert not Path("model.int8.onnx").exists()
