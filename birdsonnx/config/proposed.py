"""The config of a training that was given none: from folders, a number of photos and a few options to JSON.

How long to train follows from how many photos there are. A head on cached features needs enough steps, not
enough epochs, so that few photos are shown more often, and the learning rate falls as slowly as that takes.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

PHOTOS_SHOWN = 7_200
"""Over all epochs: 30 epochs of 240 photos."""
FEWEST_EPOCHS, MOST_EPOCHS = 6, 60
LAST_RATE = 0.02
"""Of the first learning rate, after the last epoch: gamma 0.88 of 30 epochs, 0.52 of 6."""
HEAD_RATE, FINE_RATE = 0.002, 0.0001
"""First learning rate of a new head; of layers that were trained before, which `trainable` names."""
KEPT_CHECKPOINTS = 3
"""Of a run: a ResNet50 takes 94 MB each time."""

LONGEST_LINE = 100
"""Characters of a section in one line."""


@dataclass(frozen=True)
class Sets:
    """Where the photos of the training and the test set lie, as the section `data` has it."""

    input_path: Path
    test_input_path: Path | None = None
    """None: they are in `input_path` too, if there are any."""
    training_tag: str | None = None
    test_tag: str | None = None

    def as_json(self) -> dict[str, str]:
        """The keys of `data`."""
        keys = {
            "input_path": self.input_path,
            "test_input_path": self.test_input_path,
            "training_tag": self.training_tag,
            "test_tag": self.test_tag,
        }
        return {key: str(value) for key, value in keys.items() if value is not None}


@dataclass(frozen=True)
class Places:
    """What a run reads and writes."""

    load: Path
    """The network."""
    outfile: Path
    save: Path
    """Folder of the checkpoints."""


@dataclass(frozen=True)
class Choices:
    """What was said instead of being left to the rule; None: nothing."""

    epochs: int | None = None
    batch_size: int | None = None
    learning_rate: float | None = None
    trainable: tuple[str, ...] | None = None
    feature_precision: str | None = None


def epochs_for(photos: int) -> int:
    """How often to train on so many photos."""
    return max(FEWEST_EPOCHS, min(MOST_EPOCHS, round(PHOTOS_SHOWN / photos)))


def gamma_for(epochs: int) -> float:
    """The factor per epoch that brings the learning rate to `LAST_RATE` of itself."""
    return round(float(LAST_RATE ** (1 / epochs)), 3)


def proposed(sets: Sets, photos: int, choices: Choices, places: Places) -> dict[str, Any]:
    """The config, as JSON holds it.

    Args:
        sets: the folders of photos.
        photos: how many there are to train on.
        choices: what was asked for.
        places: what the run reads and writes.
    """
    epochs = choices.epochs or epochs_for(photos)
    rate = HEAD_RATE if choices.trainable is None else FINE_RATE
    own = {"trainable": choices.trainable, "feature_precision": choices.feature_precision}
    said = {key: value for key, value in own.items() if value is not None}
    network: dict[str, Any] = {
        "num_epochs": epochs,
        "outfile": str(places.outfile),
        "checkpoints": {
            "load": str(places.load),
            "save": str(places.save),
            "interval": -(-epochs // KEPT_CHECKPOINTS),
        },
        "data": {
            "input_type": "images",
            "target_type": "labels",
            **sets.as_json(),
            "batch_size": choices.batch_size or 64,
        },
        "optimizer": {
            "type": "Adam",
            "learning_rate": rate if choices.learning_rate is None else choices.learning_rate,
            "lr_scheduler": {"type": "Exponential", "gamma": gamma_for(epochs)},
        },
        "loss": {"function": "NLL"},
    }
    if said:
        network["birdsonnx"] = said
    return {"neural_network": network}


def reason(photos: int, config: dict[str, Any], choices: Choices) -> str:
    """Why it trains as long as it does, in a line."""
    network = config["neural_network"]
    epochs, schedule = network["num_epochs"], network["optimizer"]["lr_scheduler"]
    why = (
        "as --epochs says"
        if choices.epochs
        else f"for {photos:,} photos (about {PHOTOS_SHOWN:,} are shown in all, in {FEWEST_EPOCHS} to "
        f"{MOST_EPOCHS} epochs)"
    )
    return f"{epochs} epochs {why}, learning rate x {schedule['gamma']:g} after each"


def text_of(config: dict[str, Any]) -> str:
    """The config as a file that people edit: a line for each section, or for each key of a long one."""
    sections = []
    for key, value in config["neural_network"].items():
        line = f'        "{key}": {json.dumps(value, ensure_ascii=False)}'
        if len(line) > LONGEST_LINE:
            whole = json.dumps({key: value}, ensure_ascii=False, indent=4)
            line = "\n".join(f"    {each}" for each in whole.splitlines()[1:-1])
        sections.append(line)
    body = ",\n".join(sections)
    return f'{{\n    "neural_network": {{\n{body}\n    }}\n}}\n'
