"""JSON text to settings: what is read, what the defaults are, and what is refused in which words."""

import json
from operator import attrgetter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, ValidationError

from birdsonnx.config.data import Data
from birdsonnx.config.loss import Loss
from birdsonnx.config.optimizers import LAMB, LARS, SGD, Adagrad, Adam, AdamW, RMSprop
from birdsonnx.config.reading import parse, read
from birdsonnx.config.schedules import Cosine, Exponential, MultiStep, Step, Warmup
from birdsonnx.config.settings import Settings
from birdsonnx.config.transforms import CenterCrop, ConvertColor, Normalize, Resize, ResizeShorter, Rotate
from birdsonnx.errors import ConfigError

MODELS = Path(__file__).resolve().parents[2] / "models"

TUTORIAL = """
{
    "neural_network": {
        "outfile": "out_classifier.txt",
        "num_epochs": 6,
        "layers": "../layers_resnet50.json",
        "checkpoints": {
            "save": "model_checkpoints_save/",
            "load": "../model_resnet50_imagenet.pt",
            "interval": 2
        },
        "data": {
            "input_type": "images",
            "target_type": "labels",
            "input_path": "./data/train/",
            "test_input_path": "./data/valid/",
            "batch_size": 64,
            "test_batch_size": 128,
            "preload": true,
            "transforms": [
                { "resize": [256, 240] },
                { "center_crop": [224, 200] },
                { "normalize": { "mean": [0.1, 0.2, 0.3], "std": 0.5 } }
            ]
        },
        "optimizer": {
            "type": "adam",
            "learning_rate": 0.001,
            "lr_scheduler": { "type": "Exponential", "gamma": 0.5, "verbose": true }
        },
        "loss": { "function": "NLL" }
    }
}
"""


def settings_of(network: Any, *overrides: str) -> Settings:
    return parse(json.dumps({"neural_network": network}), "config.json", overrides)


def refusal(network: Any, *overrides: str) -> str:
    with pytest.raises(ConfigError) as caught:
        settings_of(network, *overrides)
    return str(caught.value)


# --- What is read ---------------------------------------------------------------------------------------


def test_the_tutorials_config():
    found = parse(TUTORIAL, "config.json")
    assert (found.outfile, found.num_epochs, found.layers) == (
        "out_classifier.txt",
        6,
        "../layers_resnet50.json",
    )
    assert found.checkpoints.save == "model_checkpoints_save/"
    assert found.checkpoints.load == "../model_resnet50_imagenet.pt"
    assert found.checkpoints.interval == 2
    assert (found.data.input_path, found.data.test_input_path) == ("./data/train/", "./data/valid/")
    assert (found.data.batch_size, found.data.test_batch_size, found.data.preload) == (64, 128, True)
    assert found.data.transforms == (
        Resize(width=256, height=240),
        CenterCrop(width=224, height=200),
        Normalize(mean=(0.1, 0.2, 0.3), std=(0.5,)),
    )
    assert found.optimizer == Adam(learning_rate=0.001, lr_scheduler=Exponential(gamma=0.5, verbose=True))
    assert found.loss.function == "NLL"


def change_case(value: Any, change: Any) -> Any:
    """The same JSON with every key, and the enumerated values, in another case."""
    if isinstance(value, dict):
        return {
            change(key): change(content)
            if key in ("type", "function", "input_type", "target_type")
            else change_case(content, change)
            for key, content in value.items()
        }
    return [change_case(item, change) for item in value] if isinstance(value, list) else value


@pytest.mark.parametrize("change", [str.upper, str.title, str.swapcase])
def test_keys_and_enumerated_values_match_in_any_case(change):
    other = json.dumps(change_case(json.loads(TUTORIAL), change))
    assert "num_epochs" not in other
    assert parse(other, "config.json") == parse(TUTORIAL, "config.json")


@pytest.mark.parametrize(
    ("synonym", "key", "value"),
    [
        ("type", "input_type", "images"),
        ("input_transforms", "transforms", [{"resize": [8, 9]}]),
        ("input_grayscale", "grayscale", True),
        ("testing_tag", "test_tag", "test"),
    ],
)
def test_synonyms(synonym, key, value):
    rest = {"test_input_path": "photos/"}
    assert settings_of({"data": {synonym: value, **rest}}) == settings_of({"data": {key: value, **rest}})
    assert f"data.{synonym}: this key is given twice" in refusal({"data": {key: value, synonym: value}})


@pytest.mark.parametrize("path", sorted(MODELS.glob("config_*.json")), ids=lambda path: path.name)
def test_shipped_configs_parse(path):
    settings = read(path)
    assert settings.checkpoints.load is not None or settings.layers is not None


def test_there_are_shipped_configs():
    assert list(MODELS.glob("config_*.json"))


