"""Keras' files read by ourselves: config JSON and HDF5 arrays in, ONNX nodes out.

    containers ─▶ parsing ─▶ records ─▶ building ─▶ ModelProto
               └▶ arrays ──────────────┘   uses layers/ and operations, which draw on a canvas

`fitting` fills a network from a file that has only some of its layers, and `fresh` draws the others.

Nothing of TensorFlow, Keras or tf2onnx is imported, and nothing of a file is run.
"""

from birdsonnx.keras_io.reading.fitting import read_into
from birdsonnx.keras_io.reading.keras_file import KerasFile, KerasGraph, graph_of, read

__all__ = ["KerasFile", "KerasGraph", "graph_of", "read", "read_into"]
