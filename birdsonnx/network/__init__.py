"""Keras to ONNX graph: reading Keras, conversion, graph rewrites, metadata, the split at the head."""