@pytest.mark.parametrize(
    ("optimizer", "expected"),
    [
        ({}, SGD()),
        ({"learning_rate": 1}, SGD(learning_rate=1.0)),
        (
            {"type": "sgd", "momentum": 0.9, "nesterov": True, "weight_decay": 1e-4},
            SGD(momentum=0.9, nesterov=True, weight_decay=1e-4),
        ),
        (
            {"type": "Adam", "beta1": 0.5, "beta2": 0.6, "eps": 1e-3, "amsgrad": True},
            Adam(beta1=0.5, beta2=0.6, eps=1e-3, amsgrad=True),
        ),
        (
            {"type": "AdamW", "beta1": 0.5, "beta2": 0.6, "eps": 1e-3, "amsgrad": True, "weight_decay": 0.01},
            AdamW(beta1=0.5, beta2=0.6, eps=1e-3, amsgrad=True, weight_decay=0.01),
        ),
        (
            {"type": "lamb", "beta1": 0.5, "beta2": 0.6, "eps": 1e-3, "amsgrad": True},
            LAMB(beta1=0.5, beta2=0.6, eps=1e-3, amsgrad=True),
        ),
        ({"type": "adaGrad", "lr_decay": 0.5}, Adagrad(lr_decay=0.5)),
        (
            {"type": "rmsprop", "momentum": 0.9, "alpha": 0.5, "eps": 1e-3, "centered": True},
            RMSprop(momentum=0.9, alpha=0.5, eps=1e-3, centered=True),
        ),
        (
            {"type": "lars", "momentum": 0.9, "dampening": 0.1, "eta": 0.02},
            LARS(momentum=0.9, dampening=0.1, eta=0.02),
        ),
        ({"lr_scheduler": {"type": "STEP", "step_size": 3}}, SGD(lr_scheduler=Step(gamma=0.1, step_size=3))),
        (
            {"lr_scheduler": {"type": "multistep", "gamma": 0.5, "milestones": [1, 5]}},
            SGD(lr_scheduler=MultiStep(gamma=0.5, milestones=(1, 5))),
        ),
        (
            {"lr_scheduler": {"type": "WarmUp", "num_epochs": 3, "start_factor": 0.25, "verbose": True}},
            SGD(lr_scheduler=Warmup(num_epochs=3, start_factor=0.25, verbose=True)),
        ),
        (
            {"type": "adam", "lr_scheduler": {"type": "COSINE", "min_factor": 0.1}},
            Adam(lr_scheduler=Cosine(min_factor=0.1)),
        ),
        ({"lr_scheduler": None}, SGD()),
    ],
)
def test_optimizers_and_schedules(optimizer, expected):
    found = settings_of({"optimizer": optimizer}).optimizer
    assert found == expected
    assert type(found) is type(expected)


@pytest.mark.parametrize(
    ("loss", "expected"),
    [
        ({"function": "nll", "weight": [1, 0, 0.5]}, Loss(weight=(1, 0, 0.5))),
        ({"function": "FOCAL"}, Loss(function="Focal", gamma=2)),
        ({"Function": "focal", "Gamma": 0, "Weight": [1]}, Loss(function="Focal", gamma=0, weight=(1,))),
        ({"weight": None}, Loss()),
        ({"weight": "Balanced"}, Loss(weight="balanced")),
    ],
)
def test_losses(loss, expected):
    assert settings_of({"loss": loss}).loss == expected


def test_our_own_keys():
    own = settings_of(
        {
            "data": {"input_path": "train/", "test_input_path": "valid/"},
            "birdsonnx": {
                "label_smoothing": 0.1,
                "early_stopping": 3,
                "clip_norm": 2,
                "feature_precision": "FP16",
            },
        }
    ).birdsonnx
    assert (own.label_smoothing, own.early_stopping, own.clip_norm) == (0.1, 3, 2)
    assert own.feature_precision == "fp16"


def test_a_config_that_only_predicts_may_keep_what_training_needs():
    own = {"early_stopping": 3, "label_smoothing": 0.1, "clip_norm": 1}
    for data in ({"test_input_path": "photos/"}, {}):
        assert settings_of({"data": data, "birdsonnx": own}).birdsonnx.early_stopping == 3


@pytest.mark.parametrize(
    "layers",
    ["layers.json", {"class_name": "Functional", "config": {"Name": 1}}, [{"class_name": "Dense"}], []],
)
def test_layers_are_a_path_an_object_or_an_array_kept_as_it_is(layers):
    assert settings_of({"layers": layers}).layers == layers


@pytest.mark.parametrize("layers", [3, "", True])
def test_layers_of_another_kind_are_refused(layers):
    message = refusal({"layers": layers})
    assert message.startswith(
        "config.json: neural_network.layers: must be the path of a Keras JSON, a Keras model"
    )
    assert message.endswith(f"got {json.dumps(layers)}")


def test_settings_are_frozen():
    found = settings_of({})
    with pytest.raises(ValidationError):
        found.num_epochs = 2
    with pytest.raises(ValidationError):
        found.data.batch_size = 2


AUGMENTED = [
    {"jitter_crop": 0},
    {"jitter_crop": 0.999},
    {"resize_shorter": 16},
    {"resize": [8, 9]},
    {"random_horizontal_flip": 0},
    {"random_vertical_flip": 1},
    {"random_zoom": 0.25},
    {"rotate": -360},
    {"rotate": 12.5},
    {"random_rotate": 180},
    {"random_rotate": 0},
]


@pytest.mark.parametrize(
    "value",
    [
        [],
        [{"resize": [8, 9]}],
        [{"normalize": {"mean": [0.5], "std": [2.0]}}],
        [{"convert_color": "BGR2RGB"}, {"convert_color": "RGB2YCrCb"}],
        AUGMENTED,
    ],
)
def test_transforms_survive_their_own_json(value):
    found = settings_of({"data": {"transforms": value}}).data.transforms
    assert [step.as_json() for step in found] == value


def test_what_training_alone_does_and_what_lasts():
    def data(*transforms: Any) -> Data:
        return settings_of({"data": {"transforms": list(transforms)}}).data

    steps = data(*AUGMENTED, {"normalize": {"mean": 0, "std": 1}})
    assert steps.augments
    assert steps.lasting_transforms == (ResizeShorter(16), Resize(8, 9), Rotate(-360.0), Rotate(12.5))
    lasting = {"resize_shorter", "resize", "rotate"}
    assert all(data(step).augments == (not lasting & set(step)) for step in AUGMENTED)
    assert (Data().augments, Data().lasting_transforms) == (False, None)
    assert (data().augments, data().lasting_transforms) == (False, ())


@pytest.mark.parametrize("code", ["RGB2YCrCb", "rgb2ycrcb", "COLOR_RGB2YCrCb", "color_RGB2YCRCB"])
def test_color_codes_match_in_any_case_with_and_without_opencvs_prefix(code):
    assert settings_of({"data": {"transforms": [{"convert_color": code}]}}).data.transforms == (
        ConvertColor("RGB2YCrCb"),
    )


