"""Write birdsonnx/keras_io/architectures/descriptions.json.xz: networks of keras.applications as data.

    python scripts/describe_architectures.py          # with the `export` extra; writes the file anew
    python scripts/describe_architectures.py --check  # compares the file with what Keras builds

Each network is built without its top and average-pooled, at several sizes, without any weights being made.
What depends on the size must be paddings alone; the file has one network a line.
"""

import argparse
import json
import lzma
import math
import os
import re
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")
os.environ["KERAS_BACKEND"] = "tensorflow"

import keras
from keras.src.applications import imagenet_utils
from keras.src.backend import StatelessScope
from keras.src.utils import file_utils

from birdsonnx.keras_io.architectures import DEFAULT_SIZES
from birdsonnx.keras_io.architectures.descriptions import FILE

SIZES = ((97, 98), (99, 130), (339, 256))
"""Beside the size that a network was trained at; odd and even, square and not."""
SQUARES = (96, 128, 160, 192, 224)
"""Sizes for which some networks have ImageNet weights of their own."""
UNUSED = ("build_config", "registered_name", "build_input_shape", "dtype", "seed", "data_format")
"""What Keras takes as well where it is missing."""


@contextmanager
def intercepted() -> Iterator[list[Any]]:
    """What Keras would download is recorded, and `padding` for each padding that depends on the size; no
    weights are loaded."""
    seen: list[Any] = []
    get_file, correct_pad = file_utils.get_file, imagenet_utils.correct_pad
    load_weights = keras.Model.load_weights

    def download(fname: str, origin: str, file_hash: str | None = None, **_: Any) -> str:
        seen.append([fname, origin, file_hash])
        return fname

    def padding(*args: Any) -> Any:
        seen.append("padding")
        return correct_pad(*args)

    file_utils.get_file, imagenet_utils.correct_pad = download, padding
    keras.Model.load_weights = lambda *_, **__: None
    try:
        yield seen
    finally:
        file_utils.get_file, imagenet_utils.correct_pad = get_file, correct_pad
        keras.Model.load_weights = load_weights


def built(name: str, size: tuple[int, int], channels: int = 3, weights: str | None = None) -> Any:
    """Keras' own network, without values in its variables."""
    keras.backend.clear_session()
    with warnings.catch_warnings(), StatelessScope(initialize_variables=False):
        warnings.simplefilter("ignore")
        options = {"include_top": False, "weights": weights, "pooling": "avg"}
        return getattr(keras.applications, name)(input_shape=(*size, channels), **options)


def least_side(name: str) -> int:
    """The smallest height and width, by what Keras says of 1."""
    try:
        built(name, (1, 1))
    except ValueError as error:
        [side] = re.findall(r"at least (\d+)x\1", str(error))
        return int(side)
    raise AssertionError(f"{name} takes any size")


def of_imagenet(name: str, size: tuple[int, int]) -> tuple[Any, list[Any]]:
    """The network that ImageNet's weights are for, which may have a layer more, and `[name, URL, hash]` of
    their file."""
    with intercepted() as seen:
        model = built(name, size, weights="imagenet")
    [file] = [each for each in seen if isinstance(each, list)]
    return model, file


def stripped(value: Any) -> Any:
    """JSON without what a reader does not need, and without sizes of tensors, which depend on the input's.
    Keras reads it still: it wants some shape and type for each tensor, and looks at neither."""
    if isinstance(value, list):
        return [stripped(each) for each in value]
    if not isinstance(value, dict):
        return value
    if value.get("class_name") == "__keras_tensor__":
        history = value["config"]["keras_history"]
        return {**value, "config": {"shape": [], "dtype": "float32", "keras_history": history}}
    kept = {key: stripped(each) for key, each in value.items() if each is not None and key not in UNUSED}
    if kept.get("class_name") == "InputLayer":
        kept["config"]["batch_shape"] = [None, None, None, kept["config"]["batch_shape"][-1]]
    return kept


def network_of(model: Any) -> dict[str, Any]:
    """The description of a network, under a name that does not depend on the size."""
    model.trainable = False
    content: dict[str, Any] = stripped(json.loads(model.to_json()))
    content["config"]["name"] = "functional"
    return content


def sides_before(model: Any) -> dict[str, tuple[int, int]]:
    """Height and width of what each padding reads."""
    return {layer.name: tuple(layer.input.shape[1:3]) for layer in model.layers if is_padding(layer)}


