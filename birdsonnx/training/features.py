"""What the trained part sees of each photo: a frozen backbone's output, computed once and kept, or pixels.

With deterministic transforms a photo's features never change, so every rank runs its share of the photos
once through the backbone, and each epoch only looks rows up. The table is a memory-mapped `.npy`, keyed by
all that its values depend on. Ranks that do not share the cache folder exchange their rows once over MPI.
"""

import contextlib
import hashlib
import os
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol, TypeVar

import numpy as np
import numpy.typing as npt
from PIL import Image

from birdsonnx import artifacts
from birdsonnx.errors import ArtifactError, BirdsonnxError, DataError, TrainingError
from birdsonnx.images.batches import decode
from birdsonnx.images.decoding import Decoder, Pixels
from birdsonnx.images.folders import Photo
from birdsonnx.images.transforms import chance_of
from birdsonnx.inference.classifier import fastest
from birdsonnx.inference.forward import forward
from birdsonnx.runtime.ranks import Ranks
from birdsonnx.runtime.sessions import PHOTOS_PER_RUN, Session, in_streams, slices

Rows = npt.NDArray[Any]
Advance = Callable[[int], None]
Kept = TypeVar("Kept")

EXCHANGED_BYTES = 8_000_000
"""Of rows per message between hosts."""


class Features(Protocol):
    """Rows of photos at the boundary of the trained part, however they come about."""

    def rows(self, photos: Sequence[int], epoch: int | None) -> Rows:
        """The rows of these photos, `[len(photos), *row_shape]`, as training sees them in an epoch, or
        without an epoch, as everyone else does. Safe to call from several threads at once."""


class Backbone:
    """The frozen part of a network, loaded when it is first needed: cached features never need it.

    Args:
        model: `images` to `features`, serialized.
        row: the type of one photo's features, such as `np.dtype(("<f4", (2048,)))`.
        decoder: from a photo's file to its pixels.
        streams: threads that run photos.
    """

    def __init__(self, model: bytes, row: np.dtype[Any], decoder: Decoder, streams: int) -> None:
        self.model = model
        self.row = row
        self.decoder = decoder
        self.streams = streams
        self._session: Session | None = None

    @property
    def session(self) -> Session:
        if self._session is None:
            self._session = Session(fastest(self.model))
        return self._session

    def release(self) -> None:
        """Give the session's memory back."""
        self._session = None


class CachedFeatures:
    """Rows of a memory-mapped table; the page cache is shared by all ranks of a host."""

    def __init__(self, path: Path) -> None:
        self._table: Rows = np.asarray(np.load(path, mmap_mode="r", allow_pickle=False))

    def rows(self, photos: Sequence[int], epoch: int | None) -> Rows:  # noqa: ARG002 - the same in all
        rows: Rows = self._table[np.asarray(photos, np.int64)]
        return rows


class Decoded:
    """The photos themselves: decoded, and changed by the random transforms anew in each epoch.

    `preload` keeps each photo in memory after its first use: its pixels, or with random transforms the whole
    picture that they start from. `seed` is the random transforms', None where there are none.
    """

    def __init__(self, decoder: Decoder, photos: Sequence[Photo], preload: bool, seed: int | None) -> None:
        self._decoder = decoder
        self._photos = photos
        self._pixels: dict[int, Pixels] | None = {} if preload and seed is None else None
        self._pictures: dict[int, Image.Image] | None = {} if preload and seed is not None else None
        self._seed = seed

    def rows(self, photos: Sequence[int], epoch: int | None) -> Rows:
        return np.stack([self._row(int(photo), epoch) for photo in photos])

    def _row(self, photo: int, epoch: int | None) -> Pixels:
        path = self._photos[photo].path
        if self._seed is None or epoch is None:
            return _kept(self._pixels, photo, lambda: self._decoder(path))
        picture = _kept(self._pictures, photo, lambda: self._decoder.opened(path))
        return self._decoder.transformed(picture, path, chance_of(self._seed, epoch, photo))


def _kept(store: dict[int, Kept] | None, photo: int, make: Callable[[], Kept]) -> Kept:
    """What the store holds of a photo, made and stored the first time; two threads may both make it."""
    if store is None:
        return make()
    if photo not in store:
        store[photo] = make()
    return store[photo]


