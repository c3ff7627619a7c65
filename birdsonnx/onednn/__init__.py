"""Training on oneDNN's bfloat16 kernels: ONNX Runtime has no bfloat16 convolution on CPUs.

The convolutional trunk of a network becomes a list of oneDNN primitives, with derivative rules of our own;
what comes before and after it stays with ONNX Runtime, in float32.
"""
