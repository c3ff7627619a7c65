"""The division before the first trained layer: both parts, one after the other, are the network."""

from collections.abc import Sequence

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import ModelProto, TensorProto, helper, numpy_helper

from birdsonnx.errors import ConfigError
from birdsonnx.model.metadata import INPUT, Layer
from birdsonnx.model.model_file import BirdModel
from birdsonnx.model.trainable import trainable_layers
from birdsonnx.model.weights import having_weights, with_weights
from birdsonnx.training.partition import FEATURES, Boundary, Network
from tests.graphs import answer, operators
from tests.networks import two_dense
from tests.tiny import FEATURES as WIDTH
from tests.tiny import residual_model, tiny_model

PIXELS = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3), np.uint8)
ALL = ["stem", "block_a", "block_b", "last", "dense"]


def forked() -> BirdModel:
    """The tiny network with a second convolution of the photos, added to the first."""
    model = tiny_model()
    graph, generator = model.proto.graph, np.random.default_rng(5)
    kernel = generator.normal(0, 0.01, (8, 3, 5, 5)).astype(np.float32)
    bias = generator.normal(size=8).astype(np.float32)
    graph.initializer.append(numpy_helper.from_array(kernel, "side/kernel"))
    graph.initializer.append(numpy_helper.from_array(bias, "side/bias"))
    at = next(index for index, node in enumerate(graph.node) if node.name == "conv1/Relu")
    graph.node[at].input[0] = "joined"
    source = graph.node[at - 1].input[0]
    graph.node.insert(at, helper.make_node("Add", ["c1", "side"], ["joined"], "join/Add"))
    inputs = [source, "side/kernel", "side/bias"]
    graph.node.insert(at, helper.make_node("Conv", inputs, ["side"], "side/Conv", strides=[2, 2]))
    layers = (*model.metadata.layers, Layer("side", "Conv2D", 8, False))
    return BirdModel(model.proto, model.metadata.having(layers=layers), "forked")


NETWORKS = {
    "dense": (tiny_model(), ["dense"]),
    "conv2 and dense": (tiny_model(), ["conv2", "dense"]),
    "conv2 only": (tiny_model(), ["conv2"]),
    "all of the tiny one": (tiny_model(), ["conv1", "conv2", "dense"]),
    "last of two": (two_dense(), ["dense"]),
    "both": (two_dense(), ["hidden", "dense"]),
    "first of two": (two_dense(), ["hidden"]),
    "after the block": (residual_model(), ["last", "dense"]),
    "inside the block": (residual_model(), ["block_b", "dense"]),
    "the block": (residual_model(), ["block_a", "block_b"]),
    "all": (residual_model(), ALL),
    "beside a frozen convolution": (forked(), ["side", "dense"]),
}
every_network = pytest.mark.parametrize(("model", "trainable"), NETWORKS.values(), ids=NETWORKS)


def values_of(proto: ModelProto, names: Sequence[str]) -> list[np.ndarray]:
    """Any tensors of a whole network, for the photos, from the bare runtime."""
    probe = ModelProto.FromString(proto.SerializeToString())
    known = {output.name for output in probe.graph.output}
    probe.graph.output.extend(helper.ValueInfoProto(name=name) for name in names if name not in known)
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(probe.SerializeToString(), options)
    return session.run(list(names), {INPUT: PIXELS})


# --- Both parts -----------------------------------------------------------------------------------------


@every_network
def test_both_parts_are_the_network_at_every_boundary(model, trainable):
    network = Network(model, trainable)
    expected = answer(model.proto, PIXELS)
    for boundary in network.boundaries():
        part = network.divide(boundary)
        assert part.boundary == boundary
        assert list(part.weights) == [f"{layer}/{role}" for layer in trainable for role in ("kernel", "bias")]
        if boundary.is_photo:
            assert part.backbone is None
            assert (part.source, part.row_type, part.row_shape) == (INPUT, np.uint8, (32, 32, 3))
            rows = PIXELS
        else:
            rows = answer(onnx.load_model_from_string(part.backbone), PIXELS)
            assert (part.source, part.row_type, part.row_shape) == (FEATURES, np.float32, (boundary.size,))
            assert (rows.dtype, rows.shape) == (np.float32, (3, boundary.size))
            kept = values_of(network.proto, boundary.tensors)
            assert [value.shape[1:] for value in kept] == list(boundary.shapes)
            flat = np.concatenate([value.reshape(3, -1) for value in kept], axis=1)
            np.testing.assert_allclose(rows, flat, rtol=1e-5, atol=1e-5)
        found = answer(part.trainable, rows)
        # The same kernels on the same values; fusions across the cut may differ in the last bits.
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


