"""Where a run divides its network into a frozen and a trained part.

The config may name the place, and a resumed run is divided where it was. Else it is measured which place is
the cheapest (`boundary`). Another place rounds sums in another order, and a measurement depends on the
moment: its result is kept in the cache folder, so that the same config trains the same bits again.
"""

import datetime
import hashlib
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from birdsonnx import artifacts
from birdsonnx.artifacts.regular_files import read_bytes
from birdsonnx.config.json_text import decoded
from birdsonnx.config.wording import nearest
from birdsonnx.errors import ArtifactError, ConfigError, TrainingError
from birdsonnx.images.decoding import Decoder
from birdsonnx.runtime.sessions import runtime_version
from birdsonnx.training import boundary as boundaries
from birdsonnx.training.partition import Boundary, Network

PHOTOS = "photos"
"""Names the boundary at the photos: no features are kept."""
LISTED = 12
"""Possible names in a refusal, at the most: a ResNet50 has 40."""


@dataclass(frozen=True)
class Choice:
    """A boundary, and since when it is the one of this network and these photos."""

    boundary: Boundary
    measured_on: str | None = None
    """The day of an earlier run that measured it, such as `2026-03-01`; None: it was not taken from there."""


@dataclass(frozen=True)
class Question:
    """All that the cheapest boundary depends on, except the moment's timings, free memory and free space."""

    network: Network
    photos: int
    """Of training and test set; each counts once for each of its views."""
    probed: Sequence[Path]
    """Those that are timed, in turn: `boundary.PROBED` of them, or as many as there are."""
    decoder: Decoder
    threads: int
    """Of all ranks together."""

    def key(self) -> str:
        """A hash of it: the frozen layers, the possible boundaries, how many photos there are, the sizes of
        the few that are timed, and what decodes and computes them."""
        facts = (
            self.network.frozen_sha256(),
            [boundary.tensors for boundary in self.network.boundaries()],
            self.photos,
            [_size_of(path) for path in self.probed],
            self.decoder,
            self.threads,
            runtime_version(),
        )
        return hashlib.sha256(repr(facts).encode()).hexdigest()[:32]


def choose(
    question: Question,
    folder: Path | None,
    named: str | None,
    resumed: Sequence[str] | None,
    say: Callable[[str], None],
) -> Choice:
    """The boundary of a run.

    Args:
        folder: the cache; None: no features are kept, and the photos are the boundary.
        named: by the config, if it does.
        resumed: the tensors at which the run that is resumed was divided.
        say: takes a line where another run may round differently.

    Raises:
        ConfigError: `named` is no possible boundary.
        TrainingError: `named` is another one than that of the resumed run.
    """
    possible = question.network.boundaries()
    if named is not None:
        return Choice(_named(question.network, named, folder, resumed))
    before = _of(possible, resumed)
    if folder is None:
        if before is not None and not before.is_photo:
            say(
                f"{question.network.model.where}: its run kept features of {names_of(before)[0]}; without a "
                "cache every epoch runs the whole network, which rounds differently"
            )
        return Choice(possible[-1])
    if before is not None:
        return Choice(before)
    if len(possible) == 1:
        return Choice(possible[0])
    path = folder / f"boundary-{question.key()}.json"
    return _kept(path, possible) or _measured(question, path, say)


def names_of(boundary: Boundary) -> tuple[str, str]:
    """What a config may call a boundary: its layers, as the summary does, or its tensors."""
    if boundary.is_photo:
        return PHOTOS, boundary.tensors[0]
    return ", ".join(boundary.layers), ", ".join(boundary.tensors)


def _named(network: Network, name: str, folder: Path | None, resumed: Sequence[str] | None) -> Boundary:
    where, possible = network.model.where, network.boundaries()
    found = next((boundary for boundary in possible if name in names_of(boundary)), None)
    if found is None:
        known = list(dict.fromkeys(names_of(boundary)[0] for boundary in possible))
        listed = "; ".join(map(repr, known[:LISTED]))
        more = f" and {len(known) - LISTED} more, from there to the photos" if len(known) > LISTED else ""
        raise ConfigError(
            f"neural_network.birdsonnx.boundary: {where} cannot be divided at {name!r}"
            f"{nearest(name, known)}; possible are {listed}{more}"
        )
    if folder is None and not found.is_photo:
        raise ConfigError(
            f"neural_network.birdsonnx.boundary: {name!r} would be kept as features, but with random "
            'transforms (and no "views") or without a cache there are none; remove the key'
        )
    before = _of(possible, resumed)
    if before is not None and before != found:
        raise TrainingError(
            f"{where}: its run had birdsonnx.boundary {names_of(before)[0]!r}, the config has {name!r}; "
            "resume with the same, or start a new run from it with checkpoints.load"
        )
    return found


def _kept(path: Path, possible: Sequence[Boundary]) -> Choice | None:
    """What an earlier run measured, or None where there was none or its record is damaged."""
    try:
        record = decoded(read_bytes(path).decode())
        found = _of(possible, record["tensors"])
        return None if found is None else Choice(found, str(record["measured_on"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _measured(question: Question, path: Path, say: Callable[[str], None]) -> Choice:
    folder = path.parent
    existing = next((place for place in (folder, *folder.parents) if place.is_dir()), Path())
    free = shutil.disk_usage(existing).free
    read = boundaries.decoder_of(question.probed, question.decoder)
    found = boundaries.cheapest(question.network, question.photos, question.threads, free, read)
    today = datetime.date.today().isoformat()
    try:
        artifacts.write_json(path, {"tensors": found.tensors, "measured_on": today})
    except ArtifactError as error:
        say(f"{error}; the next run may divide the network elsewhere, unless birdsonnx.boundary names it")
    return Choice(found)


def _of(possible: Sequence[Boundary], tensors: Sequence[str] | None) -> Boundary | None:
    return next((each for each in possible if list(each.tensors) == tensors), None)


def _size_of(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:  # decoding will refuse it by name
        return -1
