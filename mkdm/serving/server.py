"""From a model to a server that answers until it is told to stop: a socket first, then the model, then uvicorn."""

import asyncio
import signal
import socket
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

import uvicorn

from mkdm.errors import ConfigError
from mkdm.scoring import PairScorer, load_scorer
from mkdm.serving.app import AppLimits, RerankApp
from mkdm.serving.metrics import Metrics
from mkdm.serving.ranked_view import RankedView
from mkdm.serving.scoring_queue import ScoringQueue

GRACE = 5.0
"""Seconds beyond a request's timeout that a stop waits for those that are being answered."""


@dataclass(frozen=True)
class ServingSettings:
    """What to serve, and how.

    Attributes:
        model: folder, or several joined by commas; backend, precision, max_length, threads and streams as for
            `load_scorer`.
        name: of the model in requests and responses, besides its version.
        view: SQLite file of `mkdm follow`; None for none.
        host, port: to listen on; port 0 takes a free one.
        queue_pairs: pairs that may wait, and requests that may be answered at once.
        batch_pairs, window: of a call of the scorer; see `ScoringQueue`.
        timeout: seconds of a request.
        max_documents, max_bytes: of a request.
    """

    model: str
    name: str
    view: str | None = None
    host: str = "127.0.0.1"
    port: int = 8000
    backend: str = "auto"
    precision: str = "auto"
    max_length: int | None = None
    threads: int | None = None
    streams: int | None = 1
    queue_pairs: int = 2000
    batch_pairs: int = 64
    window: float = 0.0
    timeout: float = 10.0
    max_documents: int = 1000
    max_bytes: int = 4 << 20


def serve(settings: ServingSettings, say: Callable[[str], None]) -> None:
    """Answer requests until SIGTERM or SIGINT; then answer what is queued, and return.

    Args:
        say: told where the server listens, what of the view is not used, and that it has stopped.

    Raises:
        ConfigError: the address cannot be listened on, or a setting that the model or machine cannot meet.
        ModelError: the model does not load.
        InputError: the view is missing or no view.
    """
    with closing(_bound(settings.host, settings.port)) as listening:
        scorer = load_scorer(
            settings.model,
            settings.backend,
            settings.precision,
            settings.max_length,
            threads=settings.threads,
            streams=settings.streams,
        )
        scorer.score(["a"], ["a"])  # the first call is slow
        view = None if settings.view is None else RankedView(settings.view, scorer.model_version)
        if view is not None and (models := view.models()) and scorer.model_version not in models:
            say(f"{settings.view} has scores of model {models[0]}, not of {scorer.model_version}: none of them is used")
        try:
            asyncio.run(_run(settings, scorer, view, listening, say))
        finally:
            if view is not None:
                view.close()


async def _run(
    settings: ServingSettings,
    scorer: PairScorer,
    view: RankedView | None,
    listening: socket.socket,
    say: Callable[[str], None],
) -> None:
    metrics = Metrics()
    metrics.model.info({"name": settings.name, "version": scorer.model_version, "precision": scorer.precision})
    queue = ScoringQueue(scorer, settings.queue_pairs, settings.batch_pairs, settings.window, metrics)
    limits = AppLimits(settings.timeout, settings.max_documents, settings.max_bytes, settings.queue_pairs)
    names = (settings.name, scorer.model_version)
    app = RerankApp(names, queue, view, metrics, limits)
    config = uvicorn.Config(
        app.asgi(),
        log_level="warning",
        access_log=False,
        server_header=False,
        lifespan="on",
        timeout_graceful_shutdown=int(settings.timeout + GRACE),
    )
    host, port = listening.getsockname()[:2]
    at = f"http://{f'[{host}]' if ':' in host else host}:{port}"
    what = f"{settings.name} ({scorer.model_version}, {scorer.precision})"
    server = _Server(config, app, lambda: say(f"serving {what} at {at}"))
    kept = {one: signal.signal(one, lambda number, frame: None) for one in (signal.SIGTERM, signal.SIGINT)}
    try:  # uvicorn raises a signal again once it has stopped, which must not end the process then
        await server.serve([listening])
    finally:
        for one, handler in kept.items():
            signal.signal(one, handler)
    say("stopped: what was queued is answered")


class _Server(uvicorn.Server):
    """uvicorn that tells when it listens, and the application when it stops."""

    def __init__(self, config: uvicorn.Config, app: RerankApp, listens: Callable[[], None]) -> None:
        super().__init__(config)
        self._app, self._listens = app, listens

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            self._listens()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        self._app.stopping = True
        super().handle_exit(sig, frame)


def _bound(host: str, port: int) -> socket.socket:
    """A socket at an address, which nobody else can take while the model loads."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listening = socket.socket(family, kind, protocol)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    except (OSError, UnicodeError) as error:
        raise ConfigError(f"--host is {host!r}, which is no address here ({_reason(error)})") from error
    try:
        listening.bind(address)
    except OSError as error:
        listening.close()
        raise ConfigError(
            f"cannot listen on {host}:{port} ({_reason(error)}): give another --port or --host"
        ) from error
    return listening


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error)


def default_name(model: str) -> str:
    """What a model is called where nobody says: the last part of its folder or URI."""
    return "+".join(Path(one.strip().rstrip("/")).name or one for one in model.split(","))
