"""Weights in the formats of the kernels: made anew before each batch, and shared by all replicas."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from birdsonnx.onednn.descriptors import Descriptor, of_array
from birdsonnx.onednn.execution import Call, aligned
from birdsonnx.onednn.library import Library
from birdsonnx.onednn.primitives import RESULT, SOURCE, reorder

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Fixed:
    """Memory that stays where it is."""

    memory: npt.NDArray[Any]


@dataclass(frozen=True)
class _Form:
    descriptor: Descriptor
    place: Fixed
    call: Call


class WeightForms:
    """Kernels and vectors by name.

    Args:
        library: that computes.
        trained: float32 weights, read where they lie whenever `refresh` is called.
        constants: those that stay as they are.
    """

    def __init__(
        self, library: Library, trained: Mapping[str, Floats], constants: Mapping[str, Floats]
    ) -> None:
        self.trained = trained
        self._library = library
        self._constants = constants
        self._forms: dict[tuple[str, int], list[_Form]] = {}
        self._vectors: dict[tuple[str, int], Fixed] = {}
        self._zeros: dict[int, Fixed] = {}

    def form(self, name: str, groups: int, wanted: Descriptor) -> Fixed:
        """A convolution's weights in a kernel's format."""
        known = self._forms.setdefault((name, groups), [])
        for form in known:
            if form.descriptor.same_as(wanted):
                return form.place
        array = self.trained[name] if name in self.trained else self._constants[name]
        source, place = of_array(self._library, array, groups), Fixed(aligned(wanted.bytes))
        call = Call(self._library, reorder(self._library, source, wanted))
        call.bind(SOURCE, source, array.ctypes.data)
        call.bind(RESULT, wanted, place.memory.ctypes.data)
        call.with_scratch()()
        known.append(_Form(wanted, place, call))
        return place

    def vector(self, name: str, channels: int) -> Fixed:
        """A number for each channel; weights as they lie, which must be without gaps."""
        if (name, channels) not in self._vectors:
            if name in self.trained:
                value = self.trained[name].reshape(-1)
                assert np.shares_memory(value, self.trained[name])
            else:
                value = np.array(np.broadcast_to(self._constants[name].reshape(-1), channels), np.float32)
            self._vectors[name, channels] = Fixed(value)
        return self._vectors[name, channels]

    def zeros(self, count: int) -> Fixed:
        """So many bytes of zeros."""
        if count not in self._zeros:
            self._zeros[count] = Fixed(aligned(count))
            self._zeros[count].memory[:] = 0
        return self._zeros[count]

    def calls(self) -> list[Call]:
        """What brings the forms of all trained weights up to date."""
        return [
            form.call for (name, _), forms in self._forms.items() if name in self.trained for form in forms
        ]
