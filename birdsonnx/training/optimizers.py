"""Optimizers, in place on one flat float32 buffer.

A step goes through memory once, block by block, with all of an algorithm's operations on a block while it is
in cache. Blocks do not depend on each other: threads share them out, and the result is the same for any
number of threads. No block reaches over the end of a tensor, which is what LARS and LAMB need.

Formulas: the algorithm boxes of torch.optim in PyTorch's documentation, where a class names no other source.
Scalars are Python floats (float64, as in PyTorch) until they meet an array, and float32 from there on.

A running average `m = beta m + (1 - beta) g` is kept as the running sum `m / (1 - beta)`: that is one
operation less on every block, and the factor joins the other scalars.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import chain, pairwise
from typing import TypeVar

import numpy as np

from birdsonnx.config import optimizers as config
from birdsonnx.training.parameters import Flat, FlatWeights

BLOCK = 65_536
"""The most weights in a block. Adam on 25 M weights, with 1 and 2 threads (2 MB of L2 cache per core): 8 K
weights 70 and 105 ms, 32 K 57 and 54, 64 K 55 and 40, 128 K 54 and 34, all at once 108. Small blocks make
threads wait for Python's lock; large ones would not fit into smaller caches."""

Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class Block:
    """A piece of one tensor: views of the flat buffers, and scratch space of the same size."""

    tensor: int
    part: slice
    """Its place in the flat buffers."""
    weights: Flat
    gradient: Flat
    scratch: Flat

    def add(self, target: Flat, factor: float, values: Flat) -> None:
        """`target += factor * values`."""
        if factor:
            target += np.multiply(values, factor, out=self.scratch)

    def add_square(self, target: Flat, values: Flat) -> None:
        """`target += values * values`."""
        target += np.multiply(values, values, out=self.scratch)

    def square_sum(self, values: Flat) -> float:
        """The squared norm, in float64."""
        return float(np.multiply(values, values, out=self.scratch).sum(dtype=np.float64))


