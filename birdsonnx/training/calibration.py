"""The last checkpoint of a training with calibrated probabilities, by its answers about the test photos,
which the evaluation after the last epoch has given: no photo is computed once more."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from birdsonnx import artifacts
from birdsonnx.inference.calibrating import calibration as calibrating
from birdsonnx.inference.calibrating.calibration import Validation
from birdsonnx.inference.calibrating.temperature import Labels
from birdsonnx.model import calibrated_form, model_file
from birdsonnx.model.file_bytes import read_bytes
from birdsonnx.training.loop import Predictions


def write(
    checkpoint: Path,
    predictions: Sequence[Predictions],
    labels: Labels,
    say: Callable[[str], None],
) -> Path:
    """Write the calibrated form of a checkpoint beside it; `say` takes lines about what was found.

    Args:
        checkpoint: its file.
        predictions: about all test photos, in any order.
        labels: of the test photos, int64.

    Raises:
        BirdsonnxError: the checkpoint cannot be read by now, or its form cannot be written.
    """
    pieces = sorted(predictions, key=lambda piece: piece[0].start)
    validation = Validation(np.concatenate([log_probs for _, log_probs in pieces]), labels)
    content = read_bytes(checkpoint)
    model = model_file.parse(content, str(checkpoint))
    calibrated = calibrating.calibrated_model(model, validation, artifacts.sha256_of(content))
    found = calibrated.calibration
    before, after = (each.reliability.expected_error for each in (found.before, found.after))
    say(
        f"temperature {found.temperature:.4f} by {found.photos} test photos: loss {found.before.loss:.4f} "
        f"before, {found.after.loss:.4f} after; calibration error {before:.4f} and {after:.4f}"
    )
    for note in found.notes():
        say(f"note: {note}")
    path = calibrated_form.of(checkpoint)
    calibrated.model.save(path)
    return path
