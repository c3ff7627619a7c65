"""What every operation can do."""

from collections.abc import Collection
from typing import Protocol

from birdsonnx.onednn.recording import Recorder


class Operation(Protocol):
    """A step of the network, which reads values and makes one; names are those of the graph's tensors."""

    @property
    def sources(self) -> tuple[str, ...]:
        """The values that it reads; weights and constants are none."""

    @property
    def result(self) -> str: ...

    @property
    def saved(self) -> tuple[str, ...]:
        """Values that its derivative is computed from."""

    @property
    def weights(self) -> tuple[str, ...]:
        """Constants of the graph that it reads."""

    def forward(self, to: Recorder) -> None:
        """Record what makes the result."""

    def backward(self, to: Recorder) -> None:
        """Record what adds to the gradients of sources and weights, if that of the result is known."""


def values_of(operations: Collection[Operation]) -> set[str]:
    """All that operations read, without what one of them makes."""
    made = {each.result for each in operations}
    return {name for each in operations for name in each.sources} - made
