"""Keras on TensorFlow: `predict`, or the network as a concrete `tf.function`."""

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from benchmarks.peers.protocol import Peer, preprocessed, serve
from benchmarks.peers.timing import Array

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
os.environ["KERAS_BACKEND"] = "tensorflow"
os.environ["CUDA_VISIBLE_DEVICES"] = "-1"


def backbone(weights: Path | None) -> Any:
    """Keras' ResNet50 without top; random weights without a file."""
    import keras

    return keras.applications.ResNet50(
        include_top=False, weights=weights, pooling="avg", input_shape=(224, 224, 3)
    )


def network(weights: Path, head: Path) -> Any:
    """The backbone with the Dense layer of a birdsonnx .onnx."""
    import keras
    import onnx
    from onnx import numpy_helper

    tensors = {tensor.name: tensor for tensor in onnx.load(head).graph.initializer}
    kernel, bias = (numpy_helper.to_array(tensors[f"dense/{role}"]) for role in ("kernel", "bias"))
    base = backbone(weights)
    dense = keras.layers.Dense(len(bias), activation="log_softmax", name="dense")
    model = keras.Model(base.input, dense(base.output))
    dense.set_weights([kernel, bias])
    return model


def load(settings: dict[str, Any]) -> Peer:
    import tensorflow as tf

    model = network(Path(settings["weights"]), Path(settings["model"]))

    def predict(batches: Iterable[Array]) -> Iterable[Array]:
        return (model.predict(batch, batch_size=settings["batch"], verbose=0) for batch in batches)

    @tf.function(
        input_signature=[tf.TensorSpec((settings["batch"], 224, 224, 3), tf.float32)],
        jit_compile=settings.get("xla", False),
    )
    def traced(batch: Any) -> Any:
        return model(batch, training=False)

    def call(batches: Iterable[Array]) -> Iterable[Array]:
        concrete = traced.get_concrete_function()
        return (concrete(tf.constant(batch)).numpy() for batch in batches)

    answers = predict if settings["call"] == "predict" else call
    return Peer(answers, ("numpy", "keras", "tensorflow-cpu"), preprocessed)


if __name__ == "__main__":
    serve(load)
