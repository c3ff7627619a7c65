"""The object `lr_scheduler`: how the learning rate changes over the epochs."""

from itertools import pairwise
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field
from pydantic import model_validator as validator

from birdsonnx.config.section import Fraction, Positive, PositiveInt, Section, as_tuple, kinds_of, typed
from birdsonnx.config.wording import refusal, shown


class _Schedule(Section):
    """What every schedule has."""

    verbose: bool = False
    """Print the learning rate whenever it changes."""


class Step(_Schedule):
    """Multiply the learning rate by `gamma` every `step_size` epochs (PyTorch's StepLR)."""

    type: Literal["Step"] = "Step"
    gamma: Positive = 0.1
    """Factor of the learning rate."""
    step_size: PositiveInt
    """Epochs between two changes."""


class MultiStep(_Schedule):
    """Multiply the learning rate by `gamma` after each number of epochs in `milestones` (MultiStepLR)."""

    type: Literal["MultiStep"] = "MultiStep"
    gamma: Positive = 0.1
    """Factor of the learning rate."""
    milestones: Annotated[tuple[PositiveInt, ...], Field(min_length=1), BeforeValidator(as_tuple)]
    """Numbers of epochs, rising."""

    @validator(mode="after")
    def _milestones_rise(self) -> "MultiStep":
        if any(later <= earlier for earlier, later in pairwise(self.milestones)):
            raise refusal(f"must rise, got {shown(self.milestones)}", "milestones")
        return self


class Exponential(_Schedule):
    """Multiply the learning rate by `gamma` every epoch (PyTorch's ExponentialLR)."""

    type: Literal["Exponential"] = "Exponential"
    gamma: Positive
    """Factor of the learning rate."""


class Warmup(_Schedule):
    """Raise the learning rate in equal steps, from `start_factor` times itself in the first epoch to itself
    after `num_epochs` (PyTorch's LinearLR)."""

    type: Literal["Warmup"] = "Warmup"
    num_epochs: PositiveInt
    """Epochs until the full learning rate."""
    start_factor: Annotated[float, Field(gt=0, lt=1)]
    """Of the learning rate, in the first epoch."""


class Cosine(_Schedule):
    """Lower the learning rate along half a cosine over the run's epochs, towards `min_factor` times itself
    (PyTorch's CosineAnnealingLR)."""

    type: Literal["Cosine"] = "Cosine"
    min_factor: Fraction = 0.0
    """Of the learning rate, at the end."""


ScheduleSettings = Step | MultiStep | Exponential | Warmup | Cosine

Schedule = Annotated[ScheduleSettings, Field(discriminator="type"), typed(kinds_of(ScheduleSettings))]
