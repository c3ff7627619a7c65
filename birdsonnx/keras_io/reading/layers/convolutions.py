"""Convolutions of one to three dimensions: plain, depthwise, separable, transposed."""

from collections.abc import Sequence

import numpy as np

from birdsonnx.keras_io.reading.canvas import Tensor
from birdsonnx.keras_io.reading.layers.activations import activated
from birdsonnx.keras_io.reading.options import Refusal
from birdsonnx.keras_io.reading.step import Kind, Step, holding
from birdsonnx.model.graph import Array


def same_padding(side: int, kernel: int, stride: int, dilation: int = 1) -> tuple[int, int]:
    """What `same` pads before and behind a side: as little as gives ceil(side / stride) results, the smaller
    half first."""
    total = max((-(-side // stride) - 1) * stride + (kernel - 1) * dilation + 1 - side, 0)
    return total // 2, total - total // 2


def padding_of(
    kind: str, sides: Sequence[int], kernel: Sequence[int], strides: Sequence[int], dilation: Sequence[int]
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """How much a convolution or pooling pads before and behind each side."""
    if kind == "valid":
        return (0,) * len(sides), (0,) * len(sides)
    if kind == "causal":
        return tuple((k - 1) * d for k, d in zip(kernel, dilation, strict=True)), (0,) * len(sides)
    pairs = [same_padding(*each) for each in zip(sides, kernel, strides, dilation, strict=True)]
    before, behind = zip(*pairs, strict=True)
    return before, behind


def windows(
    sides: Sequence[int],
    kernel: Sequence[int],
    strides: Sequence[int],
    dilation: Sequence[int],
    pads: Sequence[int],
) -> tuple[int, ...]:
    """How many windows fit along each side."""
    return tuple(
        (side + pad - (k - 1) * d - 1) // s + 1
        for side, k, s, d, pad in zip(sides, kernel, strides, dilation, pads, strict=True)
    )


def _settings(step: Step, dims: int) -> tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...], str]:
    """Kernel size, strides, dilation and the kind of padding."""
    options = step.options
    kernel = options.integers("kernel_size", dims)
    strides = options.integers("strides", dims, 1)
    dilation = options.integers("dilation_rate", dims, 1)
    padding = options.choice(
        "padding", ("valid", "same", "causal") if dims == 1 else ("valid", "same"), "valid"
    )
    return kernel, strides, dilation, padding


def _convolved(
    step: Step,
    x: Tensor,
    weight: str,
    filters: int,
    settings: tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...], str],
    group: int = 1,
    bias: bool = False,
) -> Tensor:
    """A Conv. It takes over the zeros that were padded in front of it: that costs nothing."""
    kernel, strides, dilation, padding = settings
    before, behind = padding_of(padding, x.shape[:-1], kernel, strides, dilation)
    pads = [first + last for first, last in zip(before, behind, strict=True)]
    out = windows(x.shape[:-1], kernel, strides, dilation, pads)
    if x.name in step.canvas.padded:
        x, more, most = step.canvas.padded[x.name]
        before = tuple(map(sum, zip(before, more, strict=True)))
        behind = tuple(map(sum, zip(behind, most, strict=True)))
    inputs = [x.name, weight]
    if bias:
        inputs.append(step.weight("bias", (filters,)))
    name = step.canvas.node(
        "Conv",
        *inputs,
        kernel_shape=kernel,
        strides=strides,
        dilations=dilation,
        pads=[*before, *behind],
        group=group,
    )
    return Tensor(name, (*out, filters), maps=True)


