"""The lifecycle of the service: opens its database, starts its loops and ends them. Serves nothing."""

import asyncio
import logging
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Final

from db.connection.pool import connect
from db.embedded.data_dir import relocate
from db.embedded.server import Embedded, run_embedded
from db.migrate import migrate
from db.vault import Vault, kept_keys
from receiver.alerts.alert_url import keep_alert_url
from receiver.alerts.notifiers import NOTIFIERS
from receiver.app import App
from receiver.http.auth import first_token
from receiver.jobs import heartbeat, housekeeping, retention
from receiver.jobs.loop import Loop
from receiver.provisioning import subscriptions, webhook_registration
from receiver.reconcile import check_jobs, gateway_records, gateway_versions
from receiver.reconcile.deadlines import Deadlines
from receiver.reconcile.gateways.verdicts import GatewayVerdicts
from receiver.reconcile.reconciler import Reconciler
from receiver.service.composition import compose
from receiver.settings import DEFAULT_DATA_DIR, Settings
from receiver.telemetry.metrics import Metrics
from receiver.timings import NORMAL, Timings

DRAIN: Final = timedelta(seconds=20)
"""How long the service may take to end after SIGTERM."""
SETTLED_WITHIN: Final = timedelta(seconds=6)
"""Of that: to release claims and write what is left, once the last request is answered."""
CONNECTIONS: Final = 25
"""To the embedded PostgreSQL, for each process that serves and for the commands beside them together."""

log = logging.getLogger(__name__)


class LoopEnded(Exception):
    """A part that the service can't do without has ended."""


@dataclass(frozen=True, slots=True)
class Foundation:
    """What every process of the service needs: settings with a database that is reachable and migrated."""

    settings: Settings
    token: str | None
    """The operator's token, if this start made the first one."""


@asynccontextmanager
async def running(settings: Settings, timings: Timings = NORMAL) -> AsyncIterator[tuple[App, str | None]]:
    """Yield the app with its loops running, and the operator's token if this start made the first one.

    When the writer, the deadlines or the embedded PostgreSQL fail, the body is cancelled and their error
    raised: the process should end, loudly.
    """
    async with founded(settings) as foundation, working(foundation.settings, timings=timings) as app:
        yield app, foundation.token


@asynccontextmanager
async def founded(settings: Settings) -> AsyncIterator[Foundation]:
    """Yield the foundation, once for a service, however many processes serve; raises as `running` does."""
    async with AsyncExitStack() as stack:
        embedded = None
        if settings.database_url is None:
            if settings.data_dir == DEFAULT_DATA_DIR:
                relocate(settings.data_dir)
            connections = CONNECTIONS * (settings.workers + 1)
            embedded = await stack.enter_async_context(
                run_embedded(settings.data_dir, connections=connections)
            )
            keys = settings.secret_keys or kept_keys(settings.data_dir / "secret_keys")
            settings = replace(settings, database_url=embedded.dsn, secret_keys=keys)
        token = await _prepare(_dsn(settings), Vault(settings.secret_keys), settings)
        tasks = await stack.enter_async_context(asyncio.TaskGroup())
        if embedded is not None:
            stack.callback(tasks.create_task(_watch(embedded), name="postgres").cancel)
        yield Foundation(settings, token)


@asynccontextmanager
async def working(
    settings: Settings, shared: Path | None = None, timings: Timings = NORMAL
) -> AsyncIterator[App]:
    """Yield the app of one process on a foundation, with its loops running; raises as `running` does.

    `shared` is the folder of the metrics of all processes, when there are several.
    """
    async with AsyncExitStack() as stack:
        app = await compose(stack, settings, timings, Metrics(shared))
        async with asyncio.TaskGroup() as tasks:
            kept = [tasks.create_task(app.writer.run(), name="writer")]
            kept += [_start(tasks, app, loop) for loop in _keeping(app)]
            claiming = [_start(tasks, app, loop) for loop in _claiming(app)]
            try:
                yield app
                await _settle(app, claiming)
            finally:
                for loop in (*claiming, *kept):
                    loop.cancel()


def _start(tasks: asyncio.TaskGroup, app: App, loop: Loop) -> "asyncio.Task[None]":
    app.metrics.follow(loop.name, app.loops.is_failing)
    return tasks.create_task(app.loops.run(loop), name=loop.name)


async def _settle(app: App, claiming: Sequence["asyncio.Task[None]"]) -> None:
    """End the loops that claim, so that they release their claims, then write what is left in memory."""
    try:
        async with asyncio.timeout(SETTLED_WITHIN.total_seconds()):
            for loop in claiming:
                loop.cancel()
            await asyncio.wait(claiming)
            await app.live_traffic.flush()
            await app.writer.drain()
    except TimeoutError:
        log.warning("the database did not accept the remaining writes in time")


def _dsn(settings: Settings) -> str:
    assert settings.database_url is not None
    return settings.database_url


async def _prepare(dsn: str, vault: Vault, settings: Settings) -> str | None:
    connection = await connect(dsn, "zapwatch start", command_timeout=None)
    try:
        for name in await migrate(connection):
            log.info("applied migration %s", name)
        await housekeeping.keep_at_start(connection, vault)
        if settings.alert_url is not None:
            await keep_alert_url(connection, vault, NOTIFIERS, settings.alert_url)
        return await first_token(connection, settings)
    finally:
        connection.terminate()


def _keeping(app: App) -> Iterator[Loop]:
    """Yield the loops that end last, like the writer: they store what comes in."""
    yield app.live_traffic.loop()
    yield app.metrics.loop()


def _claiming(app: App) -> Iterator[Loop]:
    """Yield the loops that claim what is due."""
    settings, timings, lag = app.settings, app.timings, app.metrics.deadline_lag_seconds
    yield Deadlines(app.pool, app.writer, lag.set).loop()
    yield app.gateways.loop()
    yield GatewayVerdicts(app.pool, app.writer, settings.stale_after).loop()
    yield Reconciler(app.pool, app.writer, app.prober, app.guard, settings.probe_timeout).loop()
    yield app.bulk_prober.loop()
    yield app.recovery.loop()
    yield app.routing.loop()
    yield app.dispatcher.loop()
    yield check_jobs.loop(app.pool)
    yield gateway_versions.loop(app.pool, app.client, app.tokens)
    yield subscriptions.loop(app.pool, app.vault, app.client)
    yield webhook_registration.loop(app.pool, app.webhook_registrar)
    yield gateway_records.loop(app.pool, app.vault, app.list_client)
    yield app.deep_prober.loop()
    yield Loop("invalidation", app.notices.listen, timedelta(seconds=1), app.notices.close)
    if (url := settings.heartbeat_url) is not None:
        yield heartbeat.loop(app.pool, app.client, url, timings.heartbeat_every)
    yield housekeeping.loop(app.pool, app.vault)
    yield retention.loop(app.pool, timedelta(days=settings.events_keep_days))


async def _watch(embedded: Embedded) -> None:
    raise LoopEnded(f"the embedded PostgreSQL ended with {await embedded.died()}; see {embedded.log}")
