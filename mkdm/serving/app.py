"""The routes: `POST /rerank`, health, metrics; each request answered from the view, the queue, or with one line."""

import asyncio
import logging
import sqlite3
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from mkdm.errors import RejectCode, first_line
from mkdm.serving.metrics import Metrics
from mkdm.serving.ranked_view import MAX_QUERY, RankedView
from mkdm.serving.rerank_request import RequestError, RerankRequest, read_request
from mkdm.serving.scoring_queue import ScoringQueue
from mkdm.text import normalise_query

PATHS = ("/rerank", "/v1/rerank", "/v2/rerank")
MODEL, VIEW = "model", "view"
DISCARDED = 64 << 20
"""Bytes of a body beyond what is taken that are read, and thrown away, at most."""
_OF_THE_MODEL = {RejectCode.MODEL_ERROR, RejectCode.NON_FINITE_SCORE}
log = logging.getLogger("mkdm.serving")


@dataclass(frozen=True)
class AppLimits:
    """What a request may be.

    Attributes:
        timeout: seconds from its first byte to its answer.
        documents: at most.
        body_bytes: at most.
        requests: at once, those whose body is being read among them.
    """

    timeout: float
    documents: int
    body_bytes: int
    requests: int


@dataclass
class RerankApp:
    """Answers requests for one model.

    Attributes:
        names: that the model answers to; the first is told in responses.
        stopping: whether no new request is taken.
    """

    names: tuple[str, ...]
    queue: ScoringQueue
    view: RankedView | None
    metrics: Metrics
    limits: AppLimits
    stopping: bool = False
    _at_once: int = field(default=0, init=False)

    def asgi(self) -> Starlette:
        """The application for a server."""
        routes = [Route(path, self._counted, methods=["POST"]) for path in PATHS]
        routes += [
            Route("/health", self._health),
            Route("/health/live", self._live),
            Route("/health/ready", self._health),
            Route("/metrics", self._metrics_text),
        ]
        handlers: dict[Any, Callable[..., Awaitable[Response]]] = {HTTPException: _no_such_route}
        return Starlette(routes=routes, lifespan=self._lifespan, exception_handlers=handlers)

    @asynccontextmanager
    async def _lifespan(self, app: Starlette) -> AsyncIterator[None]:
        self.queue.start()
        yield
        await self.queue.stop()

    async def _counted(self, request: Request) -> Response:
        """An answer to every request, whatever happens, counted by its status."""
        began = time.perf_counter()
        self._at_once += 1
        try:
            response = await self._answer(request)
        except RequestError as error:
            response = _refusal(error)
        except TimeoutError:
            line = f"no answer within {self.limits.timeout:g} s: send fewer documents, or ask again"
            response = _refusal(RequestError(504, "timeout", line, self.queue.seconds_to_wait()))
        except ClientDisconnect:
            response = _refusal(RequestError(400, "malformed", "the connection ended before the body"))
        except Exception as error:
            log.exception("a request failed")
            response = _refusal(RequestError(500, "internal", f"{type(error).__name__}: {first_line(error)}"))
        finally:
            self._at_once -= 1
        self.metrics.requests.labels(str(response.status_code)).inc()
        self.metrics.seconds.observe(time.perf_counter() - began)
        return response

    async def _answer(self, request: Request) -> Response:
        fault = self._turned_away()
        async with asyncio.timeout(self.limits.timeout):
            body = await _body(request, 0 if fault else self.limits.body_bytes)
            if fault:
                raise fault
            if body is None:
                line = f"the body has more than {self.limits.body_bytes:,} bytes: send fewer documents"
                raise RequestError(413, "too_large", line)
            return await self._rerank(read_request(body, self.names, self.limits.documents))

    def _turned_away(self) -> RequestError | None:
        """Why no new request is taken now."""
        if self.stopping:
            return RequestError(503, "stopping", "the server stops: ask another one, or again", 1)
        if self._at_once > self.limits.requests:
            self.metrics.refused.inc()
            line = f"{self.limits.requests} requests are being answered, no more may be: ask again"
            return RequestError(429, "overloaded", line, self.queue.seconds_to_wait())
        return None

    async def _rerank(self, asked: RerankRequest) -> Response:
        scores, query = self._known(asked)
        sources, tokens = dict.fromkeys(scores, VIEW), 0
        rest = [place for place in range(len(asked.documents)) if place not in scores]
        if rest:
            scored = await self.queue.score(query, [asked.documents[place].text for place in rest])
            if scored.errors:
                at, (code, reason) = min(scored.errors.items())
                line = f"documents[{rest[at]}] cannot be scored: {reason} ({code})"
                raise RequestError(*((500, "internal") if code in _OF_THE_MODEL else (422, "invalid")), line)
            scores |= dict(zip(rest, scored.scores, strict=True))
            sources |= dict.fromkeys(rest, MODEL)
            tokens = scored.tokens
        self.metrics.pairs.labels(MODEL).inc(len(rest))
        self.metrics.pairs.labels(VIEW).inc(len(scores) - len(rest))
        results: list[dict[str, Any]] = [
            {"index": place, "relevance_score": scores[place], "source": sources[place]}
            for place in sorted(scores, key=lambda place: (-scores[place], place))[: asked.top_n]
        ]
        if asked.return_documents:
            for one in results:
                one["document"] = {"text": asked.documents[one["index"]].text}
        usage = {"prompt_tokens": tokens, "total_tokens": tokens}
        return JSONResponse({"id": uuid.uuid4().hex, "model": self.names[0], "results": results, "usage": usage})

    def _known(self, asked: RerankRequest) -> tuple[dict[int, float], str]:
        """What the view has, by place, and the query for the model, normalised where the view's were.

        Nothing is known while the file cannot be read, since the model can answer too.
        """
        if self.view is None:
            return {}, asked.query
        try:
            normal = self.view.normalises and len(asked.query) <= MAX_QUERY
            found = self.view.scores(asked.query, asked.query_id, asked.documents)
            return found, normalise_query(asked.query) if normal else asked.query
        except sqlite3.Error as error:
            self.metrics.view_errors.inc()
            log.warning("the view %s cannot be read: %s", self.view.path, error)
            return {}, asked.query

    async def _live(self, request: Request) -> Response:
        return JSONResponse({"status": "live"})

    async def _health(self, request: Request) -> Response:
        ready = self.queue.runs and not self.stopping
        words = {"status": "ready" if ready else "stopping" if self.stopping else "not ready", "model": self.names[0]}
        return JSONResponse(words, 200 if ready else 503)

    async def _metrics_text(self, request: Request) -> Response:
        if self.view is not None:
            try:
                self.metrics.view_version.set(self.view.version)
            except sqlite3.Error:
                self.metrics.view_errors.inc()
        return Response(generate_latest(self.metrics.registry), headers={"content-type": CONTENT_TYPE_LATEST})


async def _body(request: Request, most: int) -> bytes | None:
    """The body; None where it is larger. The rest is read all the same, or the client would not see the answer."""
    parts, size = [], 0
    async for part in request.stream():
        size += len(part)
        if size <= most:
            parts.append(part)
        elif size > most + DISCARDED:
            break
    return b"".join(parts) if size <= most else None


def _refusal(error: RequestError) -> Response:
    headers = {} if error.retry_after is None else {"retry-after": str(error.retry_after)}
    return JSONResponse({"error": str(error), "error_type": error.kind}, error.status, headers)


async def _no_such_route(request: Request, error: HTTPException) -> Response:
    line = f"{request.method} {request.url.path} is not served: POST {', '.join(PATHS)}; GET /health, /metrics"
    return JSONResponse({"error": line, "error_type": "not_found"}, error.status_code, dict(error.headers or {}))
