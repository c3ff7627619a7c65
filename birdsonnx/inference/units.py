"""The photos of a prediction in units: handed out in order, done by any rank, given back in order.

A piece is what a stream works through at a time. Which photos are in which piece follows from the list alone,
so that neither the number of ranks nor a run that goes on changes a bit: sums inside a network may depend on
how many photos it computes at a time. A unit is some pieces that follow each other.
"""

from array import array
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from birdsonnx.images.crop_list import CropList
from birdsonnx.images.crops import pieces
from birdsonnx.images.photo_list import Photo
from birdsonnx.inference.forward import Chunk, Run, in_units, joined
from birdsonnx.runtime.on_demand import next_size
from birdsonnx.runtime.phases import Phases
from birdsonnx.runtime.ranks import Ranks

PHOTOS_PER_UNIT = 64
"""At the most, if a piece has no more. What a rank holds of them is lost when the run is killed, and what the
slowest one holds is waited for at the end."""

AHEAD_BYTES = 2**26
"""Of answers that wait on rank 0 for a unit before them; 40,000 photos of 400 classes. Ranks wait only beyond
that, and beyond `UNITS_AHEAD_PER_RANK`, where the oldest unit is another's."""

UNITS_AHEAD_PER_RANK = 4

CHUNKS_AHEAD = 8
"""Per stream, of log-probabilities, which are small; to take fewer at a time costs more: of an int8 ResNet50
on 2 cores, writing takes 0.13 ms a photo with 2 and 0.065 with 8 (of 8.9)."""

CHUNKS_AHEAD_OF_OTHERS = 2
"""On ranks that write nothing: what they have begun is waited for at the end."""

Unit = range
"""Numbers of pieces."""

Done = tuple[Unit, Chunk]


class Pieces:
    """A list of photos, or of parts of photos, cut into pieces."""

    def __init__(self, photos: Sequence[Photo], per_run: int) -> None:
        self.photos = len(photos)
        self._per_run = per_run
        self._are_crops = isinstance(photos, CropList)
        self._photo_ends, self._firsts = array("q", [0]), array("q", [0])
        """Of crops: up to which position each photo's go, and the first photo of each piece and beyond."""
        if isinstance(photos, CropList):
            for piece in pieces(photos.whole_photos(), per_run):
                self._photo_ends.extend(group.stop for group in piece)
                self._firsts.append(len(self._photo_ends) - 1)

    def __len__(self) -> int:
        return len(self._firsts) - 1 if self._are_crops else -(-self.photos // self._per_run)

    def __getitem__(self, number: int) -> Any:
        """What a `Run` takes."""
        if not self._are_crops:
            return self.positions(range(number, number + 1))
        photos = range(self._firsts[number], self._firsts[number + 1])
        return [range(self._photo_ends[each], self._photo_ends[each + 1]) for each in photos]

    def positions(self, unit: Unit) -> range:
        """Of the photos of a unit."""
        if not self._are_crops:
            return range(unit.start * self._per_run, min(unit.stop * self._per_run, self.photos))
        first, last = (self._firsts[piece] for piece in (unit.start, unit.stop))
        return range(self._photo_ends[first], self._photo_ends[last])


class Units:
    """The `on_demand.Work` of a prediction.

    Args:
        run: computes a piece.
        streams: of this rank.
        width: classes.
        known: the units that an earlier run has done, by their first pieces, in order.
        kept: is told of each unit as soon as it is done; on rank 0.
        phases: where this rank's seconds of decoding and of the network go, as averages over its streams.
    """

    def __init__(
        self,
        pieces: Pieces,
        run: Run,
        streams: int,
        width: int,
        ranks: Ranks,
        known: Mapping[int, Unit],
        kept: Callable[[Unit, Chunk], None],
        phases: Phases | None = None,
    ) -> None:
        self._pieces = pieces
        self._run = run
        self._streams = streams
        self._ranks = ranks
        self._known = deque(known.values())
        self._kept = kept
        self._phases = phases or Phases()
        self._left = len(pieces) - sum(map(len, known.values()))
        self._next = 0
        self._under_way: dict[int, int] = {}
        """The rank of each unit that has no result yet, by its first piece, in order."""
        self._done: dict[int, Done] = {}
        per_piece = -(-pieces.photos // max(1, len(pieces))) or 1
        self._largest = max(1, PHOTOS_PER_UNIT // per_piece)
        self._ahead = max(
            AHEAD_BYTES // (4 * width * per_piece), UNITS_AHEAD_PER_RANK * ranks.size * self._largest
        )
        """Pieces."""

    def may_take(self, rank: int, /) -> bool:
        """Whether a rank may go on: not where answers of too many pieces wait for another rank's."""
        if not self._under_way:
            return True
        oldest = next(iter(self._under_way))
        return self._under_way[oldest] == rank or self._next - oldest < self._ahead

    def take(self, rank: int, /) -> Unit | None:
        """The next unit."""
        while self._known and self._known[0].start == self._next:
            self._next = self._known.popleft().stop
        if not self._left:
            return None
        size = next_size(self._left, self._largest, self._ranks.size)
        stop = self._known[0].start if self._known else len(self._pieces)
        unit = range(self._next, min(self._next + size, stop))
        self._under_way[unit.start] = rank
        self._next = unit.stop
        self._left -= len(unit)
        return unit

    def compute(self, units: Iterator[Unit], meanwhile: Callable[[], None] | None, /) -> Iterator[Done]:
        """Each unit with what became of its photos."""
        ahead = CHUNKS_AHEAD if self._ranks.is_first else CHUNKS_AHEAD_OF_OTHERS
        for unit, chunks in in_units(self._streams, self._run, units, self._pieces_of, ahead, meanwhile):
            for chunk in chunks:
                self._phases.add("decode", chunk.decode_s / self._streams)
                self._phases.add("network", chunk.compute_s / self._streams)
            yield unit, joined(chunks)

    def _pieces_of(self, unit: Unit) -> Iterator[Any]:
        return (self._pieces[number] for number in unit)

    def keep(self, done: Done, /) -> None:
        """Note what became of a unit's photos."""
        unit, chunk = done
        del self._under_way[unit.start]
        self._kept(unit, chunk)
        self._done[unit.start] = done

    def from_done(self, start: int) -> Done | None:
        """The unit that begins at a piece, where it is done; it is no longer kept then."""
        return self._done.pop(start, None)
