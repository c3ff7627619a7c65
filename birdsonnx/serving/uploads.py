"""From the body of a request to photos, in bounded memory and time; nothing of it is trusted."""

import asyncio
from collections.abc import AsyncGenerator, Iterator
from contextlib import contextmanager, suppress

import python_multipart  # noqa: F401 - starlette asks for it only when a form comes
from starlette.datastructures import Headers, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.types import Receive

from birdsonnx.images.photo_file import Upload

UPLOAD_S = 30.0
"""In which a body must have come: a client that sends a byte now and then keeps its place no longer."""

LINGER_S = 2.0
"""For which the rest of a refused body is read and thrown away: a connection that is closed before loses the
answer, and the client sees an error of the network instead."""

LONGEST_NAME = 255
"""Characters of a photo's name that are kept."""

UNNAMED = "photo"
"""What a photo is called whose client gives no name."""

ENVELOPE = 64 * 1024
"""Bytes that a multipart body may have beside its files."""

RAW = ("application/octet-stream",)
HOW_TO_SEND = "send the bytes of a photo as image/*, or one or more files as multipart/form-data"


class RefusedError(Exception):
    """A request that is answered with an error.

    Attributes:
        status: of HTTP.
        lines: what is wrong, and what that lists.
    """

    def __init__(self, status: int, *lines: str, headers: dict[str, str] | None = None) -> None:
        super().__init__(lines[0])
        self.status = status
        self.lines = lines
        self.headers = headers or {}


class LeftError(Exception):
    """The client is gone before its request was whole."""


class Room:
    """Bytes of uploads that may be in memory at once, of all requests. Its own thread alone asks for them."""

    def __init__(self, total: int) -> None:
        self._free = total

    @contextmanager
    def taking(self, count: int) -> Iterator[None]:
        """Have `count` bytes while the body runs. Raises RefusedError (503) where there are not so many."""
        if count > self._free:
            raise busy()
        self._free -= count
        try:
            yield
        finally:
            self._free += count


def busy() -> RefusedError:
    """What who comes while all places are taken is answered."""
    return RefusedError(503, "too many photos are waiting; try again", headers={"Retry-After": "1"})


class Body:
    """The body of a request, read once and no further than `most` bytes."""

    def __init__(self, receive: Receive, headers: Headers, most: int) -> None:
        self._receive = receive
        self._most = most
        self._ended = False
        self._waits_for_us = "expect" in headers
        """Whether the client sends nothing before it is told to go on (100-continue)."""
        said = headers.get("content-length", "")
        self.announced = int(said) if said.isascii() and said.isdigit() else None
        """Its length, where the client says so."""

    def require_size(self) -> None:
        """Raises RefusedError (413) where it is announced to be too large."""
        if self.announced is not None and self.announced > self._most:
            raise self._too_large()

    async def chunks(self) -> AsyncGenerator[bytes, None]:
        """Its bytes as they come.

        Raises:
            RefusedError: it is too large (413).
            LeftError: the client is gone.
        """
        received = 0
        while not self._ended:
            chunk = await self._next()
            received += len(chunk)
            if received > self._most:
                raise self._too_large()
            yield chunk

    async def throw_away(self) -> None:
        """Let the client send the rest, for a while, so that it reads the answer."""
        if self._waits_for_us:
            return
        with suppress(TimeoutError, LeftError):
            async with asyncio.timeout(LINGER_S):
                while not self._ended:
                    await self._next()

    async def _next(self) -> bytes:
        message = await self._receive()
        if message["type"] == "http.disconnect":
            self._ended = True
            raise LeftError
        self._ended = not message.get("more_body", False)
        self._waits_for_us = False
        content: bytes = message.get("body", b"")
        return content

    def _too_large(self) -> RefusedError:
        most = (self._most - ENVELOPE) // 2**20
        return RefusedError(413, f"the request is larger than the {most} MB allowed (--max-upload)")


async def photos_in(body: Body, headers: Headers, most: int) -> list[Upload]:
    """The photos that a request brings, at most so many.

    Raises:
        RefusedError: none (400), more than `most` or too large (413), of another kind (415), too slow (408).
        LeftError: the client is gone.
    """
    kind = headers.get("content-type", RAW[0]).split(";")[0].strip().lower()
    try:
        async with asyncio.timeout(UPLOAD_S):
            if kind == "multipart/form-data":
                return await _files(body, headers, most)
            if kind.startswith("image/") or kind in RAW:
                return [await _whole(body)]
    except TimeoutError:
        raise RefusedError(408, f"the photo did not come within {UPLOAD_S:.0f} s") from None
    raise RefusedError(415, f"Content-Type {kind!r} is no photo; {HOW_TO_SEND}")


async def _whole(body: Body) -> Upload:
    content = b"".join([chunk async for chunk in body.chunks()])
    if not content:
        raise RefusedError(400, f"the request brings no photo; {HOW_TO_SEND}")
    return Upload(UNNAMED, content)


async def _files(body: Body, headers: Headers, most: int) -> list[Upload]:
    parser = MultiPartParser(headers, body.chunks(), max_files=most + 1, max_fields=0)
    parser.spool_max_size = 2**40  # never to a disk: the body is bounded, and held in memory anyway
    try:
        form = await parser.parse()
    except MultiPartException as error:
        raise _badly_formed(error.message, most) from None
    try:
        # A browser sends a field in which nothing was chosen as a file without a name and content.
        files = [
            file
            for _, file in form.multi_items()
            if isinstance(file, UploadFile) and (file.filename or file.size)
        ]
        if len(files) > most:
            raise _too_many(most)
        if not files:
            raise RefusedError(400, f"the form brings no file; {HOW_TO_SEND}")
        return [Upload((file.filename or UNNAMED)[:LONGEST_NAME], await file.read()) for file in files]
    finally:
        await form.close()


def _badly_formed(message: str, most: int) -> RefusedError:
    if message.startswith("Too many files"):
        return _too_many(most)
    if message.startswith("Too many fields"):
        return RefusedError(400, "the form has a field that is no file; " + HOW_TO_SEND)
    return RefusedError(400, f"the form cannot be read ({message.rstrip('.')}); {HOW_TO_SEND}")


def _too_many(most: int) -> RefusedError:
    return RefusedError(413, f"more than {most} photos in one request")
