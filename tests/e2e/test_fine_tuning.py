"""`birdsonnx train` on layers before the head: a tiny residual network, alone and under mpirun."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import numpy_helper
from PIL import Image

from tests.command import MPIRUN, birdsonnx, refused, succeed, succeed_json
from tests.tiny import residual_model

TRAINED = ["block_?", "last", "dense"]
RANDOM = [
    {"jitter_crop": 0.3},
    {"resize": [32, 32]},
    {"random_horizontal_flip": 0.5},
    {"random_zoom": 0.2},
    {"random_rotate": 20},
]
EVERYTHING = {
    "data": {"transforms": RANDOM},
    "optimizer": {
        "type": "LAMB",
        "weight_decay": 0.01,
        "lr_scheduler": {"type": "Cosine", "min_factor": 0.1},
    },
    "loss": {"weight": [0.5, 1, 2]},
    "birdsonnx": {"clip_norm": 1.0, "label_smoothing": 0.1, "early_stopping": 6},
}
RELATIVE = 1e-4
"""Between rank counts and places of division: gradients of a batch of 7 summed in another order in float32
(6e-8 each), through 12 steps of descent; 4e-7 was measured."""


def weights_of(path: Path) -> dict[str, np.ndarray]:
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in onnx.load(path).graph.initializer}


def curves() -> tuple[np.ndarray, np.ndarray]:
    """Loss and gradient norm of every batch, loss and accuracy of every evaluation."""
    return np.loadtxt("out_train.txt")[:, 3:], np.loadtxt("out_test.txt")[:, 2:]


@pytest.fixture
def config(workspace, training_config):
    """Writes `config.json`; keyword arguments are merged into its sections."""
    residual_model().save(workspace / "model.onnx")

    def write(**sections) -> None:
        network = training_config()["neural_network"]
        network["checkpoints"]["interval"] = 1
        network["birdsonnx"] = {"trainable": TRAINED, "cache": "kept"}
        for name, section in sections.items():
            network[name] = {**network[name], **section} if isinstance(section, dict) else section
        (workspace / "config.json").write_text(json.dumps({"neural_network": network}))

    write()
    return write


def test_the_named_layers_learn_and_all_others_keep_their_bits(workspace, config):
    config(num_epochs=6)
    text = succeed("train", "config.json", fresh=True)
    assert "5,283 trainable: block_a, block_b, last, dense" in text
    assert "stem: 16,384 bytes per photo" in text
    losses = curves()[0][:, 0].reshape(6, 4).mean(axis=1)
    assert losses[-1] < 0.3 * losses[0]
    before, after = (
        weights_of(workspace / "model.onnx"),
        weights_of(workspace / "saved/model_checkpoint_6.onnx"),
    )
    changed = {name for name in before if not np.array_equal(before[name], after[name])}
    layers = ("block_a", "block_b", "last", "dense")
    assert changed == {f"{layer}/{role}" for layer in layers for role in ("kernel", "bias")}
    assert after.keys() == before.keys()


def test_a_checkpoint_is_the_same_graph_that_any_runtime_runs(workspace, config):
    """The forms that training works on stay inside; the log's last accuracy is that of the file."""
    succeed("train", "config.json")
    trained = onnx.load(workspace / "saved/model_checkpoint_3.onnx")
    onnx.checker.check_model(trained, full_check=True)
    assert list(trained.graph.node) == list(onnx.load(workspace / "model.onnx").graph.node)
    session = onnxruntime.InferenceSession(trained.SerializeToString(), providers=["CPUExecutionProvider"])
    losses = []
    for label, folder in enumerate(sorted((workspace / "data/valid").iterdir())):
        for path in sorted(folder.iterdir()):
            [log_probs] = session.run(None, {"images": np.asarray(Image.open(path))[None]})
            losses.append(-log_probs[0, label])
    assert np.mean(losses) == pytest.approx(curves()[1][-1, 0], rel=1e-4)


