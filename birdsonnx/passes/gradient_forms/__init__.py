"""Forms of a graph's operations whose gradients ONNX Runtime has: one a file; `preparing` applies them."""
