"""The whole config, as frozen settings."""

from pathlib import Path
from typing import Annotated, Any, ClassVar

from pydantic import AfterValidator, BeforeValidator, WithJsonSchema
from pydantic import model_validator as validator

from birdsonnx.config.checkpoints import Checkpoints
from birdsonnx.config.data import Data
from birdsonnx.config.loss import Loss
from birdsonnx.config.optimizers import SGD, Optimizer
from birdsonnx.config.own import Own
from birdsonnx.config.section import PositiveInt, Section, Text
from birdsonnx.config.wording import refusal, shown


def _names_a_file(value: str) -> str:
    if not Path(value).name:
        raise refusal(f"{shown(value)} names no file; give one such as out.txt")
    return value


def _describes_a_network(value: Any) -> Any:
    if value is not None and not isinstance(value, dict | list) and not (isinstance(value, str) and value):
        raise refusal(
            "must be the path of a Keras JSON, a Keras model object, or an array of layers, "
            f"got {shown(value)}"
        )
    return value


class Settings(Section):
    """The whole config: the object `neural_network`."""

    outfile: (
        Annotated[
            Text,
            AfterValidator(_names_a_file),
            WithJsonSchema({"type": "string", "pattern": r"^[^\u0000]*([^./\u0000]|\.\.)[^\u0000]*$"}),
        ]
        | None
    ) = None
    """Stem of the two logs; without it none are written."""
    num_epochs: PositiveInt = 1
    """How often training goes through all photos."""
    layers: Annotated[Text | dict[str, Any] | list[Any] | None, BeforeValidator(_describes_a_network)] = None
    """The network: the path of a Keras JSON, the model object itself, or an array of layers. Alone: trained
    from fresh weights. With a Keras file in `checkpoints.load`: that network with the file's weights. With an
    .onnx there: compared; `train` makes another network with the weights that fit, `predict` refuses it."""
    debug: bool = False
    """Also write the network's graph, as Graphviz' `<outfile stem>.dot`: operations, weights, what is trained
    (green), where features are kept (red)."""
    data: Data = Data()
    """Where the photos lie, and how they become the network's input."""
    optimizer: Optimizer = SGD()
    """How gradients change the weights."""
    loss: Loss = Loss()
    """How far the predictions are from the labels."""
    checkpoints: Checkpoints = Checkpoints()
    """Where weights come from and where they go."""
    birdsonnx: Own = Own()
    """birdsonnx's own keys."""

    elsewhere: ClassVar[dict[str, str]] = {"debug_interval": "the debug images of segmentation"}

    @validator(mode="after")
    def _sections_fit(self) -> "Settings":
        if self.birdsonnx.label_smoothing and self.loss.function == "Focal":
            raise refusal("does not go with the loss function Focal", "birdsonnx.label_smoothing")
        if self.debug and self.outfile is None:
            raise refusal("the graph is named after outfile; give outfile too", "debug")
        # Without input_path nothing is trained, and what a training run needs is of no concern.
        if self.birdsonnx.early_stopping and self.data.input_path and not self.data.test_folder:
            raise refusal("needs a test loss; give data.test_input_path", "birdsonnx.early_stopping")
        return self