def test_a_normalize_that_treats_channels_alike_may_come_before_a_change_of_their_order():
    transforms = [{"normalize": {"mean": 0.5, "std": [0.5, 0.5, 0.5]}}, {"convert_color": "BGR2RGB"}]
    assert settings_of({"data": {"transforms": transforms}}).data.transforms is not None


@pytest.mark.parametrize(
    ("given", "expected"),
    [({"mean": 0.5}, Normalize((0.5,), (1.0,))), ({"std": [2]}, Normalize((0.0,), (2.0,)))],
)
def test_normalize_without_one_of_its_numbers(given, expected):
    assert settings_of({"data": {"transforms": [{"normalize": given}]}}).data.transforms == (expected,)


def test_grayscale_says_what_a_conversion_starts_from():
    transforms = [{"resize": [8, 8]}, {"convert_color": "GRAY2RGB"}]
    assert settings_of({"data": {"grayscale": True, "transforms": transforms}}).data.grayscale
    said = "convert_color RGB2HSV takes RGB pixels, but they are GRAY there (grayscale is true)"
    assert said in refusal({"data": {"grayscale": True, "transforms": [{"convert_color": "RGB2HSV"}]}})


@pytest.mark.parametrize(
    ("data", "folder"),
    [
        ({"input_path": "d", "training_tag": "train", "test_tag": "test"}, "d"),
        ({"input_path": "d", "training_tag": "train"}, None),
        ({"input_path": "d", "test_input_path": "e", "training_tag": "x", "test_tag": "x"}, "e"),
        ({"test_input_path": "e", "test_tag": "x"}, "e"),
        ({"training_tag": "x"}, None),
    ],
)
def test_where_test_photos_lie(data, folder):
    assert settings_of({"data": data}).data.test_folder == folder


@pytest.mark.parametrize(
    ("data", "said"),
    [
        ({"test_tag": "test"}, "data.test_tag: there is no folder to look in"),
        ({"input_path": "d", "testing_tag": "test"}, "data.test_tag: without test_input_path"),
        ({"input_path": "d", "training_tag": "x", "test_tag": "x"}, "data.test_tag: is training_tag too"),
        *(
            ({"input_path": "d", "training_tag": tag}, "is not the name of one visible folder")
            for tag in ("data/train", "train/", "a\\b", ".train", "..")
        ),
        ({"input_path": "d", "training_tag": ""}, "data.training_tag: "),
    ],
)
def test_tags_that_are_refused(data, said):
    assert said in refusal({"data": data})


# --- Defaults -------------------------------------------------------------------------------------------

DEFAULTS = {
    "outfile": None,
    "num_epochs": 1,
    "layers": None,
    "debug": False,
    "data.input_type": "images",
    "data.target_type": "labels",
    "data.input_path": None,
    "data.test_input_path": None,
    "data.test_output_path": None,
    "data.training_tag": None,
    "data.test_tag": None,
    "data.batch_size": 64,
    "data.test_batch_size": 64,
    "data.preload": False,
    "data.grayscale": False,
    "data.transforms": None,
    "optimizer.type": "SGD",
    "optimizer.learning_rate": 0.01,
    "optimizer.weight_decay": 0.0,
    "optimizer.momentum": 0.0,
    "optimizer.dampening": 0.0,
    "optimizer.nesterov": False,
    "optimizer.lr_scheduler": None,
    "loss.function": "NLL",
    "loss.weight": None,
    "loss.gamma": 2.0,
    "checkpoints.load": None,
    "checkpoints.save": None,
    "checkpoints.interval": 1,
    "birdsonnx.seed": 0,
    "birdsonnx.trainable": None,
    "birdsonnx.engine": "auto",
    "birdsonnx.precision": "fp32",
    "birdsonnx.exchange_precision": "fp32",
    "birdsonnx.feature_precision": "fp32",
    "birdsonnx.views": None,
    "birdsonnx.cache": None,
    "birdsonnx.boundary": None,
    "birdsonnx.threads": None,
    "birdsonnx.label_smoothing": 0.0,
    "birdsonnx.early_stopping": None,
    "birdsonnx.clip_norm": None,
    "birdsonnx.rank_timeout": None,
    "birdsonnx.quantize": False,
    "birdsonnx.calibrate": False,
    "birdsonnx.model_card": False,
    "birdsonnx.output_layout": "datasets",
}
ADAM_DEFAULTS = {"beta1": 0.9, "beta2": 0.999, "eps": 1e-8, "amsgrad": False}


@pytest.mark.parametrize("sections", [(), ("data", "optimizer", "loss", "checkpoints", "birdsonnx")])
def test_defaults(sections):
    found = settings_of({section: {} for section in sections})
    assert {path: attrgetter(path)(found) for path in DEFAULTS} == DEFAULTS
    sub = {path.partition(".")[0] for path in DEFAULTS if "." in path}
    assert set(found.model_dump()) == {path for path in DEFAULTS if "." not in path} | sub
    for section in sub:
        keys = {path.partition(".")[2] for path in DEFAULTS if path.startswith(f"{section}.")}
        assert set(getattr(found, section).model_dump()) == keys


@pytest.mark.parametrize(
    ("kind", "defaults"),
    [
        ("Adam", ADAM_DEFAULTS),
        ("AdamW", ADAM_DEFAULTS),
        ("LAMB", ADAM_DEFAULTS),
        ("Adagrad", {"lr_decay": 0.0}),
        ("RMSprop", {"momentum": 0.0, "alpha": 0.99, "eps": 1e-8, "centered": False}),
        ("LARS", {"momentum": 0.0, "dampening": 0.0, "nesterov": False, "eta": 1e-3}),
    ],
)
def test_defaults_of_optimizers(kind, defaults):
    shared = {"type": kind, "learning_rate": 0.01, "weight_decay": 0.0, "lr_scheduler": None}
    assert settings_of({"optimizer": {"type": kind}}).optimizer.model_dump() == shared | defaults


