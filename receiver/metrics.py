"""What Prometheus reads at `/metrics`; no label names a channel, a tenant or a gateway."""

import asyncio
import os
import time
from collections import Counter as Tally
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final, Self

import asyncpg
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest, values
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import Collector

from db.apply import Applied
from db.connections import Pool
from db.gateways import count_gateways
from db.patience import TRANSIENT
from db.reads import ChannelCount, OldestDue, count_channels, read_oldest_due
from db.recoveries import Outcome
from receiver.probe import Probed
from receiver.providers import PROVIDERS
from receiver.providers.report import Pulse
from statemachine.gateway import Health
from statemachine.model import State

Samples = Mapping[Any, float]
"""Values by the values of their labels, in order."""
COUNTED_FOR: Final = timedelta(seconds=15)
"""How old the figures from the database may be: counting reads every channel."""
PATIENCE: Final = timedelta(seconds=1)
"""How long a scrape waits for new figures; then it gets the last ones, and the next scrape the new."""
LAG_EVERY: Final = timedelta(seconds=0.25)
"""Pause between two measurements of the event loop's lag; each costs some microseconds."""
STATES: Final = tuple(dict.fromkeys(state.shown for state in State))
COUNTED: Final[dict[str, tuple[str, tuple[str, ...]]]] = {
    "zapwatch_channels": ("Channels by state.", ("state",)),
    "zapwatch_provider_channels": ("The same channels by provider and state.", ("provider", "state")),
    "zapwatch_incidents_open": ("Open incidents by provider.", ("provider",)),
    "zapwatch_gateways": ("Gateways with channels by state.", ("state",)),
    "zapwatch_gateway_incidents_open": ("Open incidents of whole gateways.", ()),
    "zapwatch_oldest_due_seconds": (
        "How long the longest due probe (until its answer is kept) and deadline wait; 0: none is due.",
        ("kind",),
    ),
}
"""What is counted in the database: names, documentation and labels."""


def share(folder: Path, number: int) -> None:
    """Have this process keep its metrics in a folder where the others of its service read them, too.

    Call it before `Metrics` is made. A process that takes over a dead one's number goes on with its counters.
    """
    os.environ["PROMETHEUS_MULTIPROC_DIR"] = str(folder)
    values.ValueClass = values.MultiProcessValue(lambda: number)  # type: ignore[no-untyped-call]


