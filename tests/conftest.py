"""Fixtures of all tests. Nothing here needs files from outside the clone."""

import contextlib
import os
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from birdsonnx.runtime import gradient_builder
from tests.networks import small_network
from tests.tiny import make_class_folders, residual_model, tiny_model

# TensorFlow reads these when it is imported.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")

REAL_DATA = Path(__file__).resolve().parents[2] / "shared" / "data"
needs_real_data = pytest.mark.skipif(
    not REAL_DATA.is_dir(), reason="no folder of real photos beside the clone"
)
needs_training_runtime = pytest.mark.skipif(
    not gradient_builder.is_installed(),
    reason="the gradients of convolutions need onnxruntime-training-cpu, which is not installed",
)


@pytest.fixture(autouse=True)
def own_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each test works in a folder and with a cache of its own, outside any launcher, and with the programs of
    this environment first: another MPI's mpirun may be installed too."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "user_cache"))
    monkeypatch.setenv("PATH", str(Path(sys.executable).parent), prepend=os.pathsep)
    for name in [each for each in os.environ if each == "OMP_NUM_THREADS" or each.startswith("SLURM_")]:
        monkeypatch.delenv(name)


@contextlib.contextmanager
def disk_of(size: int) -> Iterator[None]:
    """Let no file grow beyond so many bytes, the nearest thing to a full disk; only inside the `with`, or
    pytest itself could not write its log."""
    resource = pytest.importorskip("resource")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    """What a user starts with: `model.onnx`, `data/train`, `data/valid`, and nothing else."""
    return make_workspace(tmp_path)


def make_workspace(folder: Path) -> Path:
    """The same in any folder, for what is prepared once and copied."""
    make_class_folders(folder / "data" / "train", per_class=8, seed=1)
    make_class_folders(folder / "data" / "valid", per_class=3, seed=2)
    tiny_model(3).save(folder / "model.onnx")
    return folder


@pytest.fixture(scope="session")
def training_config() -> Callable[..., dict[str, Any]]:
    """A config like the tutorial's for `workspace`; keyword arguments replace whole sections."""

    def make(**sections: Any) -> dict[str, Any]:
        network: dict[str, Any] = {
            "num_epochs": 3,
            "outfile": "out.txt",
            "checkpoints": {"load": "model.onnx", "save": "saved/", "interval": 2},
            "data": {
                "input_type": "images",
                "target_type": "labels",
                "input_path": "data/train/",
                "test_input_path": "data/valid/",
                "batch_size": 7,
                "test_batch_size": 4,
            },
            "optimizer": {"type": "Adam", "learning_rate": 0.01},
            "loss": {"function": "NLL"},
        }
        network.update(sections)
        return {"neural_network": network}

    return make


@pytest.fixture
def fine_tuning(workspace: Path, training_config: Callable[..., dict[str, Any]]) -> Callable[..., Any]:
    """Settings of a training of `residual_model` (see `tests.runs.fine_tuning`)."""
    from tests import runs

    residual_model().save(workspace / "model.onnx")
    return partial(runs.fine_tuning, training_config()["neural_network"])


@pytest.fixture(scope="session")
def keras() -> Any:
    """Keras, imported once."""
    for name in ("tensorflow", "keras", "tf2onnx"):
        pytest.importorskip(name, reason=f"what Keras says is compared with, and {name} is not installed")
    from birdsonnx.keras_io.tf2onnx_road.keras_source import import_keras

    return import_keras()


@pytest.fixture(scope="module")
def network(keras: Any) -> Any:
    return small_network(keras)
