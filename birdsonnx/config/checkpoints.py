"""The section `checkpoints`."""

from birdsonnx.config.section import PositiveInt, Section, Text


class Checkpoints(Section):
    """Where weights come from and where they go."""

    load: Text | None = None
    """An .onnx, .h5 or .keras file; a `.pt` name means the .onnx of the same stem."""
    save: Text | None = None
    """Folder for `model_checkpoint_<epoch>.onnx`; without it no checkpoint is kept."""
    interval: PositiveInt = 1
    """Epochs between checkpoints; the last epoch is always kept."""
