"""birdsonnx as `predict` runs it for many photos: the uint8 .onnx, one single-threaded stream per core.

With `"amx": false` as on a CPU without AMX units, on which convolutions use VNNI.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from benchmarks.peers.protocol import Peer, serve
from benchmarks.peers.timing import Array


def load(settings: dict[str, Any]) -> Peer:
    from birdsonnx.inference.classifier import open_classifier
    from birdsonnx.inference.engines import fastest
    from birdsonnx.inference.forward import answer
    from birdsonnx.model.file_bytes import read_bytes
    from birdsonnx.runtime.sessions import in_streams

    model = Path(settings["model"])
    made_over = fastest(read_bytes(model), settings.get("amx"))
    classifier = open_classifier(made_over, model.name, settings["threads"], settings["threads"])

    def answers(batches: Iterable[Array]) -> Iterable[Array]:
        return in_streams(classifier.streams, lambda batch: answer(classifier.engine, batch), batches)

    return Peer(answers, ("numpy", "onnxruntime-training-cpu"), chosen={"streams": classifier.streams})


if __name__ == "__main__":
    serve(load)
