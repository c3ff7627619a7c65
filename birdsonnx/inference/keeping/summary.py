"""What a prediction did: counts of the classes it named, and the first photos one by one."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from birdsonnx.images.photo_list import Photo
from birdsonnx.inference.judging.verdicts import Judged
from birdsonnx.runtime.phases import OfRanks

SHOWN = 50
"""Up to this many photos are listed one by one; of more a summary is enough."""


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
    results: Path | None = None
    sorted: Path | None = None
    """Folder that the photos were placed in, by class."""
    photos: int = 0
    """Named, so without the refused ones."""
    boxes: int | None = None
    """Named in those photos; None: the photos as a whole were."""
    refused: list[str] = field(default_factory=list)
    """Why each photo that could not be used was not."""
    shown: list[dict[str, Any]] = field(default_factory=list)
    """The first photos: name and what is said of each (`Verdict.as_json`)."""
    says_classes: bool = False
    """Whether the names of these say what they show, so that they can be evaluated."""
    changed: int | None = None
    """Photos of which the network's likeliest class is on no list of the species that can occur; None: there
    is no such list."""
    counts: dict[str, int] = field(default_factory=dict)
    """Photos of which each thing is said: a class, or what is said instead of one."""
    sequences: int | None = None
    """Of the photos; None: each of them is named by itself."""
    without_time: int = 0
    """Photos that are sequences by themselves because they do not say when they were taken."""
    from_killed: int = 0
    """Those of the named that an earlier run, which was killed, has computed."""
    seconds: float = 0.0
    phases: OfRanks = field(default_factory=list)
    """Decoding and the network, as averages over a rank's streams; waiting, while those had nothing to do;
    writing, which rank 0 does meanwhile."""
    _last: Path | None = None
    """The photo of the last box: those of one follow each other."""

    def add(self, judged: Judged, /) -> None:
        """Count one photo, or one of its boxes, as of what is said of it."""
        is_next = self.boxes is None or judged.photo.path != self._last
        self.photos += is_next
        if self.boxes is not None:
            self.boxes, self._last = self.boxes + 1, judged.photo.path
        said = judged.verdict.title
        if self.changed is not None and judged.verdict.instead_of is not None:
            self.changed += 1
        self.counts[said] = self.counts.get(said, 0) + 1
        shown: dict[str, Any] = {"name": judged.photo.name}
        if judged.sequence is not None:
            shown["sequence"] = judged.sequence
        if len(self.shown) < SHOWN:
            self.shown.append({**shown, **judged.verdict.as_json()})

    def refuse(self, _photo: Photo, reason: str, /) -> None:
        """Keep why a photo could not be used; of its boxes that follow each other, once."""
        if self.refused[-1:] != [reason]:
            self.refused.append(reason)

    @property
    def named(self) -> int:
        """Photos, or boxes, that have an answer."""
        return self.photos if self.boxes is None else self.boxes

    @property
    def lists_photos(self) -> bool:
        """Whether the photos are few enough to be listed one by one."""
        return self.named + len(self.refused) <= SHOWN

    @property
    def images_per_second(self) -> float:
        """Photos, or boxes, that this run computed."""
        return (self.named - self.from_killed) / self.seconds

    def as_json(self) -> dict[str, Any]:
        return {
            "model": self.model,
            "model_sha256": self.model_sha256,
            "engine": self.engine,
            "photos": self.photos,
            "boxes": self.boxes,
            "refused": self.refused,
            "from_killed": self.from_killed,
            "seconds": self.seconds,
            "images_per_second": self.images_per_second,
            "phases": self.phases,
            "output": self.output,
            "csv": self.csv,
            "results": self.results,
            "sorted": self.sorted,
            "predictions": self.shown if self.lists_photos else None,
            "changed_by_species": self.changed,
            "counts": self.counts,
            "sequences": self.sequences,
            "without_time": None if self.sequences is None else self.without_time,
        }
