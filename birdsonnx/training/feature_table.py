"""The features of a set of photos as a table in the cache folder: computed once, read by every later run.

With deterministic transforms a photo's features never change, so each goes once through the backbone, on
whatever rank is ready for it (`feature_pass`), and each epoch only looks rows up. The table is a
memory-mapped `.npy`, named after all that its values depend on, with a checksum of its rows at the end
(`table_file`).

Ranks whose cache is the same folder make one file together. Ranks of other hosts, or with other folders,
make a file of their own, and get the rows that they did not compute over MPI.
"""

import contextlib
import hashlib
import itertools
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import PIL
import simplejpeg

from birdsonnx import __version__, artifacts
from birdsonnx.artifacts.temporary import remove_litter
from birdsonnx.errors import ArtifactError, BirdsonnxError
from birdsonnx.images.decoding import PIXELS_VERSION
from birdsonnx.images.photo_list import Photo, Repeated, names_of
from birdsonnx.images.transforms import Views
from birdsonnx.runtime.audience import Advance
from birdsonnx.runtime.phases import Phases
from birdsonnx.runtime.ranks import Ranks
from birdsonnx.training import photo_contents, refused_photos
from birdsonnx.training.backbone import Backbone
from birdsonnx.training.feature_pass import FeaturePass
from birdsonnx.training.table_file import Layout, TableFile

Rows = npt.NDArray[Any]

EXCHANGED_BYTES = 8_000_000
"""Of rows per message between hosts."""


class CachedFeatures:
    """Rows of a memory-mapped table; the page cache is shared by all ranks of a host."""

    def __init__(self, path: Path, views: Views | None = None) -> None:
        self._table: Rows = np.asarray(np.load(path, mmap_mode="r", allow_pickle=False))
        self._views = views

    def rows(self, photos: Sequence[int], epoch: int | None) -> Rows:
        """The rows of these photos, the same in all epochs; with views, which have no row without random
        transforms, those of the epoch."""
        numbers = np.asarray(photos, np.int64)
        if self._views is not None:
            assert epoch is not None, "only training sees views"
            numbers = self._views.rows(numbers, epoch)
        rows: Rows = self._table[numbers]
        return rows


def cached(
    backbone: Backbone,
    photos: Sequence[Photo],
    folder: Path,
    ranks: Ranks,
    advance: Advance,
    views: Views | None = None,
    phases: Phases | None = None,
) -> CachedFeatures:
    """The features of all photos, or of all their views, from the cache or computed now by all ranks
    together. `advance` counts the photos, or views, that are done; on rank 0.
    `phases` takes this rank's seconds of decoding and of features, as averages over its streams, and of the
    exchange, with waiting for others.

    Raises:
        DataError: photos that cannot be decoded, all of them listed; nothing is kept then.
        TrainingError: features that float16 cannot hold.
        ArtifactError: the cache folder cannot hold them.
    """
    ranks.first(lambda: remove_litter(folder))  # also where nothing is to be written now
    group = ranks.sharing(ranks.together(lambda: _identity(folder)))
    contents = photo_contents.of(photos, folder, backbone.streams, ranks)
    name = ranks.first(lambda: key(backbone, photos, contents, *([] if views is None else [str(views)])))
    path = folder / f"features-{name}.npy"
    shown = photos if views is None else Repeated(photos, views.count)
    layout = Layout(path.name, len(shown), backbone.row)
    sound = ranks.everyone(layout.is_sound(path, group.index(ranks.rank), len(group)))
    have = [all(sound[rank] for rank in sharing) for sharing in ranks.everyone(group)]
    if not all(have):
        making = _Making(path, layout, have, group, backbone, shown, views, ranks, phases or Phases())
        making.run(advance)
    return CachedFeatures(path, views)


def key(backbone: Backbone, photos: Sequence[Photo], contents: photo_contents.Digests, *further: str) -> str:
    """Hash of all that decides the features: the backbone with its preprocessing, the transforms, the
    photos' names and `contents`, the versions of all that decodes and computes, and `further` facts."""
    # birdsonnx' version makes every upgrade compute anew; that of the pixels serves between two releases.
    versions = (__version__, PIXELS_VERSION, PIL.__version__, simplejpeg.__version__, *backbone.computed_by)
    digest = hashlib.sha256(hashlib.sha256(backbone.model).digest())
    digest.update(repr((backbone.decoder, versions, *further)).encode())
    for place, name in enumerate(names_of(photos)):  # as the list's own text, which would be a large one
        digest.update(f"{', ' if place else '['}{name!r}".encode(errors="surrogateescape"))
    digest.update(b"]" if len(photos) else b"[]")
    digest.update(contents.tobytes())
    return digest.hexdigest()[:32]


