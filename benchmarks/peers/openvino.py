"""OpenVINO with an AsyncInferQueue of its own optimal size, on any .onnx or what NNCF made of it."""

from collections.abc import Iterable
from typing import Any

from benchmarks.peers.protocol import Peer, preprocessed, serve
from benchmarks.peers.timing import Array


def load(settings: dict[str, Any]) -> Peer:
    import openvino

    core = openvino.Core()
    if settings["precision"] == "bf16" and "BF16" not in core.get_property(
        "CPU", "OPTIMIZATION_CAPABILITIES"
    ):
        raise SystemExit("this CPU does not compute in bf16")  # else it computes in float32, and says nothing
    model = core.read_model(settings["model"])
    model.reshape([settings["batch"], 224, 224, 3])
    options = {"PERFORMANCE_HINT": settings["hint"], "INFERENCE_NUM_THREADS": settings["threads"]}
    if settings["precision"] != "int8":  # else its default for what is not quantised
        options["INFERENCE_PRECISION_HINT"] = settings["precision"]
    compiled = core.compile_model(model, "CPU", options)
    queue = openvino.AsyncInferQueue(compiled)

    def answers(batches: Iterable[Array]) -> Iterable[Array]:
        found: dict[int, Array] = {}

        def keep(request: Any, index: int) -> None:
            found[index] = request.get_output_tensor(0).data.copy()

        queue.set_callback(keep)
        for index, batch in enumerate(batches):
            queue.start_async({0: batch}, index, share_inputs=True)
        queue.wait_all()
        return [found[index] for index in sorted(found)]

    chosen = {
        "requests": compiled.get_property("OPTIMAL_NUMBER_OF_INFER_REQUESTS"),
        "streams": compiled.get_property("NUM_STREAMS"),
    }
    takes_float = model.inputs[0].element_type == openvino.Type.f32
    prepare = preprocessed if takes_float else Peer.prepare
    return Peer(answers, ("numpy", "openvino"), prepare, chosen=chosen)


if __name__ == "__main__":
    serve(load)