@pytest.mark.parametrize(
    ("schedule", "defaults"),
    [
        ({"type": "Step", "step_size": 2}, {"gamma": 0.1}),
        ({"type": "MultiStep", "milestones": [2]}, {"gamma": 0.1, "milestones": (2,)}),
        ({"type": "Exponential", "gamma": 0.5}, {}),
        ({"type": "Warmup", "num_epochs": 3, "start_factor": 0.5}, {}),
        ({"type": "Cosine"}, {"min_factor": 0.0}),
    ],
)
def test_defaults_of_schedules(schedule, defaults):
    found = settings_of({"optimizer": {"lr_scheduler": schedule}}).optimizer.lr_scheduler
    assert found.model_dump() == {"verbose": False} | schedule | defaults


def test_the_cache_folder(monkeypatch):
    def folder(**own: Any) -> Path | None:
        return settings_of({"birdsonnx": own}).birdsonnx.cache_folder

    monkeypatch.setenv("XDG_CACHE_HOME", "elsewhere")
    assert folder() == Path("elsewhere/birdsonnx")
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", "house")
    assert folder() == Path("house/.cache/birdsonnx")
    assert folder(cache="here/") == Path("here")
    assert folder(cache=False) is None


# --- Refusals -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("network", "said"),
    [
        ({"num_epoch": 6}, "num_epoch: unknown key (with value 6); did you mean 'num_epochs'?"),
        (
            {"data": {"Batch_Sise": 6}},
            "data.Batch_Sise: unknown key (with value 6); did you mean 'batch_size'?",
        ),
        (
            {"data": {"transform": []}},
            "data.transform: unknown key (with value []); did you mean 'transforms'?",
        ),
        ({"checkpoints": {"laod": "x"}}, "did you mean 'load'?"),
        ({"loss": {"zzz": 1}}, "loss.zzz: unknown key (with value 1); known keys: function"),
        ({"birdsonnx": {"sed": 1}}, "birdsonnx.sed: unknown key (with value 1); did you mean 'seed'?"),
        (
            {"optimizer": {"momentun": 1}},
            "optimizer.momentun: unknown key (with value 1); did you mean 'momentum'?",
        ),
        ({"optimizer": {"type": "Adam", "momentum": 1}}, "optimizer.momentum: unknown key (with value 1)"),
        ({"optimizer": {"type": "Adagrad", "eps": 1}}, "optimizer.eps: unknown key (with value 1)"),
        ({"optimizer": {"eta": 1}}, "optimizer.eta: unknown key (with value 1)"),
        ({"birdsonnx": {"early_stop": 1}}, "birdsonnx.early_stop: unknown key (with value 1); did you mean"),
        ({"loss": {"weights": [1]}}, "loss.weights: unknown key (with value [1]); did you mean 'weight'?"),
        (
            {"optimizer": {"lr_scheduler": {"type": "Step", "step_size": 1, "gama": 2}}},
            "optimizer.lr_scheduler.gama: unknown key (with value 2); did you mean 'gamma'?",
        ),
    ],
)
def test_an_unknown_key_is_refused_with_its_path_and_the_nearest(network, said):
    message = refusal(network)
    assert message.startswith("config.json: neural_network.")
    assert said in message


