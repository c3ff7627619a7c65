"""Models that would read other files, run operators of others, or hold what is no number."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from birdsonnx.config.json_text import decoded
from birdsonnx.errors import ModelError
from birdsonnx.inference.classifier import open_classifier
from birdsonnx.model.model_file import parse
from birdsonnx.model.soundness import require_sound
from tests.tiny import SIZE, make_class_folders, tiny_model

SECRET = Path("secret.bin")


def proto() -> onnx.ModelProto:
    return onnx.load_model_from_string(tiny_model(3).serialized())


def pointing(name: str = "elsewhere", values: int = 3) -> TensorProto:
    """A tensor whose values are a local file's."""
    tensor = TensorProto(name=name, data_type=TensorProto.FLOAT, dims=[values])
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value=str(SECRET))
    return tensor


def sparse(values: TensorProto) -> onnx.SparseTensorProto:
    indices = numpy_helper.from_array(np.arange(3))
    return onnx.SparseTensorProto(values=values, indices=indices, dims=[3])


def subgraph(tensor: TensorProto) -> onnx.GraphProto:
    return onnx.GraphProto(name="inner", initializer=[tensor])


def initializer(model):
    model.graph.initializer.append(pointing())


def sparse_initializer(model):
    model.graph.sparse_initializer.append(sparse(pointing()))


def constant(model):
    model.graph.node.append(helper.make_node("Constant", [], ["c"], value=pointing()))


def tensors_of_an_attribute(model):
    attribute = onnx.AttributeProto(name="x", type=onnx.AttributeProto.TENSORS, tensors=[pointing()])
    model.graph.node[0].attribute.append(attribute)


def sparse_constant(model):
    model.graph.node.append(helper.make_node("Constant", [], ["c"], sparse_value=sparse(pointing())))


def in_a_subgraph(model):
    model.graph.node[0].attribute.append(helper.make_attribute("body", subgraph(pointing())))


def deep_in_subgraphs(model):
    inner = subgraph(pointing())
    for _ in range(20):
        node = onnx.NodeProto(op_type="If", attribute=[helper.make_attribute("then_branch", inner)])
        inner = onnx.GraphProto(name="around", node=[node])
    model.graph.node[0].attribute.append(helper.make_attribute("body", inner))


def loop_without_end(model):
    """It would run for as long as the machine does."""
    node = helper.make_node("Loop", ["trips", "more"], ["x"], body=onnx.GraphProto(name="inner"))
    model.graph.node.append(node)


def argument_of_a_function(model):
    attribute = onnx.AttributeProto(name="alpha", type=onnx.AttributeProto.FLOAT, ref_attr_name="a")
    model.graph.node[0].attribute.append(attribute)


def in_a_function(model):
    node = helper.make_node("Constant", [], ["out"], value=pointing())
    model.functions.append(helper.make_function("local", "F", [], ["out"], [node], model.opset_import))


def function_without_weights(model):
    node = helper.make_node("Identity", ["in"], ["out"])
    model.functions.append(helper.make_function("local", "F", ["in"], ["out"], [node], model.opset_import))


def training_info(model):
    model.training_info.add().algorithm.initializer.append(pointing())


def only_the_location(model):
    """Half of what makes a tensor external: other readers put halves together."""
    tensor = pointing()
    del tensor.external_data[:]
    model.graph.initializer.append(tensor)


def custom_operator(model):
    model.graph.node[1].domain = "com.microsoft"


def operator_with_an_escape(model):
    model.graph.node[1].domain = "\x1b]0;evil\x07"


UNSOUND = [
    (initializer, "its weights lie in other files"),
    (constant, "its weights lie in other files"),
    (tensors_of_an_attribute, "its weights lie in other files"),
    (in_a_subgraph, "it holds graphs inside nodes"),
    (deep_in_subgraphs, "it holds graphs inside nodes"),
    (loop_without_end, "it holds graphs inside nodes"),
    (argument_of_a_function, "it holds arguments of a function"),
    (only_the_location, "its weights lie in other files"),
    (sparse_initializer, "it holds sparse weights"),
    (sparse_constant, "it holds sparse tensors"),
    (in_a_function, "it holds functions of its own"),
    (function_without_weights, "it holds functions of its own"),
    (training_info, "it holds training information"),
    (custom_operator, "it holds operators of 'com.microsoft'"),
    (operator_with_an_escape, "it holds operators of "),
]


@pytest.mark.parametrize(("change", "said"), UNSOUND, ids=[change.__name__ for change, _ in UNSOUND])
def test_both_roads_refuse_it_before_the_runtime_sees_it(change, said, monkeypatch):
    SECRET.write_bytes(np.array([1, 2, 3], np.float32).tobytes())
    model = proto()
    change(model)
    content = model.SerializeToString()
    monkeypatch.setattr("birdsonnx.inference.engines.opened", None)
    for road in (lambda: parse(content, "m.onnx"), lambda: open_classifier(content, "m.onnx", 1, 1)):
        with pytest.raises(ModelError, match=rf"^m\.onnx: {said}"):
            road()


