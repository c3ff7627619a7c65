"""`birdsonnx train --data` and `init`: from folders of photos to a model, without a line of JSON."""

import json
import signal
from pathlib import Path

import numpy as np
import onnx
import pytest

from birdsonnx.artifacts import sha256
from tests.command import birdsonnx, refused, succeed, succeed_json
from tests.e2e.test_signals import start, wait_for
from tests.tiny import make_class_folders

RUN = Path("runs/train_1")
NETWORK = ("--model", "model.onnx")
SHORT = (*NETWORK, "--epochs", "3", "--learning-rate", "0.05")


def test_it_trains_into_a_folder_of_its_own_and_everything_finds_the_model(workspace):
    make_class_folders(workspace / "data" / "test", per_class=2, seed=3)
    text = succeed("train", "--data", "data", *SHORT, fresh=True)
    config = json.loads((RUN / "config.json").read_text())["neural_network"]
    assert config["data"]["input_path"] == "data/train"
    assert config["data"]["test_input_path"] == "data/valid"
    assert (RUN / "config.json").read_text() in text
    assert {path.name for path in RUN.iterdir() if not path.name.startswith(".")} == {
        "config.json",
        "checkpoints",
        "out_classifier_train.txt",
        "out_classifier_test.txt",
    }
    last = "runs/train_1/checkpoints/model_checkpoint_3.onnx"
    *commands, report = text.splitlines()[-4:]
    assert report == "       birdsonnx report runs/train_1"
    assert commands == [
        f"next:  birdsonnx predict PHOTOS --model {last}",
        f"       birdsonnx evaluate data/test --model {last}",
        f"       birdsonnx quantize {last} --calibrate data/train",
    ]
    for command in commands:
        words = command.removeprefix("next:").split()[1:]
        succeed(*("data/test" if word == "PHOTOS" else word for word in words))
    assert last in succeed("predict", "data/test", "-o", "named")


def test_its_config_trains_the_same_again(workspace):
    first = succeed_json("train", "--data", "data", *SHORT)
    again = succeed_json("train", first["config"])
    assert again["checkpoints"] == first["checkpoints"]
    assert again["epochs"] == first["epochs"]
    text = succeed("train", first["config"])
    assert (
        "runs/train_1/checkpoints: model_checkpoint_1.onnx and 2 more of an earlier training will be replaced"
    ) in text


def test_the_next_run_has_the_next_number_and_the_newest_one_counts(workspace):
    for _ in range(2):
        succeed("train", "--data", "data", *SHORT)
    Path("runs/train_9/checkpoints").mkdir(parents=True)  # interrupted before its first checkpoint
    assert succeed_json("train", "--data", "data", *SHORT)["config"] == "runs/train_10/config.json"
    assert "runs/train_10/checkpoints/model_checkpoint_3.onnx" in succeed("predict", "data/valid")
    config = json.loads(Path("runs/train_1/config.json").read_text())
    config["neural_network"]["checkpoints"]["save"] = "model_checkpoints_save"
    Path("config.json").write_text(json.dumps(config))
    succeed("train", "config.json")
    text = succeed("predict", "data/valid", "-o", "named")
    assert (
        "models are in model_checkpoints_save and in runs/train_10/checkpoints; the first are meant" in text
    )
    assert "model_checkpoints_save/model_checkpoint_3.onnx" in text


def test_four_ranks_make_one_run(workspace):
    result = succeed_json("train", "--data", "data", *SHORT, ranks=4)
    assert result["ranks"] == 4
    assert [path.name for path in Path("runs").iterdir()] == ["train_1"]
    alone = succeed_json("train", "--data", "data", *SHORT)
    losses = [[epoch["train_loss"] for epoch in each["epochs"]] for each in (result, alone)]
    np.testing.assert_allclose(*losses, rtol=1e-4)


def test_tags_and_every_option_reach_the_training(workspace):
    Path("siteA").mkdir()
    Path("data").rename("siteA/photos")
    text = succeed(
        *("train", "--data", "siteA", *SHORT, "--batch-size", "5", "--trainable", "dense,conv2"),
        *("--precision", "fp16", "--set", "birdsonnx.seed=4"),
    )
    for said in (
        "24 photos of 3 classes in siteA (folders 'train')",
        "trainable: conv2, dense",
        "batch:         5 over",
        "epochs:        3",
    ):
        assert said in text
    own = json.loads((RUN / "config.json").read_text())["neural_network"]["birdsonnx"]
    assert own == {"trainable": ["dense", "conv2"], "feature_precision": "fp16", "seed": 4}


