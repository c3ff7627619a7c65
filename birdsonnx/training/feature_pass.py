"""The pass of photos through the frozen part, handed out on demand: a rank with more cores computes more.

Rows are cut into pieces by their place in the list alone, so that the numbers of ranks and who is faster
change no bit: sums inside a network may depend on how many photos it computes at a time.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from birdsonnx.errors import BirdsonnxError, TrainingError
from birdsonnx.images.photo_list import Photo
from birdsonnx.images.transforms import Views
from birdsonnx.inference.forward import Chunk, in_units, run_of_photos
from birdsonnx.runtime.audience import Advance
from birdsonnx.runtime.on_demand import next_size
from birdsonnx.runtime.phases import Phases
from birdsonnx.runtime.ranks import Ranks
from birdsonnx.training.backbone import Backbone
from birdsonnx.training.table_file import TableFile

ROWS_PER_UNIT = 64


@dataclass(frozen=True)
class Outcome:
    """What became of a unit."""

    refused: tuple[tuple[int, str], ...]
    """Positions and reasons of photos that cannot be used."""
    failed: bool = False
    """Whether its rank could not go on; it says why itself."""


class FeaturePass:
    """The `on_demand.Work` that fills a feature table. After a photo was refused a rank only decodes: nothing
    of the table will be used, but the whole list is wanted.

    Args:
        photos: one for each row; with `views` each for each of its views.
        table: this rank's file, which gets the rows that it computes.
        advance: is told of rows as they are done; on rank 0, of those of all ranks.
        phases: takes this rank's seconds of decoding and of features, as averages over its streams.
    """

    def __init__(
        self,
        backbone: Backbone,
        photos: Sequence[Photo],
        views: Views | None,
        table: TableFile,
        ranks: Ranks,
        advance: Advance,
        phases: Phases,
    ) -> None:
        self._phases = phases
        self._backbone = backbone
        self._photos = photos
        self._per_run = backbone.form.per_run
        self._run = run_of_photos(
            backbone.engine, backbone.decoder, photos, views, stop_computing_at_refusal=True
        )
        self._table = table
        self._ranks = ranks
        self._advance = advance
        self._next = 0
        self._over = False
        self.owners: list[tuple[int, range]] = []
        """Which rank has which rows; on rank 0."""
        self.refused: list[tuple[int, str]] = []
        """Of all ranks; on rank 0."""
        self.failure: BirdsonnxError | None = None
        """Why this rank could not go on."""

    def may_take(self, _rank: int, /) -> bool:
        """Always: rows may be done in any order."""
        return True

    def take(self, rank: int, /) -> range | None:
        """The next rows, whole pieces of them."""
        left = len(self._photos) - self._next
        if self._over or not left:
            return None
        pieces = next_size(-(-left // self._per_run), ROWS_PER_UNIT // self._per_run, self._ranks.size)
        unit = range(self._next, min(self._next + pieces * self._per_run, len(self._photos)))
        self._next = unit.stop
        self.owners.append((rank, unit))
        return unit

    def compute(
        self, units: Iterator[range], meanwhile: Callable[[], None] | None, /
    ) -> Iterator[tuple[range, Outcome]]:
        """Write the rows of each unit. An error waits in `failure`: the other ranks have to come along."""

        def pieces(unit: range) -> Iterator[range]:
            return (unit[start : start + self._per_run] for start in range(0, len(unit), self._per_run))

        try:
            for unit, chunks in in_units(self._backbone.streams, self._run, units, pieces, 2, meanwhile):
                refused: list[tuple[int, str]] = []
                for chunk in chunks:
                    self._phases.add("decode", chunk.decode_s / self._backbone.streams)
                    self._phases.add("features", chunk.compute_s / self._backbone.streams)
                    self._write(chunk)
                    refused += chunk.refused
                yield unit, Outcome(tuple(refused))
        except BirdsonnxError as error:
            self.failure = error
            yield range(0), Outcome((), failed=True)
            for _ in units:  # till rank 0 knows
                pass

    def _write(self, chunk: Chunk) -> None:
        if self._backbone.row.base == np.float16:
            self._require_finite(chunk)
        if len(chunk.values):
            self._table.write(chunk.indices[0], chunk.values)
        self._table.require_written()

    def _require_finite(self, chunk: Chunk) -> None:
        finite = np.isfinite(chunk.values).reshape(len(chunk.values), -1).all(axis=1)
        if not finite.all():
            photo = self._photos[chunk.indices[int(finite.argmin())]]
            raise TrainingError(
                f"{photo.path}: its features are too large for float16 (65,504 at most); remove "
                "birdsonnx.feature_precision fp16"
            )

    def keep(self, done: tuple[range, Outcome], /) -> None:
        """Note what became of a unit."""
        unit, outcome = done
        self.refused += outcome.refused
        self._over = self._over or outcome.failed
        self._advance(len(unit))
