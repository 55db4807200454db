"""Metrics that are counted in the database: channels, incidents and gateways."""

from collections import Counter as Counts
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from db.connection.types import Pool
from db.reads.counts import ChannelCount, OldestDue, count_channels, read_oldest_due
from db.reconcile.gateway_health import count_gateways
from receiver.providers import PROVIDERS
from statemachine.gateway import Health
from statemachine.model import State

Labels = tuple[str, ...]
Samples = Mapping[Labels, float]
"""Values by the values of their labels, in order."""
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


@dataclass(frozen=True, slots=True)
class DatabaseFigures:
    """What the database knew at one moment."""

    channels: list[ChannelCount]
    gateways: dict[str, int]
    due: OldestDue
    at: datetime

    def samples(self) -> dict[str, Samples]:
        """Return the samples of each of `COUNTED`, nought where there is nothing."""
        # A replica of another version may store values unknown to this one.
        states: Counts[Labels] = Counts({(state,): 0 for state in STATES})
        both: Counts[Labels] = Counts({(provider, state): 0 for provider in PROVIDERS for state in STATES})
        incidents: Counts[Labels] = Counts({(provider,): 0 for provider in PROVIDERS})
        for provider, state, channels, opened in self.channels:
            states[state,] += channels
            both[provider, state] += channels
            incidents[provider,] += opened
        due: dict[Labels, float] = {
            (kind,): 0.0 if since is None else (self.at - since).total_seconds()
            for kind, since in self.due._asdict().items()
        }
        gateways: dict[Labels, float] = {(health.value,): self.gateways.get(health, 0) for health in Health}
        # A gateway is down exactly while it has an open incident.
        down: dict[Labels, float] = {(): gateways[Health.DOWN,]}
        by_metric: tuple[Samples, ...] = states, both, incidents, gateways, down, due
        return dict(zip(COUNTED, by_metric, strict=True))


class DatabaseMetrics(Collector):
    """The metrics of `COUNTED`, as last read; unlike a gauge they can know nothing."""

    figures: DatabaseFigures | None = None

    def collect(self) -> Iterator[GaugeMetricFamily]:
        samples = {} if self.figures is None else self.figures.samples()
        for name, (documentation, labels) in COUNTED.items():
            family = GaugeMetricFamily(name, documentation, labels=labels)
            for label_values, value in samples.get(name, {}).items():
                family.add_metric(label_values, value)
            yield family


async def read_figures(pool: Pool) -> DatabaseFigures:
    """Count everything."""
    async with pool.acquire() as connection:
        channels = await count_channels(connection)
        gateways = await count_gateways(connection)
        now = datetime.now(UTC)
        return DatabaseFigures(channels, gateways, await read_oldest_due(connection, now), now)