def test_a_network_of_keras_applications_is_exported_for_the_classes(workspace):
    done = succeed_json(
        *("train", "--data", "data", "--arch", "MobileNet", "--weights", "none", "--epochs", "1")
    )
    network = onnx.load(RUN / "network.onnx")
    assert network.graph.output[0].type.tensor_type.shape.dim[1].dim_value == 3
    config = json.loads((RUN / "config.json").read_text())["neural_network"]
    assert config["checkpoints"]["load"] == "runs/train_1/network.onnx"
    before = sha256(RUN / "network.onnx")
    assert succeed_json("train", done["config"])["epochs"] == done["epochs"]
    assert sha256(RUN / "network.onnx") == before


# --- init -----------------------------------------------------------------------------------------------


def test_init_writes_the_config_alone(workspace):
    text = succeed("init", "data", *SHORT, fresh=True)
    assert text.endswith("wrote config.json\nnext:  birdsonnx train config.json\n")
    assert not Path("runs").exists()
    assert succeed_json("train", "config.json")["checkpoints"] == [
        f"model_checkpoints_save/model_checkpoint_{epoch}.onnx" for epoch in (1, 2, 3)
    ]
    assert "config.json: this file is there already" in refused("init", "data", *SHORT)
    assert succeed_json("init", "data", *SHORT, "-o", "other.json")["output"] == "other.json"


def test_init_says_which_export_its_config_needs(workspace):
    done = succeed_json("init", "data", "--arch", "MobileNet", "--weights", "none")
    assert done["next"] == [
        "birdsonnx export --arch MobileNet --weights none --labels data/train",
        "birdsonnx train config.json",
    ]


# --- Refusals -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "no photos and no config given: birdsonnx train --data DATA"),
        (["--data", "data/train"], "data/train: this is one set; name the folder that holds train and valid"),
        (["--data", "data/train/COOT"], "no photos in class folders"),
        (
            ["data"],
            "data: this is a folder, and a config is a JSON file; without one: birdsonnx train --data",
        ),
        (["data/train"], "birdsonnx train --data data"),
        (["--data", "data", "config.json"], "--data data and the config config.json are given; give one"),
        (["--data", "data", "--resume"], "birdsonnx train runs/train_1/config.json --resume"),
        (["config.json", "--epochs", "3"], "--epochs is for --data; with a config: --set num_epochs=3"),
        (["config.json", "--weights", "none"], "--weights is for --data; with a config: "),
        (["--data", "data", *NETWORK, "--arch", "VGG16"], "--arch VGG16 is for a new network"),
        (["--data", "data", *NETWORK, "--weights", "none"], "--weights none is for a new network"),
        (["--data", "data", "--model", "no.onnx"], "--model no.onnx: there is no such file"),
        (["--data", "data", *NETWORK, "--precision", "fp8"], "--precision 'fp8' is none of fp32, fp16, bf16"),
        (["--data", "data", *NETWORK, "--learning-rate", "-1"], "learning_rate"),
        (["--data", "data", *NETWORK, "--set", "epochs=3"], "did you mean 'num_epochs'?"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_made(workspace, words, said):
    assert said in refused("train", *words)
    assert not Path("runs/train_1").exists()


@pytest.mark.parametrize("ranks", [1, 2])
def test_a_training_that_is_refused_leaves_no_run(workspace, ranks):
    line = refused("train", "--data", "data", "--model", "model.onnx", "--trainable", "denze", ranks=ranks)
    assert "denze" in line
    assert not list(Path("runs").glob("train_*"))


def test_a_missing_weights_file_leaves_no_run(workspace):
    done = birdsonnx("train", "--data", "data", "--weights", "no.h5")
    assert done.returncode == 2
    assert done.stderr.strip() == "birdsonnx: no.h5: there is no such file"
    assert not list(Path("runs").iterdir())


# --- Going on -------------------------------------------------------------------------------------------


def test_an_interrupted_run_says_how_to_go_on(workspace):
    with start("train", "--data", "data", *NETWORK, "--epochs", "100000") as process:
        wait_for(process, "epoch 3/100000")
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=60)
    assert process.returncode == 130
    command = said.strip().split("; to go on: ")[1]
    assert command == "birdsonnx train runs/train_1/config.json --resume"
    epoch = int(said.split("epoch ")[1].split()[0])
    text = succeed(*command.split()[1:], "--set", f"num_epochs={epoch}")
    assert f"model_checkpoint_{epoch}.onnx" in text


def test_a_finished_run_says_so_and_how_to_train_more(workspace):
    succeed("train", "--data", "data", *SHORT)
    lines = succeed("train", "runs/train_1/config.json", "--resume").splitlines()
    assert lines[-2].endswith("model_checkpoint_3.onnx: all 3 epochs of its run are done")
    command = lines[-1].split("to train more: ")[1]
    assert command == "birdsonnx train runs/train_1/config.json --set num_epochs=6 --resume"
    assert len(np.loadtxt(RUN / "out_classifier_test.txt")) == 3
    assert [epoch["epoch"] for epoch in succeed_json(*command.split()[1:])["epochs"]] == [4, 5, 6]
