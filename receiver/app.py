"""The composition root: opens what the service stands on, starts its loops, and serves."""

import asyncio
import contextlib
import logging
import signal
import socket
import sys
from collections.abc import AsyncIterator, Coroutine, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any, Final
from uuid import UUID

import uvicorn
import uvloop
from starlette.applications import Starlette
from starlette.middleware import Middleware

from db.apply import acknowledge
from db.claims import Target
from db.embedded import Embedded, EmbeddedError, run_embedded
from db.entry import Entry, Source
from db.lodging import lodge
from db.migrate import MigrationError, migrate
from db.notices import listen
from db.patience import TRANSIENT
from db.pool import connect, connect_writer, open_pool
from db.vault import Vault, VaultError, kept_keys
from db.writer import Unavailable as NotCommitted
from db.writer import Writer
from receiver import api, checks, deadlines, housekeeping, versions, webhooks
from receiver.auth import Tokens, first_token
from receiver.client import open_client
from receiver.container import localhost
from receiver.errors import Unavailable, exception_handlers
from receiver.freshness import Freshness
from receiver.logs import AccessLog, configure
from receiver.metrics import Metrics
from receiver.probe import Probed, Prober
from receiver.reconciler import Reconciler
from receiver.settings import DEFAULT_DATA_DIR, Settings
from statemachine.model import Rules
from statemachine.signals import Deadline

DRAIN: Final = timedelta(seconds=20)
"""How long requests that were accepted may take after SIGTERM."""

log = logging.getLogger(__name__)


class LoopEnded(Exception):
    """A part that the service can't do without has ended."""


@asynccontextmanager
async def running(settings: Settings) -> AsyncIterator[tuple[Starlette, str | None]]:
    """Yield the app with its loops running, and the operator's token if this start made the first one.

    When a loop dies the body is cancelled and its error raised: the process should end, loudly.
    """
    async with AsyncExitStack() as stack:
        dsn, embedded = settings.database_url, None
        if dsn is None:
            if settings.data_dir == DEFAULT_DATA_DIR:
                lodge(settings.data_dir)
            embedded = await stack.enter_async_context(run_embedded(settings.data_dir))
            dsn = embedded.dsn
            settings = replace(
                settings, secret_keys=settings.secret_keys or kept_keys(settings.data_dir / "secret_keys")
            )
        vault = Vault(settings.secret_keys)
        token = await _prepare(dsn, vault, settings)
        app = await _compose(stack, dsn, vault, settings)
        async with asyncio.TaskGroup() as tasks:
            loops = [tasks.create_task(loop, name=name) for name, loop in _loops(app, embedded)]
            try:
                yield app, token
                await app.state.freshness.flush()
                await app.state.writer.drain()
            finally:
                for loop in loops:
                    loop.cancel()


async def _prepare(dsn: str, vault: Vault, settings: Settings) -> str | None:
    connection = await connect(dsn, "zapwatch start", command_timeout=None)
    try:
        for name in await migrate(connection):
            log.info("applied migration %s", name)
        await housekeeping.keep(connection, vault)
        return await first_token(connection, settings)
    finally:
        connection.terminate()


async def _compose(stack: AsyncExitStack, dsn: str, vault: Vault, settings: Settings) -> Starlette:
    metrics = Metrics()
    pool = await stack.enter_async_context(await open_pool(dsn))
    client = await stack.enter_async_context(open_client(settings.probe_timeout, localhost()))
    writer = Writer(partial(connect_writer, dsn), installation_rules(settings), metrics.committed)
    metrics.queue_entries.set_function(lambda: writer.depth)
    app = Starlette(
        routes=[*webhooks.routes, *api.routes],
        middleware=[Middleware(AccessLog)],
        exception_handlers=exception_handlers,
    )
    app.state.settings, app.state.vault, app.state.pool = settings, vault, pool
    app.state.metrics, app.state.client, app.state.writer = metrics, client, writer
    # A control must not serve two answers that count in a row.
    app.state.prober = prober = Prober(pool, vault, client, settings.retry_after / 2, metrics.probed)
    metrics.probes_in_flight.set_function(lambda: prober.in_flight)
    app.state.tokens, app.state.freshness = Tokens(pool), Freshness(writer)
    hear = partial(connect, dsn, "zapwatch notices")
    app.state.listen = partial(listen, hear, app.state.tokens.forget, app.state.tokens.forget_all)
    app.state.apply_now = partial(_apply_now, writer)
    app.state.check_now = partial(_check_now, app.state.prober, writer)
    app.state.acknowledge = partial(_acknowledge, app)
    return app


