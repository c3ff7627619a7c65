"""Functions in a network: TensorFlow's as Keras 2 kept them, and Keras 3's operations, from a closed list.

To add one: write a function in `functions.py` whose arguments are called as in `NAMES`, and enter it under
its names in TFOpLambda and in Keras 3. Arguments that it does not have are refused by name.
"""

import inspect
from collections.abc import Callable
from typing import Any

from birdsonnx.keras_io.reading import functions
from birdsonnx.keras_io.reading.options import Refusal
from birdsonnx.keras_io.reading.step import Step

NAMES = {
    **dict.fromkeys(
        (
            *(
                "x1",
                "a",
                "input",
                "inputs",
                "input_tensor",
                "features",
                "value",
                "values",
                "tensor",
                "images",
            ),
            *("xs", "arrays", "t", "logits"),
        ),
        "x",
    ),
    **dict.fromkeys(("x2", "b", "bias"), "y"),
    **dict.fromkeys(("dim", "dims"), "axis"),
    "keep_dims": "keepdims",
    "newshape": "shape",
    "perm": "axes",
    "clip_value_min": "x_min",
    "clip_value_max": "x_max",
    "negative_slope": "alpha",
    "slice_spec": "key",
    "method": "interpolation",
}
"""What our functions call an argument that TensorFlow and Keras call otherwise."""
IDLE: dict[str, tuple[Any, ...] | None] = {
    "name": None,
    "data_format": (None, "channels_last", "NHWC"),
    "dtype": (None,),
    "conjugate": (False,),
    "initial": (None,),
    "where": (None,),
}
"""Arguments that do nothing at these values; a name never does."""


def draw(step: Step) -> Any:
    """The result of a call of a function.

    Raises:
        Refusal: the function is not in the list, or not with these arguments.
    """
    name = function_name(step)
    if name not in FUNCTIONS:
        raise Refusal(f"the function {name!r} is none that can be read")
    function = FUNCTIONS[name]
    keywords = {**_settings(step), **step.keywords}
    step.keywords.clear()
    for idle, values in IDLE.items():
        if idle in keywords and (values is None or keywords[idle] in values):
            del keywords[idle]
    named = {NAMES.get(key, key): value for key, value in keywords.items()}
    try:
        inspect.signature(function).bind(step, *step.arguments, **named)
    except TypeError as error:
        raise Refusal(f"the function {name!r} is not read with these arguments ({error})") from None
    return function(step, *step.arguments, **named)


def function_name(step: Step) -> str:
    """Of a function in the list: TensorFlow's path, or Keras 3's class."""
    if step.layer.generation == 2:
        return str(step.options.raw("function"))
    return step.layer.kind


def _settings(step: Step) -> dict[str, Any]:
    """What Keras 3 keeps of a function's arguments in its config."""
    if step.layer.generation == 2:
        return {}
    return {key: step.options.raw(key) for key in step.layer.config if key != "name"}


BOTH: dict[str, tuple[str, str, Callable[..., Any]]] = {
    "add": ("math.add", "Add", functions.binary("Add")),
    "subtract": ("math.subtract", "Subtract", functions.binary("Sub")),
    "multiply": ("math.multiply", "Multiply", functions.binary("Mul")),
    "divide": ("math.divide", "Divide", functions.binary("Div")),
    "true divide": ("math.truediv", "TrueDivide", functions.binary("Div")),
    "power": ("math.pow", "Power", functions.binary("Pow")),
    "maximum": ("math.maximum", "Maximum", functions.binary("Max")),
    "minimum": ("math.minimum", "Minimum", functions.binary("Min")),
    "negative": ("math.negative", "Negative", functions.unary("Neg")),
    "absolute": ("math.abs", "Absolute", functions.unary("Abs")),
    "square": ("math.square", "Square", functions.square),
    "root": ("math.sqrt", "Sqrt", functions.unary("Sqrt")),
    "inverse root": ("math.rsqrt", "Rsqrt", functions.rsqrt),
    "exponential": ("math.exp", "Exp", functions.unary("Exp")),
    "logarithm": ("math.log", "Log", functions.unary("Log")),
    "tanh": ("math.tanh", "Tanh", functions.unary("Tanh")),
    "sigmoid": ("math.sigmoid", "Sigmoid", functions.unary("Sigmoid")),
    "clip": ("clip_by_value", "Clip", functions.clip),
    "matmul": ("linalg.matmul", "Matmul", functions.matmul),
    "relu": ("nn.relu", "Relu", functions.unary("Relu")),
    "relu6": ("nn.relu6", "Relu6", functions.activation("relu6")),
    "silu": ("nn.silu", "Silu", functions.silu),
    "softmax": ("nn.softmax", "Softmax", functions.softmax("Softmax")),
    "log softmax": ("nn.log_softmax", "LogSoftmax", functions.softmax("LogSoftmax")),
    "leaky relu": ("nn.leaky_relu", "LeakyRelu", functions.leaky_relu),
    "elu": ("nn.elu", "Elu", functions.elu),
    "selu": ("nn.selu", "Selu", functions.unary("Selu")),
    "softplus": ("math.softplus", "Softplus", functions.unary("Softplus")),
    "softsign": ("nn.softsign", "Softsign", functions.unary("Softsign")),
    "mean": ("math.reduce_mean", "Mean", functions.reduction("ReduceMean")),
    "sum": ("math.reduce_sum", "Sum", functions.reduction("ReduceSum")),
    "largest": ("math.reduce_max", "Max", functions.reduction("ReduceMax")),
    "smallest": ("math.reduce_min", "Min", functions.reduction("ReduceMin")),
    "reshape": ("reshape", "Reshape", functions.reshape),
    "transpose": ("transpose", "Transpose", functions.transpose),
    "expand dims": ("expand_dims", "ExpandDims", functions.expand_dims),
    "squeeze": ("squeeze", "Squeeze", functions.squeeze),
    "flip": ("reverse", "Flip", functions.flip),
    "concatenate": ("concat", "Concatenate", functions.concat),
    "stack": ("stack", "Stack", functions.stack),
    "split": ("split", "Split", functions.split),
    "item": ("__operators__.getitem", "GetItem", functions.get_item),
    "cast": ("cast", "Cast", functions.cast),
    "identity": ("identity", "Identity", functions.identity),
    "resize": ("image.resize", "Resize", functions.resize),
}
"""TensorFlow's name, Keras 3's, and what draws it."""

FUNCTIONS: dict[str, Callable[..., Any]] = {
    **{name: function for *names, function in BOTH.values() for name in names},
    "__operators__.add": functions.binary("Add"),
    "__operators__.sub": functions.binary("Sub"),
    "__operators__.mul": functions.binary("Mul"),
    "__operators__.truediv": functions.binary("Div"),
    "compat.v1.transpose": functions.transpose,
    "compat.v1.squeeze": functions.squeeze,
    "nn.bias_add": functions.binary("Add"),
    "nn.sigmoid": functions.unary("Sigmoid"),
    "nn.tanh": functions.unary("Tanh"),
    "nn.swish": functions.silu,
    "nn.gelu": functions.gelu(False),
    "Gelu": functions.gelu(True),
    "HardSigmoid": functions.activation("hard_sigmoid"),
    "HardSilu": functions.activation("hard_silu"),
    "HardSwish": functions.activation("hard_silu"),
    "math.l2_normalize": functions.l2_normalized,
    "linalg.l2_normalize": functions.l2_normalized,
    "nn.l2_normalize": functions.l2_normalized,
}
"""All that is read, by name."""
