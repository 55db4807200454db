"""The composition root: opens what the service stands on and starts its loops. Serves nothing."""

import asyncio
import logging
from collections.abc import AsyncIterator, Coroutine, Iterator, Sequence
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any, Final
from uuid import UUID

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.types import ASGIApp, Receive, Scope, Send

from db.apply import acknowledge
from db.claims import Target
from db.embedded import Embedded, run_embedded
from db.entry import Entry, Noted, Source
from db.lodging import lodge
from db.lookups import Lookups
from db.migrate import migrate
from db.notices import listen
from db.pool import connect, connect_writer, open_pool
from db.queue import Unavailable as NotCommitted
from db.reads import find_channels
from db.reconnects import find_stranded
from db.recoveries import Budget
from db.vault import Vault, kept_keys
from db.writer import Writer
from receiver import (
    api,
    checks,
    heartbeat,
    housekeeping,
    records,
    retention,
    slots,
    subscriptions,
    suspicions,
    versions,
)
from receiver.admission import Admission, Load
from receiver.alerts import NOTIFIERS
from receiver.alerts.dispatch import Dispatcher
from receiver.alerts.first import keep_alert_url
from receiver.alerts.in_app import InApp
from receiver.alerts.routing import Routing
from receiver.alerts.trial import Trial
from receiver.auth import Tokens, first_token
from receiver.client import open_client
from receiver.container import localhost
from receiver.dashboard import reconnect
from receiver.dashboard.visits import Visits
from receiver.deadlines import Deadlines
from receiver.errors import Unavailable, exception_handlers
from receiver.freshness import Freshness
from receiver.gateways import Gateways
from receiver.links import Links
from receiver.logs import AccessLog
from receiver.metrics import Metrics
from receiver.outgoing import Outgoing
from receiver.probe import Probed, Prober
from receiver.providers import CURABLE
from receiver.reconciler import Reconciler
from receiver.recovery import Recovery
from receiver.settings import DEFAULT_DATA_DIR, Settings
from receiver.sweeps import Sweeper
from receiver.tally import Tally
from receiver.texts import reason_text
from receiver.webhooks import Webhooks, is_webhook
from statemachine.model import Rules
from statemachine.signals import Deadline

DRAIN: Final = timedelta(seconds=20)
"""How long the service may take to end after SIGTERM."""
SETTLED_WITHIN: Final = timedelta(seconds=6)
"""Of that: to give claims back and write what is left, once the last request is answered."""
CONNECTIONS: Final = 25
"""To the embedded PostgreSQL, for each process that serves and for the commands beside them together."""

log = logging.getLogger(__name__)


class Zapwatch(Starlette):
    """The app. Webhooks go past its routes and middleware, to what they need of it."""

    webhooks: ASGIApp

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await (self.webhooks if is_webhook(scope) else super().__call__)(scope, receive, send)


class LoopEnded(Exception):
    """A part that the service can't do without has ended."""


@dataclass(frozen=True, slots=True)
class Foundation:
    """What every process of the service stands on: settings that name a database, there and migrated."""

    settings: Settings
    token: str | None
    """The operator's token, if this start made the first one."""


@asynccontextmanager
async def running(settings: Settings) -> AsyncIterator[tuple[Starlette, str | None]]:
    """Yield the app with its loops running, and the operator's token if this start made the first one.

    When a loop dies the body is cancelled and its error raised: the process should end, loudly.
    """
    async with founded(settings) as foundation, working(foundation.settings) as app:
        yield app, foundation.token


@asynccontextmanager
async def founded(settings: Settings) -> AsyncIterator[Foundation]:
    """Yield the foundation, once for a service, however many processes serve; raises as `running` does."""
    async with AsyncExitStack() as stack:
        embedded = None
        if settings.database_url is None:
            if settings.data_dir == DEFAULT_DATA_DIR:
                lodge(settings.data_dir)
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
async def working(settings: Settings, shared: Path | None = None) -> AsyncIterator[Starlette]:
    """Yield the app of one process on a foundation, with its loops running; raises as `running` does.

    `shared` is the folder of the metrics of all processes, when there are several.
    """
    async with AsyncExitStack() as stack:
        app = await _compose(stack, settings, Metrics(shared))
        async with asyncio.TaskGroup() as tasks:
            kept = [tasks.create_task(loop, name=name) for name, loop in _keeping(app)]
            claiming = [tasks.create_task(loop, name=name) for name, loop in _claiming(app)]
            try:
                yield app
                await _settle(app, claiming)
            finally:
                for loop in (*claiming, *kept):
                    loop.cancel()