@pytest.mark.parametrize(
    ("network", "where", "got"),
    [
        ({"num_epochs": "6"}, "num_epochs", '"6"'),
        ({"num_epochs": 0}, "num_epochs", "0"),
        ({"num_epochs": 2.5}, "num_epochs", "2.5"),
        ({"num_epochs": True}, "num_epochs", "true"),
        ({"outfile": ""}, "outfile", '""'),
        ({"outfile": 5}, "outfile", "5"),
        ({"layers": 5}, "layers", "5"),
        ({"data": []}, "data", "[]"),
        ({"data": None}, "data", "null"),
        ({"data": {"batch_size": -1}}, "data.batch_size", "-1"),
        ({"data": {"batch_size": "64"}}, "data.batch_size", '"64"'),
        ({"data": {"test_batch_size": 1.0}}, "data.test_batch_size", "1.0"),
        ({"data": {"preload": "yes"}}, "data.preload", '"yes"'),
        ({"data": {"input_path": ["x"]}}, "data.input_path", '["x"]'),
        ({"data": {"transforms": {"resize": [8, 8]}}}, "data.transforms", '{"resize": [8, 8]}'),
        ({"optimizer": "Adam"}, "optimizer", '"Adam"'),
        ({"optimizer": None}, "optimizer", "null"),
        ({"optimizer": {"learning_rate": "0.1"}}, "optimizer.learning_rate", '"0.1"'),
        ({"optimizer": {"learning_rate": 0}}, "optimizer.learning_rate", "0"),
        ({"optimizer": {"weight_decay": -1}}, "optimizer.weight_decay", "-1"),
        ({"optimizer": {"nesterov": 1}}, "optimizer.nesterov", "1"),
        ({"optimizer": {"type": "Adam", "beta1": 1.0}}, "optimizer.beta1", "1.0"),
        ({"optimizer": {"type": "Adam", "eps": 0}}, "optimizer.eps", "0"),
        ({"optimizer": {"lr_scheduler": "Step"}}, "optimizer.lr_scheduler", '"Step"'),
        (
            {"optimizer": {"lr_scheduler": {"type": "Exponential", "gamma": -1}}},
            "optimizer.lr_scheduler.gamma",
            "-1",
        ),
        ({"optimizer": {"type": "Adagrad", "lr_decay": -1}}, "optimizer.lr_decay", "-1"),
        ({"optimizer": {"type": "AdamW", "beta2": 1}}, "optimizer.beta2", "1"),
        ({"optimizer": {"type": "LAMB", "amsgrad": 0}}, "optimizer.amsgrad", "0"),
        ({"optimizer": {"type": "RMSprop", "alpha": 1}}, "optimizer.alpha", "1"),
        ({"optimizer": {"type": "RMSprop", "momentum": -1}}, "optimizer.momentum", "-1"),
        ({"optimizer": {"type": "RMSprop", "centered": "yes"}}, "optimizer.centered", '"yes"'),
        ({"optimizer": {"type": "LARS", "eta": 0}}, "optimizer.eta", "0"),
        *(
            ({"optimizer": {"lr_scheduler": {"type": kind, **keys}}}, f"optimizer.lr_scheduler.{where}", got)
            for kind, keys, where, got in (
                ("MultiStep", {"milestones": [1, 0]}, "milestones.1", "0"),
                ("MultiStep", {"milestones": [1, 2.5]}, "milestones.1", "2.5"),
                ("MultiStep", {"milestones": []}, "milestones", "[]"),
                ("MultiStep", {"milestones": 3}, "milestones", "3"),
                ("MultiStep", {"milestones": [3, 3]}, "milestones", "[3, 3]"),
                ("MultiStep", {"milestones": [3, 1]}, "milestones", "[3, 1]"),
                ("MultiStep", {"milestones": [1], "gamma": 0}, "gamma", "0"),
                ("Warmup", {"num_epochs": 0, "start_factor": 0.5}, "num_epochs", "0"),
                ("Warmup", {"num_epochs": 1, "start_factor": 0}, "start_factor", "0"),
                ("Warmup", {"num_epochs": 1, "start_factor": 1}, "start_factor", "1"),
                ("Cosine", {"min_factor": 1}, "min_factor", "1"),
                ("Cosine", {"min_factor": -0.1}, "min_factor", "-0.1"),
                ("Cosine", {"verbose": 1}, "verbose", "1"),
            )
        ),
        ({"loss": []}, "loss", "[]"),
        ({"loss": {"weight": 1}}, "loss.weight", "1"),
        ({"loss": {"weight": {"balanced": 1}}}, "loss.weight", '{"balanced": 1}'),
        ({"loss": {"weight": ["balanced"]}}, "loss.weight.0", '"balanced"'),
        ({"loss": {"weight": "blanced"}}, "loss.weight", "\"blanced\"; did you mean 'balanced'?"),
        ({"loss": {"weight": [1, -1]}}, "loss.weight.1", "-1"),
        ({"loss": {"weight": [True]}}, "loss.weight.0", "true"),
        ({"loss": {"function": "Focal", "gamma": -1}}, "loss.gamma", "-1"),
        ({"loss": {"function": "Focal", "gamma": None}}, "loss.gamma", "null"),
        ({"checkpoints": {"load": ""}}, "checkpoints.load", '""'),
        ({"checkpoints": {"interval": 0}}, "checkpoints.interval", "0"),
        ({"birdsonnx": {"seed": -1}}, "birdsonnx.seed", "-1"),
        ({"birdsonnx": {"seed": 2**63}}, "birdsonnx.seed", str(2**63)),
        ({"birdsonnx": {"cache": True}}, "birdsonnx.cache", "true"),
        ({"birdsonnx": {"cache": 0}}, "birdsonnx.cache", "0"),
        ({"birdsonnx": {"cache": 0.0}}, "birdsonnx.cache", "0.0"),
        ({"birdsonnx": {"threads": 1025}}, "birdsonnx.threads", "1025"),
        ({"data": {"batch_size": 2**31}}, "data.batch_size", str(2**31)),
        ({"num_epochs": 10**30}, "num_epochs", str(10**30)),
        ({"outfile": "a\0b"}, "outfile", r'"a\u0000b"'),
        ({"checkpoints": {"load": "a\0.onnx"}}, "checkpoints.load", r'"a\u0000.onnx"'),
        ({"checkpoints": {"save": "\0"}}, "checkpoints.save", r'"\u0000"'),
        ({"birdsonnx": {"boundary": ""}}, "birdsonnx.boundary", '""'),
        ({"birdsonnx": {"boundary": False}}, "birdsonnx.boundary", "false"),
        ({"birdsonnx": {"threads": 0}}, "birdsonnx.threads", "0"),
        ({"birdsonnx": {"label_smoothing": 1}}, "birdsonnx.label_smoothing", "1"),
        ({"birdsonnx": {"label_smoothing": -0.1}}, "birdsonnx.label_smoothing", "-0.1"),
        ({"birdsonnx": {"early_stopping": 0}}, "birdsonnx.early_stopping", "0"),
        ({"birdsonnx": {"early_stopping": True}}, "birdsonnx.early_stopping", "true"),
        ({"birdsonnx": {"quantize": 1}}, "birdsonnx.quantize", "1"),
        ({"birdsonnx": {"clip_norm": 0}}, "birdsonnx.clip_norm", "0"),
        ({"birdsonnx": {"clip_norm": "1"}}, "birdsonnx.clip_norm", '"1"'),
        ({"birdsonnx": {"trainable": "dense"}}, "birdsonnx.trainable", '"dense"'),
        ({"birdsonnx": {"trainable": ["dense", 5]}}, "birdsonnx.trainable.1", "5"),
        ([], "", "[]"),
    ],
)
def test_a_mistyped_value_is_refused_with_its_path(network, where, got):
    message = refusal(network)
    path = f"neural_network.{where}" if where else "neural_network"
    assert message.startswith(f"config.json: {path}: ")
    assert message.endswith(f"got {got}")


def test_a_long_value_is_shortened():
    message = refusal({"num_epochs": "x" * 10_000})
    assert len(message) < 200
    assert "…" in message


