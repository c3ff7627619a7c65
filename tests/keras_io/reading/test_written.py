"""Every layer, in files that Keras 2 and 3 wrote, against the answers of the Keras that wrote them."""

import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from birdsonnx.errors import ModelError
from birdsonnx.keras_io.reading import graph_of, read
from birdsonnx.model.edits import drop_unused
from birdsonnx.passes.batch_norm import FoldBatchNorm
from birdsonnx.passes.rewriting import apply
from tests.graphs import operators
from tests.keras_io.reading import written

TOLERANCE = 2e-5
"""Of float32 sums of a few hundred products, relative to the largest answer."""

every_file = pytest.mark.parametrize(("keras_version", "name"), written.names(), ids=str)


def is_near(found, expected):
    if found.shape != expected.shape:
        return False
    return bool(np.abs(found - expected).max() <= TOLERANCE * max(1, np.abs(expected).max()))


@every_file
def test_a_file_answers_as_keras_did(keras_version, name, tmp_path):
    path = written.file(keras_version, name, tmp_path)
    assert is_near(written.answered(path, keras_version), written.wanted(keras_version, name))


@pytest.mark.parametrize("opset", [13, 18])
@pytest.mark.parametrize("keras_version", [2, 3])
def test_other_opsets(keras_version, opset, tmp_path):
    for name in ("layer_norm.h5", "functions.h5", "merging.keras", "activations.keras", "unit_norm.h5"):
        path = written.file(keras_version, name, tmp_path)
        assert is_near(written.answered(path, keras_version, opset), written.wanted(keras_version, name)), (
            name
        )


@every_file
def test_a_graph_is_valid_and_names_every_weight(keras_version, name, tmp_path):
    file = read(written.file(keras_version, name, tmp_path))
    graph = graph_of(file)
    onnx.checker.check_model(graph.model, full_check=True)
    initializers = {tensor.name for tensor in graph.model.graph.initializer}
    for path, layer, _ in file.leaves:
        for variable in file.variables(layer):
            role = variable.role
            statistic = not variable.trainable or layer.kind in ("BatchNormalization", "LayerNormalization")
            assert statistic or f"{path}/{role}" in initializers


# --- A test that nothing can fail proves nothing --------------------------------------------------------

OTHER_PADDING = {"same": "valid", "causal": "valid"}
CHANGES = {
    "epsilon": lambda value: value * 20 + 0.1,
    "padding": lambda value: OTHER_PADDING.get(value, "same") if isinstance(value, str) else value[::-1],
    "axis": lambda value: 2 if value in (1, [1], -1, [-1], 3, [3]) else [1],
    "strides": lambda value: [side + 1 for side in value] if isinstance(value, list) else value + 1,
    "negative_slope": lambda value: value + 0.2,
    "alpha": lambda value: value + 0.2,
    "groups": lambda value: 1 if value != 1 else 3,
    "offset": lambda value: 0.25,
    "scale": lambda value: not value if isinstance(value, bool) else 0.25,
    "center": lambda value: not value,
    "data_format": lambda value: "channels_first",
    "max_value": lambda value: 1.0,
    "interpolation": lambda value: "nearest" if value == "bilinear" else "bilinear",
    "use_bias": lambda value: not value,
    "target_shape": lambda value: [3, *value],
    "dims": lambda value: value[::-1],
    "cropping": lambda value: [[1, 1], [1, 0]],
    "output_padding": lambda value: [0, 0] if value else [1, 1],
    "invert": lambda value: not value,
    "keepdims": lambda value: not value,
    "normalize": lambda value: not value,
    "key_dim": lambda value: value + 1,
    "use_scale": lambda value: not value,
    "mean": lambda value: [0.0, 0.0, 0.0],
    "variance": lambda value: [1.0, 1.0, 1.0],
    "shared_axes": lambda value: [1, 3],
    "activation": lambda value: "tanh" if value != "tanh" else "linear",
    "units": lambda value: value + 1,
    "dilation_rate": lambda value: [side + 1 for side in value],
    "size": lambda value: [1, 1],
    "n": lambda value: value + 1,
    "axes": lambda value: 1 if value != 1 else -1,
    "height": lambda value: value - 1,
}
"""Keys of configs, and another value for each."""


