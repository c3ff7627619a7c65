"""The HTTP interface: the page, `POST /predict`, `GET /health`, `GET /metrics`."""

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.datastructures import MutableHeaders
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from birdsonnx.errors import ImageError, ModelError
from birdsonnx.images.photo_file import Upload
from birdsonnx.inference.classifier import Classifier
from birdsonnx.inference.judging.verdicts import Judge
from birdsonnx.serving.batcher import Answer, Batcher, Computed, FullError
from birdsonnx.serving.metrics import CONTENT_TYPE, Metrics
from birdsonnx.serving.uploads import ENVELOPE, Body, LeftError, RefusedError, Room, busy, photos_in

PAGE = Path(__file__).parent / "page"

NAMED = 5
"""Classes that are named for a photo where `top_k` does not say otherwise."""

UPLOADS_AT_ONCE = 16
"""Of the largest that are allowed: so many are held in memory, and of smaller ones more."""

PATHS = ("/", "/predict", "/health", "/metrics")
"""That are counted by name; what else clients ask for is `other`."""

LEFT = 499
"""The status that a request is counted under whose client did not wait for the answer (as nginx does)."""

HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; "
    "img-src 'self' blob:; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}
"""Of every answer: the page runs its own scripts alone, and no other page may show it or read it."""


@dataclass(frozen=True)
class Limits:
    """What a server takes."""

    upload_mb: int
    """Of a request."""
    waiting: int
    """Photos that may wait for a stream."""
    hosts: Sequence[str] = ("*",)
    """Names by which clients may call the server; `*`: any."""

    @property
    def body_bytes(self) -> int:
        return self.upload_mb * 2**20 + ENVELOPE


class Service:
    """A model, open for requests."""

    def __init__(self, classifier: Classifier, limits: Limits) -> None:
        self.classifier = classifier
        self.judge = Judge.of(classifier)
        self.limits = limits
        self.about = {
            "model": Path(classifier.where).name,
            "sha256": classifier.sha256,
            "engine": classifier.engine.title,
        }
        self.metrics = Metrics(self.about)
        self.batcher = Batcher(classifier, limits.waiting, self.metrics)
        self.room = Room(UPLOADS_AT_ONCE * limits.body_bytes)
        self.stopping = False
        self.given_up = 0
        """Requests that were under way when the time for that ran out."""

    def app(self) -> ASGIApp:
        """The application that answers."""
        routes = [
            Route("/predict", self.predict, methods=["POST"]),
            Route("/health", self.health),
            Route("/metrics", self.measured),
            Route("/", _page),
            Mount("/page", StaticFiles(directory=PAGE)),
        ]
        return Starlette(
            routes=routes,
            middleware=[
                Middleware(Observed, metrics=self.metrics),
                Middleware(TrustedHostMiddleware, allowed_hosts=list(self.limits.hosts), www_redirect=False),
            ],
            exception_handlers={RefusedError: _refused, HTTPException: _not_found, LeftError: _left},
        )

    async def health(self, _: Request) -> Response:
        """Whether it takes photos, and what the page has to know."""
        found = {
            "ready": not self.stopping,
            **self.about,
            "classes": self.classifier.num_classes,
            "max_upload_mb": self.limits.upload_mb,
        }
        return JSONResponse(found, 503 if self.stopping else 200)

    async def measured(self, _: Request) -> Response:
        """All counts, for Prometheus."""
        return Response(self.metrics.text(lambda: self.batcher.waiting), media_type=CONTENT_TYPE)

    async def predict(self, request: Request) -> Response:
        """Name the photos that a request brings."""
        body = Body(request.receive, request.headers, self.limits.body_bytes)
        try:
            _require_own_page(request)
            top_k = _top_k(request, self.classifier.num_classes)
            body.require_size()
            size = body.announced
            with self.room.taking(self.limits.body_bytes if size is None else size):
                photos = await photos_in(body, request.headers, self.limits.waiting)
                outcomes = await self._named(photos, request)
        except RefusedError:
            await body.throw_away()
            raise
        except asyncio.CancelledError:
            self.given_up += 1
            raise
        return self._answer(photos, outcomes, top_k)

    async def _named(self, photos: Sequence[Upload], request: Request) -> list[Computed | ImageError]:
        """Each photo's outcome. Raises RefusedError; LeftError where the client does not wait for it."""
        try:
            answers = self.batcher.submit(photos)
        except FullError:
            raise busy() from None
        both = asyncio.gather(*map(asyncio.wrap_future, answers), return_exceptions=True)
        gone = asyncio.ensure_future(request.receive())  # after the body there comes only the disconnect
        try:
            await asyncio.wait((both, gone), return_when=asyncio.FIRST_COMPLETED)
            if not both.done():
                raise LeftError
            return [_outcome(found) for found in both.result()]
        finally:
            gone.cancel()
            _give_up(answers)

    def _answer(
        self, photos: Sequence[Upload], outcomes: Sequence[Computed | ImageError], top_k: int
    ) -> Response:
        refused = [str(found) for found in outcomes if isinstance(found, ImageError)]
        if len(refused) == len(outcomes):
            raise RefusedError(400, *(refused if len(refused) == 1 else ("no photo can be used:", *refused)))
        predictions = [
            {"name": photo.name, **self.judge.verdict(found.log_probs, found.known, top_k).as_json()}
            for photo, found in zip(photos, outcomes, strict=True)
            if not isinstance(found, ImageError)
        ]
        found = {**self.about, "photos": len(predictions), "refused": refused, "predictions": predictions}
        return JSONResponse(found)


