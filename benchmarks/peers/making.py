"""What the peers of inference.py run on, made once and outside of all timing.

    python -m benchmarks.peers.making weights PHOTOS.npy OUT.h5
    python -m benchmarks.peers.making tf2onnx WEIGHTS.h5 MODEL.onnx OUT.onnx
    python -m benchmarks.peers.making nncf MODEL.onnx PHOTOS.npy OUT.xml

PHOTOS are uint8 RGB `[photos, 224, 224, 3]`.
"""

import sys
from pathlib import Path

import numpy as np

from benchmarks.peers import keras as peer  # before Keras itself, whose environment it sets
from benchmarks.peers.protocol import preprocessed


def weights(photos: Path, out: Path) -> None:
    """A ResNet50 with random weights whose BatchNorm statistics fit the photos.

    With the statistics of a fresh network every photo gets the same answer, and agreement says nothing.
    """
    import keras

    keras.utils.set_random_seed(0)
    backbone = peer.backbone(None)
    for layer in backbone.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.momentum = 0.0
    backbone(preprocessed(np.load(photos)[:32]), training=True)
    backbone.save(out)


def tf2onnx(weights: Path, model: Path, out: Path) -> None:
    """The Keras network as tf2onnx converts it by default: float32 NHWC in, nothing rewritten."""
    import tensorflow as tf
    import tf2onnx

    network = peer.network(weights, model)
    signature = (tf.TensorSpec((None, 224, 224, 3), tf.float32, name="input"),)
    tf2onnx.convert.from_keras(network, input_signature=signature, output_path=str(out))


def nncf(model: Path, photos: Path, out: Path) -> None:
    """NNCF's default post-training quantisation of an .onnx that takes uint8 or preprocessed floats."""
    import nncf
    import openvino

    network = openvino.Core().read_model(model)
    images = np.load(photos)
    if network.inputs[0].element_type == openvino.Type.f32:
        images = preprocessed(images)
    dataset = nncf.Dataset([image[None] for image in images])
    quantized = nncf.quantize(network, dataset, subset_size=len(images))
    openvino.save_model(quantized, out, compress_to_fp16=False)


if __name__ == "__main__":
    {"weights": weights, "tf2onnx": tf2onnx, "nncf": nncf}[sys.argv[1]](*map(Path, sys.argv[2:]))