@every_network
def test_trained_weights_stay_in_the_trained_part(model, trainable):
    network = Network(model, trainable)
    for boundary in network.boundaries():
        part = network.divide(boundary)
        held = {tensor.name for tensor in part.trainable.graph.initializer}
        assert held.issuperset(part.weights)
        if part.backbone is not None:
            backbone = onnx.load_model_from_string(part.backbone).graph
            assert not set(part.weights).intersection(tensor.name for tensor in backbone.initializer)
            # What is frozen is not in the trained part too.
            kernels = {name for name in held if name.endswith("/kernel")}
            assert not kernels.intersection(tensor.name for tensor in backbone.initializer)
        for name, value in part.weights.items():
            [own] = [tensor for tensor in model.proto.graph.initializer if tensor.name == name]
            np.testing.assert_array_equal(value, numpy_helper.to_array(own))


@every_network
def test_what_lies_between_two_boundaries(model, trainable):
    network = Network(model, trainable)
    boundaries = network.boundaries()
    for start in boundaries[1:]:
        between = network.between(start, boundaries[0])
        feeds = dict(zip(start.tensors, values_of(network.proto, start.tensors), strict=True))
        if start.is_photo:
            feeds = {INPUT: PIXELS}
        onnx.checker.check_model(between, full_check=True)
        session = onnxruntime.InferenceSession(between.SerializeToString())
        assert [value.name for value in session.get_inputs()] == list(feeds)
        found = session.run(None, feeds)
        expected = values_of(network.proto, boundaries[0].tensors)
        for value, other in zip(found, expected, strict=True):
            np.testing.assert_allclose(value, other, rtol=1e-5, atol=1e-5)


def test_features_of_16_bits():
    model = tiny_model()
    network = Network(model, ["dense"])
    exact, part = (network.divide(network.boundaries()[0], half=half) for half in (False, True))
    assert part.row_type == np.float16
    rows = answer(onnx.load_model_from_string(part.backbone), PIXELS)
    wide = answer(onnx.load_model_from_string(exact.backbone), PIXELS)
    np.testing.assert_array_equal(rows, wide.astype(np.float16))
    # Each feature is rounded to 11 bits, so each score is off by at most the sum of its terms times 2^-11,
    # and a log-probability, where two scores meet, by twice as much.
    bound = 2 * 2**-11 * (np.abs(wide) @ np.abs(part.weights["dense/kernel"])).max()
    error = np.abs(answer(part.trainable, rows) - answer(model.proto, PIXELS)).max()
    assert 0 < error <= bound


def test_several_tensors_of_16_bits():
    network = Network(*NETWORKS["inside the block"])
    part = network.divide(network.frontier, half=True)
    rows = answer(onnx.load_model_from_string(part.backbone), PIXELS)
    assert (rows.dtype, rows.shape) == (np.float16, (3, network.frontier.size))
    wide = answer(onnx.load_model_from_string(network.divide(network.frontier).backbone), PIXELS)
    np.testing.assert_array_equal(rows, wide.astype(np.float16))
    # Some layers later: 2^-11 of values of a few units.
    expected = answer(network.model.proto, PIXELS)
    np.testing.assert_allclose(answer(part.trainable, rows), expected, rtol=0, atol=5e-3 * np.ptp(expected))


def test_a_pointwise_convolution_with_strides_needs_a_quarter_of_its_input():
    frontier = Network(*NETWORKS["after the block"]).frontier
    assert frontier.shapes == ((16, 4, 4),)  # of 8 x 8
    assert frontier.size == 16 * 4 * 4


def test_the_model_itself_is_left_alone():
    model, untouched = residual_model(), residual_model()
    network = Network(model, ["last"])
    network.divide(network.boundaries()[0])
    assert model.proto == untouched.proto
    assert model.metadata == untouched.metadata
    assert operators(network.proto.graph) != operators(model.proto.graph)


def test_the_backbone_depends_on_its_own_weights_only():
    def backbone(model: BirdModel) -> bytes | None:
        network = Network(model, ["dense"])
        return network.divide(network.boundaries()[0]).backbone

    model = tiny_model()
    assert backbone(with_weights(model, {"dense/bias": np.ones(3, np.float32)})) == backbone(model)
    assert backbone(tiny_model(seed=1)) != backbone(model)


# --- Boundaries -----------------------------------------------------------------------------------------


def reachable(network: Network, without: str) -> set[str]:
    """Tensors that the photos decide without passing through one."""
    found = {INPUT} - {without}
    for node in network.proto.graph.node:
        if found.intersection(node.input):
            found.update(set(node.output) - {without})
    return found


