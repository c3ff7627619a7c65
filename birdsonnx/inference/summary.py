"""What a prediction did: counts of the classes it named, and the first photos one by one."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

SHOWN = 50
"""Up to this many photos are listed one by one; of more a summary is enough."""

Top = Sequence[tuple[str, float]]
"""The likeliest classes of a photo and their probabilities, the likeliest first."""


def top_classes(log_probs: npt.NDArray[np.float32], names: Sequence[str], count: int) -> Top:
    """The `count` likeliest of the classes `names`, by their log-probabilities, float32 `(classes,)`."""
    # Of 400 classes a sort takes 11 us, and the maximum 0.4.
    best = [log_probs.argmax()] if count == 1 else np.argsort(-log_probs, kind="stable")[:count]
    return [(names[int(index)], float(np.exp(log_probs[index]))) for index in best]


@dataclass
class Summary:
    """What a prediction did."""

    model: str
    """The name of its file."""
    model_sha256: str
    engine: str
    """What computed it, with its version."""
    output: Path | None = None
    csv: Path | None = None
    sorted: Path | None = None
    """Folder that the photos were placed in, by class."""
    photos: int = 0
    """Named, so without the refused ones."""
    refused: list[str] = field(default_factory=list)
    """Why each photo that could not be used was not."""
    shown: list[dict[str, Any]] = field(default_factory=list)
    """The first photos: name and top classes with probabilities."""
    says_classes: bool = False
    """Whether the names of these say what they show, so that they can be evaluated."""
    counts: dict[str, int] = field(default_factory=dict)
    """Photos per named class."""
    seconds: float = 0.0

    def add(self, name: str, top: Top) -> None:
        """Count one photo as of its likeliest class."""
        self.photos += 1
        self.counts[top[0][0]] = self.counts.get(top[0][0], 0) + 1
        if len(self.shown) < SHOWN:
            self.shown.append({"name": name, "top": top})

    @property
    def lists_photos(self) -> bool:
        """Whether the photos are few enough to be listed one by one."""
        return self.photos + len(self.refused) <= SHOWN

    @property
    def images_per_second(self) -> float:
        return self.photos / self.seconds

    def as_json(self) -> dict[str, Any]:
        return {
            "model": self.model,
            "model_sha256": self.model_sha256,
            "engine": self.engine,
            "photos": self.photos,
            "refused": self.refused,
            "seconds": self.seconds,
            "images_per_second": self.images_per_second,
            "output": self.output,
            "csv": self.csv,
            "sorted": self.sorted,
            "predictions": self.shown if self.lists_photos else None,
            "counts": self.counts,
        }
