"""The learning rate of an epoch, in closed form, so that resuming needs no state of it."""

from birdsonnx.config import SGD, Adam, Exponential, Step


def learning_rate(optimizer: SGD | Adam, epoch: int) -> float:
    """The rate during `epoch` (the first is 1): PyTorch's StepLR and ExponentialLR, stepped every epoch."""
    schedule = optimizer.lr_scheduler
    done = epoch - 1
    match schedule:
        case Step():
            factor = schedule.gamma ** (done // schedule.step_size)
        case Exponential():
            factor = schedule.gamma**done
        case None:
            factor = 1.0
    return optimizer.learning_rate * factor
