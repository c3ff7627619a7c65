"""Operations that one kernel does together become one."""

from collections.abc import Iterable
from dataclasses import replace

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
    readers = readers_of(operations, result)
    places = {each.result: place for place, each in enumerate(operations)}
    found = list(operations)
    gone = set()
    for place, each in enumerate(operations):
        if not isinstance(each, Sum) or each.first == each.second:
            continue
        later, other = sorted((each.first, each.second), key=lambda name: -places.get(name, -1))
        before = places.get(later)
        conv = None if before is None else found[before]
        if isinstance(conv, Convolution) and readers[later] == 1 and conv.added is None:
            gone.add(before)
            found[place] = replace(conv, result=each.result, added=other)
    return [each for place, each in enumerate(found) if place not in gone]


def _activation_into_convolution(operations: list[Operation], result: str) -> list[Operation]:
    """Where the derivative is computed from the result, the argument need not be kept."""
    readers = readers_of(operations, result)
    places = {each.result: place for place, each in enumerate(operations)}
    found = list(operations)
    gone = set()
    for place, each in enumerate(operations):
        before = places.get(each.source) if isinstance(each, Activation) else None
        conv = None if before is None else found[before]
        if (
            isinstance(each, Activation)
            and isinstance(conv, Convolution)
            and conv.function is None
            and readers[each.source] == 1
            and each.function.by_result
        ):
            gone.add(before)
            found[place] = replace(conv, result=each.result, function=each.function)
    return [each for place, each in enumerate(found) if place not in gone]
