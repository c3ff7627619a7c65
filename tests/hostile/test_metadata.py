"""Every metadata key of a valid model with values that nobody means: one line with the file's name, or a
right answer, and never anything else."""

import json
from pathlib import Path

import onnx
import pytest

from birdsonnx.config.transforms import Resize
from birdsonnx.model.checkpoint_names import newest_checkpoint
from birdsonnx.model.metadata import PREFIX, Dropout
from birdsonnx.model.metadata_values import TYPES
from birdsonnx.model.model_file import BirdModel
from tests.tiny import SIZE, make_class_folders, tiny_model

MODEL = Path("m.onnx")
EPOCH = {"epoch": 1, "learning_rate": 0.1, "train_loss": 0.5, "test_loss": 0.5, "test_accuracy": 0.5}
VALID = tiny_model(3, ["A", "B", "C"]).metadata.having(
    dropout=(Dropout("d", 0.5, (8,)),),
    transforms=(Resize(SIZE, SIZE),),
    history=(EPOCH,),
    run={"run": 1, "epoch": 1},
)
KEYS = sorted(TYPES)

ANY = [
    "",
    "{",
    "null",
    "true",
    "7",
    "-1",
    "1e999",
    "NaN",
    "[NaN]",
    '"text"',
    '"\\ud800"',
    "[]",
    "{}",
    "[[]]",
    "[{}]",
    '[{"a": 1}]',
    '["a", "a"]',
    '["A", "B", "C", "D"]',
    '["A", "B"]',
    '["A", "B", "A"]',
    '["A", "", "C"]',
    '{"run": "x", "epoch": 1}',
    '{"run": 1, "run": 2, "epoch": 1}',
    '{"run": 1e400, "epoch": [1]}',
    "[" * 100_000,
    '{"a":' * 50_000,
    "9" * 5000,
    "[1]" * 3,
    '{"photos": 1, "method": ["x"]}',
    '{"name": "caffe", "bgr": true, "scale": [1, 1], "offset": [0, 0, 0]}',
    '{"name": "caffe", "bgr": "yes", "scale": [1, 1, 1], "offset": [0, 0, 0]}',
    '{"total": -1, "trainable": 0, "statistics": 0}',
    '[["conv1", "Conv2D", "8", false]]',
    '[["d", 2.0, [8]]]',
    '[{"epoch": 5, "learning_rate": 0.1, "train_loss": 0.5}]',
    '[{"epoch": 1, "learning_rate": 0.1, "train_loss": 1e999}]',
    json.dumps([{"resize": [16384, 16384]}] * 50),
    json.dumps([{"resize": [16384, 16384]}, {"resize": [SIZE, SIZE]}]),
    json.dumps([{"rotate": 1}] * 1000 + [{"resize": [SIZE, SIZE]}]),
    '[{"resize": [8, 8]}]',
    '[{"convert_color": "RGB2GRAY"}]',
]


def write(path: Path, key: str, value: str | bytes) -> None:
    """The valid model with one other value; bytes as they are, at the end, where protobuf takes them."""
    model = BirdModel(tiny_model(3).proto, VALID, "tiny")
    content = onnx.load_model_from_string(model.serialized())
    for prop in [prop for prop in content.metadata_props if prop.key == PREFIX + key]:
        content.metadata_props.remove(prop)
    if isinstance(value, str):
        content.metadata_props.add(key=PREFIX + key, value=value)
        path.write_bytes(content.SerializeToString())
        return
    name = (PREFIX + key).encode()
    entry = b"\x0a" + bytes([len(name)]) + name + b"\x12" + bytes([len(value)]) + value
    path.write_bytes(content.SerializeToString() + b"\x72" + bytes([len(entry)]) + entry)


@pytest.fixture
def photo() -> Path:
    return make_class_folders(Path("data"), ["A", "B", "C"], per_class=1) / "A" / "000.png"


@pytest.mark.parametrize("key", KEYS)
def test_any_value_of_a_key(key, run, photo):
    refused = 0
    for value in [*ANY, b"\xff\xfe", b'"\xc3\x28"']:
        write(MODEL, key, value)
        for words in (("info", MODEL), ("predict", photo, "--model", MODEL), ("info", MODEL, "--json")):
            done = run(*words)
            if done.code == 2:
                refused += 1
                assert done.refusal.startswith(f"birdsonnx: {MODEL}: "), (key, value[:60], done)
            else:
                assert (done.code, done.err) == (0, ""), (key, value[:60], done)
    assert refused > len(ANY), "most of them are no values of this key"


@pytest.mark.parametrize("key", KEYS)
def test_the_line_names_the_key(key, run):
    write(MODEL, key, "[[[7]]]")
    assert f"its metadata are damaged: birdsonnx.{key}: " in run("info", MODEL).refusal


def test_a_key_that_is_there_twice(run):
    write(MODEL, "classes", '["A", "B", "C"]')
    proto = onnx.load_model_from_string(MODEL.read_bytes())
    proto.metadata_props.add(key=PREFIX + "classes", value='["C", "B", "A"]')
    MODEL.write_bytes(proto.SerializeToString())
    assert "birdsonnx.classes is there twice" in run("info", MODEL).refusal


def test_what_others_write_beside_ours_is_no_matter(run):
    write(MODEL, "of_a_later_version", "{")
    content = MODEL.read_bytes()
    MODEL.write_bytes(content + b"\x72\x06\x0a\x02\xff\xfe\x12\x00")
    assert run("info", MODEL).code == 0


@pytest.mark.parametrize(
    "value", ['{"run": "x", "epoch": 1}', "[" * 100_000, '{"run": 1e999, "epoch": 1}', b"\xff"]
)
def test_one_unreadable_record_blocks_no_other_checkpoint(value, run, photo):
    folder = Path("model_checkpoints_save")
    folder.mkdir()
    write(folder / "model_checkpoint_1.onnx", "run", '{"run": 1, "epoch": 1}')
    write(folder / "model_checkpoint_2.onnx", "run", value)
    assert newest_checkpoint(folder) == folder / "model_checkpoint_1.onnx"
    assert run("predict", photo).code == 0