class Optimizer(ABC):
    """One step of descent at a time; `state` and `steps` are all that resuming needs.

    Args:
        weights: what is to be trained; only sizes are taken from here.
        threads: threads that share a step.
        state: names of the buffers that an algorithm keeps from step to step.
    """

    def __init__(self, weights: FlatWeights, threads: int, *state: str) -> None:
        self.steps = 0
        self.state: dict[str, Flat] = {name: np.zeros_like(weights.flat) for name in state}
        self._weights = weights
        self._tensors = len(weights.spans)
        places = [
            (tensor, slice(start, min(start + BLOCK, span.stop)))
            for tensor, span in enumerate(weights.spans)
            for start in range(span.start, span.stop, BLOCK)
        ]
        ends = [len(places) * thread // threads for thread in range(threads + 1)]
        self._shares = [places[start:end] for start, end in pairwise(ends)]
        self._pool = ThreadPoolExecutor(threads, "optimizer") if threads > 1 else None

    def kept(self) -> dict[str, Flat]:
        """The state as it goes into files: in the graph's order, whatever the order in memory."""
        return {name: self._weights.in_graph_order(values) for name, values in self.state.items()}

    def restore(self, arrays: Mapping[str, Flat], steps: int) -> None:
        """Go on from what `kept` gave. Raises KeyError or ValueError where it is another network's."""
        for name, values in self.state.items():
            values[...] = self._weights.from_graph_order(arrays[name])
        self.steps = steps

    def step(self, weights: Flat, gradient: Flat, learning_rate: float) -> None:
        """Change `weights` in place. `gradient` is used as scratch space."""
        self.steps += 1
        self._on_blocks(weights, gradient, lambda block: self._descend(block, learning_rate))

    @abstractmethod
    def _descend(self, block: Block, learning_rate: float) -> None:
        """Step number `self.steps`, on one block. The gradient may be overwritten."""

    def _on_blocks(self, weights: Flat, gradient: Flat, work: Callable[[Block], Result]) -> list[Result]:
        """`work` on every block, by all threads; its results in the order of the blocks."""

        @np.errstate(all="ignore")  # what overflows is found in the weights, and said once
        def work_on(share: list[tuple[int, slice]]) -> list[Result]:
            scratch = np.empty(BLOCK, np.float32)
            return [
                work(Block(tensor, part, weights[part], gradient[part], scratch[: part.stop - part.start]))
                for tensor, part in share
            ]

        shares = self._pool.map(work_on, self._shares) if self._pool else map(work_on, self._shares)
        return list(chain.from_iterable(shares))

    def _trust_ratios(
        self,
        weights: Flat,
        gradient: Flat,
        ratio: Callable[[float, float], float],
        prepare: Callable[[Block], None] = lambda _: None,
    ) -> list[float]:
        """`ratio` of the norms of weights and gradient, for each tensor; 1 where either norm is 0.

        `prepare` is called on every block before its share of the norms is taken.
        """

        def square_sums(block: Block) -> tuple[int, list[float]]:
            prepare(block)
            return block.tensor, [block.square_sum(block.weights), block.square_sum(block.gradient)]

        squares = np.zeros((self._tensors, 2))
        for tensor, of_block in self._on_blocks(weights, gradient, square_sums):
            squares[tensor] += of_block
        return [ratio(*norms) if all(norms) else 1.0 for norms in np.sqrt(squares).tolist()]


class SGD(Optimizer):
    """torch.optim.SGD."""

    def __init__(self, settings: config.SGD | config.LARS, weights: FlatWeights, threads: int) -> None:
        super().__init__(weights, threads, *["momentum"] * (settings.momentum > 0))
        self._settings = settings

    def _descend(self, block: Block, learning_rate: float) -> None:
        block.add(block.gradient, self._settings.weight_decay, block.weights)
        block.add(block.weights, -learning_rate, self._direction(block))

    def _direction(self, block: Block) -> Flat:
        settings, gradient = self._settings, block.gradient
        if not settings.momentum:
            return gradient
        velocity = self.state["momentum"][block.part]
        velocity *= settings.momentum
        block.add(velocity, 1 - settings.dampening if self.steps > 1 else 1, gradient)  # the first one whole
        if not settings.nesterov:
            return velocity
        block.add(gradient, settings.momentum, velocity)
        return gradient


class LARS(SGD):
    """SGD on gradients brought to the scale of their tensor's weights.

    You et al. 2017, arXiv 1708.03888, algorithm 1; the learning rate stays outside the momentum, as in SGD.
    """

    def __init__(self, settings: config.LARS, weights: FlatWeights, threads: int) -> None:
        super().__init__(settings, weights, threads)
        self._eta = settings.eta
        self._ratios: list[float] = []

    def step(self, weights: Flat, gradient: Flat, learning_rate: float) -> None:
        eta, decay = self._eta, self._settings.weight_decay
        self._ratios = self._trust_ratios(weights, gradient, lambda w, g: eta * w / (g + decay * w))
        super().step(weights, gradient, learning_rate)

    def _direction(self, block: Block) -> Flat:
        gradient = block.gradient
        gradient *= self._ratios[block.tensor]
        return super()._direction(block)


class Adagrad(Optimizer):
    """torch.optim.Adagrad, with PyTorch's eps and a sum of squares that starts at 0."""

    EPS = 1e-10

    def __init__(self, settings: config.Adagrad, weights: FlatWeights, threads: int) -> None:
        super().__init__(weights, threads, "square_sum")
        self._settings = settings

    def _descend(self, block: Block, learning_rate: float) -> None:
        settings, gradient = self._settings, block.gradient
        block.add(gradient, settings.weight_decay, block.weights)
        square_sum = self.state["square_sum"][block.part]
        block.add_square(square_sum, gradient)
        root = np.sqrt(square_sum, out=block.scratch)
        root += self.EPS
        gradient /= root
        block.add(block.weights, -learning_rate / (1 + (self.steps - 1) * settings.lr_decay), gradient)


class RMSprop(Optimizer):
    """torch.optim.RMSprop."""

    def __init__(self, settings: config.RMSprop, weights: FlatWeights, threads: int) -> None:
        optional = ["gradient_sum"] * settings.centered + ["momentum"] * (settings.momentum > 0)
        super().__init__(weights, threads, "square_sum", *optional)
        self._settings = settings

    def _descend(self, block: Block, learning_rate: float) -> None:
        settings, gradient = self._settings, block.gradient
        block.add(gradient, settings.weight_decay, block.weights)
        square_sum = self.state["square_sum"][block.part]
        square_sum *= settings.alpha
        block.add_square(square_sum, gradient)
        if settings.centered:
            gradient_sum = self.state["gradient_sum"][block.part]
            gradient_sum *= settings.alpha
            gradient_sum += gradient
            # The variance, E[g^2] - E[g]^2, over the same factor as square_sum.
            root = np.multiply(gradient_sum, gradient_sum, out=block.scratch)
            root *= settings.alpha - 1
            root += square_sum
            np.maximum(root, 0, out=root)  # rounding can bring it below 0
            np.sqrt(root, out=root)
        else:
            root = np.sqrt(square_sum, out=block.scratch)
        scale = math.sqrt(1 - settings.alpha)
        root += settings.eps / scale
        gradient /= root
        if settings.momentum:
            velocity = self.state["momentum"][block.part]
            velocity *= settings.momentum
            velocity += gradient
            gradient = velocity
        block.add(block.weights, -learning_rate / scale, gradient)


class Adam(Optimizer):
    """torch.optim.Adam."""

    def __init__(
        self, settings: config.Adam | config.AdamW | config.LAMB, weights: FlatWeights, threads: int
    ) -> None:
        super().__init__(
            weights, threads, "gradient_sum", "square_sum", *["largest_square_sum"] * settings.amsgrad
        )
        self._settings = settings

    def _descend(self, block: Block, learning_rate: float) -> None:
        block.add(block.gradient, self._settings.weight_decay, block.weights)
        block.add(block.weights, -learning_rate * self._divide(block), block.gradient)

    def _divide(self, block: Block) -> float:
        """Overwrite the gradient with mean / (root of square + eps), but for a factor, which is returned."""
        settings, gradient, state = self._settings, block.gradient, self.state
        gradient_sum, square_sum = state["gradient_sum"][block.part], state["square_sum"][block.part]
        gradient_sum *= settings.beta1
        gradient_sum += gradient
        square_sum *= settings.beta2
        block.add_square(square_sum, gradient)
        if settings.amsgrad:
            largest = state["largest_square_sum"][block.part]
            square_sum = np.maximum(largest, square_sum, out=largest)
        scale = math.sqrt((1 - settings.beta2) / (1 - settings.beta2**self.steps))
        root = np.sqrt(square_sum, out=block.scratch)
        root += settings.eps / scale
        np.divide(gradient_sum, root, out=gradient)
        return (1 - settings.beta1) / (1 - settings.beta1**self.steps) / scale


class AdamW(Adam):
    """torch.optim.AdamW: weight decay shrinks the weights and leaves the moments alone."""

    def _descend(self, block: Block, learning_rate: float) -> None:
        np.multiply(block.weights, 1 - learning_rate * self._settings.weight_decay, out=block.weights)
        block.add(block.weights, -learning_rate * self._divide(block), block.gradient)


class LAMB(Adam):
    """Adam with steps brought to the scale of their tensor's weights.

    You et al. 2019, arXiv 1904.00962, algorithm 2, phi being the identity.
    """

    def step(self, weights: Flat, gradient: Flat, learning_rate: float) -> None:
        self.steps += 1
        ratios = self._trust_ratios(weights, gradient, lambda w, update: w / update, self._write_update)

        def descend(block: Block) -> None:
            block.add(block.weights, -learning_rate * ratios[block.tensor], block.gradient)

        self._on_blocks(weights, gradient, descend)

    def _write_update(self, block: Block) -> None:
        factor, update = self._divide(block), block.gradient
        update *= factor
        block.add(update, self._settings.weight_decay, block.weights)


def build(settings: config.OptimizerSettings, weights: FlatWeights, threads: int = 1) -> Optimizer:
    """The optimizer that the config names, for these weights."""
    match settings:
        case config.SGD():
            return SGD(settings, weights, threads)
        case config.LARS():
            return LARS(settings, weights, threads)
        case config.Adagrad():
            return Adagrad(settings, weights, threads)
        case config.RMSprop():
            return RMSprop(settings, weights, threads)
        case config.Adam():
            return Adam(settings, weights, threads)
        case config.AdamW():
            return AdamW(settings, weights, threads)
        case config.LAMB():
            return LAMB(settings, weights, threads)
