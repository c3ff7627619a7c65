"""All of birdsonnx on pictures it makes itself: export, train on 2 ranks, sample, predict, evaluate, plot.

Each step is the command a user would type, run as one.
"""

import contextlib
import importlib.util
import json
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from birdsonnx import artifacts
from birdsonnx.artifacts import filling
from birdsonnx.errors import BirdsonnxError, DataError
from birdsonnx.extras import how_to_install
from birdsonnx.images.photo_file import write_jpeg
from birdsonnx.invented_birds import SPECIES, picture
from birdsonnx.runtime import interpreter

PHOTOS = {"train": 16, "valid": 4, "test": 4}
TRAINING_CONFIG = "config_train.json"
MADE = (
    *("data", TRAINING_CONFIG, "models", "cache", "model_checkpoints_save", "runs"),
    *("test_samples", "predictions", "out_classifier*", "*.png", "*.html"),
)
"""Names of all that the steps put into the folder."""
STEP_ENDS_S = 10
"""For which a step that is asked to end is waited for."""


def make_photos(folder: Path, seed: int = 0) -> None:
    """A small set of class folders under `folder`/train, valid and test."""
    generator = np.random.default_rng(seed)
    for part, count in PHOTOS.items():
        for name, species in SPECIES.items():
            (folder / part / name).mkdir(parents=True)
            for number in range(1, count + 1):
                write_jpeg(picture(species, generator), folder / part / name / f"{number:03}.jpg")


def run(folder: Path, weights: str, say: Callable[..., None]) -> dict[str, Any]:
    """Run every step inside `folder`; returns where the results lie, and the accuracies.

    What a demo that did not end left in the folder is removed first.

    Raises:
        DataError: something else is in the folder, or the file of weights is not there.
        ArtifactError: the pictures cannot be written, or another run writes into the folder.
        BirdsonnxError: a step failed; its own message says why.
    """
    if weights not in ("none", "imagenet"):
        if not Path(weights).is_file():
            raise DataError(f"--weights {weights}: there is no such file")
        weights = str(Path(weights).resolve())
    with filling.filled(folder, MADE, "demo", say):
        return _run(folder, weights, say)


def _run(folder: Path, weights: str, say: Callable[..., None]) -> dict[str, Any]:
    with artifacts.naming(folder):
        make_photos(folder / "data")
    say(
        f"made {sum(PHOTOS.values()) * len(SPECIES)} pictures of {len(SPECIES)} invented species in "
        f"{folder / 'data'}"
    )
    artifacts.write_json(folder / TRAINING_CONFIG, _training_config())

    def step(*words: str, ranks: int = 1) -> dict[str, Any]:
        return _step(folder, [*words], ranks, say)

    step("export", "--weights", weights, "--labels", "data/train", "-o", "models/birds.onnx")
    trained = step("train", TRAINING_CONFIG, ranks=2)
    step("sample", "data/test", "test_samples")
    predicted = step("predict", "test_samples", "-o", "predictions", "--csv", "predictions/output_1.csv")
    say(*_answers(predicted))
    drawn = importlib.util.find_spec("matplotlib") is not None
    evaluated = step("evaluate", "data/test", *(("--plot", "confusion.png") if drawn else ()))
    if drawn:
        step("plot", "out_classifier.txt")
    else:
        say(f"(no matplotlib here: no curves and no matrix are drawn; {how_to_install('plot')})")
    reported = importlib.util.find_spec("jinja2") is not None
    if reported:
        step("report", TRAINING_CONFIG, "--data", "data/test", "-o", "report.html")
    else:
        say(f"(no Jinja2 here: no report is made; {how_to_install('report')})")
    where = {
        "pictures": "data/",
        "model": "models/birds.onnx",
        "trained": trained["checkpoints"][-1],
        "logs": "out_classifier_train.txt, out_classifier_test.txt",
        **({"curves": "out_classifier.png", "confusion": "confusion.png"} if drawn else {}),
        "predictions": "predictions/output_1.h5, predictions/output_1.csv",
        **({"report": "report.html"} if reported else {}),
    }
    say("", f"everything lies in {folder}:", *(f"  {name:<12} {path}" for name, path in where.items()))
    accuracy = trained["epochs"][-1]["test_accuracy"]
    say(f"accuracy: {accuracy:.3f} on valid, {evaluated['accuracy']:.3f} on test")
    return {
        "folder": str(folder),
        **where,
        "valid_accuracy": accuracy,
        "test_accuracy": evaluated["accuracy"],
    }


def _answers(predicted: dict[str, Any]) -> list[str]:
    """What the network calls each photo, as `predict` prints it."""
    found = predicted["predictions"]
    width = max(len(entry["name"]) for entry in found)
    tops = [(entry["name"], *entry["top"][0]) for entry in found]
    return [f"  {name:<{width}}  {species} {probability:.4f}" for name, species, probability in tops]


def _training_config() -> dict[str, Any]:
    return {
        "neural_network": {
            "num_epochs": 30,
            "outfile": "out_classifier.txt",
            "checkpoints": {"load": "models/birds.onnx", "save": "model_checkpoints_save/", "interval": 10},
            "data": {
                "input_type": "images",
                "target_type": "labels",
                "input_path": "data/train/",
                "test_input_path": "data/valid/",
                "batch_size": 16,
                "transforms": [{"resize": [224, 224]}],
            },
            "optimizer": {
                "type": "Adam",
                "learning_rate": 0.05,
                "lr_scheduler": {"type": "Exponential", "gamma": 0.9},
            },
            "loss": {"function": "NLL"},
            "birdsonnx": {"cache": "cache/"},
        }
    }


def _step(folder: Path, words: list[str], ranks: int, say: Callable[..., None]) -> dict[str, Any]:
    command = interpreter.command([*words, "--json"])
    typed = f"birdsonnx {shlex.join(words)}"
    if ranks > 1:
        launcher = _mpirun()
        if launcher is None:
            say(f"(no mpirun here: one rank; for more: {how_to_install('mpi')})")
        else:
            command = [launcher, "-np", str(ranks), *command]
            typed = f"mpirun -np {ranks} {typed}"
    say(f"$ {typed}")
    with subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, text=True) as process:
        try:
            output, _ = process.communicate()
        except BaseException:  # a signal: the step ends as we do, and has files to put away
            process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(STEP_ENDS_S)
            process.kill()
            raise
    if process.returncode:
        raise BirdsonnxError(f"'{typed}' in {folder} ended with exit code {process.returncode}")
    result: dict[str, Any] = json.loads(output)
    return result


def _mpirun() -> str | None:
    """The mpirun of this Python's own MPI, if mpi4py is here too."""
    try:
        import mpi4py  # noqa: F401
    except ImportError:
        return None
    beside = Path(sys.executable).parent / "mpirun"
    return str(beside) if os.access(beside, os.X_OK) else shutil.which("mpirun")
