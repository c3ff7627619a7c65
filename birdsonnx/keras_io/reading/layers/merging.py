"""Layers that make one tensor of several."""

from functools import reduce

from birdsonnx.keras_io.reading.canvas import Tensor
from birdsonnx.keras_io.reading.options import Refusal
from birdsonnx.keras_io.reading.step import Kind, Step


def _of_one_rank(step: Step) -> list[Tensor]:
    """The inputs; Keras gives those of fewer axes further ones behind the photos."""
    rank = max(x.rank for x in step.tensors)
    return [
        step.canvas.reshape(x, (*[1] * (rank - x.rank), *x.shape)) if x.rank < rank else x
        for x in step.tensors
    ]


def _pairwise(operation: str) -> Kind:
    return Kind(lambda step: reduce(lambda x, y: step.canvas.binary(operation, x, y), _of_one_rank(step)))


def _subtract(step: Step) -> Tensor:
    if len(step.tensors) != 2:
        raise Refusal("it must be called on two tensors")
    return step.canvas.binary("Sub", *_of_one_rank(step))


def _average(step: Step) -> Tensor:
    total: Tensor = reduce(lambda x, y: step.canvas.binary("Add", x, y), _of_one_rank(step))
    return step.canvas.on("Mul", total, 1 / len(step.tensors))


def concatenated(step: Step, tensors: list[Tensor], axis: int) -> Tensor:
    """Tensors one after the other along an axis, counted with that of the photos."""
    rank = tensors[0].rank
    if any(x.rank != rank for x in tensors) or not -rank <= axis < rank or axis % rank == 0:
        raise Refusal(f"it cannot join {', '.join(str(list(x.shape)) for x in tensors)} along axis {axis}")
    at = axis % rank - 1
    rest = {(*x.shape[:at], *x.shape[at + 1 :]) for x in tensors}
    if len(rest) > 1:
        raise Refusal(f"it cannot join {', '.join(str(list(x.shape)) for x in tensors)} along axis {axis}")
    if len(tensors) == 1:
        return tensors[0]
    tensors = step.canvas.alike(tensors)
    shape = list(tensors[0].shape)
    shape[at] = sum(x.shape[at] for x in tensors)
    names = [x.name for x in tensors]
    return Tensor(
        step.canvas.node("Concat", *names, axis=tensors[0].axis(axis)), tuple(shape), tensors[0].maps
    )


def _concatenate(step: Step) -> Tensor:
    axis = step.options.axis("axis", step.tensors[0].rank, -1)
    return concatenated(step, step.tensors, axis)


def _dot(step: Step) -> Tensor:
    """Products summed along one axis of each, photo by photo; the other axes of both follow each other."""
    x, y = (step.canvas.as_keras(each) for each in step.tensors)
    axes = step.options.raw("axes")
    axes = [axes, axes] if type(axes) is int else axes
    if not isinstance(axes, list | tuple) or len(axes) != 2 or len(step.tensors) != 2:
        raise Refusal("it must have two tensors, and one axis for each")
    if x.rank > 3 or y.rank > 3:
        raise Refusal("it is read for tensors of two or three axes, batch included")
    ends = []
    for each, axis in zip((x, y), axes, strict=True):
        if type(axis) is not int or axis % each.rank == 0:
            raise step.options.wrong("axes", "one axis behind that of the photos for each tensor")
        ends.append(axis % each.rank)
    if step.options.flag("normalize", False):
        x, y = (unit_length(step, each, [axis]) for each, axis in zip((x, y), ends, strict=True))
    left = _as_matrix(step, x, ends[0], last=True)
    right = _as_matrix(step, y, ends[1], last=False)
    if left.shape[-1] != right.shape[0]:
        raise Refusal(f"the axes of {list(x.shape)} and {list(y.shape)} differ")
    product = Tensor(step.canvas.node("MatMul", left.name, right.name), (left.shape[0], right.shape[1]))
    rest = [
        side
        for each, axis in zip((x, y), ends, strict=True)
        for at, side in enumerate(each.shape, 1)
        if at != axis
    ]
    return step.canvas.reshape(product, rest or [1])


def _as_matrix(step: Step, x: Tensor, axis: int, last: bool) -> Tensor:
    """One matrix per photo, with the axis that is summed last or first."""
    if x.rank == 2:
        return step.canvas.reshape(x, (1, x.shape[0]) if last else (x.shape[0], 1))
    wanted = 2 if last else 1
    return x if axis == wanted else step.canvas.transpose(x, (0, 2, 1))


def unit_length(step: Step, x: Tensor, axes: list[int]) -> Tensor:
    """Values divided by the root of the sum of their squares, which is at least 1e-12."""
    canvas = step.canvas
    squares = canvas.reduce("ReduceSum", canvas.on("Mul", x, x.name), axes)
    length = canvas.on("Sqrt", canvas.on("Clip", squares, 1e-12))
    return canvas.binary("Div", x, length)


LAYERS: dict[str, Kind] = {
    "Add": _pairwise("Add"),
    "Subtract": Kind(_subtract),
    "Multiply": _pairwise("Mul"),
    "Average": Kind(_average),
    "Maximum": _pairwise("Max"),
    "Minimum": _pairwise("Min"),
    "Concatenate": Kind(_concatenate),
    "Dot": Kind(_dot),
}
