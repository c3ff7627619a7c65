"""What to do next: commands that fit what is there."""

from pathlib import Path

import pytest

from birdsonnx.cli.next_steps import after_calibration

NAMING = "birdsonnx predict PHOTOS --model m.onnx"


@pytest.mark.parametrize(
    ("validate", "has_known", "more"),
    [
        ("data/valid", False, ["birdsonnx evaluate data/test --model m.onnx"]),
        ("data/valid", True, ["birdsonnx evaluate data/test --model m.onnx --unknown OTHERS"]),
        ("data/test", True, []),
        ("elsewhere/valid", False, []),
    ],
)
def test_a_calibrated_model_is_evaluated_on_photos_that_it_was_not_calibrated_with(validate, has_known, more):
    Path("data/test").mkdir(parents=True)
    assert after_calibration(Path("m.onnx"), Path(validate), has_known) == [NAMING, *more]
