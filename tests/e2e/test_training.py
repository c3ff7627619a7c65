"""`birdsonnx train` as a user runs it, alone and under mpirun, on a tiny network."""

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import numpy_helper
from PIL import Image

from tests.command import birdsonnx, refused, succeed, succeed_json

CLASSES = ["ANT BIRD", "BEE-EATER", "COOT"]
RELATIVE = 1e-4
"""Between rank counts: sums of float32 in another order, over a few dozen steps."""


def weights_of(path: Path) -> dict[str, np.ndarray]:
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in onnx.load(path).graph.initializer}


def same_bits(one: Path, other: Path) -> bool:
    first, second = weights_of(one), weights_of(other)
    return first.keys() == second.keys() and all(np.array_equal(first[name], second[name]) for name in first)


@pytest.fixture
def config(workspace, training_config):
    def write(name: str = "config.json", **sections) -> str:
        (workspace / name).write_text(json.dumps(training_config(**sections)))
        return name

    write()
    return write


def test_a_run_says_what_it_does_and_leaves_what_it_promises(workspace, config):
    text = succeed("train", "config.json", fresh=True)
    for word in (
        "network:",
        "trainable: dense",
        "Adam",
        "24 photos of 3 classes",
        "epoch 1/3  batch 1/4  loss",
    ):
        assert word in text
    assert sorted(path.name for path in (workspace / "saved").iterdir()) == [
        "model_checkpoint_2.onnx",
        "model_checkpoint_2.state.npz",
        "model_checkpoint_3.onnx",
        "model_checkpoint_3.state.npz",
    ]
    train, test = np.loadtxt("out_train.txt"), np.loadtxt("out_test.txt")
    assert train.shape == (12, 5)
    assert test.shape == (3, 4)
    assert (train[:, 1:3] == [(epoch, batch) for epoch in (1, 2, 3) for batch in (1, 2, 3, 4)]).all()
    assert (np.diff(train[:, 0]) >= 0).all()


def test_it_learns_and_only_the_head_changes(workspace, config):
    config(num_epochs=20, optimizer={"type": "Adam", "learning_rate": 0.05})
    result = succeed_json("train", "config.json")
    assert result["epochs"][-1]["test_accuracy"] == 1.0
    before, after = weights_of(workspace / "model.onnx"), weights_of(Path(result["checkpoints"][-1]))
    changed = {name for name in before if not np.array_equal(before[name], after[name])}
    assert changed == {"dense/kernel", "dense/bias"}


def test_a_checkpoint_is_a_whole_model_that_any_runtime_runs(workspace, config):
    succeed("train", "config.json")
    path = workspace / "saved" / "model_checkpoint_3.onnx"
    onnx.checker.check_model(onnx.load(path), full_check=True)
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    assert json.loads(session.get_modelmeta().custom_metadata_map["birdsonnx.classes"]) == CLASSES
    photo = np.asarray(Image.open(workspace / "data/valid/COOT/000.png"))
    [log_probs] = session.run(None, {"images": photo[None]})
    assert np.exp(log_probs).sum() == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize(("cache", "more"), [("kept", (2, 4)), (False, (2,))])
def test_loss_curves_do_not_depend_on_the_number_of_ranks(workspace, config, cache, more):
    config(birdsonnx={"cache": cache})
    curves = []
    for ranks in (1, *more):
        succeed("train", "config.json", ranks=ranks)
        curves.append((np.loadtxt("out_train.txt")[:, 3:], np.loadtxt("out_test.txt")[:, 2:]))
    for train, test in curves[1:]:
        np.testing.assert_allclose(train, curves[0][0], rtol=RELATIVE)
        np.testing.assert_allclose(test, curves[0][1], rtol=RELATIVE)


def test_more_ranks_than_photos_in_a_batch(workspace, config):
    sections = {"input_path": "data/train/", "test_input_path": "data/valid/", "batch_size": 2}
    config(data=sections, num_epochs=1)
    succeed("train", "config.json", ranks=3)
    shared = np.loadtxt("out_train.txt")[:, 3]
    succeed("train", "config.json")
    np.testing.assert_allclose(shared, np.loadtxt("out_train.txt")[:, 3], rtol=RELATIVE)


def test_cached_features_give_the_same_bits(workspace, config):
    succeed("train", "config.json")
    (workspace / "saved").rename(workspace / "cold")
    succeed("train", "config.json", fresh=True)
    assert same_bits(workspace / "cold/model_checkpoint_3.onnx", workspace / "saved/model_checkpoint_3.onnx")