def installation_rules(settings: Settings) -> Rules:
    """Return the rules that hold for every channel whose tenant wishes nothing else.

    Nothing recovers yet: a session that only a restart could save counts as unpaired.
    """
    return Rules(
        stale_after=settings.stale_after,
        retry_after=settings.retry_after,
        terminal_grace=settings.terminal_grace,
        recovery=False,
    )


def _loops(app: Starlette, embedded: Embedded | None) -> Iterator[tuple[str, Coroutine[Any, Any, None]]]:
    state = app.state
    yield "writer", state.writer.run()
    yield "freshness", state.freshness.run()
    yield "deadlines", deadlines.run(state.pool, state.writer, state.metrics.deadline_lag_seconds.set)
    yield "reconciler", Reconciler(state.pool, state.writer, state.prober, state.settings.probe_timeout).run()
    yield "checks", checks.run(state.pool)
    yield "versions", versions.run(state.pool, state.client, state.tokens)
    yield "notices", state.listen()
    yield "housekeeping", housekeeping.run(state.pool, state.vault)
    yield "event loop lag", state.metrics.watch_event_loop()
    if embedded is not None:
        yield "postgres", _watch(embedded)


async def _watch(embedded: Embedded) -> None:
    raise LoopEnded(f"the embedded PostgreSQL ended with {await embedded.died()}; see {embedded.log}")


async def _apply_now(writer: Writer, channel_id: UUID) -> None:
    now = datetime.now(UTC)
    try:
        await writer.submit([Entry(channel_id, Source.DEADLINE, "deadline", now, Deadline(now))])
    except NotCommitted as error:
        raise Unavailable(str(error)) from None


async def _check_now(prober: Prober, writer: Writer, target: Target) -> Probed:
    probed = await prober.probe(target)
    try:
        await writer.submit([probed.entry])
    except NotCommitted as error:
        raise Unavailable(str(error)) from None
    return probed


async def _acknowledge(app: Starlette, incident_id: UUID) -> None:
    async with app.state.pool.acquire() as connection:
        await acknowledge(connection, incident_id)


class Server(uvicorn.Server):
    """uvicorn's server, but signals end it in order instead of killing the process once it has stopped."""

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


async def serve_until_stopped(settings: Settings, listener: socket.socket) -> None:
    """Serve on a bound socket until SIGINT or SIGTERM, then drain."""
    async with running(settings) as (app, token):
        config = uvicorn.Config(
            app,
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            timeout_graceful_shutdown=int(DRAIN.total_seconds()),
        )
        _greet(settings, token)
        await Server(config).serve(sockets=[listener])


def _greet(settings: Settings, token: str | None) -> None:
    lines = [f"Zapwatch answers on {settings.base_url} (the API: {settings.base_url}/docs)"]
    if token is not None:
        lines.append(f"Operator token, shown this once: {token}")
    sys.stdout.write("\n".join(lines) + "\n")
    sys.stdout.flush()


def bind(host: str, port: int) -> socket.socket:
    """Return a listening socket; port 0 takes a free one. Raises OSError."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.create_server((host, port), family=family, backlog=2048)
    listener.setblocking(False)
    return listener


def serve(settings: Settings) -> int:
    """Run the service; return the process's exit code."""
    configure(settings.log_format)
    for warning in settings.warnings:
        log.warning("%s", warning)
    try:
        listener = bind(settings.host, settings.port)
    except OSError as error:
        log.error("can't listen on %s port %d: %s", settings.host, settings.port, error.strerror)
        return 1
    settings = replace(settings, port=listener.getsockname()[1])
    try:
        with contextlib.closing(listener):
            uvloop.run(serve_until_stopped(settings, listener))
    except (EmbeddedError, MigrationError, VaultError) as error:
        log.error("%s", error)
        return 1
    except TRANSIENT as error:
        log.error("can't start or go on: %s", error)
        return 1
    except BaseExceptionGroup as group:
        log.critical("a part that the service can't do without has failed", exc_info=group)
        return 1
    return 0
