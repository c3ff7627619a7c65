"""Predictions in one table: the same numbers as in a dataset for each photo, for all that reads them."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest

from tests.command import birdsonnx, refused, succeed, succeed_json
from tests.e2e.test_going_on import ALONE
from tests.tiny import make_class_folders, tiny_model

CLASSES = ("ANT BIRD", "BEE-EATER", "COOT")
WORDS = ("predict", "data", "--model", "model.onnx")
TABLE = (*WORDS, "--layout", "table")
FILE = Path("predictions/output_1.h5")


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("layouts")
    tiny_model(3, CLASSES).save(folder / "model.onnx")
    make_class_folders(folder / "data", CLASSES, per_class=70)
    return folder


@pytest.fixture(autouse=True)
def here(made, tmp_path) -> None:
    shutil.copytree(made, tmp_path, dirs_exist_ok=True)


def in_datasets(path: Path) -> dict[str, np.ndarray]:
    found = {}
    with h5py.File(path) as file:
        file.visititems(
            lambda name, each: found.update({name: each[()]}) if isinstance(each, h5py.Dataset) else None
        )
    return found


def in_table(path: Path) -> dict[str, np.ndarray]:
    with h5py.File(path) as file:
        return dict(zip(file["names"].asstr()[:], file["log_probs"][:], strict=True))


def test_the_same_numbers_and_figures():
    succeed(*WORDS)
    assert "writing predictions/output_2.h5, since predictions/output_1.h5 is of another" in succeed(*TABLE)
    one, other = in_datasets(FILE), in_table(Path("predictions/output_2.h5"))
    assert list(one) == list(other)
    for name, row in one.items():
        np.testing.assert_array_equal(row, other[name])
    figures = [succeed_json("evaluate", f"predictions/output_{number}.h5") for number in (1, 2)]
    assert figures[0] == figures[1]
    pages = [succeed_json("report", f"predictions/output_{number}.h5") for number in (1, 2)]
    differs = ("output", "bytes")
    assert [{key: page[key] for key in page if key not in differs} for page in pages] == [
        {key: pages[0][key] for key in pages[0] if key not in differs}
    ] * 2


@pytest.mark.parametrize("ranks", [2, 3])
def test_the_same_bytes_on_any_number_of_ranks(ranks):
    succeed(*TABLE)
    alone = FILE.read_bytes()
    assert "it is of the same command" in succeed(*TABLE, ranks=ranks)
    assert FILE.read_bytes() == alone


def test_a_killed_run_is_gone_on_with():
    succeed(*TABLE)
    expected = FILE.read_bytes()
    FILE.unlink()
    command = [sys.executable, "-c", ALONE, "30", *TABLE]
    assert subprocess.run(command, capture_output=True, text=True, check=True, timeout=120).stdout == "1\n"
    assert not FILE.exists()
    assert "going on after " in succeed(*TABLE)
    assert FILE.read_bytes() == expected


def test_a_config_asks_for_it():
    config = Path("config.json")
    network = {
        "outfile": "out.txt",
        "data": {"input_path": "data", "test_input_path": "data", "test_output_path": "kept"},
        "checkpoints": {"load": "model.onnx", "save": "saved"},
        "birdsonnx": {"output_layout": "Table", "cache": "cache"},
    }
    config.write_text(json.dumps({"neural_network": network}))
    succeed("train", config)
    assert len(in_table(Path("kept/output_1.h5"))) == 210
    succeed("predict", "--config", config, "-o", "again")
    assert len(in_table(Path("again/output_1.h5"))) == 210
    succeed("predict", "--config", config, "-o", "apart", "--layout", "datasets")
    assert len(in_datasets(Path("apart/output_1.h5"))) == 210
    network["data"] = {"input_path": "data", "test_input_path": "data"}
    config.write_text(json.dumps({"neural_network": network}))
    assert "output_layout" in refused("train", config)
    assert "--layout" in refused("predict", "--config", config)


def test_a_layout_that_there_is_not():
    assert "--layout 'tabel'" in birdsonnx(*WORDS, "--layout", "tabel").stderr