@pytest.mark.parametrize(
    ("network", "where", "task"),
    [
        *(
            ({"data": {key: 1}}, f"data.{key}", "segmentation")
            for key in (
                "target_path",
                "test_target_path",
                "Target_Is_Mask",
                "target_transforms",
                "target_grayscale",
            )
        ),
        *(({"data": {key: 1}}, f"data.{key}", "numpy arrays") for key in ("slicers", "hdf5_outfile")),
        *(({"data": {key: 1}}, f"data.{key}", "PDE solvers") for key in ("domain_size", "BC_type")),
        ({"data": {"input_type": "numpy"}}, "data.input_type", "numpy arrays"),
        ({"data": {"type": "PDE"}}, "data.input_type", "PDE solvers"),
        ({"data": {"type": "mnist"}}, "data.input_type", "MNIST's binary files"),
        ({"data": {"target_type": "images"}}, "data.target_type", "segmentation"),
        ({"data": {"target_type": "Mask"}}, "data.target_type", "segmentation"),
        ({"data": {"transforms": [{"Random_Patches": {}}]}}, "data.transforms", "self-supervised inpainting"),
        ({"optimizer": {"type": "Hessian"}}, "optimizer", "second-order optimizer"),
        ({"optimizer": {"max_iterations": 1}}, "optimizer.max_iterations", "second-order optimizer"),
        *(
            ({"loss": {"function": name}}, "loss.function", task)
            for name, task in (
                ("BCE", "segmentation"),
                ("MSE", "regression"),
                ("mae", "regression"),
                ("Dice", "segmentation"),
                ("Jaccard", "segmentation"),
                ("Lovasz", "segmentation"),
                ("Wasserstein", "GANs"),
                ("YOLOv3", "object detection"),
                ("Burgers_PDE", "PDE solvers"),
            )
        ),
        ({"loss": {"source": "sigmoid"}}, "loss.source", "segmentation"),
        ({"loss": {"diffusion_coeff": 1}}, "loss.diffusion_coeff", "PDE solvers"),
        ({"debug_interval": 5}, "debug_interval", "segmentation"),
    ],
)
def test_what_belongs_to_other_tasks_is_refused_by_name(network, where, task):
    message = refusal(network)
    assert message.startswith(f"config.json: neural_network.{where}: ")
    assert task in message
    assert "does not support" in message


@pytest.mark.parametrize(
    ("network", "said"),
    [
        ({"data": {"input_type": "numbers"}}, 'data.input_type: "numbers" is not one of images'),
        ({"data": {"type": 5}}, "data.input_type: 5 is not one of images"),
        (
            {"data": {"target_type": "label"}},
            "data.target_type: \"label\" is not one of labels; did you mean 'labels'?",
        ),
        ({"loss": {"function": "XYZ"}}, 'loss.function: "XYZ" is not one of NLL, Focal; other losses'),
        ({"debug": True}, "neural_network.debug: the graph is named after outfile; give outfile too"),
        ({"loss": {"function": "Focl"}}, "did you mean 'Focal'?"),
        ({"loss": {"weight": [0, 0]}}, "loss.weight: at least one class needs a weight above 0"),
        ({"loss": {"weight": []}}, "loss.weight: at least one class needs a weight above 0"),
        ({"loss": {"gamma": 2}}, "loss.gamma: only the function Focal has a gamma; the function here is NLL"),
        (
            {"birdsonnx": {"precision": "fp16"}},
            'birdsonnx.precision: "fp16" is not one of fp32, bf16, auto',
        ),
        ({"birdsonnx": {"feature_precision": "fp8"}}, "not one of fp32, fp16, bf16, int8"),
        ({"birdsonnx": {"exchange_precision": "fp16"}}, "not one of fp32, bf16"),
        (
            {"loss": {"function": "focal"}, "birdsonnx": {"label_smoothing": 0.1}},
            "neural_network.birdsonnx.label_smoothing: does not go with the loss function Focal",
        ),
        (
            {"data": {"input_path": "train/"}, "birdsonnx": {"early_stopping": 1}},
            "neural_network.birdsonnx.early_stopping: needs a test loss; give data.test_input_path",
        ),
        ({"optimizer": {"type": "Adamm"}}, "optimizer: unknown type 'Adamm'; did you mean 'Adam'?"),
        ({"optimizer": {"type": "zzz"}}, "optimizer: unknown type 'zzz'; it is one of SGD, Adagrad, Adam,"),
        (
            {"optimizer": {"lr_scheduler": {}}},
            "lr_scheduler: 'type' is missing; it is one of Step, MultiStep, Exponential, Warmup, Cosine",
        ),
        ({"optimizer": {"lr_scheduler": {"type": "Step"}}}, "lr_scheduler.step_size: this key is required"),
        (
            {"optimizer": {"lr_scheduler": {"type": "Exponential"}}},
            "lr_scheduler.gamma: this key is required",
        ),
        (
            {"optimizer": {"lr_scheduler": {"type": "MultiStep"}}},
            "lr_scheduler.milestones: this key is required",
        ),
        (
            {"optimizer": {"lr_scheduler": {"type": "Warmup", "num_epochs": 2}}},
            "lr_scheduler.start_factor: this key is required",
        ),
        ({"optimizer": {"nesterov": True}}, "optimizer: 'nesterov' needs a momentum"),
        ({"optimizer": {"type": "LARS", "nesterov": True}}, "optimizer: 'nesterov' needs a momentum"),
        ({"optimizer": {"nesterov": True, "momentum": 1, "dampening": 1}}, "no dampening"),
    ],
)
def test_values_that_do_not_exist_or_do_not_fit(network, said):
    assert said in refusal(network)