class Metrics:
    """The instruments of one process; whoever does the work moves them."""

    def __init__(self, shared: Path | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        """`shared`: the folder that was given to `share`; then those of all its processes are exposed."""
        self.registry: Final = CollectorRegistry()
        self.webhook_answers: Final = Counter(
            "zapwatch_webhook_answers",
            "Answers to webhooks by provider and status code.",
            ["provider", "code"],
            registry=self.registry,
        )
        self.requests_in_flight: Final = Gauge(
            "zapwatch_requests_in_flight",
            "Requests that were taken and not answered.",
            registry=self.registry,
            multiprocess_mode="livesum",
        )
        self.requests_refused: Final = Counter(
            "zapwatch_requests_refused",
            "Requests answered with 503 at once, because too many were in flight.",
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
        self.recoveries: Final = Counter(
            "zapwatch_recoveries",
            "Episodes of recovery in which an order was given, by provider and outcome.",
            ["provider", "outcome"],
            registry=self.registry,
        )
        self.alert_decisions: Final = Counter(
            "zapwatch_alert_decisions",
            "Decisions about alerts, by why a destination is told, or not.",
            ["why"],
            registry=self.registry,
        )
        self.message_tries: Final = Counter(
            "zapwatch_message_tries",
            "Tries to deliver a message, by kind of destination and outcome.",
            ["kind", "outcome"],
            registry=self.registry,
        )
        self.messages_in_flight: Final = Gauge(
            "zapwatch_messages_in_flight",
            "Messages that wait for their destination's answer.",
            registry=self.registry,
            multiprocess_mode="livesum",
        )
        self.probe_seconds: Final = Histogram(
            "zapwatch_probe_seconds",
            "Time from asking a gateway about a channel to its answer, by provider and outcome.",
            ["provider", "outcome"],
            buckets=(0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10),
            registry=self.registry,
        )
        self.sweeps: Final = Counter(
            "zapwatch_sweeps",
            "Calls that ask a gateway about all its channels at once, by provider and outcome.",
            ["provider", "outcome"],
            registry=self.registry,
        )
        self.deep_probes: Final = Counter(
            "zapwatch_deep_probes",
            "Deep probes of channels suspected of being open but dead, by provider and outcome.",
            ["provider", "outcome"],
            registry=self.registry,
        )
        self.queue_entries: Final = Gauge(
            "zapwatch_queue_entries",
            "Entries that wait for their transaction.",
            registry=self.registry,
            multiprocess_mode="livesum",
        )
        self.deadline_lag_seconds: Final = Gauge(
            "zapwatch_deadline_lag_seconds",
            "How late the last deadline that was claimed was.",
            registry=self.registry,
            multiprocess_mode="livemax",
        )
        self.probes_in_flight: Final = Gauge(
            "zapwatch_probes_in_flight",
            "Probes that wait for their gateway's answer.",
            registry=self.registry,
            multiprocess_mode="livesum",
        )
        self.event_loop_lag_seconds: Final = Histogram(
            "zapwatch_event_loop_lag_seconds",
            "How late a pause of this process's event loop ended, measured four times a second.",
            buckets=(0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5),
            registry=self.registry,
        )
        self._measured: list[tuple[Gauge, Callable[[], float]]] = []
        self._exposed = self.registry if shared is None else _of_all_processes(shared)
        self._counted = _Counted()
        self._exposed.register(self._counted)
        self._clock = clock
        self._counted_until = 0.0
        self._counting: asyncio.Task[None] | None = None

    def committed(self, applied: Applied, entries: int, seconds: float) -> None:
        """Note one batch; fits `Writer(on_commit=...)`."""
        for kind in applied.opened:
            self.incidents_opened.labels(kind).inc()
        self.incidents_resolved.inc(applied.resolved)
        self.batch_entries.observe(entries)
        self.commit_seconds.observe(seconds)
        self.entries_applied.inc(entries)

    def probed(self, probed: Probed) -> None:
        """Note one probe; fits `Prober(on_probe=...)`."""
        labels = probed.target.provider, probed.outcome
        self.probe_seconds.labels(*labels).observe(probed.took.total_seconds())

    def swept(self, provider: str, outcome: str) -> None:
        """Note one sweep; fits `Sweeper(on_sweep=...)`."""
        self.sweeps.labels(provider, outcome).inc()

    def deeply_probed(self, provider: str, pulse: Pulse) -> None:
        """Note one deep probe; fits `Suspicions(on_probe=...)`."""
        self.deep_probes.labels(provider, pulse).inc()

    def recovery_ended(self, provider: str, outcome: Outcome) -> None:
        """Note one episode; fits `Recovery(on_ended=...)`."""
        self.recoveries.labels(provider, outcome.value).inc()

    def alert_decided(self, why: str) -> None:
        """Note one decision; fits `Routing(on_decision=...)`."""
        self.alert_decisions.labels(why).inc()

    def message_tried(self, kind: str, outcome: str) -> None:
        """Note one try; fits `Dispatcher(on_attempt=...)`."""
        self.message_tries.labels(kind, outcome).inc()

    def measure(self, gauge: Gauge, read: Callable[[], float]) -> None:
        """Have a gauge follow what is read: other processes can't call a function of this one."""
        self._measured.append((gauge, read))

    async def expose(self, pool: Pool) -> bytes:
        """Return everything in Prometheus' text format; without a database its figures are left out.

        Quick even when counting is slow: then the figures are those of the count before.
        """
        if self._counting is None and self._counted_until <= self._clock():
            self._counting = asyncio.create_task(self._count(pool))
        if self._counting is not None:
            await asyncio.wait([self._counting], timeout=PATIENCE.total_seconds())
        self._measure()
        return generate_latest(self._exposed)

    async def watch_event_loop(self) -> None:
        """Measure how late the event loop is, and what gauges follow, for ever."""
        loop = asyncio.get_running_loop()
        while True:
            due = loop.time() + LAG_EVERY.total_seconds()
            await asyncio.sleep(LAG_EVERY.total_seconds())
            self.event_loop_lag_seconds.observe(max(loop.time() - due, 0.0))
            self._measure()

    def _measure(self) -> None:
        for gauge, read in self._measured:
            gauge.set(read())

    async def _count(self, pool: Pool) -> None:
        try:
            self._counted.figures = await _Figures.read(pool)
        except (*TRANSIENT, asyncpg.PostgresError):
            self._counted.figures = None
        finally:
            self._counted_until = self._clock() + COUNTED_FOR.total_seconds()
            self._counting = None


def _of_all_processes(folder: Path) -> CollectorRegistry:
    registry = CollectorRegistry()
    MultiProcessCollector(registry, str(folder))  # type: ignore[no-untyped-call]
    return registry


@dataclass(frozen=True, slots=True)
class _Figures:
    """What the database knew at one moment."""

    channels: list[ChannelCount]
    gateways: dict[str, int]
    due: OldestDue
    at: datetime

    @classmethod
    async def read(cls, pool: Pool) -> Self:
        async with pool.acquire() as connection:
            channels = await count_channels(connection)
            gateways = await count_gateways(connection)
            now = datetime.now(UTC)
            return cls(channels, gateways, await read_oldest_due(connection, now), now)

    def samples(self) -> dict[str, Samples]:
        """Return the samples of each of `COUNTED`, nought where there is nothing."""
        # A replica of another version may know words that this one doesn't.
        states = Tally({(state,): 0 for state in STATES})
        both = Tally({(provider, state): 0 for provider in PROVIDERS for state in STATES})
        incidents = Tally({(provider,): 0 for provider in PROVIDERS})
        for provider, state, channels, opened in self.channels:
            states[state,] += channels
            both[provider, state] += channels
            incidents[provider,] += opened
        due = {
            (kind,): 0.0 if since is None else (self.at - since).total_seconds()
            for kind, since in self.due._asdict().items()
        }
        gateways = {(health.value,): self.gateways.get(health, 0) for health in Health}
        down = {(): gateways[Health.DOWN,]}  # it is down exactly while it has an open incident
        by_metric: tuple[Samples, ...] = states, both, incidents, gateways, down, due
        return dict(zip(COUNTED, by_metric, strict=True))


class _Counted(Collector):
    """The metrics of `COUNTED`, as last read; unlike a gauge they can know nothing."""

    figures: _Figures | None = None

    def collect(self) -> Iterator[GaugeMetricFamily]:
        samples = {} if self.figures is None else self.figures.samples()
        for name, (documentation, labels) in COUNTED.items():
            family = GaugeMetricFamily(name, documentation, labels=labels)
            for label_values, value in samples.get(name, {}).items():
                family.add_metric(label_values, value)
            yield family
