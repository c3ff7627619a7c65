"""The ONNX file: what it knows of itself, its graph and weights, reading and writing it."""