@pytest.mark.parametrize(
    ("transforms", "said"),
    [
        ([{"rezise": [8, 8]}], "unknown transform 'rezise'; did you mean 'resize'?"),
        ([{"zzz": 1}], "unknown transform 'zzz'; known: resize, resize_shorter, center_crop, jitter_crop, "),
        (["resize"], 'an object with one key, got "resize"'),
        ([{}], "an object with one key, got {}"),
        ([{"resize": [8, 8], "center_crop": [8, 8]}], "an object with one key"),
        *(
            ([{name: size}], f"'{name}' takes [width, height] in pixels")
            for name in ("resize", "center_crop")
            for size in (8, [8], [8, 8, 8], [8, 0], [8, -8], [8.0, 8], [True, 8], ["8", 8], [8, 10**6])
        ),
        *(
            ([{"resize_shorter": side}], "'resize_shorter' takes the shorter side in pixels, from 1 to 4096")
            for side in (0, -8, 4097, 8.0, True, "8", [8], [8, 8])
        ),
        ([{"resize_shorter": 4096}] * 5, "they make 83,886,080 pixels of each photo"),
        ([{"normalize": 0.5}], "'normalize' takes"),
        ([{"normalize": {}}], "'normalize' takes"),
        ([{"normalize": {"mean": 0, "std": 1, "more": 2}}], "'normalize' takes"),
        ([{"normalize": {"mean": [0, 0], "std": 1}}], "'normalize.mean' takes one number or one per channel"),
        ([{"normalize": {"mean": "0", "std": 1}}], "'normalize.mean' takes"),
        ([{"normalize": {"mean": 0, "std": [True]}}], "'normalize.std' takes"),
        ([{"normalize": {"mean": 0, "std": [1, 0, 1]}}], "'normalize.std' must be above 0"),
        ([{"normalize": {"mean": 0, "std": 1}}] * 2, "'normalize' is given twice"),
        *(
            (
                [{"normalize": normalize}, {"convert_color": code}],
                "'normalize' must come after convert_color",
            )
            for normalize, code in (
                ({"mean": [0.1, 0.2, 0.3], "std": 1}, "BGR2RGB"),
                ({"mean": 0, "std": [1, 2, 1]}, "RGB2BGR"),
                ({"mean": 0.5, "std": 0.5}, "RGB2HSV"),
            )
        ),
        ([{"convert_color": 4}], "'convert_color' takes OpenCV's name of a conversion, such as RGB2GRAY"),
        ([{"convert_color": "RGB2HVS"}], "does not know \"RGB2HVS\"; did you mean 'RGB2HSV'?"),
        ([{"convert_color": "zzz"}], 'does not know "zzz"; known: RGB2BGR, BGR2RGB'),
        *(
            ([{"convert_color": code}], "is for pixels of other kinds than RGB or gray ones of 8 bits")
            for code in ("COLOR_BayerBG2RGB", "RGB2RGBA", "BGR5652BGR", "YUV2RGB_NV12", "LRGB2Lab")
        ),
        (
            [{"convert_color": "GRAY2RGB"}],
            "takes GRAY pixels, but they are RGB there (grayscale is not true)",
        ),
        (
            [{"convert_color": "RGB2HSV"}, {"convert_color": "RGB2GRAY"}],
            "convert_color RGB2GRAY takes RGB pixels, but they are HSV there",
        ),
        ([{"random_zom": 0.1}], "unknown transform 'random_zom'; did you mean 'random_zoom'?"),
        *(
            ([{name: share}], f"'{name}' takes a number from 0 to below 1, a share of each side, got ")
            for name in ("jitter_crop", "random_zoom")
            for share in (1, 1.0, -0.1, "0.1", True, None, [0.1], {"c": 0.1}, 10**400)
        ),
        *(
            ([{name: probability}], f"'{name}' takes a probability from 0 to 1, got ")
            for name in ("random_horizontal_flip", "random_vertical_flip")
            for probability in (1.01, -0.1, "0.5", False, [0.5])
        ),
        *(
            ([{"rotate": degrees}], "'rotate' takes degrees from -360 to 360, got ")
            for degrees in (361, -360.5, "90", True, [90])
        ),
        *(
            ([{"random_rotate": degrees}], "'random_rotate' takes degrees from 0 to 180, got ")
            for degrees in (-1, 180.5, "90", True, [-10, 10])
        ),
    ],
)
def test_transforms_that_are_refused(transforms, said):
    message = refusal({"data": {"transforms": transforms}})
    assert message.startswith("config.json: neural_network.data.transforms: ")
    assert said in message


# --- The text -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('{\n "neural_network": {\n  "num_epochs": 1,,\n}}', "line 3, column 19: "),
        ('{"neural_network": {"data": {', "3 closing braces '}' missing"),
        ('{"neural_network": {}', "1 closing brace '}' missing"),
        ("", "line 1, column 1: "),
        ("not JSON", "not valid JSON"),
        ("[" * 100_000, "nested too deeply"),
        ('{"neural_network": {"num_epochs": NaN}}', "neural_network.num_epochs: NaN is not a JSON number"),
        (
            '{"neural_network": {"loss": {"weight": [1, 1e999]}}}',
            "neural_network.loss.weight[1]: 1e999 is not a JSON number",
        ),
        ('{"neural_network": {"num_epochs": -Infinity}}', "-Infinity is not a JSON number"),
        ('{"neural_network": {"num_epochs": 1, "num_epochs": 2}}', "the key 'num_epochs' is given twice"),
        ('{"neural_network": {"data": {"preload": true, "preload": true}}}', "'preload' is given twice"),
        ('{"neural_network": {"num_epochs": 1, "Num_Epochs": 2}}', "the key 'Num_Epochs' is given twice"),
        ("[]", "the root must be an object"),
        ("{}", "the root must hold one object 'neural_network'"),
        ('{"neural_netwrok": {}}', "found 'neural_netwrok'; did you mean 'neural_network'?"),
        ('{"neural_network": {}, "data": {}}', "found 'data'"),
        ('{"neural_network": {}, "$Schema": "x"}', "found '$Schema'"),
        ('{"neural_network": {}, "$schema": 5}', "$schema: must be the place of a JSON Schema, got 5"),
        ('{"neural_network": 5}', "neural_network: must be an object"),
    ],
)
def test_text_that_is_refused(text, said):
    with pytest.raises(ConfigError) as caught:
        parse(text, "config.json")
    assert str(caught.value).startswith("config.json: ")
    assert said in str(caught.value)


def test_the_place_of_a_schema_settles_nothing():
    found = parse(
        '{"$schema": "./birdsonnx.schema.json", "neural_network": {"num_epochs": 2}}', "config.json"
    )
    assert found == settings_of({"num_epochs": 2})


