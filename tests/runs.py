"""Training runs inside this process: their settings, and an audience that notes what is reported to it."""

import contextlib
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from birdsonnx.artifacts.commands import Command
from birdsonnx.config.reading import parse
from birdsonnx.config.settings import Settings
from birdsonnx.images.folders import LabelledFolder
from birdsonnx.images.photo_list import Photo
from birdsonnx.reporting.training_summary import summary
from birdsonnx.runtime import gradient_builder
from birdsonnx.training.audience import Facts
from birdsonnx.training.boundary_choice import Choice
from birdsonnx.training.epochs import Batch, Epoch
from birdsonnx.training.losses import Loss
from birdsonnx.training.partition import Boundary
from tests.tiny import FEATURES, tiny_model

TRAINED = ["block_b", "last", "dense"] if gradient_builder.is_installed() else ["dense"]
"""Convolutions and the head, or where a runtime cannot train convolutions, the head alone."""


class Stopped(Exception):
    """As a kill at this very place would end a run."""


class Audience:
    """Notes what is reported, and can stop the run in the second batch of an epoch."""

    facts: Facts

    def __init__(self, stop_in: int | None = None) -> None:
        self.lines: list[str] = []
        self.summary: dict[str, str] = {}
        self.losses: list[float] = []
        self._stop_in = stop_in

    def say(self, line: str) -> None:
        self.lines.append(line)

    def begin(self, facts: Facts) -> str | None:
        self.facts = facts
        self.summary = summary(facts)
        return None

    @contextlib.contextmanager
    def progress(self, title: str, total: int | None = None, /) -> Iterator[Any]:
        yield lambda _: None

    def on_batch(self, batch: Batch) -> None:
        self.losses.append(batch.loss)
        if (batch.epoch, batch.number) == (self._stop_in, 2):
            raise Stopped

    def on_epoch(self, epoch: Epoch) -> None:
        pass


def fine_tuning(network: dict[str, Any], save: str | None = "saved", **sections: Any) -> Settings:
    """Settings for `residual_model` as `model.onnx`: a config like the tutorial's that saves every epoch;
    `sections` are merged into it."""
    network = {**network, "num_epochs": 6, "checkpoints": {"load": "model.onnx", "save": save}}
    network["birdsonnx"] = {"trainable": TRAINED, "cache": "kept", "threads": 2}
    for name, section in sections.items():
        network[name] = {**network[name], **section} if isinstance(section, dict) else section
    return parse(json.dumps({"neural_network": network}), "config.json")


def facts_of_a_run(**changes: Any) -> Facts:
    """Of a training of the tiny model's head on 3 photos, with some of them changed."""
    names = ("ANT", "BEE", "COOT")
    photos = tuple(Photo(Path(f"{name}/1.png"), f"{name}/1.png", label) for label, name in enumerate(names))
    facts = Facts(
        settings=parse('{"neural_network": {}}', "config.json"),
        model=tiny_model(3),
        train=LabelledFolder(Path("train"), names, photos),
        test=None,
        loss=Loss.of(parse('{"neural_network": {}}', "config.json"), np.ones(3, np.int64)),
        choice=Choice(Boundary(("squeeze/Squeeze:0",), ((FEATURES,),))),
        cache=Path("cache"),
        dropouts=(),
        trained_weights=3 * FEATURES + 3,
        ranks=1,
        threads=2,
        epochs_done=0,
        batches_done=0,
        time_s=0.0,
        command=Command(("train", "config.json"), None),
        log=None,
    )
    return replace(facts, **changes)
