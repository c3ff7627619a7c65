"""Activations: functions by their Keras or Python name, and the layers that are one."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from birdsonnx.keras_io.reading.canvas import Canvas, Tensor
from birdsonnx.keras_io.reading.options import Options, Refusal
from birdsonnx.keras_io.reading.step import Kind, Step, holding

Function = Callable[[Canvas, Tensor], Tensor]


def softmax(canvas: Canvas, x: Tensor, axes: Sequence[int] = (-1,), operation: str = "Softmax") -> Tensor:
    """Softmax over one axis, or over several as if they were one; counted with that of the photos."""
    if len(axes) == 1:
        return canvas.on(operation, x, axis=x.axis(axes[0]))
    stored = {x.axis(axis) for axis in axes}
    rest = [axis for axis in range(1, x.rank) if axis not in stored]
    order = [0, *rest, *sorted(stored)]
    sides = (0, *x.stored)
    name = x.name if order == sorted(order) else canvas.node("Transpose", x.name, perm=order)
    flat = [-1, *(sides[axis] for axis in rest), math.prod(sides[axis] for axis in stored)]
    name = canvas.node(operation, canvas.node("Reshape", name, np.array(flat, np.int64)), axis=-1)
    name = canvas.node("Reshape", name, np.array([-1, *(sides[axis] for axis in order[1:])], np.int64))
    if order != sorted(order):
        name = canvas.node("Transpose", name, perm=[order.index(axis) for axis in range(x.rank)])
    return Tensor(name, x.shape, x.maps)


def clip(canvas: Canvas, x: Tensor, low: float | None, high: float | None) -> Tensor:
    """Values cut off at one or two limits."""
    limits = ["" if limit is None else limit for limit in (low, high)]
    return canvas.on("Clip", x, *(limits if high is not None else limits[:1]))


def relu(
    canvas: Canvas, x: Tensor, max_value: float | None = None, slope: float = 0.0, threshold: float = 0.0
) -> Tensor:
    if threshold:
        raise Refusal(f"threshold {threshold:g} is not read; what is: 0")
    if slope:
        x = leaky_relu(canvas, x, slope)
        return x if max_value is None else clip(canvas, x, None, max_value)
    return canvas.on("Relu", x) if max_value is None else clip(canvas, x, 0.0, max_value)


def leaky_relu(canvas: Canvas, x: Tensor, slope: float = 0.2) -> Tensor:
    return canvas.on("LeakyRelu", x, alpha=slope)


def gelu(canvas: Canvas, x: Tensor, approximate: bool = False) -> Tensor:
    """`x Φ(x)` by the error function, or by the tanh that approximates it (Hendrycks and Gimpel, 2016)."""
    if not approximate:
        share = canvas.on("Add", canvas.on("Erf", canvas.on("Div", x, math.sqrt(2))), 1.0)
        return canvas.on("Mul", canvas.on("Mul", x, share.name), 0.5)
    cube = canvas.on("Mul", canvas.on("Mul", canvas.on("Mul", x, x.name), x.name), 0.044715)
    inner = canvas.on("Mul", canvas.on("Add", x, cube.name), math.sqrt(2 / math.pi))
    share = canvas.on("Add", canvas.on("Tanh", inner), 1.0)
    return canvas.on("Mul", canvas.on("Mul", x, share.name), 0.5)


def silu(canvas: Canvas, x: Tensor) -> Tensor:
    return canvas.on("Mul", x, canvas.node("Sigmoid", x.name))


def hard_sigmoid(canvas: Canvas, x: Tensor, generation: int = 3) -> Tensor:
    """Keras 2 had a slope of 0.2, Keras 3 has one of 1 / 6."""
    return canvas.on("HardSigmoid", x, alpha=0.2 if generation == 2 else 1 / 6, beta=0.5)


def hard_silu(canvas: Canvas, x: Tensor) -> Tensor:
    return canvas.on("Mul", x, hard_sigmoid(canvas, x).name)


def mish(canvas: Canvas, x: Tensor) -> Tensor:
    return canvas.on("Mul", x, canvas.node("Tanh", canvas.node("Softplus", x.name)))


def log_sigmoid(canvas: Canvas, x: Tensor) -> Tensor:
    return canvas.on("Neg", canvas.on("Softplus", canvas.on("Neg", x)))


def celu(canvas: Canvas, x: Tensor) -> Tensor:
    return canvas.on("Elu", x, alpha=1.0)


def squareplus(canvas: Canvas, x: Tensor) -> Tensor:
    root = canvas.on("Sqrt", canvas.on("Add", canvas.on("Mul", x, x.name), 4.0))
    return canvas.on("Mul", canvas.on("Add", x, root.name), 0.5)


def tanh_shrink(canvas: Canvas, x: Tensor) -> Tensor:
    return canvas.on("Sub", x, canvas.node("Tanh", x.name))


def soft_shrink(canvas: Canvas, x: Tensor) -> Tensor:
    return canvas.on("Sub", x, clip(canvas, x, -0.5, 0.5).name)


def plain(operation: str, **attributes: float) -> Function:
    """An activation that is one operation of ONNX."""
    return lambda canvas, x: canvas.on(operation, x, **attributes)


FUNCTIONS: dict[str, Function] = {
    "linear": lambda _, x: x,
    "identity": lambda _, x: x,
    "relu": relu,
    "relu6": lambda canvas, x: relu(canvas, x, 6.0),
    "leaky_relu": leaky_relu,
    "elu": plain("Elu", alpha=1.0),
    "celu": celu,
    "selu": plain("Selu"),
    "sigmoid": plain("Sigmoid"),
    "hard_sigmoid": hard_sigmoid,
    "log_sigmoid": log_sigmoid,
    "tanh": plain("Tanh"),
    "hard_tanh": lambda canvas, x: clip(canvas, x, -1.0, 1.0),
    "tanh_shrink": tanh_shrink,
    "soft_shrink": soft_shrink,
    "softplus": plain("Softplus"),
    "squareplus": squareplus,
    "softsign": plain("Softsign"),
    "exponential": plain("Exp"),
    "silu": silu,
    "hard_silu": hard_silu,
    "gelu": gelu,
    "mish": mish,
    "softmax": softmax,
    "log_softmax": lambda canvas, x: softmax(canvas, x, operation="LogSoftmax"),
}
"""Activations by the name that Keras gives them."""
ALIASES = {
    "swish": "silu",
    "hard_swish": "hard_silu",
    "softmax_v2": "softmax",
    "log_softmax_v2": "log_softmax",
    "exp": "exponential",
    "Linear": "linear",
}
"""What TensorFlow's functions are called in Python, and older names."""


