"""The section `loss`."""

from typing import Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator
from pydantic import model_validator as validator

from birdsonnx.config.section import NonNegative, Section, as_tuple, one_of
from birdsonnx.config.wording import nearest, refusal, shown

OTHER_LOSSES = {
    **dict.fromkeys(("bce", "binary_cross_entropy"), "segmentation and auto-encoders"),
    **dict.fromkeys(("mse", "mae", "l1", "l2", "huber"), "regression and auto-encoders"),
    **dict.fromkeys(("dice", "jaccard", "iou", "lovasz"), "segmentation"),
    "wasserstein": "GANs",
    "yolov3": "object detection",
    **dict.fromkeys(("burgers_pde", "poisson2d_pde", "poisson3d_pde"), "PDE solvers"),
}


BALANCED = "balanced"


def _balanced_or_numbers(value: Any) -> Any:
    if value is None or isinstance(value, list | tuple):
        return as_tuple(value)
    if not isinstance(value, str) or value.lower() != BALANCED:
        guess = nearest(value, [BALANCED]) if isinstance(value, str) else ""
        raise refusal(f'must be "{BALANCED}" or a list of one number per class, got {shown(value)}{guess}')
    return BALANCED


class Loss(Section):
    """How far the predictions are from the labels, averaged over the batch."""

    function: Annotated[
        Literal["NLL", "Focal"],
        one_of("NLL", "Focal", elsewhere=OTHER_LOSSES, hint="; other losses are for other tasks"),
    ] = "NLL"
    """Negative log-likelihood of the right class, or the focal loss (Lin et al. 2017, arXiv 1708.02002)."""
    weight: Annotated[
        tuple[NonNegative, ...] | Literal["balanced"] | None, BeforeValidator(_balanced_or_numbers)
    ] = None
    """One factor per class, in class order; or `balanced`: the fewer training photos a class has, the more
    each of them counts (all photos / (classes x photos of the class)). Default: all 1."""
    gamma: NonNegative = 2.0
    """Of Focal: the larger it is, the less a photo counts that the network recognises already."""

    elsewhere: ClassVar[dict[str, str]] = {
        "source": "the losses of segmentation",
        "diffusion_coeff": "PDE solvers",
        "boundary_factor": "PDE solvers",
    }

    @validator(mode="after")
    def _settings_fit(self) -> "Loss":
        if self.weight is not None and not any(self.weight):  # "balanced" has letters
            raise refusal("at least one class needs a weight above 0", "weight")
        if self.function != "Focal" and "gamma" in self.model_fields_set:
            raise refusal(
                f"only the function Focal has a gamma; the function here is {self.function}", "gamma"
            )
        return self
