"""From a Keras classifier and folders of photos to one self-contained ONNX file that names birds."""

__version__ = "0.1.0"
