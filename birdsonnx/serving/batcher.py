"""Photos of all requests, gathered into runs of the model.

As many threads as the model has streams take what waits, decode it and compute it, as `inference.forward`
does with a list. Nothing waits for company: a run takes its share of what is there when a stream becomes
free, so that a lone photo is not late and a crowd fills the runs.
"""

import threading
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from birdsonnx.errors import ImageError
from birdsonnx.images.batches import decode_each
from birdsonnx.images.photo_file import Upload
from birdsonnx.inference.classifier import Classifier
from birdsonnx.inference.forward import computed
from birdsonnx.serving.metrics import Metrics


@dataclass(frozen=True)
class Computed:
    """What the network answered about a photo."""

    log_probs: npt.NDArray[np.float32]
    """float32 `(classes,)`."""
    known: float | None = None
    """How much it is like photos of the classes, where the network says so."""


Answer = Future[Computed]
"""Of a photo; or its ImageError, or the model's ModelError."""


class FullError(Exception):
    """So many photos wait already that these have no place."""


@dataclass(frozen=True)
class _Waiting:
    photo: Upload
    answer: Answer


class Batcher:
    """The streams of a model, and the photos that wait for them.

    Args:
        most: photos that may wait.
        metrics: told of every run.
    """

    def __init__(self, classifier: Classifier, most: int, metrics: Metrics) -> None:
        self._classifier = classifier
        self._most = most
        self._metrics = metrics
        self._queue: deque[_Waiting] = deque()
        self._changed = threading.Condition()
        self._idle = 0
        self._closed = False
        self._streams = [
            threading.Thread(target=self._work, name=f"stream {number}", daemon=True)
            for number in range(classifier.streams)
        ]
        for stream in self._streams:
            stream.start()

    @property
    def waiting(self) -> int:
        """Photos that no stream has taken yet."""
        return len(self._queue)

    def submit(self, photos: Sequence[Upload]) -> list[Answer]:
        """Let photos wait for a stream; an answer that is cancelled before its turn costs nothing.

        Raises:
            FullError: not all of them have a place; none of them is taken then.
        """
        pieces = [_Waiting(photo, Future()) for photo in photos]
        with self._changed:
            if self._closed or len(self._queue) + len(pieces) > self._most:
                self._forget_cancelled()
            if self._closed or len(self._queue) + len(pieces) > self._most:
                raise FullError
            self._queue.extend(pieces)
            self._changed.notify(len(pieces))
        return [piece.answer for piece in pieces]

    def close(self) -> None:
        """Take no more, and come back when all that waited is answered."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        for stream in self._streams:
            stream.join()

    def _forget_cancelled(self) -> None:
        """Their clients are gone, and their places free."""
        kept = [piece for piece in self._queue if not piece.answer.cancelled()]
        self._queue.clear()
        self._queue.extend(kept)

    def _taken(self) -> list[_Waiting]:
        """A stream's share of what waits, once something does; nothing at the end."""
        with self._changed:
            self._idle += 1
            self._changed.wait_for(lambda: self._queue or self._closed)
            share = -(-len(self._queue) // self._idle)
            self._idle -= 1
            count = min(share, self._classifier.per_run)
            return [self._queue.popleft() for _ in range(count)]

    def _work(self) -> None:
        while pieces := self._taken():
            wanted = [piece for piece in pieces if piece.answer.set_running_or_notify_cancel()]
            if not wanted:
                continue
            try:
                self._run(wanted)
            except BaseException as error:  # whatever it is, nobody is left waiting
                for piece in wanted:
                    if not piece.answer.done():
                        piece.answer.set_exception(error)
            del pieces, wanted  # their photos would stay in memory until the next ones come

    def _run(self, pieces: Sequence[_Waiting]) -> None:
        photos = [piece.photo for piece in pieces]
        pixels, good, refused = decode_each(self._classifier.decoder, photos)
        if good:
            chunk = computed(self._classifier.engine, pixels, good, refused, photos.__getitem__)
            good, refused = list(chunk.indices), list(chunk.refused)
            known = [None] * len(good) if chunk.known is None else chunk.known.tolist()
            for index, log_probs, score in zip(good, chunk.values, known, strict=True):
                pieces[index].answer.set_result(Computed(log_probs, score))
        for index, reason in refused:
            pieces[index].answer.set_exception(ImageError(reason))
        self._metrics.ran(len(good), len(refused))
