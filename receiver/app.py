"""The parts of one process, typed and named once; makes none of them and starts none of them.

`receiver.service.composition` builds it. What needs one part is handed that part, what needs many the app.
"""

import asyncio
from dataclasses import dataclass

from db.connection.dataloader import DataLoader
from db.connection.invalidation import Notices
from db.connection.types import Pool
from db.ingest.writer import Writer
from db.reads.channels import ChannelKey, ChannelRow
from db.reads.reconnect import ReconnectKey, ReconnectTarget
from db.vault import Vault
from receiver.alerts.dispatch import Dispatcher
from receiver.alerts.message import Notifier
from receiver.alerts.routing import Routing
from receiver.alerts.send_test import TestSend
from receiver.http.auth import Tokens
from receiver.http.load_shedding import Load
from receiver.http.signed_links import ReconnectLinks
from receiver.ingest.live_traffic import LiveTraffic
from receiver.ingest.operator_signals import OperatorSignals
from receiver.jobs.loop import LoopRunner
from receiver.outbound.client import Client
from receiver.provisioning.webhook_registration import WebhookRegistrar
from receiver.reconcile.bulk_probe import BulkProber
from receiver.reconcile.deep_probe import DeepProber
from receiver.reconcile.gateway_health import GatewayHealth
from receiver.reconcile.gateways.offline_guard import OfflineGuard
from receiver.reconcile.probe import Prober
from receiver.recovery.orders import Recovery
from receiver.settings import Settings
from receiver.telemetry.metrics import Metrics
from receiver.timings import Timings


@dataclass(frozen=True, slots=True, kw_only=True)
class App:
    """Everything that a process of the service works with; its loops are in `receiver.service.lifecycle`."""

    settings: Settings
    timings: Timings
    metrics: Metrics
    loops: LoopRunner
    load: Load
    """Requests in flight, for admission and the metric of it."""
    stopping: asyncio.Event
    """Set when the HTTP server stops: streams end, so that their browsers come back to another process."""

    vault: Vault
    pool: Pool
    writer: Writer
    """The one way to a channel's state: `submit` returns once the transaction is committed."""

    tokens: Tokens
    live_traffic: LiveTraffic
    operator_signals: OperatorSignals
    notices: Notices
    """Receives from other processes what must be forgotten here."""
    channels: DataLoader[ChannelKey, ChannelRow]

    client: Client
    list_client: Client
    """With the timeout that a list of all instances needs."""
    prober: Prober
    guard: OfflineGuard
    gateways: GatewayHealth
    bulk_prober: BulkProber
    deep_prober: DeepProber
    webhook_registrar: WebhookRegistrar
    recovery: Recovery

    notifiers: dict[str, Notifier]
    """By kind of destination."""
    routing: Routing
    dispatcher: Dispatcher
    test_send: TestSend

    links: ReconnectLinks
    reconnect_targets: DataLoader[ReconnectKey, ReconnectTarget]