def test_tuning_does_not_read_it_either(run):
    model = proto()
    in_a_function(model)
    onnx.save(model, "m.onnx")
    make_class_folders(Path("data"), per_class=1)
    assert "functions" in run("predict", "data", "--model", "m.onnx", "--tune").refusal


def test_every_field_that_can_hold_a_tensor_is_known():
    """A later onnx package may have more of them: by its own description of the messages."""
    known = {"initializer", "t", "tensors", "graph", "node", "attribute"}
    refused = {"sparse_initializer", "sparse_tensor", "sparse_tensors", "functions", "training_info"}
    refused |= {"g", "graphs"}
    messages = {"ModelProto", "GraphProto", "NodeProto", "AttributeProto"}
    holders = {"TensorProto", "SparseTensorProto", "GraphProto", "NodeProto", "AttributeProto"}
    holders |= {"FunctionProto", "TrainingInfoProto"}
    found = {
        field.name
        for name in messages
        for field in getattr(onnx, name).DESCRIPTOR.fields
        if field.message_type is not None and field.message_type.name in holders
    }
    assert found == known | refused


# --- What is no number ----------------------------------------------------------------------------------


def spoil(tensor: TensorProto, value: float, stored: type = np.float32) -> None:
    values = numpy_helper.to_array(tensor).astype(stored)
    values.flat[-1] = value
    tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("stored", [np.float16, np.float32, np.float64])
def test_weights_that_are_not_finite(value, stored):
    model = proto()
    [bias] = [tensor for tensor in model.graph.initializer if tensor.name == "conv1/bias"]
    spoil(bias, value, stored)
    with pytest.raises(ModelError, match=r"^m: 'conv1/bias' holds (NaN|an infinite number)"):
        require_sound(model.SerializeToString(), "m")


def test_in_the_field_of_floats():
    model = proto()
    model.graph.initializer.append(helper.make_tensor("x", TensorProto.FLOAT, [2], [1.0, np.nan]))
    with pytest.raises(ModelError, match="'x' holds NaN"):
        require_sound(model.SerializeToString(), "m")


def test_in_brain_floats():
    model = proto()
    tensor = TensorProto(name="x", data_type=TensorProto.BFLOAT16, dims=[2], raw_data=b"\x80\x3f\xc0\x7f")
    model.graph.initializer.append(tensor)
    with pytest.raises(ModelError, match="'x' holds NaN"):
        require_sound(model.SerializeToString(), "m")


@pytest.mark.parametrize(
    ("kind", "held"),
    [
        (TensorProto.FLOAT8E4M3FN, b"\x7f"),
        (TensorProto.FLOAT8E4M3FNUZ, b"\x80"),
        (TensorProto.FLOAT8E5M2, b"\x7c"),
        (TensorProto.FLOAT8E5M2FNUZ, b"\x80"),
        (TensorProto.COMPLEX64, np.array([np.nan], np.complex64).tobytes()),
        (TensorProto.STRING, b""),
        (TensorProto.UNDEFINED, b""),
        (99, b"\x7f"),
    ],
)
def test_types_of_which_nobody_looks_at_the_values_are_refused(kind, held):
    """Those that a network computes with are looked at; birdsonnx writes no others."""
    for place in ("initializer", "constant"):
        model = proto()
        tensor = TensorProto(name="x", data_type=kind, dims=[1], raw_data=held)
        if place == "initializer":
            model.graph.initializer.append(tensor)
        else:
            model.graph.node.append(helper.make_node("Constant", [], ["c"], value=tensor))
        with pytest.raises(ModelError, match=r"^m: 'x' holds values of a type \(ONNX' number \d+\)"):
            require_sound(model.SerializeToString(), "m")


def test_small_floats_as_whole_numbers_are_refused():
    model = proto()
    model.graph.initializer.append(
        TensorProto(name="x", data_type=TensorProto.FLOAT8E5M2, dims=[1], int32_data=[0x7F])
    )
    with pytest.raises(ModelError, match="or in a form, that"):
        require_sound(model.SerializeToString(), "m")


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_in_a_scale_of_int8_and_in_an_attribute(value):
    model = proto()
    model.graph.initializer.append(numpy_helper.from_array(np.array(value, np.float32), "scale"))
    model.graph.node.append(helper.make_node("DequantizeLinear", ["w", "scale"], ["x"]))
    with pytest.raises(ModelError, match="'scale' holds"):
        require_sound(model.SerializeToString(), "m")
    model = proto()
    model.graph.node.append(helper.make_node("LeakyRelu", ["x"], ["y"], "leak", alpha=value))
    with pytest.raises(ModelError, match="'leak' holds"):
        require_sound(model.SerializeToString(), "m")


@pytest.mark.parametrize("operator", ["Pad", "Clip", "Max"])
def test_bounds_may_be_infinite(operator):
    model = proto()
    model.graph.initializer.append(numpy_helper.from_array(np.array(-np.inf, np.float32), "bound"))
    model.graph.node.append(helper.make_node(operator, ["x", "bound"], ["y"]))
    require_sound(model.SerializeToString(), "m")
    model.graph.node.append(helper.make_node("Add", ["x", "bound"], ["z"]))
    with pytest.raises(ModelError, match="'bound' holds an infinite number"):
        require_sound(model.SerializeToString(), "m")


