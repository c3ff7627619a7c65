"""Gradients of heads in plain ai.onnx: what a network does after its features, but for convolutions.

`reverse` walks a graph backwards, `rules` has the derivative of each operation, `backward` the nodes that
come of it. Any ONNX Runtime runs the result; its own gradient builder (`runtime.gradient_builder`) is in one
old wheel alone.
"""
