"""The composition root: builds the app's parts and passes each what it needs. Runs none of them."""

import asyncio
from contextlib import AsyncExitStack, aclosing
from functools import partial
from socket import gethostname
from uuid import UUID, uuid4

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.types import ASGIApp, Receive, Scope, Send

from db.connection.dataloader import DataLoader
from db.connection.invalidation import Notices
from db.connection.pool import connect, connect_writer, open_pool
from db.connection.types import Pool
from db.ingest.writer import Writer
from db.reads.channels import find_channels
from db.reads.reconnect import find_reconnect_targets
from db.reconcile.claims import ProbeTarget
from db.reconcile.failing_loops import note_failing_loop, withdraw_failing_loop
from db.reconcile.recoveries import Budget
from db.vault import Vault
from receiver import api
from receiver.alerts.dispatch import Dispatcher
from receiver.alerts.notifiers import every_notifier
from receiver.alerts.routing import Routing
from receiver.alerts.send_test import TestSend
from receiver.app import App
from receiver.http.auth import Tokens
from receiver.http.load_shedding import Admission, Load
from receiver.http.problems import exception_handlers
from receiver.http.signed_links import ReconnectLinks
from receiver.i18n.reasons import reason_text
from receiver.ingest.live_traffic import LiveTraffic
from receiver.ingest.operator_signals import OperatorSignals
from receiver.ingest.webhooks import Webhooks, is_webhook
from receiver.jobs.loop import Failing, LoopRunner
from receiver.outbound.client import LISTED_WITHIN, open_client
from receiver.outbound.container import localhost
from receiver.outbound.egress import Egress
from receiver.providers import RECOVERABLE
from receiver.provisioning.webhook_registration import WebhookRegistrar
from receiver.reconcile.bulk_probe import BulkProber
from receiver.reconcile.deep_probe import TIMEOUT_FACTOR, DeepProber
from receiver.reconcile.gateway_answers import GatewayAnswers
from receiver.reconcile.gateway_health import GatewayHealth
from receiver.reconcile.gateways.refused_keys import RefusedKeys
from receiver.reconcile.probe import Prober, ProbeResult
from receiver.reconnect import page
from receiver.recovery.orders import Recovery
from receiver.settings import Settings
from receiver.telemetry.logs import AccessLog
from receiver.telemetry.metrics import Metrics
from receiver.timings import NORMAL, Timings
from statemachine.model import Rules


async def compose(stack: AsyncExitStack, settings: Settings, timings: Timings, metrics: Metrics) -> App:
    """Return the app of one process, nothing of it running; the stack closes what was opened."""
    assert settings.database_url is not None
    dsn, vault = settings.database_url, Vault(settings.secret_keys)
    rules = installation_rules(settings, timings)
    pool = await stack.enter_async_context(await open_pool(dsn))
    client = await stack.enter_async_context(open_client(settings.probe_timeout, localhost()))
    deep_client = await stack.enter_async_context(
        open_client(TIMEOUT_FACTOR * settings.probe_timeout, localhost())
    )
    list_client = await stack.enter_async_context(open_client(LISTED_WITHIN, localhost()))
    writer = Writer(
        partial(connect_writer, dsn), rules, metrics.committed, words=reason_text, recoverable=RECOVERABLE
    )
    answers, keys = GatewayAnswers(timings.offline_for), RefusedKeys()
    # A control must not serve two answers that count in a row.
    prober = Prober(pool, vault, client, settings.retry_after / 2, partial(_note, metrics, answers, keys))
    await stack.enter_async_context(aclosing(prober))
    connect_listener = partial(connect, dsn, "zapwatch notices")
    tokens, links = Tokens(pool), ReconnectLinks(settings.secret_keys, settings.base_url)
    notifiers = every_notifier(pool)
    egress = Egress.allowing(settings.outgoing_allow)
    app = App(
        settings=settings,
        timings=timings,
        metrics=metrics,
        load=Load(),
        loops=LoopRunner(
            metrics.loop_failed, partial(_report_loop, pool, uuid4(), gethostname()), timings.loops
        ),
        stopping=asyncio.Event(),
        vault=vault,
        pool=pool,
        writer=writer,
        tokens=tokens,
        live_traffic=LiveTraffic(pool, writer, rules),
        operator_signals=OperatorSignals(pool, writer, prober),
        notices=Notices(connect_listener, tokens.on_notice, tokens.forget_all),
        channels=DataLoader(partial(find_channels, pool)),
        client=client,
        list_client=list_client,
        prober=prober,
        gateways=GatewayHealth(pool, writer, prober, client, answers, keys, settings, timings),
        bulk_prober=BulkProber(pool, vault, client, writer, rules, metrics.bulk_probed, answers.answered),
        deep_prober=DeepProber(pool, vault, writer, prober, deep_client, metrics.deeply_probed),
        webhook_registrar=WebhookRegistrar(pool, vault, client, settings.base_url),
        recovery=Recovery(
            pool,
            writer,
            vault,
            client,
            partial(_probe_and_keep, prober, writer),
            Budget(together=timings.verdict_within).faster(timings.recovery_speed),
            rules.stuck_after,
            metrics.recovery_ended,
        ),
        notifiers=notifiers,
        routing=Routing(
            pool,
            vault,
            notifiers,
            metrics.alert_decided,
            window=timings.alert_window,
            gather=timings.gather_alerts,
            doubt=timings.alert_doubt,
            settle=settings.gateway_settle,
            stale_after=settings.stale_after,
        ),
        dispatcher=Dispatcher(pool, vault, notifiers, egress, links.link_for, metrics.message_tried),
        test_send=TestSend(pool, notifiers, egress),
        links=links,
        reconnect_targets=DataLoader(partial(find_reconnect_targets, pool)),
    )
    _measure(app)
    return app


