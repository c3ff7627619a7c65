"""The schema of the config says what `parse` takes, and refuses what it refuses."""

import copy
import json
import re
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from birdsonnx.config.reading import parse
from birdsonnx.config.schema import config_schema
from birdsonnx.config.section import Section
from birdsonnx.config.settings import Settings
from birdsonnx.config.transform_list import TRANSFORMS
from birdsonnx.errors import ConfigError
from tests.command import succeed, succeed_json
from tests.config.test_config import AUGMENTED, JSON, PATHS, TUTORIAL, change_case

ROOT = Path(__file__).resolve().parents[2]
SCHEMA = config_schema()
VALIDATOR = jsonschema.Draft202012Validator(SCHEMA)


def in_schema(config: Any) -> bool:
    return bool(VALIDATOR.is_valid(config))


def parses(config: Any) -> bool:
    try:
        parse(json.dumps(config), "config.json")
    except ConfigError:
        return False
    return True


def shipped() -> dict[str, Any]:
    """Every config of the repository by name: the files, and what README shows as a whole one."""
    found = {path.name: json.loads(path.read_text()) for path in (ROOT / "models").glob("config_*.json")}
    readme = (ROOT / "README.md").read_text()
    for number, block in enumerate(re.findall(r"```json\n(.*?)```", readme, flags=re.DOTALL)):
        found[f"README {number}"] = json.loads(block)
    return {**found, "tutorial": json.loads(TUTORIAL)}


SHIPPED = shipped()