@pytest.mark.parametrize(
    ("sections", "more"),
    [({}, (2,)), ({"birdsonnx": {"cache": False}}, (2,)), (EVERYTHING, (2, 4))],
    ids=["features", "no features", "everything"],
)
def test_loss_curves_do_not_depend_on_the_number_of_ranks(config, sections, more):
    sections = {"optimizer": {"type": "SGD", "learning_rate": 0.001, "momentum": 0.9}, **sections}
    config(**sections)
    found = []
    for ranks in (1, *more):
        shutil.rmtree("kept", ignore_errors=True)
        succeed("train", "config.json", ranks=ranks)
        found.append(curves())
    for train, test in found[1:]:
        np.testing.assert_allclose(train, found[0][0], rtol=RELATIVE)
        np.testing.assert_allclose(test, found[0][1], rtol=RELATIVE)


def test_loss_curves_do_not_depend_on_the_cache(config):
    found = []
    for cache in ("kept", False):
        for preload in (False, True):
            config(birdsonnx={"cache": cache}, data={"preload": preload})
            text = succeed("train", "config.json")
            assert ("changes nothing: features are kept" in text) == (preload and cache == "kept")
            found.append(curves())
    for train, test in found[1:]:
        np.testing.assert_allclose(train, found[0][0], rtol=RELATIVE)
        np.testing.assert_allclose(test, found[0][1], rtol=RELATIVE)


@pytest.mark.parametrize(("ranks", "sections"), [(1, {}), (2, EVERYTHING)], ids=["plain", "everything"])
def test_two_runs_give_the_same_bits(workspace, config, sections, ranks):
    config(**sections)
    contents = []
    for _ in range(2):
        shutil.rmtree("kept", ignore_errors=True)
        shutil.rmtree("saved", ignore_errors=True)
        succeed("train", "config.json", ranks=ranks, fresh=True)
        contents.append((workspace / "saved/model_checkpoint_3.onnx").read_bytes())
    assert contents[0] == contents[1]