def activated(step: Step, x: Tensor, key: str = "activation", default: str = "linear") -> Tensor:
    """A tensor behind the activation that a layer's config asks for."""
    return by_value(step, x, step.options.raw(key, default))


def by_value(step: Step, x: Tensor, value: Any) -> Tensor:
    """An activation as a config has it: a name, a function of that name, or a layer without arrays."""
    if value is None:
        return x
    inner = value.get("config") if isinstance(value, dict) else None
    if isinstance(inner, dict) and value.get("class_name") in LAYERS:
        kind = LAYERS[value["class_name"]]
        if kind.holds(inner):
            raise Refusal(
                f"its activation is a {value['class_name']} with arrays of its own, which is not read"
            )
        nested = Step(step.layer, Options(inner), step.canvas, (x,), {}, {}, step.dropouts)
        result = kind.draw(nested)
        nested.options.finish()
        return result if isinstance(result, Tensor) else x
    if isinstance(value, dict) and value.get("class_name") == "function" and isinstance(inner, str):
        value = inner  # it is looked up in the table, like any name
    name = ALIASES.get(value, value) if isinstance(value, str) else ""
    if name not in FUNCTIONS:
        raise Refusal(f"its activation {str(value)[:80]!r} is none that can be read")
    if name == "hard_sigmoid":
        return hard_sigmoid(step.canvas, x, step.layer.generation)
    return FUNCTIONS[name](step.canvas, x)


# --- Layers ---------------------------------------------------------------------------------------------


def _activation(step: Step) -> Tensor:
    value = step.options.raw("activation")
    if "axis" in step.options:  # rmldnn's arrays have it, counted with channels first
        step.options.idle("axis")
        if step.x.rank != 2:
            raise Refusal("its key 'axis' is read behind a Dense alone; use a Softmax layer")
    return by_value(step, step.x, value)


def _relu(step: Step) -> Tensor:
    limit = step.options.raw("max_value", None)
    limit = None if limit is None else step.options.number("max_value")
    slope = step.options.number("negative_slope", 0.0)
    return relu(step.canvas, step.x, limit, slope, step.options.number("threshold", 0.0))


def _leaky_relu(step: Step) -> Tensor:
    """Keras 2 calls the slope alpha."""
    key = "negative_slope" if "negative_slope" in step.options else "alpha"
    return leaky_relu(step.canvas, step.x, step.options.number(key, 0.3))


def _prelu(step: Step) -> Tensor:
    """`relu(x) - alpha relu(-x)`, for which there are gradients."""
    x, canvas = step.x, step.canvas
    shared = step.options.raw("shared_axes", None)
    axes = step.options.axes("shared_axes", x.rank) if shared else ()
    shape = tuple(1 if axis in axes else side for axis, side in enumerate(x.shape, 1))
    alpha = step.weight("alpha", shape, lambda array: canvas.laid(array, x))
    below = canvas.on("Mul", canvas.on("Relu", canvas.on("Neg", x)), alpha)
    return canvas.on("Sub", canvas.on("Relu", x), below.name)


def _softmax(step: Step) -> Tensor:
    return softmax(step.canvas, step.x, step.options.axes("axis", step.x.rank, -1))


LAYERS: dict[str, Kind] = {
    "Activation": Kind(_activation),
    "ReLU": Kind(_relu),
    "LeakyReLU": Kind(_leaky_relu),
    "PReLU": Kind(_prelu, holding("alpha")),
    "ELU": Kind(lambda step: step.canvas.on("Elu", step.x, alpha=step.options.number("alpha", 1.0))),
    "Softmax": Kind(_softmax),
}
