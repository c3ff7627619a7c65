"""What every operation can do."""

from abc import ABC, abstractmethod

from birdsonnx.onednn.recording import Recorder


class Operation(ABC):
    """A step of the network, which reads values and makes one; names are those of the graph's tensors."""

    result: str

    @property
    @abstractmethod
    def sources(self) -> tuple[str, ...]:
        """The values that it reads; weights and constants are none."""

    @property
    def saved(self) -> tuple[str, ...]:
        """Values that its derivative is computed from."""
        return ()

    @property
    def weights(self) -> tuple[str, ...]:
        """Constants of the graph that it reads."""
        return ()

    @abstractmethod
    def forward(self, to: Recorder) -> None:
        """Record what makes the result."""

    @abstractmethod
    def backward(self, to: Recorder) -> None:
        """Record what adds to the gradients of sources and weights, if that of the result is known."""


class OfOne(Operation):
    """An operation that reads one value."""

    source: str

    @property
    def sources(self) -> tuple[str, ...]:
        return (self.source,)


class OfTwo(Operation):
    """An operation that reads two values, which may be one."""

    first: str
    second: str

    @property
    def sources(self) -> tuple[str, ...]:
        return self.first, self.second