def decoded(
    decoder: Decoder,
    photos: Sequence[Photo],
    preload: bool,
    seed: int | None,
    streams: int,
    ranks: Ranks,
    advance: Advance,
) -> Decoded:
    """Photos that are decoded for each batch, and were all seen to decode.

    Raises:
        DataError: photos that cannot be decoded, all of them listed.
    """
    problems = []
    share = ranks.share(len(photos))

    def check(piece: Sequence[int]) -> list[tuple[int, str]]:
        return decode(decoder, photos, piece)[2]

    for refused in in_streams(streams, check, slices(share, PHOTOS_PER_RUN)):
        problems += [reason for _, reason in refused]
        advance(PHOTOS_PER_RUN)
    _refuse_together(ranks, problems, len(photos))
    return Decoded(decoder, photos, preload, seed)


def cached(
    backbone: Backbone, photos: Sequence[Photo], folder: Path, ranks: Ranks, advance: Advance
) -> CachedFeatures:
    """The features of all photos, from the cache or computed now by all ranks together.

    Raises:
        DataError: photos that cannot be decoded, all of them listed; nothing is kept then.
        ArtifactError: the cache folder cannot hold them.
    """
    name = ranks.first(lambda: key(backbone, photos))
    path = folder / f"features-{name}.npy"
    have = ranks.everyone(_is_whole(path, len(photos), backbone.row))
    if not all(have):
        _fill(path, have, backbone, photos, ranks, advance)
    return CachedFeatures(path)


def key(backbone: Backbone, photos: Sequence[Photo]) -> str:
    """Hash of all that decides the features: backbone with its preprocessing, transforms, the files' names,
    sizes and times, and the libraries that decode and compute."""
    import onnxruntime
    import PIL
    import simplejpeg

    versions = (PIL.__version__, simplejpeg.__version__, onnxruntime.__version__)
    digest = hashlib.sha256(hashlib.sha256(backbone.model).digest())
    digest.update(repr((backbone.decoder, versions)).encode())
    for photo in photos:
        try:
            status = photo.path.stat()
            facts = (photo.name, status.st_size, status.st_mtime_ns)
        except OSError:  # decoding will refuse it by name
            facts = (photo.name, -1, -1)
        digest.update(repr(facts).encode(errors="surrogateescape"))
    return digest.hexdigest()[:32]


def _fill(
    path: Path,
    have: list[bool],
    backbone: Backbone,
    photos: Sequence[Photo],
    ranks: Ranks,
    advance: Advance,
) -> None:
    """Let every group of ranks that share a cache folder hold the whole table."""
    group = _group(path.parent, ranks)
    writes = not have[ranks.rank]
    count, row = len(photos), backbone.row
    problems: list[str] = []
    with contextlib.ExitStack() as stack:
        temporary = path
        if group[0] == ranks.rank and writes:
            problems += _too_little_space(path.parent, count * row.itemsize)
            temporary = stack.enter_context(artifacts.replacing(path))
            temporary.write_bytes(_header(count, row))
        temporary = Path(ranks.everyone(str(temporary))[group[0]])
        _refuse_together(ranks, problems, len(photos), ArtifactError)
        table = _TableFile(temporary, row) if writes else None
        if table is not None:
            stack.callback(table.close)  # also where photos are refused
        if any(have):
            owners = [(have.index(True), range(count))]
        else:
            owners = [(rank, _share_of(rank, ranks, count)) for rank in range(ranks.size)]
            problems += _compute(table, backbone, photos, ranks, advance)
            _refuse_together(ranks, problems, count)
        groups = {tuple(members) for members in ranks.everyone(group)}
        if len(groups) > 1:
            _exchange(path, table, row, owners, group, ranks)
        if table is not None:
            table.close()
        ranks.wait_for_all()
    ranks.wait_for_all()


def _compute(
    table: "_TableFile | None", backbone: Backbone, photos: Sequence[Photo], ranks: Ranks, advance: Advance
) -> list[str]:
    problems: list[str] = []
    share = ranks.share(len(photos))
    chunks = forward(
        backbone.session, backbone.decoder, photos, share, backbone.streams, stop_computing_at_refusal=True
    )
    for chunk in chunks:
        problems += [reason for _, reason in chunk.refused]
        if backbone.row.base == np.float16 and not np.isfinite(chunk.values).all():
            photo = photos[chunk.indices[int(np.isfinite(chunk.values).all(axis=1).argmin())]]
            raise TrainingError(
                f"{photo.path}: its features are too large for float16 (65,504 at most); remove "
                "birdsonnx.feature_precision fp16"
            )
        if table is not None and len(chunk.values) and not problems:
            table.write(chunk.indices[0], chunk.values)
        advance(len(chunk.indices) + len(chunk.refused))
    return problems


