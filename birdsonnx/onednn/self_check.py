"""Whether the library computes what it should: one small case of each kind of kernel, forwards and backwards,
beside plain NumPy."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from birdsonnx.onednn import plain, program
from birdsonnx.onednn.descriptors import BF16, F32
from birdsonnx.onednn.fusing import readers_of
from birdsonnx.onednn.library import Library, OnednnError
from birdsonnx.onednn.lowering import TrainedTrunk
from birdsonnx.onednn.operations.activation import RELU, SWISH, Activation
from birdsonnx.onednn.operations.affine import Affine, constants
from birdsonnx.onednn.operations.arithmetic import Product, Sum
from birdsonnx.onednn.operations.convolution import Convolution
from birdsonnx.onednn.operations.joining import Joined
from birdsonnx.onednn.operations.operation import Operation
from birdsonnx.onednn.operations.pooling import Pool
from birdsonnx.onednn.plain import Array
from birdsonnx.onednn.primitives import AVERAGE_OF_REAL, MAX, Window
from birdsonnx.onednn.recording import Values
from birdsonnx.onednn.trunk import Trunk
from birdsonnx.onednn.weight_forms import Floats, WeightForms

FAR = {BF16: 0.02, F32: 1e-5}
"""Distance from plain NumPy, as a share of the whole, that is a wrong kernel. A result that is rounded to
bfloat16 is 0.17 % away (eight binary digits: a uniform error of up to 1 / 256), the worst case here 0.34 %;
in float32 the worst is 1e-7."""

PHOTOS, CHANNELS, SIDE = 2, 32, 9
Arrays = Mapping[str, Array]


@dataclass(frozen=True)
class Case:
    """An operation, with `x` (and `other`) as its sources, `y` its result, `k`, `b` … its weights."""

    what: str
    operation: Operation
    shapes: Mapping[str, tuple[int, ...]]
    """Of values, for one photo."""
    weights: Mapping[str, tuple[int, ...]]


def _window(kernel: int, stride: int = 1, padding: int = 0) -> Window:
    return Window((kernel,) * 2, (stride,) * 2, (0, 0), (padding,) * 2, (padding,) * 2)


def _convolution(what: str, kernel: int, stride: int, groups: int = 1, added: bool = False) -> Case:
    window = _window(kernel, stride, kernel // 2)
    side = (SIDE + 2 * (kernel // 2) - kernel) // stride + 1
    shape = (CHANNELS, CHANNELS // groups, kernel, kernel)
    operation = Convolution(
        "x", "k", "b", "y", shape, groups, window, "other" if added else None, RELU if added else None
    )
    map_ = (CHANNELS, side, side)
    shapes = {"x": (CHANNELS, SIDE, SIDE), "y": map_, **({"other": map_} if added else {})}
    return Case(what, operation, shapes, {"k": shape, "b": (CHANNELS,)})


def cases() -> list[Case]:
    """One of each kind."""
    map_ = (CHANNELS, SIDE, SIDE)
    same = {"x": map_, "y": map_}
    numbers, gate, doubled = (CHANNELS,), (CHANNELS, 1, 1), (2 * CHANNELS, SIDE, SIDE)
    halved = {"x": map_, "y": (CHANNELS, 5, 5)}
    return [
        _convolution("3 x 3 convolution with a sum and a Relu", 3, 1, added=True),
        _convolution("3 x 3 convolution of stride 2", 3, 2),
        _convolution("1 x 1 convolution", 1, 1),
        _convolution("depthwise convolution", 3, 1, groups=CHANNELS),
        _convolution("depthwise convolution of stride 2", 3, 2, groups=CHANNELS),
        Case("largest values of windows", Pool("x", "y", MAX, _window(3, 2, 1)), halved, {}),
        Case("means of windows", Pool("x", "y", AVERAGE_OF_REAL, _window(3, 2, 1)), halved, {}),
        Case("swish", Activation("x", "y", SWISH), same, {}),
        Case(
            "factor and summand of a channel", Affine("x", "y", "k", "b"), same, {"k": numbers, "b": numbers}
        ),
        Case("sum", Sum("x", "other", "y"), {**same, "other": map_}, {}),
        Case("product with a number per channel", Product("x", "other", "y"), {**same, "other": gate}, {}),
        Case("join of channels", Joined(("x", "other"), "y"), {**same, "other": map_, "y": doubled}, {}),
    ]


def require_right(library: Library, kind: int) -> None:
    """Raises OnednnError where the library has no kernel of a kind, or one that computes something else."""
    for case in cases():
        found, wanted = computed(library, case, kind)
        for name, value in wanted.items():
            distance = np.linalg.norm(found[name] - value) / np.linalg.norm(value)
            if not distance < FAR[kind]:  # not a number is far as well
                raise OnednnError(f"oneDNN {library.version} computes this wrongly here: {case.what}")


def computed(library: Library, case: Case, kind: int, seed: int = 0) -> tuple[Arrays, Arrays]:
    """`y`, and the gradient by each source and weight under its name, of the library and of plain NumPy."""
    generator = np.random.default_rng(seed)

    def drawn(shape: tuple[int, ...]) -> Floats:
        """Numbers that bfloat16 has, so that only results are rounded."""
        wide = generator.normal(size=shape).astype(np.float32)
        return (wide.view(np.uint32) & 0xFFFF0000).view(np.float32)

    weights = {name: drawn(shape) for name, shape in case.weights.items()}
    values = {name: drawn((PHOTOS, *case.shapes[name])) for name in case.operation.sources}
    gradient = drawn((PHOTOS, *case.shapes["y"]))
    found = _by_library(library, case, kind, weights, values, gradient)
    arrays = {name: value.astype(np.float64) for name, value in {**weights, **values}.items()}
    return found, _by_numpy(case.operation, arrays, gradient.astype(np.float64), found["y"] > 0)


def _by_library(
    library: Library,
    case: Case,
    kind: int,
    weights: dict[str, Floats],
    values: dict[str, Floats],
    gradient: Floats,
) -> Arrays:
    operation = case.operation
    reached = frozenset((*values, "y"))
    known = Values(case.shapes, reached, readers_of([operation], "y"), (*operation.saved, *values))
    trunk = TrainedTrunk(Trunk((), "y", reached, tuple(weights)), (operation,), known, tuple(values))
    forms = WeightForms(library, weights, constants())
    compiled = program.compiled(library, trunk, forms, PHOTOS, kind)
    bound = program.Replica(library).bound(compiled)
    found = {name: np.empty_like(value) for name, value in {**weights, **values}.items()}
    found["y"] = np.empty_like(gradient)
    for name, value in values.items():
        bound.give(name, value)
        bound.give(name + program.GRADIENT, found[name])
    for name in weights:
        bound.give(name, found[name])
    bound.give("y", found["y"])
    bound.give("y" + program.GRADIENT, gradient)
    bound.forward()
    bound.backward()
    return {name: value.astype(np.float64) for name, value in found.items()}


def _by_numpy(
    operation: Operation, arrays: Arrays, gradient: Array, positive: npt.NDArray[np.bool_]
) -> Arrays:
    """`positive`: where the library's result is; rounding decides on which side of a Relu a value near 0
    falls."""
    source = arrays["x"]
    match operation:
        case Convolution():
            return _convolved(operation, arrays, gradient, positive)
        case Pool():
            result, by_source = plain.pool(source, operation.algorithm, operation.window, gradient)
            return {"y": result, "x": by_source}
        case Activation():
            gate = 1 / (1 + np.exp(-source))
            return {"y": source * gate, "x": gradient * gate * (1 + source * (1 - gate))}
        case Affine():
            by = arrays["k"].reshape(-1, 1, 1)
            sums = {"k": (gradient * source).sum((0, 2, 3)), "b": gradient.sum((0, 2, 3))}
            return {"y": source * by + arrays["b"].reshape(-1, 1, 1), "x": gradient * by, **sums}
        case Sum():
            return {"y": source + arrays["other"], "x": gradient, "other": gradient}
        case Product():
            other = arrays["other"]
            by_other = (gradient * source).sum((2, 3), keepdims=True)
            return {"y": source * other, "x": gradient * other, "other": by_other}
    return {
        "y": np.concatenate([source, arrays["other"]], 1),
        "x": gradient[:, :CHANNELS],
        "other": gradient[:, CHANNELS:],
    }


def _convolved(
    operation: Convolution, arrays: Arrays, gradient: Array, positive: npt.NDArray[np.bool_]
) -> Arrays:
    source, kernel = arrays["x"], arrays["k"]
    result = plain.convolution(source, kernel, operation.groups, operation.window)[0]
    result += arrays["b"].reshape(-1, 1, 1)
    others = {}
    if operation.added is not None:
        result = np.maximum(result + arrays["other"], 0)
        gradient = gradient * positive
        others = {"other": gradient}
    _, by_source, by_kernel = plain.convolution(source, kernel, operation.groups, operation.window, gradient)
    return {"y": result, "x": by_source, "k": by_kernel, "b": gradient.sum((0, 2, 3)), **others}