def _changed(config, key):
    """How many layers have the key with a value that the change changes."""
    changed = []
    for entry in written.layers_in(config):
        value = entry["config"].get(key)
        if value is not None:
            entry["config"][key] = CHANGES[key](value)
            changed.append((entry["class_name"], value))
    return changed


def _does_nothing(kinds, key, name):
    """Where another value may give the same answers."""
    one_by_one = all(value in ([1, 1], [1], 1) for _, value in kinds)
    return (
        (key == "alpha" and all(kind in ("MixUp", "AugMix") for kind, _ in kinds))
        or (key in ("interpolation", "scale") and all(kind.startswith("Random") for kind, _ in kinds))
        or (key in ("padding", "dilation_rate") and name.split(".")[0] in ONES)
        or (key == "strides" and one_by_one and name.split(".")[0] in ONES)
        or (key == "padding" and name.startswith("global_max"))  # no zero is the largest there
        or (key == "negative_slope" and name.startswith("max_pooling_padded"))  # nor is a negative value
        or (key == "keepdims" and name.startswith(("reshape", "merging")))  # a Reshape follows
        or (key == "data_format" and all(kind.startswith(("Random", "Dropout")) for kind, _ in kinds))
    )


ONES = ("merging", "global_average", "layer_twice", "normalization_adapted", "batch_norm_no_scale")
"""Networks whose kernels are 1 x 1."""


@pytest.mark.parametrize(
    ("keras_version", "name"), [each for each in written.names() if each[1].endswith(".h5")], ids=str
)
def test_another_value_of_a_key_gives_another_answer(keras_version, name, tmp_path):
    if "dropouts" in name or "augmentation" in name:
        pytest.skip("what its layers say is of training")
    expected = written.wanted(keras_version, name)
    tried = 0
    for key in CHANGES:
        path = written.file(keras_version, name, tmp_path)
        config = written.config_of(path)
        kinds = _changed(config, key)
        if not kinds or _does_nothing(kinds, key, name):
            continue
        written.edit_config(path, lambda _, edited=config: edited)
        tried += 1
        try:
            assert not is_near(written.answered(path, keras_version), expected), (
                f"{key} of {kinds} does nothing"
            )
        except ModelError:
            continue
    assert tried or not any(entry["config"].keys() & CHANGES.keys() for entry in written.layers_in(config))


@every_file
def test_another_order_of_arrays_gives_another_answer_or_a_refusal(keras_version, name, tmp_path):
    path = written.file(keras_version, name, tmp_path)

    def arrays_of(opened):
        found = []
        opened.visititems(lambda _, item: found.append(item) if isinstance(item, h5py.Dataset) else None)
        return [item for item in found if item.dtype.kind == "f"]

    counts = []

    def swap(opened):
        """Each pair of arrays of one shape changes places."""
        by_shape = {}
        for item in arrays_of(opened):
            by_shape.setdefault(item.shape, []).append(item)
        for items in by_shape.values():
            values = [item[()] for item in items]
            for item, value in zip(items, [*values[1:], values[0]], strict=True):
                item[...] = value
            counts.append(len(items) > 1 and any(not np.array_equal(values[0], value) for value in values))

    written.edit_arrays(path, swap)
    if not any(counts):
        pytest.skip("no two arrays have one shape")
    try:
        found = written.answered(path, keras_version)
    except ModelError:
        return
    assert not is_near(found, written.wanted(keras_version, name))


# --- Facts beside the numbers ---------------------------------------------------------------------------


@pytest.mark.parametrize("keras_version", [2, 3])
def test_a_name_that_occurs_twice_becomes_two_paths(keras_version, tmp_path):
    file = read(written.file(keras_version, "same_names.h5", tmp_path))
    assert [layer.name for layer in file.layers] == [
        f"{side}/{layer}" for side in ("left", "right") for layer in ("conv", "bn", "bn2")
    ]
    initializers = {tensor.name for tensor in graph_of(file).model.graph.initializer}
    assert {"left/conv/kernel", "right/conv/kernel", "left/bn2/scale", "right/bn2/shift"} <= initializers


@pytest.mark.parametrize("keras_version", [2, 3])
def test_a_layer_that_is_called_twice_has_its_weights_once(keras_version, tmp_path):
    graph = graph_of(read(written.file(keras_version, "layer_twice.keras", tmp_path))).model.graph
    convolutions = [node for node in graph.node if node.op_type == "Conv"]
    assert len(convolutions) == 2
    assert convolutions[0].input[1:] == convolutions[1].input[1:]
    assert len({node.name for node in graph.node}) == len(graph.node)