def is_padding(layer: Any) -> bool:
    return isinstance(layer, keras.layers.ZeroPadding2D)


def moving_paddings(models: Sequence[tuple[tuple[int, int], Any]]) -> dict[str, list[int]]:
    """Paddings that depend on the size, each with `[lost, stride]`: it reads `ceil((side - lost) / stride)`
    rows of `side`."""
    found: dict[str, list[int]] = {}
    for layer in models[0][1].layers:
        paddings = [model.get_layer(layer.name).padding for _, model in models] if is_padding(layer) else []
        if len(set(paddings)) < 2:
            continue
        half = paddings[0][0][1]
        sides = [
            (side, read)
            for size, model in models
            for side, read in zip(size, sides_before(model)[layer.name], strict=True)
        ]
        fits = [
            [lost, 2**power]
            for lost in range(4)
            for power in range(8)
            if all(math.ceil((side - lost) / 2**power) == read for side, read in sides)
        ]
        assert fits, (layer.name, sides)
        for (_, model), padding in zip(models, paddings, strict=True):
            reads = sides_before(model)[layer.name]
            assert padding == tuple((half - 1 + read % 2, half) for read in reads), (layer.name, padding)
        found[layer.name] = fits[0]
    return found


def without_moving(network: dict[str, Any], moving: dict[str, list[int]]) -> dict[str, Any]:
    """A description whose moving paddings say only how far they reach after the last row."""
    for layer in network["config"]["layers"]:
        if layer["name"] in moving:
            half = layer["config"]["padding"][0][1]
            layer["config"]["padding"] = [[None, half], [None, half]]
    return network


def described(name: str) -> dict[str, Any]:
    """All that there is to say about one network."""
    side = DEFAULT_SIZES[name]
    with intercepted() as seen:
        models = [((side, side), built(name, (side, side)))]
        # Where nothing asks for the size, one more shows it.
        models += [(size, built(name, size)) for size in (SIZES if "padding" in seen else SIZES[:1])]
    moving = moving_paddings(models)
    assert seen.count("padding") == len(models) * len(moving), (name, "choose other sizes", moving)
    networks = [without_moving(network_of(model), moving) for _, model in models]
    for network in networks:
        pairs = zip(network["config"]["layers"], networks[0]["config"]["layers"], strict=True)
        assert network == networks[0], (name, next(pair for pair in pairs if pair[0] != pair[1]))
    trained, file = of_imagenet(name, (side, side))
    files = {"": file}
    if str(side) in file[0]:  # MobileNets: the size is in the name
        files |= {str(square): of_imagenet(name, (square, square))[1] for square in SQUARES}
        files = {"": file, **{square: own for square, own in files.items() if own != file}}
        assert of_imagenet(name, SIZES[0])[1] == file, name
    gray = without_moving(network_of(built(name, (side, side), 1)), moving)
    variants = {"gray": gray, "imagenet": without_moving(network_of(trained), moving)}
    blank = with_channels(networks[0])
    variants = {key: each for key, each in variants.items() if with_channels(each) != blank}
    least = least_side(name)
    print(name, "least", least, "moving", len(moving), "variants", list(variants), files, flush=True)
    return {
        "name": name,
        "least": least,
        "files": files,
        "paddings": moving,
        "network": networks[0],
        "variants": variants,
    }


def with_channels(network: dict[str, Any]) -> dict[str, Any]:
    """A description for any number of channels, to be compared."""
    copied: dict[str, Any] = json.loads(json.dumps(network))
    copied["config"]["layers"][0]["config"]["batch_shape"][-1] = None
    return copied


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="compare, and write nothing")
    options = parser.parse_args()
    lines = [json.dumps(described(name), separators=(",", ":")) for name in DEFAULT_SIZES]
    text = "".join(f"{line}\n" for line in lines)
    if options.check:
        same = lzma.decompress(FILE.read_bytes()).decode() == text
        print("the file is as Keras builds them" if same else f"{FILE} differs; write it anew")
        return 0 if same else 1
    FILE.write_bytes(lzma.compress(text.encode(), preset=9 | lzma.PRESET_EXTREME))
    print(f"{FILE}: {len(text) / 1e6:.1f} MB as {FILE.stat().st_size / 1e3:.0f} KB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
