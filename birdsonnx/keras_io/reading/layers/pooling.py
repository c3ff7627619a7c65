"""Poolings: windows, and the whole map."""

from birdsonnx.keras_io.reading.canvas import Tensor
from birdsonnx.keras_io.reading.layers.convolutions import padding_of, windows
from birdsonnx.keras_io.reading.step import Kind, Step


def _windowed(operation: str, dims: int) -> Kind:
    """Padding counts for neither: a maximum has minus infinity there, an average leaves it out."""

    def draw(step: Step) -> Tensor:
        x, options = step.maps(dims + 2), step.options
        size = options.integers("pool_size", dims, 2)
        strides = size if options.raw("strides", None) is None else options.integers("strides", dims)
        padding = options.choice("padding", ("valid", "same"), "valid")
        before, behind = padding_of(padding, x.shape[:-1], size, strides, (1,) * dims)
        pads = [first + last for first, last in zip(before, behind, strict=True)]
        out = windows(x.shape[:-1], size, strides, (1,) * dims, pads)
        name = step.canvas.node(
            operation, x.name, kernel_shape=size, strides=strides, pads=[*before, *behind]
        )
        return Tensor(name, (*out, x.shape[-1]), maps=True)

    return Kind(draw)


def _whole(average: bool, dims: int) -> Kind:
    def draw(step: Step) -> Tensor:
        x, canvas = step.x, step.canvas
        keep = step.options.flag("keepdims", False)
        if x.maps and x.rank == dims + 2:
            name = canvas.node("GlobalAveragePool" if average else "GlobalMaxPool", x.name)
            pooled = Tensor(name, (*[1] * dims, x.shape[-1]), maps=True)
        else:
            axes = range(1, dims + 1)
            pooled = canvas.reduce("ReduceMean" if average else "ReduceMax", x, axes)
        return pooled if keep else canvas.reshape(pooled, x.shape[-1:])

    return Kind(draw)


LAYERS: dict[str, Kind] = {}
for _dims in (1, 2, 3):
    for _names, _kind in (
        (("MaxPooling", "MaxPool"), _windowed("MaxPool", _dims)),
        (("AveragePooling", "AvgPool"), _windowed("AveragePool", _dims)),
        (("GlobalAveragePooling", "GlobalAvgPool"), _whole(True, _dims)),
        (("GlobalMaxPooling", "GlobalMaxPool"), _whole(False, _dims)),
    ):
        LAYERS |= {f"{_name}{_dims}D": _kind for _name in _names}