def _exchange(
    path: Path,
    table: "_TableFile | None",
    row: np.dtype[Any],
    owners: Sequence[tuple[int, range]],
    group: list[int],
    ranks: Ranks,
) -> None:
    """Send every owner's rows to the groups that lack them; each group's first rank writes them down."""
    most = max(1, EXCHANGED_BYTES // row.itemsize)
    for owner, rows in owners:
        for start in range(rows.start, rows.stop, most):
            count = min(most, rows.stop - start)
            message = np.empty(count * row.itemsize, np.uint8)  # bytes: MPI knows no float16
            if ranks.rank == owner:
                message[...] = (_TableFile(path, row) if table is None else table).read(start, count)
            ranks.copy_from(owner, message)
            if table is not None and group[0] == ranks.rank and owner not in group:
                table.write(start, message)


class _TableFile:
    """The rows of a `.npy` under construction, written in place by several processes.

    Plain writes, not a memory map: a full disk is then an error, not a signal.
    """

    def __init__(self, path: Path, row: np.dtype[Any]) -> None:
        self._file = path.open("r+b" if os.access(path, os.W_OK) else "rb", buffering=0)
        self._row_bytes = row.itemsize
        self._start = len(_header(0, row))

    def write(self, row: int, values: Rows) -> None:
        self._file.seek(self._start + row * self._row_bytes)
        content = memoryview(values.tobytes())
        try:
            while content:
                content = content[self._file.write(content) :]
        except OSError as error:
            raise ArtifactError(f"cannot write the feature cache: {error.strerror}") from None

    def read(self, row: int, count: int) -> npt.NDArray[np.uint8]:
        """The bytes of some rows."""
        self._file.seek(self._start + row * self._row_bytes)
        return np.frombuffer(self._file.read(count * self._row_bytes) or b"", np.uint8)

    def close(self) -> None:
        self._file.close()


def _header(count: int, row: np.dtype[Any]) -> bytes:
    import io

    buffer = io.BytesIO()
    description = {"descr": row.base.str, "fortran_order": False, "shape": (count, *row.shape)}
    np.lib.format.write_array_header_1_0(buffer, description)
    return buffer.getvalue()  # padded to 128 bytes, whatever the shape


def _is_whole(path: Path, count: int, row: np.dtype[Any]) -> bool:
    """Whether the table is there with the header and the size it must have; else it is made again."""
    header = _header(count, row)
    try:
        with path.open("rb") as file:
            return (
                file.read(len(header)) == header and path.stat().st_size == len(header) + count * row.itemsize
            )
    except OSError:
        return False


def _group(folder: Path, ranks: Ranks) -> list[int]:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        status = folder.stat()
    except OSError as error:
        raise ArtifactError(f"{folder}: the feature cache folder cannot be used ({error.strerror})") from None
    return ranks.sharing((status.st_dev, status.st_ino))


def _too_little_space(folder: Path, needed: int) -> list[str]:
    free = shutil.disk_usage(folder).free
    if needed < free:
        return []
    return [
        f"{folder}: the features need {needed / 1e9:.1f} GB, {free / 1e9:.1f} GB are free; set "
        '"birdsonnx": {"cache": "FOLDER"} to another disk, or "cache": false to recompute them'
    ]


def _share_of(rank: int, ranks: Ranks, count: int) -> range:
    return range(count * rank // ranks.size, count * (rank + 1) // ranks.size)


def _refuse_together(
    ranks: Ranks, problems: list[str], photos: int, kind: type[BirdsonnxError] = DataError
) -> None:
    """Raise the same error on every rank if any rank has problems."""
    every = [problem for found in ranks.everyone(problems) for problem in found]
    if not every:
        return
    message = every[0]
    if kind is DataError:
        head = f"{len(every)} of {photos} photos cannot be used, nothing was trained; repair or remove "
        head += "it: " if len(every) == 1 else "them:\n  "
        message = head + "\n  ".join(every)
    error: Any = kind(message)
    error.agreed = True
    raise error