@pytest.mark.parametrize("keras_version", [2, 3])
def test_trainable_flags_and_counts(keras_version, tmp_path):
    file = read(written.file(keras_version, "nested_frozen.keras", tmp_path))
    flags = {layer.name: (layer.kind, layer.units, layer.trainable) for layer in file.layers}
    [head] = [layer.name for layer in file.layers if layer.kind == "Dense"]
    assert flags == {
        "conv": ("Conv2D", 4, False),
        "bn": ("BatchNormalization", None, False),
        "bn2": ("BatchNormalization", None, False),
        head: ("Dense", 4, True),
    }
    counts = file.parameters
    assert (counts.total, counts.trainable, counts.statistics) == (112 + 16 + 16 + 20, 20, 16)
    assert file.input_size == (9, 7, 3)
    half = read(written.file(keras_version, "nested_half_frozen.h5", tmp_path)).parameters
    assert (half.total, half.trainable, half.statistics) == (144, 112 + 8, 16)


@pytest.mark.parametrize("keras_version", [2, 3])
def test_dropouts_are_kept_with_their_masks(keras_version, tmp_path):
    file = read(written.file(keras_version, "dropouts.h5", tmp_path))
    graph = graph_of(file)
    assert [node.name for node in graph.model.graph.node if node.op_type == "Dropout"] == [
        each.node for each in graph.dropout
    ]
    assert [(round(each.rate, 3), each.shape) for each in graph.dropout] == [
        (0.3, (3, 1, 1)),  # of maps, with channels first
        (0.2, (3, 1, 1)),
        (0.5, (8 * 6 * 4,)),
    ]
    assert "ActivityRegularization" in file.notes[0]


def test_graphs_are_lean(tmp_path):
    """No transposes between maps, no zeros padded where a convolution can, one node per place."""
    for name, expected in {
        "conv2d_padded.h5": {"Conv": 1, "Transpose": 1},  # channels come out last, as Keras has them
        "conv2d_batch_norm.h5": {"Conv": 1, "Relu": 1, "Transpose": 1},
        "global_average.h5": {"GlobalAveragePool": 1, "Conv": 1, "Reshape": 1},
        "dense.h5": {"Transpose": 1, "Reshape": 1, "Gemm": 2, "Tanh": 1, "Mul": 1, "Add": 1, "Softmax": 1},
    }.items():
        graph = graph_of(read(written.file(2, name, tmp_path))).model.graph
        found = operators(graph)
        assert {kind: found.count(kind) for kind in found} == expected, name


@pytest.mark.parametrize(
    "name", ["conv2d_batch_norm.h5", "batch_norm_no_scale.h5", "nested.keras", "same_names.h5"]
)
def test_batch_norms_are_folded_as_the_rewrite_folds_them(name, tmp_path):
    file = read(written.file(2, name, tmp_path))
    folded, plain = graph_of(file).model.graph, graph_of(file, fold=False).model.graph
    assert apply(FoldBatchNorm(), plain).applied == operators(plain).count("Conv") > 0
    drop_unused(plain)
    expected = {
        tensor.name.replace("kernel/bias", "bias"): numpy_helper.to_array(tensor)
        for tensor in plain.initializer
    }
    found = {tensor.name: numpy_helper.to_array(tensor) for tensor in folded.initializer}
    assert found.keys() == expected.keys()
    for role, value in found.items():  # a node's epsilon is float32
        np.testing.assert_allclose(value, expected[role], rtol=1e-6, atol=1e-7, err_msg=role)


@pytest.mark.parametrize("keras_version", [2, 3])
def test_mixed_precision_is_said(keras_version, tmp_path):
    file = read(written.file(keras_version, "mixed_precision.h5", tmp_path))
    assert any("mixed precision; computes in float32" in note for note in file.notes)


def test_nothing_of_keras_is_imported(tmp_path):
    path = written.file(2, "conv2d_batch_norm.h5", tmp_path)
    code = (
        "import sys; from pathlib import Path; from birdsonnx.keras_io.reading import graph_of, read\n"
        f"graph_of(read(Path({str(path)!r})))\n"
        "assert not {'keras', 'tensorflow', 'tf2onnx', 'torch'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[3])
