"""The composition root: makes the app's parts and hands each what it needs. Runs none of them."""

from contextlib import AsyncExitStack, aclosing
from datetime import UTC, datetime
from functools import partial
from socket import gethostname
from uuid import UUID, uuid4

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.types import ASGIApp, Receive, Scope, Send

from db.apply import acknowledge
from db.claims import Target
from db.connections import Pool
from db.entry import Entry, Noted, Source
from db.failing_loops import note_failing_loop, withdraw_failing_loop
from db.lookups import Lookups
from db.notices import Notices
from db.pool import connect, connect_writer, open_pool
from db.queue import Unavailable as NotCommitted
from db.reads import find_channels
from db.reconnects import find_stranded
from db.recoveries import Budget
from db.vault import Vault
from db.writer import Writer
from receiver import api, slots
from receiver.admission import Admission, Load
from receiver.alerts import NOTIFIERS
from receiver.alerts.dispatch import Dispatcher
from receiver.alerts.in_app import InApp
from receiver.alerts.routing import Routing
from receiver.alerts.trial import Trial
from receiver.auth import Tokens
from receiver.client import open_client
from receiver.container import localhost
from receiver.dashboard import reconnect
from receiver.dashboard.visits import Visits
from receiver.errors import Unavailable, exception_handlers
from receiver.freshness import Freshness
from receiver.gateways import Gateways
from receiver.imports import LISTED_WITHIN
from receiver.jobs.loop import TIMING, Failing, LoopRunner, Timing
from receiver.links import Links
from receiver.logs import AccessLog
from receiver.metrics import Metrics
from receiver.outgoing import Outgoing
from receiver.probe import Probed, Prober
from receiver.providers import CURABLE
from receiver.recovery import Recovery
from receiver.settings import Settings
from receiver.suspicions import PATIENCE, Suspicions
from receiver.sweeps import Sweeper
from receiver.tally import Tally
from receiver.texts import reason_text
from receiver.webhooks import Webhooks, is_webhook
from statemachine.model import Rules
from statemachine.signals import Deadline


class Zapwatch(Starlette):
    """The app. Webhooks go past its routes and middleware, to what they need of it."""

    webhooks: ASGIApp

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await (self.webhooks if is_webhook(scope) else super().__call__)(scope, receive, send)


async def compose(
    stack: AsyncExitStack, settings: Settings, metrics: Metrics, timing: Timing = TIMING
) -> Zapwatch:
    """Return the app with its parts in `app.state`, none running; the stack closes what they opened.

    `timing`: when background loops that fail do what.
    """
    assert settings.database_url is not None
    dsn, vault, rules = settings.database_url, Vault(settings.secret_keys), installation_rules(settings)
    load = Load()
    admission = partial(Admission, load=load, on_refused=metrics.requests_refused.inc)
    app = Zapwatch(
        routes=[*api.routes, *reconnect.routes],
        middleware=[Middleware(admission), Middleware(AccessLog)],
        exception_handlers=exception_handlers,
    )
    state = app.state
    state.settings, state.vault, state.metrics = settings, vault, metrics
    state.pool = pool = await stack.enter_async_context(await open_pool(dsn))
    report = partial(_report_loop, pool, uuid4(), gethostname())
    state.loops = LoopRunner(metrics.loop_failed, report, timing)
    state.client = await stack.enter_async_context(open_client(settings.probe_timeout, localhost()))
    state.writer = writer = Writer(
        partial(connect_writer, dsn), rules, metrics.committed, words=reason_text, curable=CURABLE
    )
    metrics.measure(metrics.requests_in_flight, lambda: load.requests)
    metrics.measure(metrics.queue_entries, lambda: writer.depth)
    _hear(app, dsn, rules)
    await _ask(stack, app, rules)
    _tell(app)
    state.apply_now = partial(_apply_now, writer)
    state.acknowledge = partial(_acknowledge, pool)
    app.webhooks = admission(AccessLog(Webhooks(state)))
    return app


def _hear(app: Zapwatch, dsn: str, rules: Rules) -> None:
    """Add what webhooks and readers need."""
    state = app.state
    state.tokens, state.freshness = Tokens(state.pool), Freshness(state.pool, state.writer, rules)
    state.channels = Lookups(partial(find_channels, state.pool))
    hear = partial(connect, dsn, "zapwatch notices")
    state.notices = Notices(hear, state.tokens.forget, state.tokens.forget_all)


async def _ask(stack: AsyncExitStack, app: Zapwatch, rules: Rules) -> None:
    """Add what asks gateways."""
    state = app.state
    settings, metrics = state.settings, state.metrics
    pool, vault, client, writer = state.pool, state.vault, state.client, state.writer
    tally = Tally(settings.offline_for)
    # A control must not serve two answers that count in a row.
    prober = Prober(pool, vault, client, settings.retry_after / 2, partial(_note, metrics, tally))
    state.prober = await stack.enter_async_context(aclosing(prober))
    metrics.measure(metrics.probes_in_flight, lambda: prober.in_flight)
    state.check_now = partial(_check_now, prober, writer)
    state.gateways = Gateways(pool, writer, prober, client, tally, settings)
    patient = PATIENCE * settings.probe_timeout
    deep_client = await stack.enter_async_context(open_client(patient, localhost()))
    state.suspicions = Suspicions(pool, vault, writer, prober, deep_client, metrics.deeply_probed)
    state.list_client = await stack.enter_async_context(open_client(LISTED_WITHIN, localhost()))
    state.sweeper = Sweeper(pool, vault, client, writer, rules, metrics.swept, tally.answered)
    state.slotter = slots.Slotter(pool, vault, client, settings.base_url)
    verify, budget = partial(_probe_and_keep, prober, writer), Budget().faster(settings.recovery_speed)
    state.recovery = Recovery(
        pool, writer, vault, client, verify, budget, rules.stuck_after, metrics.recovery_ended
    )
    state.restart_now = state.recovery.by_hand


def _tell(app: Zapwatch) -> None:
    """Add what tells people, and the page of the way back."""
    state = app.state
    settings, metrics, pool = state.settings, state.metrics, state.pool
    state.links, state.visits = Links(settings.secret_keys, settings.base_url), Visits()
    state.stranded = Lookups(partial(find_stranded, pool))
    state.note = partial(_note_visit, state.writer)
    operators, tenants = Outgoing(allow=None), Outgoing(settings.outgoing_allow)
    state.notifiers = notifiers = {**NOTIFIERS, InApp.kind: InApp(pool)}
    state.routing = Routing(pool, state.vault, notifiers, metrics.alert_decided)
    state.dispatcher = dispatcher = Dispatcher(
        pool, state.vault, notifiers, operators, tenants, state.links.link_for, metrics.message_tried
    )
    metrics.measure(metrics.messages_in_flight, lambda: dispatcher.in_flight)
    state.try_destination = Trial(pool, notifiers, operators, tenants).send


async def _report_loop(pool: Pool, process: UUID, host: str, name: str, failing: Failing | None) -> None:
    if failing is None:
        await withdraw_failing_loop(pool, process, name)
    else:
        await note_failing_loop(pool, process, host, name, *failing)


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


async def _acknowledge(pool: Pool, incident_id: UUID) -> None:
    async with pool.acquire() as connection:
        await acknowledge(connection, incident_id)
