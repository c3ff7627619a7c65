"""Operations that one kernel does together become one."""

from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

from birdsonnx.onednn.operations.activation import SIGMOID, SWISH, Activation
from birdsonnx.onednn.operations.affine import ONES, ZEROS, Affine
from birdsonnx.onednn.operations.arithmetic import Product, Sum
from birdsonnx.onednn.operations.convolution import Convolution
from birdsonnx.onednn.operations.operation import Operation


def fused(operations: list[Operation], result: str) -> list[Operation]:
    """The same network in fewer operations; `result` is its last value."""
    for fuse in (_swish, _affine, _sum_into_convolution, _activation_into_convolution):
        operations = fuse(operations, result)
    return operations


def readers_of(operations: Iterable[Operation], result: str) -> dict[str, int]:
    """How often each value is read, the last one by whatever comes after the trunk as well."""
    found = {result: 1}
    for operation in operations:
        for name in operation.sources:
            found[name] = found.get(name, 0) + 1
    return found


def _swish(operations: list[Operation], result: str) -> list[Operation]:
    """`x sigmoid(x)`."""
    readers = readers_of(operations, result)
    sigmoids = {
        each.result: each
        for each in operations
        if isinstance(each, Activation) and each.function == SIGMOID and readers[each.result] == 1
    }
    gone, found = set(), []
    for each in operations:
        if isinstance(each, Product):
            for factor, other in ((each.first, each.second), (each.second, each.first)):
                if factor in sigmoids and sigmoids[factor].source == other:
                    gone.add(factor)
                    each = Activation(other, each.result, SWISH)
                    break
        found.append(each)
    return [each for each in found if each.result not in gone]


def _affine(operations: list[Operation], result: str) -> list[Operation]:
    """A factor and then a summand."""
    readers = readers_of(operations, result)
    before = {each.result: each for each in operations if isinstance(each, Affine) and each.plus == ZEROS}
    gone, found = set(), []
    for each in operations:
        first = before.get(each.source) if isinstance(each, Affine) and each.by == ONES else None
        if isinstance(each, Affine) and first is not None and readers[first.result] == 1:
            gone.add(first.result)
            each = Affine(first.source, each.result, first.by, each.plus)
        found.append(each)
    return [each for each in found if each.result not in gone]


def _sum_into_convolution(operations: list[Operation], result: str) -> list[Operation]:
    """The later one of the two summands is computed by a convolution, which adds the other one."""
    places = {each.result: place for place, each in enumerate(operations)}

    def summed(each: Operation) -> tuple[str, dict[str, Any]] | None:
        if not isinstance(each, Sum) or each.first == each.second:
            return None
        later, other = sorted(each.sources, key=lambda name: -places.get(name, -1))
        return later, {"added": other}

    return _into_convolution(operations, result, summed)


def _activation_into_convolution(operations: list[Operation], result: str) -> list[Operation]:
    """Where the derivative is computed from the result, the argument need not be kept."""

    def activated(each: Operation) -> tuple[str, dict[str, Any]] | None:
        if not isinstance(each, Activation) or not each.function.by_result:
            return None
        return each.source, {"function": each.function}

    return _into_convolution(operations, result, activated)


def _into_convolution(
    operations: list[Operation], result: str, what: Callable[[Operation], tuple[str, dict[str, Any]] | None]
) -> list[Operation]:
    """Convolutions whose one reader they can do themselves, in the place of that reader.

    Args:
        operations: in order.
        result: the last value.
        what: gives, of such a reader, the value that the convolution makes and what it does then, which it
            must not do already.
    """
    readers = readers_of(operations, result)
    made = {each.result: each for each in operations}
    gone, found = set(), []
    for each in operations:
        value, changes = what(each) or ("", {})
        before = made.get(value)
        if (
            isinstance(before, Convolution)
            and readers[value] == 1
            and all(getattr(before, name) is None for name in (*changes, "function"))
        ):
            gone.add(value)
            each = replace(before, result=each.result, **changes)
        made[each.result] = each
        found.append(each)
    return [each for each in found if each.result not in gone]