async def _settle(app: Starlette, claiming: Sequence["asyncio.Task[None]"]) -> None:
    """End the loops that claim, so that they give back what they hold, then write what is left in memory."""
    try:
        async with asyncio.timeout(SETTLED_WITHIN.total_seconds()):
            for loop in claiming:
                loop.cancel()
            await asyncio.wait(claiming)
            await app.state.freshness.flush()
            await app.state.writer.drain()
    except TimeoutError:
        log.warning("the database did not take in time what was left to write")


def _dsn(settings: Settings) -> str:
    assert settings.database_url is not None
    return settings.database_url


async def _prepare(dsn: str, vault: Vault, settings: Settings) -> str | None:
    connection = await connect(dsn, "zapwatch start", command_timeout=None)
    try:
        for name in await migrate(connection):
            log.info("applied migration %s", name)
        await housekeeping.keep(connection, vault)
        if settings.alert_url is not None:
            await keep_alert_url(connection, vault, NOTIFIERS, settings.alert_url)
        return await first_token(connection, settings)
    finally:
        connection.terminate()


async def _compose(stack: AsyncExitStack, settings: Settings, metrics: Metrics) -> Starlette:
    dsn, vault = _dsn(settings), Vault(settings.secret_keys)
    pool = await stack.enter_async_context(await open_pool(dsn))
    client = await stack.enter_async_context(open_client(settings.probe_timeout, localhost()))
    rules = installation_rules(settings)
    writer = Writer(
        partial(connect_writer, dsn), rules, metrics.committed, words=reason_text, curable=CURABLE
    )
    metrics.measure(metrics.queue_entries, lambda: writer.depth)
    load = Load()
    metrics.measure(metrics.requests_in_flight, lambda: load.requests)
    admission = partial(Admission, load=load, on_refused=metrics.requests_refused.inc)
    app = Zapwatch(
        routes=[*api.routes, *reconnect.routes],
        middleware=[Middleware(admission), Middleware(AccessLog)],
        exception_handlers=exception_handlers,
    )
    app.state.settings, app.state.vault, app.state.pool = settings, vault, pool
    app.state.metrics, app.state.client, app.state.writer = metrics, client, writer
    # A control must not serve two answers that count in a row.
    tally = Tally(settings.offline_for)
    note = partial(_note, metrics, tally)
    prober = Prober(pool, vault, client, settings.retry_after / 2, note)
    app.state.prober = await stack.enter_async_context(aclosing(prober))
    app.state.gateways = Gateways(pool, writer, prober, client, tally, settings)
    app.state.sweeper = Sweeper(pool, vault, client, writer, rules, metrics.swept, tally.answered)
    app.state.slotter = slots.Slotter(pool, vault, client, settings.base_url)
    metrics.measure(metrics.probes_in_flight, lambda: prober.in_flight)
    app.state.tokens, app.state.freshness = Tokens(pool), Freshness(pool, writer, rules)
    app.state.channels = Lookups(partial(find_channels, pool))
    app.state.links, app.state.visits = Links(settings.secret_keys, settings.base_url), Visits()
    app.state.stranded = Lookups(partial(find_stranded, pool))
    app.state.note = partial(_note_visit, writer)
    hear = partial(connect, dsn, "zapwatch notices")
    app.state.listen = partial(listen, hear, app.state.tokens.forget, app.state.tokens.forget_all)
    app.state.apply_now = partial(_apply_now, writer)
    app.state.check_now = partial(_check_now, app.state.prober, writer)
    app.state.recovery = Recovery(
        pool,
        writer,
        vault,
        client,
        partial(_probe_and_keep, prober, writer),
        Budget().faster(settings.recovery_speed),
        rules.stuck_after,
        metrics.recovery_ended,
    )
    operators, tenants = Outgoing(allow=None), Outgoing(settings.outgoing_allow)
    app.state.notifiers = notifiers = {**NOTIFIERS, InApp.kind: InApp(pool)}
    app.state.routing = Routing(pool, vault, notifiers, metrics.alert_decided)
    app.state.dispatcher = dispatcher = Dispatcher(
        pool, vault, notifiers, operators, tenants, app.state.links.link_for, metrics.message_tried
    )
    metrics.measure(metrics.messages_in_flight, lambda: dispatcher.in_flight)
    app.state.try_destination = Trial(pool, notifiers, operators, tenants).send
    app.state.restart_now = app.state.recovery.by_hand
    app.state.acknowledge = partial(_acknowledge, app)
    app.webhooks = admission(AccessLog(Webhooks(app.state)))
    return app


