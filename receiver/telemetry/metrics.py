"""The metrics of one process at `/metrics`; no label names a channel, a tenant or a gateway."""

import asyncio
import os
import time
from collections.abc import Callable
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Final

import asyncpg
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest, values
from prometheus_client.multiprocess import MultiProcessCollector

from db.connection.retry import TRANSIENT
from db.connection.types import Pool
from db.ingest.apply import Applied
from db.reconcile.recoveries import Outcome
from receiver.jobs.loop import Failure, Loop
from receiver.providers.report import DeepProbeResult
from receiver.reconcile.probe import ProbeResult
from receiver.telemetry.database_metrics import DatabaseMetrics, read_figures

COUNTED_FOR: Final = timedelta(seconds=15)
"""How old the figures from the database may be: counting reads every channel."""
SCRAPE_TIMEOUT: Final = timedelta(seconds=1)
"""How long a scrape waits for new figures; after that it gets the previous ones."""
LAG_EVERY: Final = timedelta(seconds=0.25)
"""Pause between two measurements of the event loop's lag; each costs some microseconds."""


def share(folder: Path, number: int) -> None:
    """Store this process's metrics in a folder that all processes of its service read.

    Call it before `Metrics` is made. A process that takes over a dead one's number goes on with its counters.
    """
    os.environ["PROMETHEUS_MULTIPROC_DIR"] = str(folder)
    values.ValueClass = values.MultiProcessValue(lambda: number)


