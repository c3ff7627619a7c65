"""What every engine does: it opens a model of ours and answers batches.

`sessions` has ONNX Runtime's, which is the default and the reference, `openvino_engine` OpenVINO's.
"""

from collections.abc import Mapping
from typing import Any, Protocol

import numpy.typing as npt

Array = npt.NDArray[Any]


class Engine(Protocol):
    """A model that is open. Several threads may run it at once."""

    @property
    def title(self) -> str:
        """Its name and version, for people: `ONNX Runtime 1.19.2`."""

    @property
    def input_shapes(self) -> Mapping[str, list[Any]]:
        """Each input's shape; a dynamic axis is no integer."""

    @property
    def output_shapes(self) -> Mapping[str, list[Any]]:
        """Each output's shape; a dynamic axis is no integer."""

    @property
    def outputs(self) -> list[str]:
        """The outputs' names."""

    @property
    def types(self) -> Mapping[str, str]:
        """Of inputs and outputs, as ONNX Runtime writes them: `tensor(uint8)`."""

    def run(self, feeds: Mapping[str, Array], /) -> dict[str, Array]:
        """Every output by name, in memory of its own. Raises ModelError where it cannot be computed."""