def installation_rules(settings: Settings) -> Rules:
    """Return the rules that hold for every channel whose tenant wishes nothing else."""
    told = Rules()
    return Rules(
        stale_after=settings.stale_after,
        retry_after=settings.retry_after,
        terminal_grace=settings.terminal_grace,
        recovery_wait=told.recovery_wait / settings.recovery_speed,
        stuck_after=told.stuck_after / settings.recovery_speed,
        verdict_wait=settings.verdict_within,
    )


def _keeping(app: Starlette) -> Iterator[tuple[str, Coroutine[Any, Any, None]]]:
    """Yield the loops that keep what comes in, and so end last."""
    state = app.state
    yield "writer", state.writer.run()
    yield "freshness", state.freshness.run()
    yield "event loop lag", state.metrics.watch_event_loop()


def _claiming(app: Starlette) -> Iterator[tuple[str, Coroutine[Any, Any, None]]]:
    """Yield the loops that claim what is due."""
    state = app.state
    settings, lag = state.settings, state.metrics.deadline_lag_seconds
    yield "deadlines", Deadlines(state.pool, state.writer, lag.set, settings.verdict_within).run()
    yield "gateways", state.gateways.run()
    yield "reconciler", Reconciler(state.pool, state.writer, state.prober, state.settings.probe_timeout).run()
    yield "sweeps", state.sweeper.run()
    yield "recovery", state.recovery.run()
    yield "alerts", state.routing.run()
    yield "messages", state.dispatcher.run()
    yield "checks", checks.run(state.pool)
    yield "versions", versions.run(state.pool, state.client, state.tokens)
    yield "subscriptions", subscriptions.run(state.pool, state.vault, state.client)
    yield "slots", slots.run(state.pool, state.slotter)
    yield "records", records.run(state.pool, state.vault)
    timeout, told = state.settings.probe_timeout, state.metrics.deeply_probed
    deep = suspicions.run(state.pool, state.vault, state.writer, state.prober, timeout, told)
    yield "suspicions", deep
    yield "notices", state.listen()
    if (url := state.settings.heartbeat_url) is not None:
        yield "heartbeat", heartbeat.run(state.pool, state.client, url, state.settings.heartbeat_every)
    yield "housekeeping", housekeeping.run(state.pool, state.vault)
    yield "retention", retention.run(state.pool, timedelta(days=state.settings.events_keep_days))


async def _watch(embedded: Embedded) -> None:
    raise LoopEnded(f"the embedded PostgreSQL ended with {await embedded.died()}; see {embedded.log}")


def _note(metrics: Metrics, tally: Tally, probed: Probed) -> None:
    metrics.probed(probed)
    tally.note(probed)


async def _apply_now(writer: Writer, channel_id: UUID) -> None:
    now = datetime.now(UTC)
    # Whether its gateway is suspect is seen when the clock's own deadline comes; until then it may be.
    deadline = Deadline(now, suspect=True)
    try:
        await writer.submit([Entry(channel_id, Source.DEADLINE, "deadline", now, deadline)])
    except NotCommitted as error:
        raise Unavailable(str(error)) from None


async def _note_visit(writer: Writer, channel_id: UUID, name: str, said: Noted) -> None:
    try:
        await writer.submit([Entry(channel_id, Source.OPERATOR, name, datetime.now(UTC), said)])
    except NotCommitted as error:
        raise Unavailable(str(error)) from None


async def _check_now(prober: Prober, writer: Writer, target: Target) -> Probed:
    try:
        return await _probe_and_keep(prober, writer, target)
    except NotCommitted as error:
        raise Unavailable(str(error)) from None


async def _probe_and_keep(prober: Prober, writer: Writer, target: Target) -> Probed:
    probed = await prober.probe(target)
    await writer.submit([probed.entry])
    return probed


async def _acknowledge(app: Starlette, incident_id: UUID) -> None:
    async with app.state.pool.acquire() as connection:
        await acknowledge(connection, incident_id)