class Observed:
    """Counts every answer, also those that no route gives, and adds the headers that all have."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        started = time.perf_counter()
        status = 500

        async def observed(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                MutableHeaders(scope=message).update(HEADERS)
            await send(message)

        try:
            await self._app(scope, receive, observed)
        finally:
            path = scope["path"] if scope["path"] in PATHS else "other"
            self._metrics.answered(path, status, time.perf_counter() - started)


async def _page(_: Request) -> Response:
    return FileResponse(PAGE / "index.html")


def _require_own_page(request: Request) -> None:
    """Raises RefusedError (403) where another site's page sends the photo: what it sends, the browser asks
    nobody about, and only hides the answer from it. Programs have no such header."""
    if request.headers.get("sec-fetch-site", "none") not in ("same-origin", "none"):
        raise RefusedError(403, "a page of another site sent this; only this server's own may")


def _top_k(request: Request, classes: int) -> int:
    """Raises RefusedError for a query that is none."""
    unknown = set(request.query_params) - {"top_k"}
    if unknown:
        raise RefusedError(400, f"the query has {min(unknown)!r}; only top_k is known")
    word = request.query_params.get("top_k", str(NAMED))
    if not (word.isascii() and word.isdigit()) or not 1 <= int(word[:9]) <= 10**6:
        raise RefusedError(400, f"top_k={word!r}: give a whole number above 0")
    return min(int(word[:9]), classes)


def _outcome(found: Any) -> Computed | ImageError:
    if isinstance(found, ModelError):
        raise RefusedError(500, str(found))
    if isinstance(found, BaseException) and not isinstance(found, ImageError):
        raise found
    answer: Computed | ImageError = found
    return answer


def _give_up(answers: Sequence[Answer]) -> None:
    """Those that no stream has begun are not computed."""
    for answer in answers:
        answer.cancel()


def _error(status: int, lines: Sequence[str], headers: dict[str, str] | None = None) -> Response:
    return JSONResponse({"error": "\n".join(lines)}, status, headers)


async def _refused(_: Request, error: Exception) -> Response:
    assert isinstance(error, RefusedError)
    return _error(error.status, error.lines, error.headers)


async def _not_found(request: Request, error: Exception) -> Response:
    """404 and 405, of Starlette's own."""
    assert isinstance(error, HTTPException)
    headers = dict(error.headers or {})
    if "Allow" in headers:
        headers["Allow"] = ", ".join(sorted(headers["Allow"].split(", ")))
    allowed = f"; {request.url.path} takes {headers['Allow']}" if "Allow" in headers else ""
    return _error(error.status_code, [f"{error.detail.lower()}{allowed}"], headers)


async def _left(_: Request, __: Exception) -> Response:
    return Response(status_code=LEFT)
