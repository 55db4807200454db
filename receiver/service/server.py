"""Serves: binds the port, runs the app under uvicorn until a signal, and drains. Composes nothing.

One process serves, or several under `receiver.service.supervisor`.
"""

import asyncio
import contextlib
import gc
import logging
import resource
import signal
import socket
import sys
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Final

import uvicorn
import uvloop
from starlette.types import ASGIApp

from db.connection.retry import TRANSIENT
from db.embedded.server import EmbeddedError
from db.migrate import MigrationError
from db.vault import VaultError
from receiver.http.connection import Connection
from receiver.http.load_shedding import CONNECTIONS, DESCRIPTORS, connections_within, raise_descriptor_limit
from receiver.service.composition import http_app
from receiver.service.lifecycle import DRAIN, SETTLED_WITHIN, LoopEnded, founded, working
from receiver.service.supervisor import WorkerFails, supervise
from receiver.settings import Settings
from receiver.telemetry.logs import configure, log_unhandled

ANSWERED_WITHIN: Final = DRAIN - SETTLED_WITHIN - timedelta(seconds=2)
"""How long requests that were accepted may take after SIGTERM."""
UNREAD_WITHIN: Final = timedelta(seconds=15)
"""How long a client may read nothing of its answer; then the kernel ends the connection."""
UNREAD_BYTES: Final = 128 * 1024
"""Receive buffer of a socket; the kernel doubles it for its overhead. One read takes all of it, and for each
client whose body waits, two reads may be in memory."""
BACKLOG: Final = 65_535
"""Connections that wait in the kernel to be accepted: as many as it takes (net.core.somaxconn, often 4096).
A connection beyond that is reset after some seconds without an answer."""
GC_THRESHOLDS: Final = (50_000, 20, 20)
"""A request leaves hardly any cycles, so Python's own (700, 10, 10) looks for them far too often."""

log = logging.getLogger(__name__)


class Server(uvicorn.Server):
    """uvicorn's server, but signals end it in order instead of killing the process once it has stopped."""

    def __init__(
        self,
        config: uvicorn.Config,
        on_serving: Callable[[], None] = lambda: None,
        on_stopping: Callable[[], None] = lambda: None,
    ) -> None:
        super().__init__(config)
        self._on_serving = on_serving
        self._on_stopping = on_stopping

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._on_stopping()
        await super().shutdown(sockets)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._on_serving()

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, self.handle_exit, number, None)
        try:
            yield
        finally:
            for number in (signal.SIGINT, signal.SIGTERM):
                loop.remove_signal_handler(number)


def server_config(app: ASGIApp) -> uvicorn.Config:
    """Return how uvicorn serves the app."""
    return uvicorn.Config(
        app,
        http=Connection,
        lifespan="off",
        ws="none",
        log_config=None,
        access_log=False,
        server_header=False,
        # The client's address behind a proxy isn't used.
        proxy_headers=False,
        backlog=BACKLOG,
        # Of connections, as `Connection` reads it.
        limit_concurrency=connections_within(resource.getrlimit(resource.RLIMIT_NOFILE)[0]),
        timeout_graceful_shutdown=int(ANSWERED_WITHIN.total_seconds()),
    )


def tune() -> None:
    """Exclude permanent objects from garbage collection, and collect the rest less often."""
    gc.set_threshold(*GC_THRESHOLDS)
    gc.collect()
    gc.freeze()


def bind(host: str, port: int) -> socket.socket:
    """Return a listening socket; port 0 takes a free one. Raises OSError."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.create_server((host, port), family=family, backlog=BACKLOG)
    # Accepted sockets inherit what is set here.
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, UNREAD_BYTES)
    if hasattr(socket, "TCP_USER_TIMEOUT"):
        # Without it an answer that is never read keeps its socket for ever.
        unread = int(UNREAD_WITHIN.total_seconds() * 1000)
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, unread)
    listener.setblocking(False)
    return listener


def serve(settings: Settings) -> int:
    """Run the service; return the process's exit code."""
    configure(settings.log_format)
    for warning in settings.warnings:
        log.warning("%s", warning)
    _widen()
    try:
        listener = bind(settings.host, settings.port)
    except OSError as error:
        log.error("can't listen on %s port %d: %s", settings.host, settings.port, error.strerror)
        return 1
    with contextlib.closing(listener):
        settings = replace(settings, port=listener.getsockname()[1])
        return run(_serve(settings, listener))


def run(main: Coroutine[object, None, None]) -> int:
    """Run a process of the service to its end; return its exit code, with the reason logged."""
    try:
        uvloop.run(_logged(main))
    except (EmbeddedError, MigrationError, VaultError) as error:
        log.error("%s", error)
        return 1
    except TRANSIENT as error:
        log.error("can't start or go on: %s", error)
        return 1
    except BaseExceptionGroup as group:
        log.critical("a part that the service can't do without has failed", exc_info=group)
        _log_reasons(group)
        return 1
    return 0


async def _logged(main: Coroutine[object, None, None]) -> None:
    asyncio.get_running_loop().set_exception_handler(log_unhandled)
    await main


def _log_reasons(group: BaseExceptionGroup[BaseException]) -> None:
    """Log the messages of our own errors in a group; tracebacks have none."""
    for error in group.exceptions:
        match error:
            case BaseExceptionGroup():
                _log_reasons(error)
            case LoopEnded() | WorkerFails():
                log.critical("%s", error)


async def serve_until_stopped(
    settings: Settings,
    listener: socket.socket,
    shared: Path | None = None,
    on_serving: Callable[[], None] = lambda: None,
) -> None:
    """Serve on a bound socket, on a foundation, until SIGINT or SIGTERM; then drain."""
    async with working(settings, shared) as app:
        tune()
        await Server(server_config(http_app(app)), on_serving, app.stopping.set).serve(sockets=[listener])


async def _serve(settings: Settings, listener: socket.socket) -> None:
    async with founded(settings) as foundation:
        _greet(foundation.settings, foundation.token)
        if settings.workers == 1:
            await serve_until_stopped(foundation.settings, listener)
        else:
            await supervise(foundation.settings, listener)


def _widen() -> None:
    allowed = raise_descriptor_limit()
    if allowed < DESCRIPTORS:
        log.warning(
            "only %d files may be open in a process, so that it takes %d connections at once instead of %d; "
            "raise the hard limit to %d (ulimit -Hn, LimitNOFILE=, docker run --ulimit nofile=)",
            allowed, connections_within(allowed), CONNECTIONS, DESCRIPTORS,
        )  # fmt: skip


def _greet(settings: Settings, token: str | None) -> None:
    lines = [f"Zapwatch answers on {settings.base_url} (the API: {settings.base_url}/docs)"]
    if token is not None:
        lines.append(f"Operator token, shown this once: {token}")
    sys.stdout.write("\n".join(lines) + "\n")
    sys.stdout.flush()
