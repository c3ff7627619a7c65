"""Attention over a sequence: one or many heads."""

import math

import numpy as np

from birdsonnx.keras_io.reading.canvas import Tensor
from birdsonnx.keras_io.reading.options import Refusal
from birdsonnx.keras_io.reading.records import Variable
from birdsonnx.keras_io.reading.step import Config, Kind, Step

PROJECTIONS = {
    "query": "query_dense",
    "key": "key_dense",
    "value": "value_dense",
    "attention_output": "output_dense",
}
"""Keras' name of each projection, and of the attribute that keeps it."""


def _heads_hold(config: Config) -> tuple[Variable, ...]:
    roles = ("kernel", "bias") if config.get("use_bias", True) is not False else ("kernel",)
    return tuple(
        Variable(f"{name}/{role}", part=part) for name, part in PROJECTIONS.items() for role in roles
    )


def _multi_head(step: Step) -> Tensor:
    options, canvas = step.options, step.canvas
    heads, key_dim = options.integer("num_heads"), options.integer("key_dim")
    value_dim = key_dim if options.raw("value_dim", None) is None else options.integer("value_dim")
    options.only("use_gate", False)
    options.only("sliding_window", None)
    options.only("attention_axes", None, [1])
    options.idle("dropout", "query_shape", "key_shape", "value_shape", "flash_attention")
    given = options.raw("output_shape", None)
    query, value, key = _query_value_key(step)
    bias = options.flag("use_bias", True)
    out = query.shape[-1] if given is None else options.integers("output_shape", 1)[0]
    q = canvas.on("Mul", _projected(step, query, "query", heads, key_dim, bias), 1 / math.sqrt(key_dim))
    k = _projected(step, key, "key", heads, key_dim, bias)
    v = _projected(step, value, "value", heads, value_dim, bias)
    scores = canvas.node(
        "Softmax", canvas.node("MatMul", q.name, canvas.node("Transpose", k.name, perm=[0, 1, 3, 2])), axis=-1
    )
    name = canvas.node("Transpose", canvas.node("MatMul", scores, v.name), perm=[0, 2, 1, 3])
    length, wide = query.shape[0], heads * value_dim
    name = canvas.node("Reshape", name, np.array([-1, length, wide], np.int64))
    kernel = step.weight(
        "attention_output/kernel", (heads, value_dim, out), lambda array: array.reshape(wide, out)
    )
    name = canvas.node("MatMul", name, kernel)
    if bias:
        name = canvas.node("Add", name, step.weight("attention_output/bias", (out,)))
    return Tensor(name, (length, out))


def _projected(step: Step, x: Tensor, role: str, heads: int, size: int, bias: bool) -> Tensor:
    """[batch, length, channels] as [batch, heads, length, size]."""
    canvas, wide = step.canvas, heads * size
    kernel = step.weight(f"{role}/kernel", (x.shape[-1], heads, size), lambda array: array.reshape(-1, wide))
    name = canvas.node("MatMul", x.name, kernel)
    if bias:
        name = canvas.node(
            "Add", name, step.weight(f"{role}/bias", (heads, size), lambda array: array.reshape(-1))
        )
    name = canvas.node("Reshape", name, np.array([-1, x.shape[0], heads, size], np.int64))
    return Tensor(canvas.node("Transpose", name, perm=[0, 2, 1, 3]), (heads, x.shape[0], size))


def _query_value_key(step: Step) -> tuple[Tensor, Tensor, Tensor]:
    """The three sequences, which may be arguments by place or by name."""
    names = ("query", "value", "key")
    given = dict(zip(names, step.arguments, strict=False))
    for name in names:
        if name in step.keywords:
            given[name] = step.keywords.pop(name)
    for name, idle in (("return_attention_scores", False), ("use_causal_mask", False)):
        if step.keywords.pop(name, None) not in (None, idle):
            raise Refusal(f"{name} is not read")
    found = [given.get("query"), given.get("value"), given.get("key") or given.get("value")]
    sequences = [x for x in found if isinstance(x, Tensor) and x.rank == 3]
    if len(sequences) != 3 or len(step.arguments) > 3:
        raise Refusal("it must be called on sequences, tensors of three axes with that of the photos")
    query, value, key = (step.canvas.as_keras(x) for x in sequences)
    return query, value, key


def _attention(step: Step) -> Tensor:
    """Luong's: softmax(query keyᵀ) value."""
    options, canvas = step.options, step.canvas
    options.only("score_mode", "dot")
    options.idle("dropout")
    scale = options.flag("use_scale", False)
    given = step.tensors
    if step.keywords.pop("use_causal_mask", None) or step.keywords.pop("return_attention_scores", None):
        raise Refusal("use_causal_mask and return_attention_scores are not read")
    if len(given) not in (2, 3) or any(x.rank != 3 for x in given):
        raise Refusal(
            "it must be called on two or three sequences, tensors of three axes with that of the photos"
        )
    query, value, key = (canvas.as_keras(x) for x in (*given, given[1])[:3])
    scores = canvas.node("MatMul", query.name, canvas.node("Transpose", key.name, perm=[0, 2, 1]))
    if scale:
        scores = canvas.node("Mul", scores, step.weight("scale", ()))
    name = canvas.node("MatMul", canvas.node("Softmax", scores, axis=-1), value.name)
    return Tensor(name, (query.shape[0], value.shape[-1]))


LAYERS: dict[str, Kind] = {
    "MultiHeadAttention": Kind(_multi_head, _heads_hold),
    "Attention": Kind(_attention, lambda config: (Variable("scale"),) if config.get("use_scale") else ()),
}