def http_app(app: App) -> ASGIApp:
    """Return the ASGI app: webhooks, which bypass routes and their middleware, and everything else."""
    admission = partial(Admission, load=app.load, on_refused=app.metrics.requests_refused.inc)
    webhooks = Webhooks(
        tokens=app.tokens,
        writer=app.writer,
        live_traffic=app.live_traffic,
        pool=app.pool,
        vault=app.vault,
        metrics=app.metrics,
    )
    guarded = admission(AccessLog(webhooks))
    others = Starlette(
        routes=[*api.routes(app), *page.routes(app)],
        middleware=[Middleware(admission), Middleware(AccessLog)],
        exception_handlers=exception_handlers,
    )

    async def answer(scope: Scope, receive: Receive, send: Send) -> None:
        await (guarded if is_webhook(scope) else others)(scope, receive, send)

    return answer


async def _report_loop(pool: Pool, process: UUID, host: str, name: str, failing: Failing | None) -> None:
    if failing is None:
        await withdraw_failing_loop(pool, process, name)
    else:
        await note_failing_loop(pool, process, host, name, *failing)


def installation_rules(settings: Settings, timings: Timings = NORMAL) -> Rules:
    """Return the installation's rules, the defaults for tenants without their own."""
    defaults = Rules()
    return Rules(
        stale_after=settings.stale_after,
        retry_after=settings.retry_after,
        terminal_grace=settings.terminal_grace,
        recovery_wait=defaults.recovery_wait / timings.recovery_speed,
        stuck_after=defaults.stuck_after / timings.recovery_speed,
        counted_after=timings.away_for,
    )


def _measure(app: App) -> None:
    """Have gauges read the numbers that the parts count themselves."""
    metrics = app.metrics
    metrics.measure(metrics.requests_in_flight, lambda: app.load.requests)
    metrics.measure(metrics.queue_entries, lambda: app.writer.depth)
    metrics.measure(metrics.probes_in_flight, lambda: app.prober.in_flight)
    metrics.measure(metrics.messages_in_flight, lambda: app.dispatcher.in_flight)


def _note(metrics: Metrics, answers: GatewayAnswers, keys: RefusedKeys, probed: ProbeResult) -> None:
    metrics.probed(probed)
    answers.note(probed)
    keys.note(probed)


async def _probe_and_keep(prober: Prober, writer: Writer, target: ProbeTarget) -> ProbeResult:
    probed = await prober.probe(target)
    await writer.submit([probed.entry])
    return probed
