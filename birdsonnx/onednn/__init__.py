"""Convolutions trained by oneDNN: in bfloat16, of which ONNX Runtime has none on CPUs, and in float32.

The convolutional trunk of a network becomes a list of oneDNN primitives, with derivative rules of our own;
what comes before and after it stays with ONNX Runtime, in float32.
"""