def test_reading_a_file():
    Path("config.json").write_text(TUTORIAL, encoding="utf-8-sig")
    assert read(Path("config.json")) == parse(TUTORIAL, "config.json")
    assert read(Path("config.json"), ["num_epochs=9"]).num_epochs == 9


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda path: None, "there is no such config file"),
        (lambda path: path.mkdir(), "this is a folder"),
        (lambda path: path.write_bytes(b'{"neural_network": "\xff\xfe"}'), "cannot be read"),
    ],
)
def test_files_that_are_refused(make, said):
    path = Path("config.json")
    make(path)
    with pytest.raises(ConfigError, match=said):
        read(path)


# --- Overrides ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("override", "path", "expected"),
    [
        ("num_epochs=9", "num_epochs", 9),
        ("neural_network.num_epochs=9", "num_epochs", 9),
        ("DATA.Batch_Size=32", "data.batch_size", 32),
        (" data . batch_size =32", "data.batch_size", 32),
        ("data.input_path=other/train", "data.input_path", "other/train"),
        ('data.input_path="other/train"', "data.input_path", "other/train"),
        ("data.input_path=a=b", "data.input_path", "a=b"),
        ("data.test_input_path=null", "data.test_input_path", None),
        ('data.transforms=[{"resize": [8, 9]}]', "data.transforms", (Resize(8, 9),)),
        ("birdsonnx.cache=false", "birdsonnx.cache", False),
        ("birdsonnx.threads=3", "birdsonnx.threads", 3),
        ("optimizer.lr_scheduler.gamma=0.25", "optimizer.lr_scheduler.gamma", 0.25),
    ],
)
def test_an_override_changes_one_key(override, path, expected):
    found = parse(TUTORIAL, "config.json", [override])
    assert attrgetter(path)(found) == expected
    untouched = {name: section for name, section in found if name != path.partition(".")[0]}
    original = parse(TUTORIAL, "config.json")
    assert untouched == {name: section for name, section in original if name in untouched}


def test_the_last_override_wins():
    assert settings_of({}, "num_epochs=2", "num_epochs=3").num_epochs == 3


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("num_epochs", "--set num_epochs: write KEY=VALUE"),
        ("=1", "--set =1: write KEY=VALUE"),
        ("data..batch_size=1", "write KEY=VALUE"),
        ("outfile.name=1", "--set outfile.name=1: 'outfile' is not an object"),
        ("data.batch_sise=1", "neural_network.data.batch_sise: unknown key"),
        ("num_epochs=many", 'neural_network.num_epochs: Input should be a valid integer, got "many"'),
        ("optimizer.learning_rate=NaN", "--set optimizer.learning_rate: NaN is not"),
        ("optimizer.weight_decay=Infinity", "--set optimizer.weight_decay: Infinity is not"),
    ],
)
def test_overrides_that_are_refused(override, said):
    assert said in refusal({"outfile": "out.txt"}, override)


# --- Anything at all ------------------------------------------------------------------------------------

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)
SECTIONS = [
    ((), Settings),
    *(((name,), type(section)) for name, section in settings_of({}) if isinstance(section, BaseModel)),
    (("optimizer",), Adam),
    (("optimizer", "lr_scheduler"), Step),
]
PATHS = [(*prefix, name) for prefix, section in SECTIONS for name in section.model_fields]


def complaint(text: str) -> str:
    """Why a text is refused; empty where it is taken."""
    try:
        parse(text, "config.json")
    except ConfigError as error:
        return str(error)
    return ""


@settings(derandomize=True, deadline=None, max_examples=400)
@given(st.lists(st.tuples(st.sampled_from(PATHS), JSON), min_size=1, max_size=3))
def test_any_value_under_any_key_is_taken_or_refused(entries):
    network: dict[str, Any] = {}
    for path, value in entries:
        section = network
        for key in path[:-1]:
            inner = section.setdefault(key, {})
            if not isinstance(inner, dict):
                inner = section[key] = {}
            section = inner
        section[path[-1]] = value
    message = complaint(json.dumps({"neural_network": network}))
    assert not message or message.startswith("config.json: neural_network")


@settings(derandomize=True, deadline=None, max_examples=200)
@given(st.text() | st.tuples(st.integers(0, len(TUTORIAL)), st.text(max_size=3)))
def test_any_text_is_taken_or_refused(text):
    if isinstance(text, tuple):
        position, piece = text
        text = TUTORIAL[:position] + piece + TUTORIAL[position + 1 :]
    message = complaint(text)
    assert not message or message.startswith("config.json: ")


@pytest.mark.parametrize(
    "network",
    [
        '{"num_epochs": ' + "1" * 5000 + "}",
        '{"data": {"transforms": [{"normalize": {"mean": ' + "1" * 400 + ', "std": 1}}]}}',
        r'{"\ud800": 1}',
        r'{"optimizer": {"type": "\ud800"}}',
        '{"optimizer": {"dampening": 1e999}}',
        '{"num_epochs": 1}, "Neural_Network": {"num_epochs": 3}',
        '{"optimizer": {"type": "SGD", "Type": "Adam"}}',
        '{"data": {"transforms": [{"normalize": {"mean": 0, "Mean": 1, "std": 1}}]}}',
        '{"optimizer": {"type": 5}}',
        '{"loss": {"weight": [1e999]}}',
        '{"birdsonnx": {"clip_norm": 1e999}}',
        '{"outfile": "."}',
    ],
    ids=[
        "digits",
        "overflow",
        "key",
        "type",
        "inf",
        "root",
        "type twice",
        "mean twice",
        "number",
        "weight",
        "clip",
        "outfile",
    ],
)
def test_odd_json_is_a_config_error(network):
    with pytest.raises(ConfigError, match=r"^c\.json: "):
        parse('{"neural_network": ' + network + "}", "c.json")


@pytest.mark.parametrize(
    "override",
    [
        "optimizer.dampening=NaN",
        "num_epochs=" + "1" * 5000,
        "num_epochs=" + "[" * 100_000,
        "neural_network=1",
    ],
    ids=["nan", "digits", "deep", "root"],
)
def test_odd_overrides_are_config_errors(override):
    with pytest.raises(ConfigError, match=r"^--set "):
        parse('{"neural_network": {}}', "c.json", [override])