@every_network
def test_boundaries_are_the_frontier_and_what_alone_decides_it(model, trainable):
    """By trial: a tensor alone decides the frontier if nothing of it can be reached around the tensor."""
    network = Network(model, trainable)
    inferred = onnx.shape_inference.infer_shapes(network.proto).graph
    kinds = {value.name: value.type.tensor_type.elem_type for value in inferred.value_info}
    alone = [
        name
        for node in network.proto.graph.node
        for name in node.output
        if kinds.get(name) == TensorProto.FLOAT
        and name in reachable(network, "")
        and not reachable(network, name).intersection(network.frontier.tensors)
    ]
    frozen = [node for node in network.proto.graph.node if node not in network.trained]
    kernels = any(node.op_type in ("Conv", "Gemm") for node in frozen)
    found = network.boundaries()
    assert found[-1] == Boundary((INPUT,), ((32, 32, 3),))
    assert [boundary.is_photo for boundary in found] == [False] * (len(found) - 1) + [True]
    if not kernels:
        assert len(found) == 1
        return
    assert found[0] == network.frontier
    singles = [boundary.tensors[0] for boundary in found[:-1] if len(boundary.tensors) == 1]
    before = [
        name for name in alone if name not in {output for node in network.trained for output in node.output}
    ]
    assert singles == before[::-1]
    assert all(len(boundary.tensors) == 1 for boundary in found[1:])


def test_boundaries_of_networks_that_can_be_written_down():
    def tensors(name: str) -> list[tuple[str, ...]]:
        return [boundary.tensors for boundary in Network(*NETWORKS[name]).boundaries()]

    photos = [("network_input",), ("preprocess/cast",), (INPUT,)]
    assert tensors("conv2 and dense") == [("r1",), ("c1",), *photos]
    assert tensors("inside the block") == [
        ("block_a/active", "stem/relu"),
        ("stem/relu",),
        ("stem",),
        *photos,
    ]
    assert tensors("the block") == [("stem/relu",), ("stem",), *photos]
    assert tensors("beside a frozen convolution") == [("network_input", "c1"), *photos]
    assert tensors("all") == [(INPUT,)]
    assert tensors("all of the tiny one") == [(INPUT,)]


def test_the_size_of_a_boundary():
    assert Network(*NETWORKS["dense"]).frontier.size == WIDTH
    assert Network(*NETWORKS["inside the block"]).frontier.size == 2 * 16 * 16 * 16
    assert Network(*NETWORKS["all"]).boundaries()[0].size == 32 * 32 * 3


def test_a_tensor_of_unknown_size_is_no_boundary():
    model = tiny_model()
    graph = model.proto.graph
    at = next(index for index, node in enumerate(graph.node) if node.name == "conv2/Conv")
    graph.node[at].input[0] = "reshaped"
    nodes = [  # that no shape inference follows
        helper.make_node("Ceil", ["sizes"], ["rounded"], "rounded"),
        helper.make_node("Cast", ["rounded"], ["shape"], "shape", to=TensorProto.INT64),
        helper.make_node("Reshape", ["r1", "shape"], ["reshaped"], "reshaped"),
    ]
    for node in reversed(nodes):
        graph.node.insert(at, node)
    graph.initializer.append(numpy_helper.from_array(np.array([-1, 8, 14, 14], np.float32), "sizes"))
    tensors = [boundary.tensors for boundary in Network(model, ["dense"]).boundaries()]
    assert tensors[:4] == [("s",), ("p",), ("r1",), ("c1",)]
    network = Network(model, ["conv2", "dense"])  # whose frontier it is
    first = network.boundaries()[0]
    assert first.tensors == ("r1",)
    part = network.divide(first)
    rows = answer(onnx.load_model_from_string(part.backbone), PIXELS)
    np.testing.assert_allclose(
        answer(part.trainable, rows), answer(model.proto, PIXELS), rtol=1e-5, atol=1e-5
    )


# --- Weights --------------------------------------------------------------------------------------------


def test_with_weights_changes_these_weights_and_nothing_else():
    model, untouched = residual_model(), residual_model()
    new = {
        "last/kernel": np.full((32, 16, 1, 1), 0.5, np.float32),
        "dense/bias": np.arange(3, dtype=np.float32),
    }
    changed = with_weights(model, new)
    assert model.proto == untouched.proto
    assert changed.metadata == model.metadata
    assert changed.proto.graph.node == model.proto.graph.node
    for before, after in zip(model.proto.graph.initializer, changed.proto.graph.initializer, strict=True):
        assert before.name == after.name
        same = before.SerializeToString() == after.SerializeToString()
        assert same == (before.name not in new)
    for name, value in new.items():
        np.testing.assert_array_equal(Network(changed, ["last", "dense"]).weights[name], value)