def test_recomputed_features_give_the_same_curve(workspace, config):
    succeed("train", "config.json")
    kept = np.loadtxt("out_train.txt")[:, 3]
    for preload in (False, True):
        config(
            data={
                "input_path": "data/train/",
                "test_input_path": "data/valid/",
                "batch_size": 7,
                "preload": preload,
            },
            birdsonnx={"cache": False},
        )
        succeed("train", "config.json", "--overwrite")
        np.testing.assert_allclose(np.loadtxt("out_train.txt")[:, 3], kept, rtol=1e-5)


@pytest.mark.parametrize(
    ("ranks", "optimizer"),
    [
        (1, {"type": "Adam", "learning_rate": 0.01, "lr_scheduler": {"type": "Exponential", "gamma": 0.5}}),
        (2, {"type": "SGD", "momentum": 0.9, "lr_scheduler": {"type": "Step", "gamma": 0.1, "step_size": 2}}),
    ],
)
def test_stop_and_resume_gives_the_bits_of_never_stopping(workspace, config, optimizer, ranks):
    config(optimizer=optimizer, num_epochs=4)
    succeed("train", "config.json", ranks=ranks)
    whole = np.loadtxt("out_train.txt")[:, 1:]
    (workspace / "saved").rename(workspace / "whole")
    succeed("train", "config.json", "--set", "num_epochs=2", "--overwrite", ranks=ranks)
    text = succeed("train", "config.json", "--resume", ranks=ranks, fresh=True)
    assert "resuming after epoch 2" in text
    assert same_bits(workspace / "whole/model_checkpoint_4.onnx", workspace / "saved/model_checkpoint_4.onnx")
    assert np.array_equal(np.loadtxt("out_train.txt")[:, 1:], whole)


