"""The section `optimizer`."""

from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field
from pydantic import model_validator as validator

from birdsonnx.config.schedules import Schedule
from birdsonnx.config.section import Finite, Fraction, NonNegative, Positive, Section, kinds_of, typed
from birdsonnx.config.wording import refusal


class _Optimizer(Section):
    """What every optimizer has. Defaults are PyTorch's, but for the learning rate."""

    learning_rate: Positive = 0.01
    """Size of a step; `lr_scheduler` changes it from epoch to epoch."""
    weight_decay: NonNegative = 0.0
    """How strongly weights are pulled towards 0 (L2)."""
    lr_scheduler: Schedule | None = None
    """How the learning rate changes over the epochs; none: it stays."""

    elsewhere: ClassVar[dict[str, str]] = dict.fromkeys(
        ("max_iterations", "max_func_eval", "absolute_tolerance", "relative_tolerance"),
        "the second-order optimizer Hessian",
    )


class _Momentum(_Optimizer):
    """The keys of SGD."""

    momentum: NonNegative = 0.0
    """Share of the last step that is taken again."""
    dampening: Finite = 0.0
    """Share of the gradient that momentum leaves out."""
    nesterov: bool = False
    """Nesterov's momentum, which looks one step ahead."""

    @validator(mode="after")
    def _nesterov_needs_momentum(self) -> Self:
        if self.nesterov and (self.momentum <= 0 or self.dampening != 0):
            raise refusal("'nesterov' needs a momentum above 0 and no dampening")
        return self


class _Moments(_Optimizer):
    """The keys of Adam."""

    beta1: Fraction = 0.9
    """Decay of the running mean of gradients."""
    beta2: Fraction = 0.999
    """Decay of the running mean of squared gradients."""
    eps: Positive = 1e-8
    """Added to the denominator."""
    amsgrad: bool = False
    """Divide by the largest mean square so far (AMSGrad)."""


class SGD(_Momentum):
    """PyTorch's torch.optim.SGD."""

    type: Literal["SGD"] = "SGD"


class Adagrad(_Optimizer):
    """PyTorch's torch.optim.Adagrad."""

    type: Literal["Adagrad"] = "Adagrad"
    lr_decay: NonNegative = 0.0
    """How fast the learning rate falls with the steps."""


class Adam(_Moments):
    """PyTorch's torch.optim.Adam: weight decay is added to the gradient."""

    type: Literal["Adam"] = "Adam"


class AdamW(_Moments):
    """PyTorch's torch.optim.AdamW: weight decay shrinks the weights. As for all others here, and not as in
    PyTorch (0.01), there is none by default."""

    type: Literal["AdamW"] = "AdamW"


class RMSprop(_Optimizer):
    """PyTorch's torch.optim.RMSprop."""

    type: Literal["RMSprop"] = "RMSprop"
    momentum: NonNegative = 0.0
    """Share of the last step that is taken again."""
    alpha: Fraction = 0.99
    """Decay of the running mean of squared gradients."""
    eps: Positive = 1e-8
    """Added to the denominator."""
    centered: bool = False
    """Divide by the gradients' variance, not their mean square."""


class LARS(_Momentum):
    """SGD with a rate of its own for each layer's weights (You et al. 2017, arXiv 1708.03888)."""

    type: Literal["LARS"] = "LARS"
    eta: Positive = 1e-3
    """The trust coefficient: how large a step is against the weights."""


class LAMB(_Moments):
    """Adam with a rate of its own for each layer's weights (You et al. 2019, arXiv 1904.00962)."""

    type: Literal["LAMB"] = "LAMB"


OptimizerSettings = SGD | Adagrad | Adam | AdamW | RMSprop | LARS | LAMB

Optimizer = Annotated[
    OptimizerSettings,
    Field(discriminator="type"),
    typed(kinds_of(OptimizerSettings), elsewhere={"hessian": "a second-order optimizer"}, default="SGD"),
]