def _convolution(dims: int) -> Kind:
    def draw(step: Step) -> Tensor:
        x = step.maps(dims + 2)
        settings, filters = _settings(step, dims), step.options.integer("filters")
        group = step.options.integer("groups", 1)
        if x.shape[-1] % group or filters % group:
            raise Refusal(
                f"groups {group} divides not both its {x.shape[-1]} channels and its {filters} filters"
            )
        shape = (*settings[0], x.shape[-1] // group, filters)
        weight = step.weight("kernel", shape, _channels_first)
        bias = step.options.flag("use_bias", True)
        return activated(step, _convolved(step, x, weight, filters, settings, group, bias))

    return Kind(draw, holding("kernel", bias=True))


def _channels_first(kernel: Array) -> Array:
    """[…, in, out] as ONNX has it, [out, in, …]."""
    return np.moveaxis(kernel, (-1, -2), (0, 1))


def _one_group_each(kernel: Array) -> Array:
    """[…, in, multiplier] of a depthwise kernel as that of a grouped one, [in * multiplier, 1, …]."""
    sides = kernel.shape[:-2]
    return np.moveaxis(kernel, (-2, -1), (0, 1)).reshape(-1, 1, *sides)


def _depthwise(dims: int) -> Kind:
    def draw(step: Step) -> Tensor:
        x, settings = step.maps(dims + 2), _settings(step, dims)
        step.options.only("groups", 1)
        multiplier, channels = step.options.integer("depth_multiplier", 1), x.shape[-1]
        weight = step.weight("kernel", (*settings[0], channels, multiplier), _one_group_each)
        bias = step.options.flag("use_bias", True)
        return activated(step, _convolved(step, x, weight, channels * multiplier, settings, channels, bias))

    return Kind(draw, holding("kernel", bias=True))


def _separable(dims: int) -> Kind:
    def draw(step: Step) -> Tensor:
        x, settings = step.maps(dims + 2), _settings(step, dims)
        step.options.only("groups", 1)
        multiplier, channels = step.options.integer("depth_multiplier", 1), x.shape[-1]
        filters, wide = step.options.integer("filters"), channels * multiplier
        depthwise = step.weight("depthwise_kernel", (*settings[0], channels, multiplier), _one_group_each)
        x = _convolved(step, x, depthwise, wide, settings, channels)
        ones = (1,) * dims
        pointwise = step.weight("pointwise_kernel", (*ones, wide, filters), _channels_first)
        bias = step.options.flag("use_bias", True)
        return activated(step, _convolved(step, x, pointwise, filters, (ones, ones, ones, "valid"), 1, bias))

    return Kind(draw, holding("depthwise_kernel", "pointwise_kernel", bias=True))


def _transposed(dims: int) -> Kind:
    """The gradient of a convolution by its input, as Keras' is: where `same` pads, results are cut off."""

    def draw(step: Step) -> Tensor:
        x, options = step.maps(dims + 2), step.options
        kernel, strides, dilation, padding = _settings(step, dims)
        options.only("groups", 1)
        if padding == "causal":
            raise Refusal("padding 'causal' is not read here")
        filters = options.integer("filters")
        extra = options.raw("output_padding", None)
        added = None if extra is None else options.integers("output_padding", dims, low=0)
        out, before, behind, missing = [], [], [], []
        for at, (side, k, s, d) in enumerate(zip(x.shape[:-1], kernel, strides, dilation, strict=True)):
            size = (k - 1) * d + 1
            if added is None:
                full = side * s if padding == "same" else side * s + max(size - s, 0)
            else:
                full = (side - 1) * s + size - (2 * (size // 2) if padding == "same" else 0) + added[at]
            total = (side - 1) * s + size - full
            out.append(full)
            before.append(max(total, 0) // 2)
            behind.append(max(total, 0) - max(total, 0) // 2)
            missing.append(max(-total, 0))
        inputs = [x.name, step.weight("kernel", (*kernel, filters, x.shape[-1]), _channels_first)]
        if options.flag("use_bias", True):
            inputs.append(step.weight("bias", (filters,)))
        name = step.canvas.node(
            "ConvTranspose",
            *inputs,
            kernel_shape=kernel,
            strides=strides,
            dilations=dilation,
            pads=[*before, *behind],
            output_padding=missing,
        )
        return activated(step, Tensor(name, (*out, filters), maps=True))

    return Kind(draw, holding("kernel", bias=True))


LAYERS: dict[str, Kind] = {
    **{name.format(dims): _convolution(dims) for dims in (1, 2, 3) for name in ("Conv{}D", "Convolution{}D")},
    **{f"DepthwiseConv{dims}D": _depthwise(dims) for dims in (1, 2)},
    **{
        name.format(dims): _separable(dims)
        for dims in (1, 2)
        for name in ("SeparableConv{}D", "SeparableConvolution{}D")
    },
    **{
        name.format(dims): _transposed(dims)
        for dims in (1, 2, 3)
        for name in ("Conv{}DTranspose", "Convolution{}DTranspose")
    },
}
