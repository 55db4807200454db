"""What Prometheus reads at `/metrics`; no label names a channel, a tenant or a gateway."""

import time
from collections.abc import Callable, Iterator, Mapping
from datetime import timedelta
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from db.apply import Applied
from db.connections import Pool
from db.pool import TRANSIENT
from db.reads import count_channels
from statemachine.model import State

# How old the numbers of channels by state may be: counting them reads every channel.
COUNTED_FOR: Final = timedelta(seconds=15)
STATES: Final = tuple(dict.fromkeys(state.shown for state in State))


class Metrics:
    """The instruments of one process; whoever does the work moves them."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.registry: Final = CollectorRegistry()
        self.webhook_answers: Final = Counter(
            "zapwatch_webhook_answers",
            "Answers to webhooks by provider and status code.",
            ["provider", "code"],
            registry=self.registry,
        )
        self.batch_entries: Final = Histogram(
            "zapwatch_batch_entries",
            "Entries committed in one transaction.",
            buckets=(1, 2, 5, 10, 20, 50, 100, 200, 500, 1000),
            registry=self.registry,
        )
        self.commit_seconds: Final = Histogram(
            "zapwatch_commit_seconds",
            "Time from the start of a batch to its COMMIT.",
            buckets=(0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5),
            registry=self.registry,
        )
        self.entries_applied: Final = Counter(
            "zapwatch_entries_applied", "Entries (events and deadlines) committed.", registry=self.registry
        )
        self.incidents_opened: Final = Counter(
            "zapwatch_incidents_opened", "Incidents opened, by kind.", ["kind"], registry=self.registry
        )
        self.incidents_resolved: Final = Counter(
            "zapwatch_incidents_resolved", "Incidents resolved.", registry=self.registry
        )
        self.queue_entries: Final = Gauge(
            "zapwatch_queue_entries", "Entries that wait for their transaction.", registry=self.registry
        )
        self.deadline_lag_seconds: Final = Gauge(
            "zapwatch_deadline_lag_seconds",
            "How late the last deadline that was claimed was.",
            registry=self.registry,
        )
        self._channels = _Channels()
        self.registry.register(self._channels)
        self._clock = clock
        self._counted_until = 0.0

    def committed(self, applied: Applied, entries: int, seconds: float) -> None:
        """Note one batch; fits `Writer(on_commit=...)`."""
        for kind in applied.opened:
            self.incidents_opened.labels(kind).inc()
        self.incidents_resolved.inc(applied.resolved)
        self.batch_entries.observe(entries)
        self.commit_seconds.observe(seconds)
        self.entries_applied.inc(entries)

    async def expose(self, pool: Pool) -> bytes:
        """Return everything in Prometheus' text format; without a database the channels are left out."""
        if self._counted_until <= self._clock():
            self._channels.counts = await _count(pool)
            self._counted_until = self._clock() + COUNTED_FOR.total_seconds()
        return generate_latest(self.registry)


class _Channels(Collector):
    """Channels by state, as last counted; unlike a gauge it can know nothing."""

    counts: Mapping[str, int] | None = None

    def collect(self) -> Iterator[GaugeMetricFamily]:
        family = GaugeMetricFamily("zapwatch_channels", "Channels by state.", labels=["state"])
        for state in STATES if self.counts is not None else ():
            family.add_metric([state], (self.counts or {}).get(state, 0))
        yield family


async def _count(pool: Pool) -> Mapping[str, int] | None:
    try:
        async with pool.acquire() as connection:
            return await count_channels(connection)
    except TRANSIENT:
        return None
