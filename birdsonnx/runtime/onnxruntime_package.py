"""ONNX Runtime's package, imported without its training half.

The training build imports that half to look for PyTorch. With onnx on the way that is 0.15 to 0.25 s of a
start; where PyTorch is installed, a start takes 2.3 instead of 0.66 s. Nothing of it is used here: gradients
come from the core.
"""

import importlib
import sys
from types import ModuleType

TRAINING = "onnxruntime.training"


def load() -> ModuleType:
    """The module `onnxruntime`; its `training` stays importable for others. Raises ImportError."""
    if "onnxruntime" in sys.modules or TRAINING in sys.modules:
        return importlib.import_module("onnxruntime")
    sys.modules[TRAINING] = None  # type: ignore[assignment] # to Python: there is no such module
    try:
        return importlib.import_module("onnxruntime")
    finally:
        del sys.modules[TRAINING]