def test_a_trained_part_with_other_weights():
    """Rewritten to have gradients, it still gives what the saved model will."""
    model = residual_model()
    network = Network(model, ["last", "dense"])
    part = network.divide(network.boundaries()[0])
    generator = np.random.default_rng(0)
    new = {
        name: generator.normal(size=value.shape).astype(np.float32) for name, value in part.weights.items()
    }
    rows = answer(onnx.load_model_from_string(part.backbone), PIXELS)
    found = answer(having_weights(part.trainable, new), rows)
    np.testing.assert_allclose(found, answer(with_weights(model, new).proto, PIXELS), rtol=1e-4, atol=1e-4)
    assert np.abs(found - answer(part.trainable, rows)).max() > 0.1


# --- Which layers ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("patterns", "names"),
    [
        (None, ("dense",)),
        (["dense"], ("dense",)),
        (["d*"], ("dense",)),
        (["dense", "conv?"], ("conv1", "conv2", "dense")),
        (["*"], ("conv1", "conv2", "dense")),
    ],
)
def test_trainable_layers(patterns, names):
    assert trainable_layers(tiny_model().metadata, patterns) == names


@pytest.mark.parametrize("patterns", [["dens_"], ["dense", "dens_"]])
def test_a_pattern_that_matches_nothing_is_refused(patterns):
    with pytest.raises(ConfigError, match=r"'dens_' matches no layer.*did you mean 'dense'"):
        trainable_layers(tiny_model().metadata, patterns)


def with_paths(*names):
    model = tiny_model()
    layers = tuple(Layer(name, "Conv2D", 8, True) for name in names)
    return model.metadata.having(layers=layers)


def test_a_plain_name_is_enough_where_one_layer_has_it():
    metadata = with_paths("left/conv1", "left/conv2", "right/conv2", "conv3")
    assert trainable_layers(metadata, ["conv1", "conv3"]) == ("left/conv1", "conv3")
    assert trainable_layers(metadata, ["left/*"]) == ("left/conv1", "left/conv2")
    assert trainable_layers(metadata, ["*/conv2"]) == ("left/conv2", "right/conv2")
    with pytest.raises(ConfigError, match=r"'conv2' is the name of 2 layers; .*'left/conv2', 'right/conv2'"):
        trainable_layers(metadata, ["conv2"])


def test_a_layer_that_is_called_so_comes_before_those_inside_models():
    metadata = with_paths("conv1/bn", "conv2/bn", "bn")
    assert trainable_layers(metadata, ["bn"]) == ("bn",)


def test_a_layer_whose_weights_are_nowhere_is_refused():
    """Keras would train it; nothing may be left out in silence."""
    model = tiny_model()
    lost = Layer("lost", "Dense", 3, True)
    model = BirdModel(model.proto, model.metadata.having(layers=(*model.metadata.layers, lost)), model.where)
    assert set(Network(model, ["dense"]).weights) == {"dense/kernel", "dense/bias"}
    with pytest.raises(ConfigError, match=r"^tiny: layer 'lost' \(Dense\) is to be trained, and the graph"):
        Network(model, ["dense", "lost"])


def test_nothing_to_train_is_refused():
    message = "^tiny: no layer of this network is trainable; nothing to train$"
    with pytest.raises(ConfigError, match=message):
        Network(tiny_model(), [])


def test_layers_whose_weights_went_into_others_are_not_enough():
    """A BatchNormalization is folded into the convolution before it."""
    message = (
        r"^tiny: no layer .* trainable \(conv1_bn, conv2_bn hold no weights of their own\); nothing to train"
    )
    with pytest.raises(ConfigError, match=message):
        Network(tiny_model(), ["conv1_bn", "conv2_bn"])
    assert list(Network(tiny_model(), ["conv2_bn", "dense"]).weights) == ["dense/kernel", "dense/bias"]


def test_an_operation_without_gradient_is_refused_only_after_what_is_trained():
    model = residual_model(activation="Round")
    with pytest.raises(ConfigError, match=r"^residual: layer 'block_a' is a Round, which has no gradient"):
        Network(model, ["block_a", "dense"])
    network = Network(model, ["block_b", "dense"])
    part = network.divide(network.boundaries()[0])
    rows = answer(onnx.load_model_from_string(part.backbone), PIXELS)
    np.testing.assert_allclose(
        answer(part.trainable, rows), answer(model.proto, PIXELS), rtol=1e-5, atol=1e-5
    )
