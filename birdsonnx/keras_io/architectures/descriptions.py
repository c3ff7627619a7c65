"""Networks of keras.applications as data: what Keras would build, without Keras.

`descriptions.json.xz` is written by scripts/describe_architectures.py, one network a line.
"""

import copy
import json
import lzma
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FILE = Path(__file__).with_name("descriptions.json.xz")
KERAS_VERSION = "3"
"""Of the form of the descriptions."""


@dataclass(frozen=True)
class ImageNetFile:
    """ImageNet's weights of a network without its top, as Keras downloads them."""

    name: str
    url: str
    digest: str | None
    """MD5 or SHA-256 in hexadecimal; the oldest files have none."""


@dataclass(frozen=True)
class Description:
    """One network, without its top and average-pooled, for any size."""

    name: str
    least: int
    """The smallest height and width that Keras builds it with."""
    files: dict[str, Any]
    """ImageNet's weights: of one side of square photos, and of all others under ``."""
    paddings: dict[str, list[int]]
    """Paddings that depend on the size, by layer: `[lost, stride]`."""
    network: dict[str, Any]
    variants: dict[str, dict[str, Any]]
    """The network with one channel (`gray`) and that of ImageNet's weights (`imagenet`), where they are
    different layers."""

    def imagenet_file(self, height: int, width: int) -> ImageNetFile:
        """The weights that Keras takes for photos of this size."""
        own = self.files.get(str(height)) if height == width else None
        return ImageNetFile(*(own or self.files[""]))

    def layers_json(
        self, height: int, width: int, channels: int, imagenet: bool, classes: int
    ) -> dict[str, Any]:
        """The network's JSON as Keras 3 writes it: all of it frozen, and a Dense with log_softmax called
        `dense`, which is not."""
        variant = "imagenet" if imagenet else "gray" if channels == 1 else ""
        content: dict[str, Any] = copy.deepcopy(self.variants.get(variant, self.network))
        config = content["config"]
        for layer in config["layers"]:
            if layer["name"] in self.paddings:
                half = layer["config"]["padding"][0][1]
                lost, stride = self.paddings[layer["name"]]
                layer["config"]["padding"] = [
                    _padding(half, -((lost - side) // stride)) for side in (height, width)
                ]
        config["layers"][0]["config"]["batch_shape"] = [None, height, width, channels]
        config["trainable"] = True
        config["layers"].append(_head(classes, config["output_layers"]))
        config["output_layers"] = ["dense", 0, 0]
        return {**content, "keras_version": KERAS_VERSION}


def _padding(half: int, side: int) -> list[int]:
    """What is padded before and behind, so that a convolution with stride 2, whose kernel reaches `half` rows
    beyond its middle, meets the last row of an odd and of an even side."""
    return [half - 1 + side % 2, half]


def _head(classes: int, reads: Any) -> dict[str, Any]:
    return {
        "module": "keras.layers",
        "class_name": "Dense",
        "config": {
            "name": "dense",
            "trainable": True,
            "units": classes,
            "activation": "log_softmax",
            "use_bias": True,
            "kernel_initializer": {
                "module": "keras.initializers",
                "class_name": "GlorotUniform",
                "config": {},
            },
            "bias_initializer": {"module": "keras.initializers", "class_name": "Zeros", "config": {}},
        },
        "name": "dense",
        "inbound_nodes": [
            {
                "args": [
                    {
                        "class_name": "__keras_tensor__",
                        "config": {"shape": [], "dtype": "float32", "keras_history": reads},
                    }
                ],
                "kwargs": {},
            }
        ],
    }


def lines() -> Iterator[str]:
    """The file, network by network."""
    with lzma.open(FILE, "rt", encoding="utf-8") as file:
        yield from file


def load(name: str) -> Description:
    """The description of one network, by Keras' spelling of its name."""
    start = f'{{"name":"{name}",'
    return Description(**json.loads(next(line for line in lines() if line.startswith(start))))
