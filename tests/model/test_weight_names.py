"""Which layer a name belongs to."""

import pytest

from birdsonnx.model.weight_names import layer_of

LAYERS = {"conv1", "backbone", "backbone/conv1", "backbone/conv1/inner", "backbone/conv10"}


@pytest.mark.parametrize(
    ("name", "layer"),
    [
        ("conv1/kernel", "conv1"),
        ("conv1/Conv", "conv1"),
        ("conv1/Elu/3", "conv1"),
        ("backbone/conv1/kernel", "backbone/conv1"),
        ("backbone/conv1/inner/depthwise_kernel", "backbone/conv1/inner"),
        ("backbone/conv10/kernel", "backbone/conv10"),
        ("backbone/conv11/kernel", "backbone"),
        ("conv10/kernel", None),
        ("conv1", None),
        ("kernel", None),
        ("", None),
    ],
)
def test_it_is_the_longest_path_that_the_name_begins_with(name, layer):
    assert layer_of(name, LAYERS) == layer