@pytest.mark.parametrize(
    ("sections", "ranks"),
    [({}, 1), (EVERYTHING, 1), (EVERYTHING, 2)],
    ids=["plain-1", "everything-1", "everything-2"],
)
def test_a_kill_and_resume_gives_the_bits_of_never_stopping(workspace, config, sections, ranks):
    """The last rank is killed in the middle of epoch 4 of 6, and takes the job with it."""
    config(num_epochs=6, **sections)
    succeed("train", "config.json", ranks=ranks)
    whole = curves()
    (workspace / "saved").rename(workspace / "whole")
    (workspace / "kill.py").write_text(
        "import os, signal, sys\n"
        "from birdsonnx.reporting.training_log import TrainingLog\n"
        "on_batch = TrainingLog.on_batch\n"
        "def kill(self, batch):\n"
        "    on_batch(self, batch)\n"
        f"    if (batch.epoch, batch.number, os.environ.get('PMI_RANK', '0')) == (4, 2, '{ranks - 1}'):\n"
        "        os.kill(os.getpid(), signal.SIGKILL)\n"
        "TrainingLog.on_batch = kill\n"
        "from birdsonnx.cli.app import main\n"
        "sys.argv = ['birdsonnx', 'train', 'config.json']\n"
        "main()\n"
    )
    launcher = [str(MPIRUN), "-np", str(ranks)] if ranks > 1 else []
    command = [*launcher, sys.executable, "kill.py"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode != 0
    assert "Traceback" not in done.stderr
    assert sorted(path.name for path in (workspace / "saved").glob("model_checkpoint_*.onnx")) == [
        f"model_checkpoint_{epoch}.onnx" for epoch in (1, 2, 3)
    ]
    text = succeed("train", "config.json", "--resume", ranks=ranks)
    assert "resuming after epoch 3" in text
    assert "epoch 4/6  batch 1/4" in text
    assert "epoch 3/6" not in text
    name = "model_checkpoint_6.onnx"
    assert (workspace / "saved" / name).read_bytes() == (workspace / "whole" / name).read_bytes()
    for resumed, expected in zip(curves(), whole, strict=True):
        np.testing.assert_array_equal(resumed, expected)


class TestEarlyStopping:
    @pytest.fixture
    def overfits(self, workspace, config):
        """A third of the test photos lie in the wrong folder: the surer the network, the worse for them."""
        folders = sorted((workspace / "data/valid").iterdir())
        for folder, other in zip(folders, [*folders[1:], folders[0]], strict=True):
            (folder / "002.png").rename(other / "wrong.png")
        config(num_epochs=40, birdsonnx={"early_stopping": 3})
        return workspace

    @pytest.mark.parametrize("ranks", [1, 2])
    def test_it_stops_and_keeps_the_best(self, overfits, ranks):
        text = succeed("train", "config.json", ranks=ranks)
        losses = curves()[1][:, 0]
        best, last = int(losses.argmin()) + 1, len(losses)
        assert best > 1
        assert last == best + 3 < 40
        assert f"stopped after epoch {last}; the lowest test loss was that of epoch {best}" in text
        saved = overfits / "saved"
        assert (saved / "model_best.onnx").read_bytes() == (
            saved / f"model_checkpoint_{best}.onnx"
        ).read_bytes()
        assert (saved / f"model_checkpoint_{last}.onnx").exists()

    def test_the_best_is_kept_between_checkpoints_too(self, overfits):
        succeed("train", "config.json")
        losses = curves()[1][:, 0]
        best, last = int(losses.argmin()) + 1, len(losses)
        every = (overfits / f"saved/model_checkpoint_{best}.onnx").read_bytes()
        shutil.rmtree(overfits / "saved")
        succeed("train", "config.json", "--set", "checkpoints.interval=100")
        assert (overfits / "saved/model_best.onnx").read_bytes() == every
        assert [path.name for path in (overfits / "saved").glob("model_checkpoint_*.onnx")] == [
            f"model_checkpoint_{last}.onnx"
        ]

    def test_a_resume_after_it_trains_nothing_and_says_so(self, overfits):
        succeed("train", "config.json")
        before = {path.name: path.read_bytes() for path in (overfits / "saved").iterdir()}
        log, last = Path("out_train.txt").read_text(), len(curves()[1])
        text = succeed("train", "config.json", "--resume")
        assert f"its run ended after epoch {last}, since the test loss fell no more (early_stopping)" in text
        assert "batch 1/" not in text
        assert {path.name: path.read_bytes() for path in (overfits / "saved").iterdir()} == before
        assert Path("out_train.txt").read_text() == log

    def test_prediction_takes_the_newest_checkpoint_not_the_best(self, overfits):
        succeed("train", "config.json", "--set", "checkpoints.save=model_checkpoints_save")
        last = len(curves()[1])
        found = succeed_json("predict", "data/valid")["model"]
        assert found.endswith(f"model_checkpoint_{last}.onnx")
        succeed("predict", "data/valid", "--model", "model_checkpoints_save/model_best.onnx")

    def test_without_it_there_is_no_best_file(self, workspace, config):
        text = succeed("train", "config.json")
        assert not (workspace / "saved/model_best.onnx").exists()
        assert "lowest test loss" not in text


def test_float16_features_give_nearly_the_same_curve(config):
    found = []
    for precision in ("fp32", "fp16"):
        config(birdsonnx={"feature_precision": precision}, optimizer={"type": "SGD", "learning_rate": 0.003})
        text = succeed("train", "config.json")
        found.append(curves()[0])
        assert ("8,192 bytes per photo" in text) == ("(float16)" in text) == (precision == "fp16")
    sizes = sorted(path.stat().st_size for path in Path("kept").glob("features-*.npy"))
    rows = [photos * size for photos, size in ((9, 8192), (9, 16384), (24, 8192), (24, 16384))]
    assert sizes == [128 + size + 16 for size in rows]  # a header, and the checksum of one piece
    assert not np.array_equal(*found)
    # Half precision has 11 bits: 5e-4 for each feature.
    np.testing.assert_allclose(found[1][:, 0], found[0][:, 0], rtol=1e-3)


def test_predictions_use_the_still_transforms_of_an_augmented_training(workspace, config):
    config(data={"transforms": RANDOM}, num_epochs=2)
    text = succeed("train", "config.json")
    said = "jitter_crop 0.3, random_horizontal_flip 0.5, random_zoom 0.2, random_rotate 20"
    assert f"augmentation:  {said}" in text
    assert "none; every epoch decodes the photos" in text
    assert not Path("kept").exists()
    trained = onnx.load(workspace / "saved/model_checkpoint_2.onnx")
    props = {prop.key: prop.value for prop in trained.metadata_props}
    assert json.loads(props["birdsonnx.transforms"]) == [{"resize": [32, 32]}]
    evaluated = succeed_json("evaluate", "data/valid", "--model", "saved/model_checkpoint_2.onnx")
    assert evaluated["loss"] == pytest.approx(curves()[1][-1, 0], rel=1e-4)


class TestRefusals:
    """One clear line, exit 2, nothing trained and nothing written."""

    def refuse(self, *words, **options) -> str:
        line = refused("train", "config.json", *words, **options)
        assert not Path("saved").exists()
        assert not Path("out_train.txt").exists()
        assert not Path("kept").exists()
        return line

    @pytest.mark.parametrize("ranks", [1, 2])
    def test_an_operation_without_a_gradient(self, workspace, config, ranks):
        residual_model(activation="Round").save(workspace / "model.onnx")
        line = self.refuse(ranks=ranks)
        assert "layer 'block_a' is a Round, which has no gradient" in line
        assert '"birdsonnx": {"trainable": [...]}' in line

    def test_but_layers_after_it_train(self, workspace, config):
        residual_model(activation="Round").save(workspace / "model.onnx")
        succeed("train", "config.json", "--set", 'birdsonnx.trainable=["block_b", "dense"]')

    @pytest.mark.parametrize("ranks", [1, 2])
    def test_class_weights_of_the_wrong_number(self, config, ranks):
        line = self.refuse("--set", "loss.weight=[1, 2]", ranks=ranks)
        assert "neural_network.loss.weight: 2 numbers for 3 classes" in line

    def test_a_glob_that_matches_nothing(self, config):
        line = self.refuse("--set", 'birdsonnx.trainable=["blok_a", "dense"]')
        assert "'blok_a' matches no layer with weights; did you mean 'block_a'?" in line

    def test_early_stopping_without_a_test_set(self, config):
        config(data={"test_input_path": None}, birdsonnx={"early_stopping": 2})
        assert "birdsonnx.early_stopping: needs a test loss" in self.refuse()

    @pytest.mark.parametrize(
        ("assignment", "said", "ranks"),
        [
            ('loss.function="Focal"', "its run had loss {'function': 'NLL'", 1),
            ('optimizer.type="AdamW"', "its run had optimizer {", 2),
            ("birdsonnx.clip_norm=2", "its run had birdsonnx.clip_norm None, the config has 2.0", 1),
        ],
    )
    def test_a_resume_as_another_run(self, workspace, config, assignment, said, ranks):
        succeed("train", "config.json", "--set", "num_epochs=1")
        line = refused("train", "config.json", "--resume", "--set", assignment, ranks=ranks)
        assert said in line
        assert len(list((workspace / "saved").glob("*.onnx"))) == 1


def test_a_loss_that_is_not_finite(workspace, config):
    config(optimizer={"type": "SGD", "learning_rate": 1e30})
    for ranks in (1, 2):
        done = birdsonnx("train", "config.json", ranks=ranks)
        assert done.returncode == 2
        assert "Lower optimizer.learning_rate" in done.stderr
        assert len(done.stderr.strip().splitlines()) == 1
