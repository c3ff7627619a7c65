"""OpenVINO as a user meets it: the same answers as ONNX Runtime's, from every verb that computes."""

import json
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest

from birdsonnx.runtime import openvino_engine
from tests.command import MPIRUN, refused, succeed, succeed_json

needs_openvino = pytest.mark.skipif(
    openvino_engine.installed_version() is None, reason="the extra openvino is not installed"
)


def log_probs(path: str = "predictions/output_1.h5") -> np.ndarray:
    """Of all photos, in name order."""
    found: list[np.ndarray] = []
    with h5py.File(path) as file:
        file.visititems(lambda _, item: found.append(item[()]) if isinstance(item, h5py.Dataset) else None)
    return np.array(found)


@needs_openvino
@pytest.mark.parametrize("ranks", [1, 2])
def test_predict(workspace, ranks):
    succeed("predict", "data/valid", "--model", "model.onnx")
    expected = log_probs()
    found = succeed_json(
        "predict", "data/valid", "--model", "model.onnx", "--engine", "OpenVINO", ranks=ranks
    )
    assert found["engine"] == f"OpenVINO {openvino_engine.installed_version()}"
    np.testing.assert_allclose(log_probs(), expected, atol=1e-5)


@needs_openvino
def test_ranks_with_other_numbers_of_threads_mean_the_same_pieces(workspace):
    words = ["predict", "data/valid", "--model", "model.onnx", "--engine", "openvino"]
    succeed(*words)
    expected = log_probs()
    one, two = (
        ["-np", "1", "env", f"OMP_NUM_THREADS={threads}", sys.executable, "-m", "birdsonnx", *words]
        for threads in (1, 2)
    )
    subprocess.run([MPIRUN, *one, ":", *two], check=True, capture_output=True, timeout=120)
    np.testing.assert_allclose(log_probs(), expected, atol=1e-5)


@needs_openvino
def test_predict_by_a_config_and_by_an_option_that_replaces_it(workspace, training_config):
    content = training_config(birdsonnx={"engine": "openvino"})
    content["neural_network"]["data"].pop("input_path")
    Path("config.json").write_text(json.dumps(content))
    found = succeed_json("predict", "--config", "config.json")
    assert found["engine"].startswith("OpenVINO")
    found = succeed_json("predict", "--config", "config.json", "--engine", "onnxruntime")
    assert found["engine"].startswith("ONNX Runtime")


@needs_openvino
def test_evaluate(workspace):
    words = ["evaluate", "data/valid", "--model", "model.onnx"]
    plain, found = succeed_json(*words), succeed_json(*words, "--engine", "openvino")
    assert found["accuracy"] == plain["accuracy"]
    assert found["loss"] == pytest.approx(plain["loss"], abs=1e-5)


@needs_openvino
def test_benchmark(workspace):
    words = ["--seconds", "3", "--batch-sizes", "1", "--threads", "1", "--engine", "openvino"]
    found = succeed_json("benchmark", "model.onnx", *words)
    assert found["engine"].startswith("OpenVINO")


@needs_openvino
@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_features(workspace, training_config, precision):
    """Training learns as from ONNX Runtime's features, and takes none of the other's from the cache."""
    losses = []
    for engine in ("onnxruntime", "openvino"):
        own = {"engine": engine, "cache": "cache", "feature_precision": precision}
        Path("config.json").write_text(json.dumps(training_config(birdsonnx=own)))
        text = succeed("train", "config.json")
        assert ("features by OpenVINO" in text) == (engine == "openvino")
        losses.append(np.loadtxt("out_test.txt")[:, 2])
    np.testing.assert_allclose(losses[0], losses[1], rtol=1e-4 if precision == "fp32" else 0.2)
    assert len(list(Path("cache").glob("features-*.npy"))) == 4  # of train and test


@needs_openvino
def test_bf16(workspace, training_config):
    """Computed where the CPU has it; elsewhere one line says so before anything is done."""
    config = training_config(birdsonnx={"feature_precision": "bf16", "cache": "cache"})
    Path("config.json").write_text(json.dumps(config))
    words = ["predict", "data/valid", "--model", "model.onnx"]
    if openvino_engine.computes_bf16():
        succeed(*words)
        expected = log_probs()
        found = succeed_json(*words, "--precision", "bf16")
        assert found["engine"].endswith("in bf16")
        np.testing.assert_allclose(log_probs(), expected, atol=0.1)
        assert "computed in bf16" in succeed("train", "config.json")
    else:
        for refusal in (refused(*words, "--precision", "bf16"), refused("train", "config.json")):
            assert "this CPU does not compute in bf16 (it takes AVX512_BF16 or AMX)" in refusal
        assert not Path("predictions").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["predict", "data/valid", "--engine", "tensorrt"],
            "--engine 'tensorrt' is none of auto, onnxruntime",
        ),
        (["evaluate", "data/valid", "--engine", "x"], "--engine 'x' is none of auto, onnxruntime, openvino"),
        (["benchmark", "model.onnx", "--precision", "fp8"], "--precision 'fp8' is none of fp32, bf16, int8"),
        (
            ["predict", "data/valid", "--engine", "onnxruntime", "--precision", "bf16"],
            "bf16 is computed by OpenVINO alone",
        ),
    ],
)
def test_what_there_is_not(workspace, words, message):
    if words[0] != "benchmark":
        words = [*words, "--model", "model.onnx"]
    assert message in refused(*words)


def test_options_that_a_predictions_file_settles(workspace):
    succeed("predict", "data/valid", "--model", "model.onnx")
    for option, value in (("--model", "model.onnx"), ("--engine", "onnxruntime"), ("--precision", "fp32")):
        assert f"{option} is for a folder" in refused("evaluate", "predictions/output_1.h5", option, value)
