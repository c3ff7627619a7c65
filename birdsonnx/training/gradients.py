"""Loss and gradients of a head, as ONNX Runtime's own gradient builder makes them."""

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import onnx
from onnx import ModelProto, TensorProto, helper

from birdsonnx.errors import InstallationError
from birdsonnx.network.head import FEATURES, Weights
from birdsonnx.network.metadata import OUTPUT
from birdsonnx.runtime.sessions import Session

LOSS, LABELS = "loss", "labels"


def require_training() -> None:
    """Raises InstallationError where the installed runtime has no gradients."""
    try:
        from onnxruntime.capi._pybind_state import GradientGraphBuilder  # noqa: F401
    except ImportError:
        raise InstallationError(
            "this platform's onnxruntime predicts but cannot train: the training runtime "
            "(onnxruntime-training-cpu 1.19.2) exists for CPython 3.11 and 3.12 on Linux x86-64, Windows and "
            "macOS; train there and predict here"
        ) from None


class HeadGradients:
    """The summed loss of a batch and its gradients with respect to the head's weights.

    Args:
        head: `features` to `log_probs`.
        weights: the names and initial values of what is trained.
        threads: threads inside one run.
    """

    def __init__(self, head: ModelProto, weights: Weights, threads: int) -> None:
        self._names = list(weights)
        self._training = Session(_gradient_graph(head, self._names), threads)
        self._inference = Session(_weights_as_inputs(head, weights).SerializeToString(), threads)

    def __call__(
        self,
        features: npt.NDArray[np.float32],
        labels: npt.NDArray[np.int64],
        weights: Weights,
    ) -> tuple[float, Weights]:
        """Loss and gradients summed over the batch: features `[batch, feature_size]`, labels `[batch]`.

        Sums, not means: a batch is divided among ranks, and only the whole batch knows its size.
        """
        if not len(features):
            return 0.0, {name: np.zeros_like(value) for name, value in weights.items()}
        results = self._training.run({FEATURES: features, LABELS: labels, **weights})
        return float(results[LOSS]), {name: results[f"{name}_grad"] for name in self._names}

    def log_probs(self, features: npt.NDArray[np.float32], weights: Weights) -> npt.NDArray[np.float32]:
        """Forward pass only: float32 `[batch, classes]`."""
        return self._inference.run({FEATURES: features, **weights})[OUTPUT]


def with_loss(head: ModelProto) -> ModelProto:
    """The head ending in `loss`, the negative log-likelihood of `labels` summed over the batch.

    NegativeLogLikelihoodLoss has no gradient in the runtime; SoftmaxCrossEntropyLoss has, and since
    log_softmax of log-probabilities is the identity, it gives the same value.
    """
    proto = ModelProto()
    proto.CopyFrom(head)
    proto.graph.node.append(
        helper.make_node(
            "SoftmaxCrossEntropyLoss", [OUTPUT, LABELS], [LOSS, "loss_log_prob"], name=LOSS, reduction="sum"
        )
    )
    proto.graph.input.append(helper.make_tensor_value_info(LABELS, TensorProto.INT64, ["batch"]))
    del proto.graph.output[:]
    proto.graph.output.append(helper.make_tensor_value_info(LOSS, TensorProto.FLOAT, []))
    return proto


def _gradient_graph(head: ModelProto, trainable: list[str]) -> bytes:
    import onnxruntime
    from onnxruntime.capi._pybind_state import GradientGraphBuilder, get_optimized_model

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # the builder reports every graph transformer at INFO
    names = set(trainable)
    optimized = get_optimized_model(with_loss(head).SerializeToString(), names, options)
    builder = GradientGraphBuilder(optimized, {LOSS}, names, LOSS, options)
    builder.build()
    proto = onnx.load_model_from_string(builder.get_model())
    initial = {
        tensor.name: np.empty(list(tensor.dims), np.float32)
        for tensor in proto.graph.initializer
        if tensor.name in names
    }
    return bytes(_weights_as_inputs(proto, initial).SerializeToString())


def _weights_as_inputs(model: ModelProto, weights: Mapping[str, npt.NDArray[np.float32]]) -> ModelProto:
    proto = ModelProto()
    proto.CopyFrom(model)
    kept = [tensor for tensor in proto.graph.initializer if tensor.name not in weights]
    del proto.graph.initializer[:]
    proto.graph.initializer.extend(kept)
    already = {value.name for value in proto.graph.input}
    proto.graph.input.extend(
        helper.make_tensor_value_info(name, TensorProto.FLOAT, value.shape)
        for name, value in weights.items()
        if name not in already
    )
    return proto