class _Making:
    """All ranks make a table that some of them lack.

    Args:
        path: of the table, the same on all ranks; the folder may be another one on each host.
        have: of each rank, whether it finds the table there.
        group: the ranks that share this one's cache folder.
        photos: one for each row; with `views` each for each of its views.
    """

    def __init__(
        self,
        path: Path,
        layout: Layout,
        have: Sequence[bool],
        group: Sequence[int],
        backbone: Backbone,
        photos: Sequence[Photo],
        views: Views | None,
        ranks: Ranks,
        phases: Phases,
    ) -> None:
        self.phases = phases
        self.path = path
        self.layout = layout
        self.backbone = backbone
        self.photos = photos
        self.views = views
        self.ranks = ranks
        self.group = group
        self.leader = self.group[0]
        """Of the group: it creates the file, and gives it its name when it is whole."""
        self.writes = not have[self.leader]
        """Whether this group lacks the table."""
        self.holder = list(have).index(True) if any(have) else None
        """The rank whose table is copied; None where nobody has it, and it is computed."""

    def run(self, advance: Advance) -> None:
        """Give every group the whole table, under its name, or no group anything."""
        self.ranks.together(self._require_space)
        with contextlib.ExitStack() as stack:
            place = self.ranks.together(lambda: self._new_file(stack) if self.writes else self.path)
            places = self.ranks.everyone(str(place))
            table = self.ranks.together(lambda: self._open(Path(places[self.leader])))
            stack.callback(table.close)  # also where photos are refused
            owners = [(self.holder, range(len(self.photos)))] if self.holder is not None else None
            owners = owners or self._compute(table, advance)
            with self.phases.during("exchange"):
                self._exchange(table, owners)
                self.ranks.wait_for_all()  # till all rows of the group's file are there
            if self.writes:
                table.write_sums(self.group.index(self.ranks.rank), len(self.group))
            table.close()
            self.ranks.together(table.require_written)
            self.ranks.together(stack.close)  # the leaders give the files their names

    def _require_space(self) -> None:
        """Raises ArtifactError where a leader's disk has no room for the table."""
        if not self.writes or self.ranks.rank != self.leader:
            return
        folder = self.path.parent
        needed = self.layout.size
        free = shutil.disk_usage(folder).free
        if needed >= free:
            raise ArtifactError(
                f"{folder}: the features need {needed / 1e9:.1f} GB, {free / 1e9:.1f} GB are free; set "
                '"birdsonnx": {"cache": "FOLDER"} to another disk, "boundary": "LAYER" to one with smaller '
                'features, or "cache": false to recompute them'
            )

    def _new_file(self, stack: contextlib.ExitStack) -> Path:
        """The leader's temporary file, a header so far; it takes the table's name when `stack` is closed."""
        if self.ranks.rank != self.leader:
            return self.path
        temporary = stack.enter_context(artifacts.completing(self.path))
        with artifacts.naming(self.path):
            temporary.write_bytes(self.layout.header)
        return temporary

    def _open(self, place: Path) -> TableFile:
        """The table that this rank reads or writes rows of. Raises ArtifactError."""
        with artifacts.naming(self.path):
            return TableFile(place, self.layout, self.writes)

    def _compute(self, table: TableFile, advance: Advance) -> list[tuple[int, range]]:
        """Which rank has computed which rows; refused on all ranks where any rank cannot use a photo, or
        cannot go on."""
        work = FeaturePass(self.backbone, self.photos, self.views, table, self.ranks, advance, self.phases)
        with contextlib.closing(self.ranks.on_demand(work)) as steps:
            for _ in steps:
                pass
        self.ranks.together(lambda: _raise(work.failure))
        refused = [reason for _, reason in sorted(work.refused)]
        photos = len(self.photos) // (1 if self.views is None else self.views.count)
        refused_photos.require_none(self.ranks, refused, photos)
        return self.ranks.first(lambda: work.owners)

    def _exchange(self, table: TableFile, owners: Sequence[tuple[int, range]]) -> None:
        """Send every owner's rows to the groups that lack them; each group's leader writes them down."""
        if len({tuple(group) for group in self.ranks.everyone(self.group)}) == 1:
            return
        most = max(1, EXCHANGED_BYTES // self.backbone.row.itemsize)
        for owner in range(self.ranks.size):
            writes = self.writes and self.ranks.rank == self.leader and owner not in self.group
            for parts in _messages([rows for each, rows in owners if each == owner], most):
                self._send(table, owner, parts, writes)

    def _send(self, table: TableFile, owner: int, parts: Sequence[range], writes: bool) -> None:
        row_bytes = self.backbone.row.itemsize
        message = np.empty(sum(map(len, parts)) * row_bytes, np.uint8)  # bytes: MPI knows no float16
        places = list(itertools.accumulate((len(rows) * row_bytes for rows in parts), initial=0))
        shown = [message[start:stop] for start, stop in itertools.pairwise(places)]
        if self.ranks.rank == owner:
            for rows, part in zip(parts, shown, strict=True):
                part[...] = table.read(rows.start, len(rows))
        self.ranks.copy_from(owner, message)
        if writes:
            for rows, part in zip(parts, shown, strict=True):
                table.write(rows.start, part)


def _messages(rows: Sequence[range], most: int) -> Iterator[list[range]]:
    """The same rows, at most so many at a time."""
    parts: list[range] = []
    for each in rows:
        rest = each
        while rest:
            part = rest[: most - sum(map(len, parts))]
            parts, rest = [*parts, part], rest[len(part) :]
            if sum(map(len, parts)) == most:
                yield parts
                parts = []
    if parts:
        yield parts


def _raise(error: BirdsonnxError | None) -> None:
    if error is not None:
        raise error


def _identity(folder: Path) -> tuple[int, int]:
    """Tells folders of one host apart; the folder is made where it is not there. Raises ArtifactError."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        status = folder.stat()
    except OSError as error:
        raise ArtifactError(
            f"{folder}: the feature cache folder cannot be used ({error.strerror}); set "
            '"birdsonnx": {"cache": "FOLDER"} to another, or "cache": false'
        ) from None
    return status.st_dev, status.st_ino
