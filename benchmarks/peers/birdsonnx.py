"""birdsonnx as `predict` runs it for many photos: the uint8 .onnx, one single-threaded stream per core.

`"engine"` and `"bf16"` as its options; with `"amx": false` as ONNX Runtime computes on a CPU without AMX
units, on which convolutions use VNNI.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from benchmarks.peers.protocol import Peer, serve
from benchmarks.peers.timing import Array


def load(settings: dict[str, Any]) -> Peer:
    from birdsonnx.inference.classifier import open_classifier
    from birdsonnx.inference.engines import choose, fastest
    from birdsonnx.inference.forms import MANY
    from birdsonnx.inference.forward import answer
    from birdsonnx.model.file_bytes import read_bytes
    from birdsonnx.model.metadata import OUTPUT
    from birdsonnx.runtime.sessions import in_streams

    model, bf16 = Path(settings["model"]), settings.get("bf16", False)
    engine = choose(settings.get("engine", "onnxruntime"), bf16, MANY, lambda: False)
    content = read_bytes(model)
    if engine == "onnxruntime":
        content = fastest(content, settings.get("amx"))
    # Not as for many photos: the content is what it is to be already.
    classifier = open_classifier(
        content,
        model.name,
        settings["threads"],
        settings["threads"],
        per_run=settings["batch"],
        engine=engine,
        bf16=bf16,
    )

    def answers(batches: Iterable[Array]) -> Iterable[Array]:
        return in_streams(classifier.streams, lambda batch: answer(classifier.engine, batch)[OUTPUT], batches)

    packages = ("numpy", "onnxruntime-training-cpu" if engine == "onnxruntime" else "openvino")
    return Peer(answers, packages, chosen={"streams": classifier.streams})


if __name__ == "__main__":
    serve(load)
