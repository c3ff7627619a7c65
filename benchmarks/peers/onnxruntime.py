"""ONNX Runtime with default options, whichever version this interpreter has, on any .onnx of the network."""

from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from benchmarks.peers.protocol import Peer, preprocessed, serve
from benchmarks.peers.timing import Array


def load(settings: dict[str, Any]) -> Peer:
    import onnxruntime

    session = onnxruntime.InferenceSession(settings["model"], providers=["CPUExecutionProvider"])
    [source] = session.get_inputs()

    def answers(batches: Iterable[Array]) -> Iterable[Array]:
        return (session.run(None, {source.name: batch})[0] for batch in batches)

    takes_float = source.type == "tensor(float)"
    return Peer(answers, ("numpy", _package()), preprocessed if takes_float else Peer.prepare)


def _package() -> str:
    """The wheel that provides the module."""
    try:
        version("onnxruntime")
    except PackageNotFoundError:
        return "onnxruntime-training-cpu"
    return "onnxruntime"


if __name__ == "__main__":
    serve(load)