def test_resume_after_a_kill(workspace, config):
    """SIGKILL in the middle of a later epoch; what is on disk loads, and the run ends with the same bits."""
    settings = {"checkpoints": {"load": "model.onnx", "save": "saved/", "interval": 1}, "num_epochs": 400}
    config(**settings)
    process = subprocess.Popen(
        [sys.executable, "-m", "birdsonnx", "train", "config.json"], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith("epoch 5/400  batch 2/"):
            break
    os.kill(process.pid, signal.SIGKILL)
    process.stdout.close()
    process.wait()
    for path in (workspace / "saved").glob("model_checkpoint_*.onnx"):
        onnx.checker.check_model(onnx.load(path))
    last = max(int(path.stem.split("_")[-1]) for path in (workspace / "saved").glob("*.onnx"))
    succeed("train", "config.json", "--resume", "--set", f"num_epochs={last + 2}")
    (workspace / "saved").rename(workspace / "killed")
    succeed("train", "config.json", "--set", f"num_epochs={last + 2}")
    name = f"model_checkpoint_{last + 2}.onnx"
    assert same_bits(workspace / "killed" / name, workspace / "saved" / name)


def test_resume_refuses_another_run(workspace, config):
    succeed("train", "config.json")
    line = refused("train", "config.json", "--resume", "--set", "data.batch_size=5")
    assert "data.batch_size 7" in line


def test_resume_without_a_checkpoint(workspace, config):
    assert "no checkpoint to resume from" in refused("train", "config.json", "--resume")


def test_a_newer_run_in_the_same_folder_is_the_one_that_counts(workspace, config):
    succeed("train", "config.json", "--set", "num_epochs=3")
    succeed("train", "config.json", "--set", "num_epochs=2", "--set", "optimizer.learning_rate=0.02")
    os.utime(workspace / "saved/model_checkpoint_3.onnx", (2e9, 2e9))  # neither file times nor numbers decide
    (workspace / "saved").rename(workspace / "model_checkpoints_save")
    assert succeed_json("predict", "data/valid")["model"].endswith("model_checkpoint_2.onnx")


def test_test_predictions_of_every_epoch(workspace, config):
    import h5py

    sections = {"input_path": "data/train/", "test_input_path": "data/valid/", "test_output_path": "kept/"}
    config(data=sections)
    for ranks in (1, 2):
        result = succeed_json("train", "config.json", ranks=ranks)
        for epoch in result["epochs"]:
            with h5py.File(f"kept/output_{epoch['epoch']}.h5") as file:
                assert list(file) == CLASSES
                rows = [(name, file[name][photo][()]) for name in file for photo in file[name]]
            right = sum(CLASSES.index(name) == row.argmax() for name, row in rows)
            assert right / len(rows) == pytest.approx(epoch["test_accuracy"])


def test_normalize_becomes_part_of_the_checkpoint(workspace, config):
    """With `normalize` the network sees exactly what the config says, in training and ever after."""
    normalize = {"normalize": {"mean": [0.5, 0.4, 0.3], "std": [0.2, 0.25, 0.3]}}
    sections = {"input_path": "data/train/", "test_input_path": "data/valid/"}
    config(data={**sections, "transforms": [{"resize": [32, 32]}, normalize]})
    succeed("train", "config.json")
    raw = onnx.load(workspace / "model.onnx").graph
    kernel = {tensor.name: numpy_helper.to_array(tensor) for tensor in raw.initializer}
    trained = weights_of(workspace / "saved/model_checkpoint_3.onnx")
    photo = np.asarray(Image.open(workspace / "data/valid/COOT/000.png"))
    values = (photo / 255 - [0.5, 0.4, 0.3]) / [0.2, 0.25, 0.3]
    # The first convolution by hand at one place, through the graph's own output of that tensor.
    window = values[:5, :5].transpose(2, 0, 1)
    expected = (kernel["conv1/kernel"] * window).sum(axis=(1, 2, 3)) + kernel["conv1/bias"]
    model = onnx.load(workspace / "saved/model_checkpoint_3.onnx")
    model.graph.output.append(onnx.helper.make_tensor_value_info("c1", onnx.TensorProto.FLOAT, None))
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    found = session.run(["c1"], {"images": photo[None]})[0][0, :, 0, 0]
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
    assert not np.array_equal(trained["dense/kernel"], kernel["dense/kernel"])


def test_transforms_travel_with_the_checkpoint(workspace, config):
    """Prediction uses the transforms of the training unless others are given."""
    sections = {"input_path": "data/train/", "test_input_path": "data/valid/"}
    config(data={**sections, "transforms": [{"resize": [40, 40]}, {"center_crop": [32, 32]}]})
    result = succeed_json("train", "config.json")
    evaluated = succeed_json("evaluate", "data/valid", "--model", "saved/model_checkpoint_3.onnx")
    assert evaluated["loss"] == pytest.approx(result["epochs"][-1]["test_loss"], rel=1e-5)


def test_photos_that_are_not_square_keep_their_proportions_everywhere(workspace, config):
    """Training, evaluation, prediction and quantisation see what Pillow's plain code makes of the photos."""
    steps = [{"resize_shorter": 40}, {"center_crop": [32, 32]}]
    for path in list((workspace / "data").rglob("*.png")):
        with Image.open(path) as image:
            wide = image.resize((64, 48))
        wide.save(path)
        small = wide.resize((53, 40), Image.Resampling.BILINEAR).crop((10, 4, 42, 36))  # 40 * 64 / 48 = 53.3
        square = workspace / "square" / path.relative_to(workspace / "data")
        square.parent.mkdir(parents=True, exist_ok=True)
        small.save(square)

    def trained(root: str, saved: str, transforms: list) -> dict:
        sections = {"input_path": f"{root}/train/", "test_input_path": f"{root}/valid/"}
        config(data={**sections, "transforms": transforms}, checkpoints={"load": "model.onnx", "save": saved})
        return succeed_json("train", "config.json")

    result, expected = trained("data", "wide/", steps), trained("square", "plain/", [])
    for name in ("train_loss", "test_loss"):
        assert [epoch[name] for epoch in result["epochs"]] == pytest.approx(
            [epoch[name] for epoch in expected["epochs"]], rel=1e-6
        )
    model = "wide/model_checkpoint_3.onnx"
    assert succeed_json("info", model)["transforms"] == steps
    assert succeed_json("evaluate", "data/valid", "--model", model)["loss"] == pytest.approx(
        result["epochs"][-1]["test_loss"], rel=1e-5
    )
    for root, saved in (("data", "wide"), ("square", "plain")):
        succeed("predict", f"{root}/valid", "--model", f"{saved}/model_checkpoint_3.onnx", "-o", saved)
        succeed("quantize", f"{saved}/model_checkpoint_3.onnx", "--calibrate", f"{root}/train")
    with h5py.File("wide/output_1.h5") as wide_file, h5py.File("plain/output_1.h5") as plain:
        for name in ("ANT BIRD/000.png", "COOT/002.png"):
            np.testing.assert_array_equal(wide_file[name][()], plain[name][()])
    assert same_bits(Path("wide/model_checkpoint_3.int8.onnx"), Path("plain/model_checkpoint_3.int8.onnx"))


class TestRefusals:
    """One clear line, exit 2, nothing trained and nothing written."""

    def refuse(self, *words, **options) -> str:
        line = refused("train", "config.json", *words, **options)
        assert not Path("saved").exists()
        assert not Path("out_train.txt").exists()
        return line

    def test_class_folders_that_differ_by_a_space(self, workspace, config):
        (workspace / "data/train/ANT BIRD").rename(workspace / "data/train/ANT  BIRD")
        for ranks in (1, 2):
            line = self.refuse(ranks=ranks)
            assert "'ANT  BIRD'" in line
            assert "'ANT BIRD'" in line

    def test_a_class_count_that_is_not_the_models(self, workspace, config):
        from tests.tiny import tiny_model

        tiny_model(5).save(workspace / "model.onnx")
        line = self.refuse()
        assert "5 classes" in line
        assert "3 class" in line

    def test_class_names_that_are_not_the_models(self, workspace, config):
        from tests.tiny import tiny_model

        tiny_model(3, names=["A", "B", "C"]).save(workspace / "model.onnx")
        assert "'ANT BIRD'" in self.refuse()

    def test_an_empty_class_folder(self, workspace, config):
        (workspace / "data/train/DODO").mkdir()
        assert "'DODO' holds no photos" in self.refuse()

    def test_a_missing_folder(self, workspace, config):
        assert "elsewhere: there is no such folder" in self.refuse("--set", "data.input_path=elsewhere")

    def test_a_truncated_model(self, workspace, config):
        content = (workspace / "model.onnx").read_bytes()
        (workspace / "model.onnx").write_bytes(content[: len(content) // 2])
        assert "not a complete ONNX file" in self.refuse()

    @pytest.mark.parametrize("cache", ["kept", False])
    @pytest.mark.parametrize("ranks", [1, 2])
    def test_damaged_photos_are_all_listed(self, workspace, config, ranks, cache):
        config(birdsonnx={"cache": cache})
        bad = [workspace / "data/train/COOT/001.png", workspace / "data/train/ANT BIRD/003.png"]
        for path in bad:
            path.write_bytes(path.read_bytes()[:300])
        done = birdsonnx("train", "config.json", ranks=ranks)
        assert done.returncode == 2
        assert not Path("saved").exists()
        assert "2 of 24 photos cannot be used, nothing was trained" in done.stderr
        assert all(f"{path.parent.name}/{path.name}" in done.stderr for path in bad)
        assert not Path("kept").exists() or not list(Path("kept").glob("features-*"))

    def test_one_damaged_photo_is_one_line(self, workspace, config):
        path = workspace / "data/valid/COOT/001.png"
        path.write_bytes(path.read_bytes()[:300])
        line = refused("train", "config.json")
        assert "1 of 9 photos" in line
        assert "data/valid/COOT/001.png" in line

    def test_a_loss_that_is_not_finite(self, workspace, config):
        config(optimizer={"type": "SGD", "learning_rate": 1e38}, num_epochs=3)
        for ranks in (1, 2):
            done = birdsonnx("train", "config.json", ranks=ranks)
            assert done.returncode == 2
            assert "lower optimizer.learning_rate" in done.stderr.lower()
            assert len(done.stderr.strip().splitlines()) == 1


def test_a_rank_that_dies_ends_the_job(workspace, config, tmp_path):
    """Rank 1 is killed while it works: the others end within seconds, the job with an error."""
    script = tmp_path / "die.py"
    script.write_text(
        "import os, signal, sys\n"
        "from birdsonnx.training import loop\n"
        "step = loop.Training._train\n"
        "def die(self, epoch, *others):\n"
        "    if epoch == 3 and self.ranks.rank == 1:\n"
        "        os.kill(os.getpid(), signal.SIGKILL)\n"
        "    return step(self, epoch, *others)\n"
        "loop.Training._train = die\n"
        "from birdsonnx.cli.app import main\n"
        "sys.argv = ['birdsonnx', 'train', 'config.json']\n"
        "main()\n"
    )
    from tests.command import MPIRUN

    done = subprocess.run(
        [str(MPIRUN), "-np", "2", sys.executable, str(script)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode != 0
    onnx.checker.check_model(onnx.load(workspace / "saved/model_checkpoint_2.onnx"))


def test_one_class_folder_is_refused_as_such(workspace, training_config):
    for name in ("data/train", "data/valid"):
        for folder in sorted(Path(name).iterdir())[1:]:
            shutil.rmtree(folder)
    Path("config.json").write_text(json.dumps(training_config()))
    line = refused("train", "config.json")
    assert line == "birdsonnx: data/train has one class folder; a classifier needs two or more"