def test_photos_that_have_no_finite_answer_are_refused_as_damaged_ones(run):
    """Finite weights whose products are not."""
    model = tiny_model(3, ["A", "B", "C"])
    [kernel] = [tensor for tensor in model.proto.graph.initializer if tensor.name == "dense/kernel"]
    huge = np.full(tuple(kernel.dims), 3e38, np.float32)
    huge[:, 0] *= -1
    kernel.CopyFrom(numpy_helper.from_array(huge, kernel.name))
    model.save(Path("m.onnx"))
    make_class_folders(Path("data"), ["A", "B", "C"], per_class=1)
    done = run("predict", "data", "--model", "m.onnx")
    assert done.code == 2
    assert done.err.count("the network answers NaN or infinity") == 3
    assert not Path("predictions/output_1.h5").exists()
    done = run("evaluate", "data", "--model", "m.onnx", "--json")
    assert done.code == 2
    assert len(decoded(done.out)["refused"]) == 3  # which refuses NaN


# --- Bytes ----------------------------------------------------------------------------------------------


def test_every_truncation_and_many_flips_end_in_one_line():
    content = tiny_model(3).serialized()
    generator = np.random.default_rng(0)
    for _ in range(300):
        spoiled = bytearray(content)
        for place in generator.integers(0, len(spoiled), 3):
            spoiled[place] = generator.integers(0, 256)
        cut = (
            bytes(spoiled[: generator.integers(0, len(spoiled) + 1)]) if generator.random() < 0.5 else spoiled
        )
        for road in (parse, lambda some, where: open_classifier(some, where, 1, 1)):
            try:
                road(bytes(cut), "m.onnx")
            except ModelError as error:
                assert str(error).startswith("m.onnx: ")  # noqa: PT017


def test_graphs_nested_without_end():
    node = b""
    for _ in range(300):  # an attribute's graph, a node's attribute, a graph's node
        for tag in (0x32, 0x2A, 0x0A):
            length = len(node)
            size = bytes([length]) if length < 128 else bytes([length & 0x7F | 0x80, length >> 7])
            node = bytes([tag]) + size + node
    content = tiny_model(3).serialized() + b"\x3a" + bytes([len(node) & 0x7F | 0x80, len(node) >> 7]) + node
    with pytest.raises(ModelError, match="graphs inside nodes"):
        require_sound(content, "m")


def test_a_tag_that_others_read_as_another_field():
    overlong = bytes([0xBA, 0x80, 0x80, 0x80, 0x90, 0x01, 0x00])  # 2 ** 32 more than graph's
    with pytest.raises(ModelError, match="not a complete ONNX file"):
        require_sound(tiny_model(3).serialized() + overlong, "m")


def test_very_many_infinite_bounds():
    """Each is looked up, not searched for: a walk for each would take hours."""
    count = 20_000
    nodes = [
        helper.make_node("Min", [f"t{place}", f"bound{place}"], [f"t{place + 1}"]) for place in range(count)
    ]
    bounds = [numpy_helper.from_array(np.float32(np.inf), f"bound{place}") for place in range(count)]
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch"]) for name in ("t0", f"t{count}")]
    model = helper.make_model(helper.make_graph(nodes, "g", ends[:1], ends[1:], bounds))
    require_sound(model.SerializeToString(), "m")
    model.graph.node[-1].op_type = "Mul"
    with pytest.raises(ModelError, match=rf"^m: 'bound{count - 1}' holds an infinite number"):
        require_sound(model.SerializeToString(), "m")


@pytest.mark.parametrize("any_case", [True, False])
def test_a_key_twice_among_very_many(any_case):
    """Counted, not searched for: a search for each would take hours."""
    keys = [f"k{place}" for place in range(200_000)]
    text = "{" + ",".join(f'"{key}":0' for key in [*keys, keys[-1]]) + "}"
    with pytest.raises(ValueError, match=f"^the key '{keys[-1]}' is given twice"):
        decoded(text, any_case)


@pytest.mark.parametrize("dims", [["batch", SIZE, SIZE, "c"], ["b", "h", "w", 3], [1, SIZE, SIZE, 0], [1]])
def test_sizes_that_are_not_fixed(dims):
    model = proto()
    model.graph.input[0].CopyFrom(helper.make_tensor_value_info("images", TensorProto.UINT8, dims))
    for road in (parse, lambda some, where: open_classifier(some, where, 1, 1)):
        with pytest.raises(ModelError, match=r"^m\.onnx: "):
            road(model.SerializeToString(), "m.onnx")


def test_floats_instead_of_pixels():
    model = proto()
    model.graph.input[0].type.tensor_type.elem_type = TensorProto.FLOAT
    with pytest.raises(ModelError, match=r"^m: 'images' must be tensor\(uint8\)"):
        parse(model.SerializeToString(), "m")
