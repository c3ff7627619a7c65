"""The road by Keras and tf2onnx, for layers that `reading` does not know; needs the `export` extra."""
