"""Dense layers."""

from birdsonnx.keras_io.reading.canvas import Tensor
from birdsonnx.keras_io.reading.layers.activations import activated
from birdsonnx.keras_io.reading.step import Kind, Step, holding


def _dense(step: Step) -> Tensor:
    """A Gemm on a flat input; on maps a product along the channels, which are last then."""
    canvas, x = step.canvas, step.canvas.as_keras(step.x)
    units = step.options.integer("units")
    kernel = step.weight("kernel", (x.shape[-1], units))
    bias = [step.weight("bias", (units,))] if step.options.flag("use_bias", True) else []
    if x.rank == 2:
        name = canvas.node("Gemm", x.name, kernel, *bias)
    else:
        name = canvas.node("MatMul", x.name, kernel)
        name = canvas.node("Add", name, *bias) if bias else name
    return activated(step, Tensor(name, (*x.shape[:-1], units)))


def _layer_scale(step: Step) -> Tensor:
    """ConvNeXt's: one factor per channel."""
    x = step.x
    step.options.idle("init_values")
    channels = step.options.integer("projection_dim")
    gamma = step.weight("gamma", (channels,), lambda array: step.canvas.laid(array, x))
    return step.canvas.on("Mul", x, gamma)


def _scaled_sum(step: Step) -> Tensor:
    """InceptionResNetV2's: `x + scale * y`."""
    x, y = step.canvas.alike(step.tensors)
    scaled = step.canvas.on("Mul", y, step.options.number("scale"))
    return step.canvas.binary("Add", x, scaled)


LAYERS: dict[str, Kind] = {
    "Dense": Kind(_dense, holding("kernel", bias=True)),
    "LayerScale": Kind(_layer_scale, holding("gamma")),
    "CustomScaleLayer": Kind(_scaled_sum),
}
