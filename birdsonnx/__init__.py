"""From a Keras classifier and folders of photos to one self-contained ONNX file that names birds.

import birdsonnx

model = birdsonnx.load("model_checkpoints_save/model_checkpoint_6.onnx")
for photo in model.predict("photos/"):
    print(photo.name, photo.class_name, photo.probability)
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from birdsonnx.api import Model, export, load, train

__all__ = ["Model", "__version__", "export", "load", "train"]

__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    """The API, imported where it is used first: the command line starts without it."""
    if name not in __all__:
        raise AttributeError(f"module 'birdsonnx' has no attribute {name!r}")
    from birdsonnx import api

    return getattr(api, name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
