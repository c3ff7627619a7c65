"""Operations and their derivatives in plain NumPy, to compare kernels with: as they are defined, one place of
the window at a time."""

from collections.abc import Iterator
from itertools import product

import numpy as np
import numpy.typing as npt

from birdsonnx.onednn.primitives import AVERAGE_OF_ALL, MAX, Window

Array = npt.NDArray[np.float64]


class Windows:
    """A map, padded, as its windows see it: for each place of the window, one value of every window."""

    def __init__(self, source: Array, window: Window, padding: float = 0.0) -> None:
        margins = [(0, 0), (0, 0), *zip(window.before, window.after, strict=True)]
        self.padded = np.pad(source, margins, constant_values=padding)
        self._window = window
        reach = [(kernel - 1) * (gap + 1) + 1 for kernel, gap in zip(window.kernel, window.gaps, strict=True)]
        self.size = [
            (side - whole) // stride + 1
            for side, whole, stride in zip(self.padded.shape[2:], reach, window.strides, strict=True)
        ]

    def places(self) -> Iterator[tuple[int, int, tuple[slice, ...]]]:
        """Row and column of the kernel, and the part of `padded` that it meets."""
        window = self._window
        for row, column in product(range(window.kernel[0]), range(window.kernel[1])):
            starts = (row * (window.gaps[0] + 1), column * (window.gaps[1] + 1))
            part = tuple(
                slice(start, start + (count - 1) * stride + 1, stride)
                for start, count, stride in zip(starts, self.size, window.strides, strict=True)
            )
            yield row, column, (slice(None), slice(None), *part)

    def inner(self, padded: Array) -> Array:
        """Without the padding."""
        (top, left), (bottom, right) = self._window.before, self._window.after
        return padded[:, :, top : padded.shape[2] - bottom, left : padded.shape[3] - right]


def convolution(
    source: Array, kernel: Array, groups: int, window: Window, gradient: Array | None = None
) -> tuple[Array, Array, Array]:
    """The result, and for its gradient (default: zeros) those by source and kernel; no bias."""
    windows = Windows(source, window)
    photos, out = len(source), len(kernel)
    padded = windows.padded.reshape(photos, groups, -1, *windows.padded.shape[2:])
    weights = kernel.reshape(groups, out // groups, *kernel.shape[1:])
    result = np.zeros((photos, groups, out // groups, *windows.size))
    given = np.zeros_like(result) if gradient is None else gradient.reshape(result.shape)
    by_source, by_kernel = np.zeros_like(padded), np.zeros_like(weights)
    for row, column, (_, _, *part) in windows.places():
        seen = padded[:, :, :, part[0], part[1]]
        here = weights[..., row, column]
        result += np.einsum("ngchw,goc->ngohw", seen, here)
        by_source[:, :, :, part[0], part[1]] += np.einsum("ngohw,goc->ngchw", given, here)
        by_kernel[..., row, column] = np.einsum("ngohw,ngchw->goc", given, seen)
    inner = windows.inner(by_source.reshape(windows.padded.shape))
    return result.reshape(photos, out, *windows.size), inner, by_kernel.reshape(kernel.shape)


def pool(source: Array, algorithm: int, window: Window, gradient: Array) -> tuple[Array, Array]:
    """The result and the gradient by the source."""
    windows = Windows(source, window, -np.inf if algorithm == MAX else 0.0)
    seen = np.stack([windows.padded[part] for _, _, part in windows.places()])
    if algorithm == MAX:
        shares = np.arange(len(seen))[:, None, None, None, None] == seen.argmax(0)
        result = seen.max(0)
    else:
        real = Windows(np.ones_like(source), window, 1.0 if algorithm == AVERAGE_OF_ALL else 0.0)
        count = np.sum([real.padded[part] for _, _, part in real.places()], axis=0)
        shares = np.broadcast_to(1 / count, seen.shape)
        result = seen.sum(0) / count
    by_source = np.zeros_like(windows.padded)
    for share, (_, _, part) in zip(shares, windows.places(), strict=True):
        by_source[part] += share * gradient
    return result, windows.inner(by_source)
