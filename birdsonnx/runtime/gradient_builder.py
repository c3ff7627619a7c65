"""The second seam to ONNX Runtime: its gradient builder, which only the training build has.

Fine-tuning convolutions needs it, training a head does not (`passes.head_gradients`). Building alone needs
it: the graph that comes out is a plain ONNX model, which `sessions.Session` runs.
"""

from collections.abc import Collection

from birdsonnx.runtime import onnxruntime_package
from birdsonnx.runtime.sessions import refusing

WHERE = "onnxruntime-training-cpu 1.19.2, for CPython 3.11 and 3.12 on Linux x86-64, Windows and macOS"
"""The wheel that has it, in words for the user."""


def is_installed() -> bool:
    """Whether the installed runtime has a gradient builder."""
    try:
        onnxruntime_package.load()
        from onnxruntime.capi._pybind_state import GradientGraphBuilder  # noqa: F401
    except ImportError:
        return False
    return True


def with_gradients(model: bytes, loss: str, weights: Collection[str]) -> bytes:
    """A serialized model that computes `loss` and its gradient with respect to each weight, `<name>_grad`.

    Args:
        model: serialized; the weights must be inputs of its graph. Of small constants that are equal, as
            biases are before they are trained, the runtime's optimizer would keep one.
        loss: the scalar output to differentiate.
        weights: names of the float32 inputs to differentiate by.

    Raises:
        ModelError: the runtime cannot do it.
    """
    onnxruntime = onnxruntime_package.load()
    from onnxruntime.capi._pybind_state import GradientGraphBuilder, get_optimized_model

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # errors are raised as well; the log would print names of a file raw
    names = set(weights)
    with refusing("its gradient"):
        optimized = get_optimized_model(model, names, options)
        builder = GradientGraphBuilder(optimized, {loss}, names, loss, options)
        builder.build()
        return bytes(builder.get_model())
