"""The parts of one process, typed and named once; makes none of them and starts none of them.

`receiver.composition` builds it. What needs a part is handed the part, or the whole app where it needs many.
"""

import asyncio
from dataclasses import dataclass

from db.connections import Pool
from db.lookups import Lookups
from db.notices import Notices
from db.reads import ChannelKey, ChannelRow
from db.reconnects import Stranded, StrandedKey
from db.vault import Vault
from db.writer import Writer
from receiver.admission import Load
from receiver.alerts.dispatch import Dispatcher
from receiver.alerts.notice import Notifier
from receiver.alerts.routing import Routing
from receiver.alerts.trial import Trial
from receiver.auth import Tokens
from receiver.client import Client
from receiver.freshness import Freshness
from receiver.gateways import Gateways
from receiver.jobs.loop import LoopRunner
from receiver.links import Links
from receiver.metrics import Metrics
from receiver.operator import OperatorSignals
from receiver.probe import Prober
from receiver.recovery import Recovery
from receiver.settings import Settings
from receiver.slots import Slotter
from receiver.suspicions import Suspicions
from receiver.sweeps import Sweeper
from receiver.timings import Timings


@dataclass(frozen=True, slots=True, kw_only=True)
class App:
    """Everything that a process of the service works with; its loops are in `receiver.app`."""

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
    freshness: Freshness
    operator_signals: OperatorSignals
    notices: Notices
    """Hears from other processes what must be forgotten here."""
    channels: Lookups[ChannelKey, ChannelRow]

    client: Client
    list_client: Client
    """With the patience that a list of all instances needs."""
    prober: Prober
    gateways: Gateways
    sweeper: Sweeper
    suspicions: Suspicions
    slotter: Slotter
    recovery: Recovery

    notifiers: dict[str, Notifier]
    """By kind of destination."""
    routing: Routing
    dispatcher: Dispatcher
    trial: Trial

    links: Links
    stranded: Lookups[StrandedKey, Stranded]
