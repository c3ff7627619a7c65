"""`birdsonnx train` in bfloat16, alone and under mpirun, on a CPU that is made to seem to have it."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from PIL import Image

from tests.command import MPIRUN
from tests.conftest import needs_training_runtime
from tests.onednn.trunks import needs_bfloat16
from tests.tiny import residual_model

pytestmark = needs_bfloat16

SEEMING = """
import os, sys
broken = sys.argv[1]
sys.argv[:2] = ["birdsonnx"]
from birdsonnx.runtime import isa
isa.extensions = lambda: ("avx2", "avx512f", "avx512_bf16")
if os.environ.get("PMI_RANK") == broken:
    os.environ["BIRDSONNX_ONEDNN"] = "/no/such/libdnnl.so.3"
from birdsonnx.__main__ import main
main()
"""
"""The first argument: the rank that finds no library."""

RELATIVE = 0.02
"""Between rank counts: float32 sums of another order reach bfloat16 as other roundings, 2^-9 each, and 12
steps of descent pass them on."""


@pytest.fixture
def config(workspace, training_config):
    residual_model().save(workspace / "model.onnx")
    network = training_config(optimizer={"type": "SGD", "learning_rate": 0.001, "momentum": 0.9})
    own = {"trainable": ["block_?", "last", "dense"], "cache": "kept", "precision": "bf16"}
    network["neural_network"]["birdsonnx"] = own
    Path("config.json").write_text(json.dumps(network))


def trained(*words: str, ranks: int = 1, broken: int | None = None) -> str:
    """Run `birdsonnx train config.json`; what it says."""
    launcher = [str(MPIRUN), "-np", str(ranks)] * (ranks > 1)
    command = [*launcher, sys.executable, "-c", SEEMING, str(broken), "train", "config.json", *words]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    assert "Traceback" not in done.stderr
    return done.stdout


def line_of(text: str) -> str:
    [line] = [line for line in text.splitlines() if line.strip().startswith("precision")]
    return line.split(maxsplit=1)[1]


def curves() -> tuple[np.ndarray, np.ndarray]:
    """Loss and gradient norm of every batch, loss and accuracy of every evaluation."""
    return np.loadtxt("out_train.txt")[:, 3:], np.loadtxt("out_test.txt")[:, 2:]


def loss_of(model: bytes) -> float:
    """Of the photos to test on, by the bare runtime: what is in the file, in whatever order training has
    it."""
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    losses = []
    for label, folder in enumerate(sorted(Path("data/valid").iterdir())):
        for path in sorted(folder.iterdir()):
            [log_probs] = session.run(None, {"images": np.asarray(Image.open(path))[None]})
            losses.append(-log_probs[0, label])
    return float(np.mean(losses))


def test_alone_and_by_two_ranks(config):
    text = trained()
    assert line_of(text).startswith("bf16, by oneDNN 3.")
    alone, bits = curves(), Path("saved/model_checkpoint_3.onnx").read_bytes()
    assert alone[0][-4:, 0].mean() < 0.8 * alone[0][:4, 0].mean()
    assert loss_of(bits) == pytest.approx(alone[1][-1, 0], rel=1e-4)
    for ranks in (1, 2):
        shutil.rmtree("saved")
        assert line_of(trained(ranks=ranks)).startswith("bf16, by oneDNN 3.")
        if ranks == 1:
            assert Path("saved/model_checkpoint_3.onnx").read_bytes() == bits
    for found, wanted in zip(curves(), alone, strict=True):
        np.testing.assert_allclose(found, wanted, rtol=RELATIVE)


@needs_training_runtime
def test_one_rank_without_the_library_takes_both_to_float32(config):
    text = trained(ranks=2, broken=1)
    assert line_of(text).startswith("fp32: BIRDSONNX_ONEDNN: /no/such/libdnnl.so.3 cannot be loaded (")
    assert Path("saved/model_checkpoint_3.onnx").exists()
