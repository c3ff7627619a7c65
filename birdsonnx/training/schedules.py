"""The learning rate of an epoch, in closed form, so that resuming needs no state of it."""

import math
from bisect import bisect_right

from birdsonnx.config.optimizers import OptimizerSettings
from birdsonnx.config.schedules import Cosine, Exponential, MultiStep, ScheduleSettings, Step, Warmup


def learning_rate(optimizer: OptimizerSettings, epoch: int, num_epochs: int) -> float:
    """The rate during `epoch` (the first is 1) of `num_epochs`: PyTorch's schedulers, stepped every epoch."""
    return optimizer.learning_rate * _factor(optimizer.lr_scheduler, epoch - 1, num_epochs)


def _factor(schedule: ScheduleSettings | None, done: int, num_epochs: int) -> float:
    match schedule:
        case Step():
            return schedule.gamma ** (done // schedule.step_size)
        case MultiStep():
            return schedule.gamma ** bisect_right(schedule.milestones, done)
        case Exponential():
            return schedule.gamma**done
        case Warmup():
            missing = 1 - min(done / schedule.num_epochs, 1)
            return 1 - (1 - schedule.start_factor) * missing
        case Cosine():
            above = (1 + math.cos(math.pi * done / num_epochs)) / 2
            return schedule.min_factor + (1 - schedule.min_factor) * above
        case None:
            return 1.0
