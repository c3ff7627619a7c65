"""PyTorch's optimizers, in place on one flat float32 buffer.

Formulas: the algorithm boxes of torch.optim.SGD and torch.optim.Adam in PyTorch's documentation.
"""

from typing import Protocol

import numpy as np

from birdsonnx.config import SGD, Adam
from birdsonnx.training.parameters import Flat


class Optimizer(Protocol):
    """One step of descent; `state` is what resuming needs, by name."""

    state: dict[str, Flat]
    steps: int

    def step(self, weights: Flat, gradient: Flat, learning_rate: float) -> None:
        """Change `weights` in place. `gradient` may be used as scratch space."""


class SGDOptimizer:
    """torch.optim.SGD: momentum, dampening, nesterov, weight decay."""

    def __init__(self, settings: SGD, size: int) -> None:
        self._settings = settings
        self.steps = 0
        self.state: dict[str, Flat] = {}
        if settings.momentum:
            self.state["momentum"] = np.zeros(size, np.float32)

    def step(self, weights: Flat, gradient: Flat, learning_rate: float) -> None:
        settings = self._settings
        if settings.weight_decay:
            gradient += np.float32(settings.weight_decay) * weights
        if settings.momentum:
            velocity = self.state["momentum"]
            if self.steps == 0:
                velocity[...] = gradient
            else:
                velocity *= np.float32(settings.momentum)
                velocity += np.float32(1 - settings.dampening) * gradient
            if settings.nesterov:
                gradient += np.float32(settings.momentum) * velocity
            else:
                gradient[...] = velocity
        gradient *= np.float32(learning_rate)
        weights -= gradient
        self.steps += 1


class AdamOptimizer:
    """torch.optim.Adam: weight decay added to the gradient, amsgrad."""

    def __init__(self, settings: Adam, size: int) -> None:
        self._settings = settings
        self.steps = 0
        names = ["mean", "square", *(["largest_square"] if settings.amsgrad else [])]
        self.state: dict[str, Flat] = {name: np.zeros(size, np.float32) for name in names}
        self._scratch = np.empty(size, np.float32)

    def step(self, weights: Flat, gradient: Flat, learning_rate: float) -> None:
        settings, scratch = self._settings, self._scratch
        mean, square = self.state["mean"], self.state["square"]
        self.steps += 1
        if settings.weight_decay:
            np.multiply(weights, np.float32(settings.weight_decay), out=scratch)
            gradient += scratch
        mean *= np.float32(settings.beta1)
        mean += np.multiply(gradient, np.float32(1 - settings.beta1), out=scratch)
        square *= np.float32(settings.beta2)
        np.multiply(gradient, gradient, out=scratch)
        scratch *= np.float32(1 - settings.beta2)
        square += scratch
        if settings.amsgrad:
            square = np.maximum(self.state["largest_square"], square, out=self.state["largest_square"])
        np.sqrt(square, out=scratch)
        scratch /= np.float32(np.sqrt(1 - settings.beta2**self.steps))
        scratch += np.float32(settings.eps)
        np.divide(mean, scratch, out=scratch)
        scratch *= np.float32(learning_rate / (1 - settings.beta1**self.steps))
        weights -= scratch


def build(settings: SGD | Adam, size: int) -> Optimizer:
    """The optimizer that the config names, for `size` weights."""
    return AdamOptimizer(settings, size) if isinstance(settings, Adam) else SGDOptimizer(settings, size)