def test_it_is_a_schema_of_its_draft():
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    assert SCHEMA["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    assert list(SCHEMA["$defs"]) == sorted(SCHEMA["$defs"]), "not in the order in which modules are imported"


@pytest.mark.parametrize("name", SHIPPED)
def test_shipped_configs_are_valid(name):
    VALIDATOR.validate(SHIPPED[name])
    assert parses(SHIPPED[name])


@pytest.mark.parametrize("change", [str.upper, str.lower, str.swapcase])
def test_enumerated_values_are_valid_in_any_case(change):
    def only_values(value: Any, other: Any) -> Any:
        if isinstance(value, dict):
            pairs = zip(value.items(), other.values(), strict=True)
            return {key: only_values(content, changed) for (key, content), changed in pairs}
        return value if isinstance(value, list) else other

    config = json.loads(TUTORIAL)
    VALIDATOR.validate(only_values(config, change_case(config, change)))


def test_it_has_every_key_and_says_what_each_means():
    def sections(section: type[Section]) -> list[type[Section]]:
        return [kind for sub in section.__subclasses__() for kind in (sub, *sections(sub))]

    known = {section.__name__: section for section in sections(Section)}
    assert "Settings" in SCHEMA["$defs"]
    for name, definition in SCHEMA["$defs"].items():
        properties = definition["properties"]
        assert properties.keys() == known[name].model_fields.keys() | known[name].synonyms.keys()
        assert definition["additionalProperties"] is False
        assert all(len(content["description"]) > 10 for content in properties.values()), name
    reached = set(re.findall(r'"#/\$defs/(\w+)"', json.dumps(SCHEMA)))
    assert reached == set(SCHEMA["$defs"])
    kinds = SCHEMA["$defs"]["Data"]["properties"]["transforms"]["items"]["oneOf"]
    assert [list(kind["properties"]) for kind in kinds] == [[name] for name in TRANSFORMS]
    assert '"title"' not in json.dumps(SCHEMA["$defs"])


def config(**sections: Any) -> dict[str, Any]:
    return {"neural_network": sections}


def transforms(*steps: Any) -> dict[str, Any]:
    return config(data={"transforms": list(steps)})


VALID = [
    config(),
    {"$schema": "./birdsonnx.schema.json", **config()},
    config(layers={"class_name": "Functional"}, debug=True, outfile="out.txt"),
    config(data={"type": "images", "input_grayscale": True, "input_transforms": []}),
    config(data={"input_path": "d", "training_tag": "train", "testing_tag": "test"}),
    config(data={"input_path": None, "batch_size": 1}),
    config(optimizer={}),
    config(optimizer={"momentum": 0.9, "nesterov": True}),
    config(optimizer={"type": "LARS", "eta": 0.1}),
    config(
        optimizer={"type": "Adam", "lr_scheduler": {"type": "warmup", "num_epochs": 2, "start_factor": 0.5}}
    ),
    config(optimizer={"lr_scheduler": {"type": "MultiStep", "milestones": [1, 2]}}),
    config(optimizer={"lr_scheduler": None}),
    config(loss={"function": "focal", "gamma": 1, "weight": [1, 0.5]}),
    config(loss={"weight": "Balanced"}),
    config(birdsonnx={"cache": False, "trainable": ["dense"], "feature_precision": "INT8"}),
    config(birdsonnx={"cache": "folder"}),
    config(birdsonnx={"precision": "BF16"}),
    config(birdsonnx={"precision": "auto"}),
    transforms(*AUGMENTED),
    transforms({"convert_color": "color_bgr2rgb"}, {"normalize": {"std": [1, 2, 3]}}),
    transforms({"normalize": {"mean": 0, "std": [1]}}),
]
BROKEN = [
    [],
    {},
    {"neural_network": []},
    {"neural_network": {}, "data": {}},
    {"neural_network": {}, "$schema": 5},
    config(num_epoch=6),
    config(birdsonnx={"precision": "fp16"}),
    config(birdsonnx={"precision": None}),
    config(birdsonnx={"precision": ["bf16"]}),
    config(num_epochs=0),
    config(num_epochs="6"),
    config(num_epochs=True),
    config(outfile=""),
    config(outfile="."),
    config(outfile="./"),
    config(layers=5),
    config(debug=1),
    config(debug_interval=1),
    config(data=None),
    config(data={"input_type": "numpy"}),
    config(data={"target_path": "masks"}),
    config(data={"batch_size": 1.5}),
    config(data={"type": "images", "input_type": "images"}),
    config(data={"test_input_path": "d", "test_tag": "a", "testing_tag": "a"}),
    config(data={"input_path": "d", "training_tag": "a/b"}),
    config(data={"input_path": "d", "training_tag": ".a"}),
    config(optimizer={"type": "Hessian"}),
    config(optimizer={"type": "Adam", "momentum": 1}),
    config(optimizer={"beta1": 0.5}),
    config(optimizer={"type": "Adam", "beta1": 1}),
    config(optimizer={"learning_rate": 0}),
    config(optimizer={"lr_scheduler": {}}),
    config(optimizer={"lr_scheduler": {"type": "Step"}}),
    config(optimizer={"lr_scheduler": {"type": "Step", "step_size": 0}}),
    config(optimizer={"lr_scheduler": {"type": "MultiStep", "milestones": []}}),
    config(loss={"function": "MSE"}),
    config(loss={"weight": [-1]}),
    config(loss={"weight": "even"}),
    config(loss={"weight": ["balanced"]}),
    config(checkpoints={"interval": 0}),
    config(birdsonnx={"cache": True}),
    config(birdsonnx={"seed": -1}),
    config(birdsonnx={"seed": 2**63}),
    config(birdsonnx={"trainable": [""]}),
    config(data={"transforms": None}),
    config(data={"transforms": {"resize": [8, 8]}}),
    transforms({}),
    transforms("resize"),
    transforms({"rezise": [8, 8]}),
    transforms({"resize": [8, 8], "center_crop": [8, 8]}),
    transforms({"resize": [8]}),
    transforms({"resize": [8, 20000]}),
    transforms({"resize": [8, 0.5]}),
    transforms({"resize_shorter": 0}),
    transforms({"resize_shorter": [8, 8]}),
    transforms({"rotate": 361}),
    transforms({"random_rotate": -1}),
    transforms({"jitter_crop": 1}),
    transforms({"random_zoom": "0.1"}),
    transforms({"random_horizontal_flip": 1.1}),
    transforms({"convert_color": "RGB2XXX"}),
    transforms({"convert_color": 4}),
    transforms({"convert_color": "RGB2GRAY2RGB"}),
    transforms({"normalize": {}}),
    transforms({"normalize": {"std": 0}}),
    transforms({"normalize": {"mean": [1, 2]}}),
    transforms({"normalize": {"mean": 1, "more": 2}}),
    transforms({"normalize": {"mean": 1}}, {"normalize": {"mean": 1}}),
    transforms({"random_patches": {"number": 1, "size": 1}}),
]


@pytest.mark.parametrize("content", VALID, ids=json.dumps)
def test_what_is_valid_in_both(content):
    VALIDATOR.validate(content)
    assert parses(content)


@pytest.mark.parametrize("content", BROKEN, ids=json.dumps)
def test_what_is_broken_in_both(content):
    assert not in_schema(content)
    assert not parses(content)


@pytest.mark.parametrize(
    "path",
    [
        (section, key)
        for section in ("data", "optimizer", "loss", "checkpoints", "birdsonnx")
        for key in SHIPPED["config_train_keras.json"]["neural_network"][section]
    ],
    ids=".".join,
)
def test_a_shipped_config_with_a_misspelt_key_is_broken_in_both(path):
    broken = copy.deepcopy(SHIPPED["config_train_keras.json"])
    section = broken["neural_network"][path[0]]
    section[path[1] + "x"] = section.pop(path[1])
    assert not in_schema(broken)
    assert not parses(broken)


SCALARS = (
    st.none() | st.booleans() | st.integers(-2, 300) | st.sampled_from([0.5, 0.001, 1.5, -0.5]) | st.text()
)
NAMES = ["Adam", "sgd", "Step", "cosine", "nll", "FOCAL", "images", "labels", "int8", "fp32", "out.txt"]
VALUES = SCALARS | st.sampled_from(NAMES) | st.lists(SCALARS, max_size=3) | JSON
NUMBERS = st.integers(-2, 400) | st.sampled_from([0.5, 0.001, 1.5, -0.5, 180.5])
SUITABLE = {
    "resize": st.lists(st.integers(-1, 300), min_size=2, max_size=2),
    "center_crop": st.lists(st.integers(1, 300), min_size=1, max_size=3),
    "convert_color": st.sampled_from(["RGB2HSV", "COLOR_RGB2YCrCb", "rgb2gray", "GRAY2RGB", "RGB2"]),
    "normalize": st.dictionaries(
        st.sampled_from(["mean", "std", "std", "x"]), NUMBERS | st.lists(NUMBERS, min_size=1, max_size=3)
    ),
}
STEPS = st.sampled_from([*TRANSFORMS, "resise"]).flatmap(
    lambda name: st.fixed_dictionaries({name: SUITABLE.get(name, NUMBERS) | VALUES})
)
NEEDS_MORE_KEYS = {"debug", "test_tag", "nesterov", "gamma", "milestones", "weight", "early_stopping"}
"""What is right by itself and refused for another key's sake, or for its numbers' order or sum."""


def has_whole_float(value: Any) -> bool:
    """JSON Schema takes 1.0 for an integer, and knows no bounds of floating point."""
    if isinstance(value, float):
        return value == int(value)
    if isinstance(value, int):
        return abs(value) > 2**60
    return (
        any(map(has_whole_float, value.values() if isinstance(value, dict) else value))
        if isinstance(value, dict | list)
        else False
    )


@settings(derandomize=True, deadline=None, max_examples=600)
@given(st.sampled_from([path for path in PATHS if path[-1] not in NEEDS_MORE_KEYS]), VALUES)
def test_they_agree_on_one_key(path, value):
    section: Any = value
    for key in reversed(path):
        section = {key: section}
    if has_whole_float(value):
        return
    content = {"neural_network": section}
    assert in_schema(content) == parses(content)


@settings(derandomize=True, deadline=None, max_examples=400)
@given(STEPS)
def test_they_agree_on_one_transform(step):
    if has_whole_float(list(step.values())):
        return
    gray = step.get("convert_color") == "GRAY2RGB"
    content = config(data={"grayscale": gray, "transforms": [step]})
    assert in_schema(content) == parses(content)


def test_the_verb_prints_it_and_writes_it():
    assert json.loads(succeed("schema")) == SCHEMA
    assert succeed_json("schema") == SCHEMA
    assert succeed("schema", "-o", "birdsonnx.schema.json") == "wrote birdsonnx.schema.json\n"
    assert json.loads(Path("birdsonnx.schema.json").read_text()) == SCHEMA
    assert succeed_json("schema", "-o", "other.json") == {"output": "other.json"}


def test_settings_are_what_it_describes():
    assert SCHEMA["properties"]["neural_network"] == {"$ref": f"#/$defs/{Settings.__name__}"}
