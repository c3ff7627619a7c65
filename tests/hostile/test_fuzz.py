"""1e5 damaged inputs; `make fuzz` tries more."""

import tempfile
from pathlib import Path

import pytest

from tests.hostile.fuzzing import IN_MEMORY, TARGETS, Target

INPUTS = {
    "photo": 35_000,
    "model": 25_000,
    "metadata": 20_000,
    "config": 15_000,
    "name": 5_000,
    "detections": 5_000,
}


@pytest.mark.filterwarnings("ignore::UserWarning")  # Pillow's, which `decoding` ignores; pytest forgets that
@pytest.mark.parametrize("name", TARGETS)
def test_a_damaged_input_is_taken_or_refused(name):
    with tempfile.TemporaryDirectory(dir=IN_MEMORY) as folder:
        target = Target(name, Path(folder))
        taken = sum(target.try_input(number) for number in range(INPUTS[name]))
    assert INPUTS[name] // 50 < taken < INPUTS[name]