class Metrics:
    """The instruments of one process, updated by the parts that do the work."""

    def __init__(self, shared: Path | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        """`shared`: the folder that was given to `share`; then those of all its processes are exposed."""
        self.registry: Final = CollectorRegistry()
        counter = partial(Counter, registry=self.registry)
        summed = partial(Gauge, registry=self.registry, multiprocess_mode="livesum")
        highest = partial(Gauge, registry=self.registry, multiprocess_mode="livemax")
        histogram = partial(Histogram, registry=self.registry)
        self.webhook_answers: Final = counter(
            "zapwatch_webhook_answers",
            "Answers to webhooks by provider and status code.",
            ["provider", "code"],
        )
        self.requests_in_flight: Final = summed(
            "zapwatch_requests_in_flight", "Requests that were taken and not answered."
        )
        self.requests_refused: Final = counter(
            "zapwatch_requests_refused",
            "Requests answered with 503 at once, because too many were in flight.",
        )
        self.batch_entries: Final = histogram(
            "zapwatch_batch_entries",
            "Entries committed in one transaction.",
            buckets=(1, 2, 5, 10, 20, 50, 100, 200, 500, 1000),
        )
        self.commit_seconds: Final = histogram(
            "zapwatch_commit_seconds",
            "Time from the start of a batch to its COMMIT.",
            buckets=(0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5),
        )
        self.entries_applied: Final = counter(
            "zapwatch_entries_applied", "Entries (events and deadlines) committed."
        )
        self.incidents_opened: Final = counter(
            "zapwatch_incidents_opened", "Incidents opened, by kind.", ["kind"]
        )
        self.incidents_resolved: Final = counter("zapwatch_incidents_resolved", "Incidents resolved.")
        self.recoveries: Final = counter(
            "zapwatch_recoveries",
            "Episodes of recovery in which an order was given, by provider and outcome.",
            ["provider", "outcome"],
        )
        self.alert_decisions: Final = counter(
            "zapwatch_alert_decisions",
            "Decisions about alerts, by why a destination is told, or not.",
            ["why"],
        )
        self.message_tries: Final = counter(
            "zapwatch_message_tries",
            "Tries to deliver a message, by kind of destination and outcome.",
            ["kind", "outcome"],
        )
        self.messages_in_flight: Final = summed(
            "zapwatch_messages_in_flight", "Messages that wait for their destination's answer."
        )
        self.probe_seconds: Final = histogram(
            "zapwatch_probe_seconds",
            "Time from asking a gateway about a channel to its answer, by provider and outcome.",
            ["provider", "outcome"],
            buckets=(0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10),
        )
        self.sweeps: Final = counter(
            "zapwatch_sweeps",
            "Calls that ask a gateway about all its channels at once, by provider and outcome.",
            ["provider", "outcome"],
        )
        self.deep_probes: Final = counter(
            "zapwatch_deep_probes",
            "Deep probes of channels suspected of being open but dead, by provider and outcome.",
            ["provider", "outcome"],
        )
        self.queue_entries: Final = summed(
            "zapwatch_queue_entries", "Entries that wait for their transaction."
        )
        self.deadline_lag_seconds: Final = highest(
            "zapwatch_deadline_lag_seconds", "How late the last deadline that was claimed was."
        )
        self.probes_in_flight: Final = summed(
            "zapwatch_probes_in_flight", "Probes that wait for their gateway's answer."
        )
        self.event_loop_lag_seconds: Final = histogram(
            "zapwatch_event_loop_lag_seconds",
            "How late a pause of this process's event loop ended, measured four times a second.",
            buckets=(0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5),
        )
        self.loop_failures: Final = counter(
            "zapwatch_loop_failures",
            "Rounds of background loops that failed, by loop and kind.",
            ["loop", "kind"],
        )
        self.loop_failing: Final = highest(
            "zapwatch_loop_failing",
            "Whether a background loop of any process has had no good round for five minutes.",
            ["loop"],
        )
        self._measured: list[tuple[Gauge, Callable[[], float]]] = []
        self._exposed = self.registry if shared is None else _of_all_processes(shared)
        self._counted = DatabaseMetrics()
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

    def probed(self, probed: ProbeResult) -> None:
        """Note one probe; fits `Prober(on_probe=...)`."""
        labels = probed.target.provider, probed.outcome
        self.probe_seconds.labels(*labels).observe(probed.took.total_seconds())

    def bulk_probed(self, provider: str, outcome: str) -> None:
        """Note one bulk probe; fits `BulkProber(on_bulk_probe=...)`."""
        self.sweeps.labels(provider, outcome).inc()

    def deeply_probed(self, provider: str, result: DeepProbeResult) -> None:
        """Note one deep probe; fits `DeepProber(on_probe=...)`."""
        self.deep_probes.labels(provider, result).inc()

    def recovery_ended(self, provider: str, outcome: Outcome) -> None:
        """Note one episode; fits `Recovery(on_ended=...)`."""
        self.recoveries.labels(provider, outcome.value).inc()

    def alert_decided(self, why: str) -> None:
        """Note one decision; fits `Routing(on_decision=...)`."""
        self.alert_decisions.labels(why).inc()

    def message_tried(self, kind: str, outcome: str) -> None:
        """Note one try; fits `Dispatcher(on_attempt=...)`."""
        self.message_tries.labels(kind, outcome).inc()

    def loop_failed(self, loop: str, failure: Failure) -> None:
        """Note one round; fits `LoopRunner(on_failure=...)`."""
        self.loop_failures.labels(loop, failure.value).inc()

    def follow(self, loop: str, is_failing: Callable[[str], bool]) -> None:
        """Expose from now on whether a loop is failing, and its failures, 0 included."""
        for failure in Failure:
            self.loop_failures.labels(loop, failure.value)
        self.measure(self.loop_failing.labels(loop), lambda: is_failing(loop))

    def measure(self, gauge: Gauge, read: Callable[[], float]) -> None:
        """Have a gauge follow a function: other processes can't call one of this process."""
        self._measured.append((gauge, read))

    async def expose(self, pool: Pool) -> bytes:
        """Return everything in Prometheus' text format; without a database its figures are left out.

        Quick even when counting is slow: then the figures are those of the count before.
        """
        if self._counting is None and self._counted_until <= self._clock():
            self._counting = asyncio.create_task(self._count(pool))
        if self._counting is not None:
            await asyncio.wait([self._counting], timeout=SCRAPE_TIMEOUT.total_seconds())
        self._measure()
        return generate_latest(self._exposed)

    def loop(self) -> Loop:
        """Return the loop that measures."""
        return Loop("event_loop_lag", self.watch_event_loop, LAG_EVERY)

    async def watch_event_loop(self) -> bool:
        """Measure once how late the event loop is, and what gauges follow; takes `LAG_EVERY`."""
        loop = asyncio.get_running_loop()
        due = loop.time() + LAG_EVERY.total_seconds()
        await asyncio.sleep(LAG_EVERY.total_seconds())
        self.event_loop_lag_seconds.observe(max(loop.time() - due, 0.0))
        self._measure()
        return True

    def _measure(self) -> None:
        for gauge, read in self._measured:
            gauge.set(read())

    async def _count(self, pool: Pool) -> None:
        try:
            self._counted.figures = await read_figures(pool)
        except (*TRANSIENT, asyncpg.PostgresError):
            self._counted.figures = None
        finally:
            self._counted_until = self._clock() + COUNTED_FOR.total_seconds()
            self._counting = None


def _of_all_processes(folder: Path) -> CollectorRegistry:
    registry = CollectorRegistry()
    MultiProcessCollector(registry, str(folder))
    return registry
