"""birdsonnx as `predict` runs: the uint8 .onnx, opened the same way, one single-threaded stream per core.

With `"amx": false` as it opens a model for a few photos: the file as it is, whose convolutions use VNNI.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from benchmarks.peers.protocol import Peer, serve
from benchmarks.peers.timing import Array


def load(settings: dict[str, Any]) -> Peer:
    from birdsonnx.inference.prediction import MANY, open_classifier
    from birdsonnx.network.metadata import INPUT, OUTPUT
    from birdsonnx.runtime.sessions import in_streams

    model = Path(settings["model"])
    photos = MANY if settings.get("amx", True) else MANY - 1
    classifier = open_classifier(model, model.name, photos, settings["threads"])

    def answer(batch: Array) -> Array:
        return classifier.session.run({INPUT: batch})[OUTPUT]

    def answers(batches: Iterable[Array]) -> Iterable[Array]:
        return in_streams(classifier.streams, answer, batches)

    return Peer(answers, ("numpy", "onnxruntime-training-cpu"), chosen={"streams": classifier.streams})


if __name__ == "__main__":
    serve(load)
