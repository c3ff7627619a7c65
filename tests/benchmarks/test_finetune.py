"""What finetune.py does beside measuring."""

import json
import re
import sys
from pathlib import Path

import numpy as np
import pytest

from benchmarks import finetune, trunk
from benchmarks.gradient import cosines
from birdsonnx.onednn import library
from tests.tiny import make_class_folders, tiny_model


def test_what_fails_is_missing_with_its_last_line(tmp_path: Path) -> None:
    with pytest.raises(finetune.MissingError, match=r"^no such thing$"):
        finetune.measured(sys.executable, "-c", "raise SystemExit('first\\nno such thing')", cwd=tmp_path)
    with pytest.raises(finetune.MissingError, match=r"^no compiler$"):
        finetune.measured(sys.executable, "-c", 'print(\'{"missing": "no compiler"}\')', cwd=tmp_path)


def test_a_row_that_is_missing_is_not_tried_again() -> None:
    tries = []

    def fail() -> finetune.Figures:
        tries.append(1)
        raise finetune.MissingError("no compiler")

    missing: dict[str, str] = {}
    for number in range(2):
        finetune.one_round({"row": fail}, number % 1, missing)

    assert missing == {"row": "no compiler"}
    assert len(tries) == 1


def test_as_many_photos_as_asked_for_in_equal_batches(tmp_path: Path) -> None:
    for name in "abc":
        (tmp_path / "from" / name).mkdir(parents=True)
        for number in range(5):
            (tmp_path / "from" / name / f"{number}.jpg").touch()

    assert finetune.link_photos(tmp_path / "from", tmp_path / "to", 8) == 8
    assert [len(list((tmp_path / "to" / name).iterdir())) for name in "abc"] == [3, 3, 2]


def test_cosines_of_the_whole_and_of_the_worst_layer() -> None:
    ours = {"a": np.array([3.0, 0.0], np.float32), "b": np.array([[0.0, 1.0]], np.float32)}
    theirs = {"a": np.array([3.0, 0.0], np.float32), "b": np.array([[1.0, 1.0]], np.float32)}

    found = cosines(ours, theirs)

    assert found["layer"] == "b"
    assert found["worst"] == pytest.approx(2**-0.5)
    assert found["whole"] == pytest.approx((9 + 1) / np.sqrt(10 * 11))


@pytest.fixture
def work(tmp_path: Path) -> Path:
    """A folder with a config as finetune.py makes one."""
    make_class_folders(tmp_path / "data/train", per_class=4)
    tiny_model().save(tmp_path / "head.onnx")
    network = {
        "num_epochs": 1,
        "checkpoints": {"load": "head.onnx"},
        "data": {"input_path": "data/train", "test_input_path": "data/train", "batch_size": 4},
        "optimizer": {"type": "Adam", "learning_rate": 0.001},
        "birdsonnx": {"trainable": ["*"]},
    }
    (tmp_path / "config.json").write_text(json.dumps({"neural_network": network}))
    return tmp_path


def test_steps_are_timed_alone_and_by_ranks(work: Path) -> None:
    alone, ranks = (finetune.birdsonnx(work, ranks=count) for count in (1, 2))

    assert alone["losses"] == pytest.approx(ranks["losses"], rel=1e-5)
    for found in (alone, ranks):
        assert found["precision"].startswith("fp32")
        assert found["tested"] == 12
        assert len(found["times_s"]) == len(found["cpu_s"]) == len(found["losses"]) == 3
        assert finetune.speeds(found, 4, 1)["cpu_ms_per_image"] > 0


def test_bf16_that_is_not_to_be_had_is_told(work: Path) -> None:
    found = finetune.measured(
        sys.executable, "-m", "benchmarks.timed_training", "config.json", "birdsonnx.precision=bf16",
        cwd=work, environment={library.VARIABLE: "no.so"},
    )  # fmt: skip

    assert found["precision"].startswith("fp32: ")


def has_onednn() -> bool:
    try:
        library.load()
    except library.OnednnError:
        return False
    return True


@pytest.mark.skipif(not has_onednn(), reason="no oneDNN")
def test_gradients_in_both_precisions_point_the_same_way(work: Path) -> None:
    finetune.measured(sys.executable, "-m", "benchmarks.gradient", "config.json", "ours", cwd=work)
    ours = {kind: dict(np.load(work / f"ours-{kind}.npz")) for kind in ("fp32", "bf16")}

    assert 0.99 < cosines(ours["bf16"], ours["fp32"])["whole"] < 1


@pytest.mark.skipif(not has_onednn(), reason="no oneDNN")
def test_a_trunk_is_profiled(work: Path, capsys: pytest.CaptureFixture[str], monkeypatch) -> None:
    words = [
        "trunk",
        str(work / "head.onnx"),
        "--photos",
        "2",
        "--kind",
        "f32",
        "--rounds",
        "1",
        "--top",
        "100",
    ]
    monkeypatch.setattr("sys.argv", words)
    trunk.main()
    text = capsys.readouterr().out

    assert "| convolution_backward_weights | 2 |" in text
    assert "2x3x32x32 f32" in text
    steps = [line for line in text.splitlines() if "| jit" in line or "| brg" in line]
    assert len(steps) == sum(map(int, re.findall(r"^\| [a-z_]+ \| (\d+) \|", text, re.MULTILINE)))
