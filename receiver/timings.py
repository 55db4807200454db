"""Durations that are no settings. The demo and the tests, which compress time, inject others."""

from dataclasses import dataclass
from datetime import timedelta

from receiver.jobs.loop import NORMAL as LOOPS
from receiver.jobs.loop import LoopTiming


@dataclass(frozen=True, slots=True, kw_only=True)
class Timings:
    """Durations and speeds of the service's own work; every installation has the defaults."""

    recovery_speed: float = 1.0
    """How many times as fast recovery goes."""
    verdict_within: timedelta = timedelta(seconds=60)
    """Losses of a gateway's channels so close together may have one cause."""
    away_for: timedelta = timedelta(seconds=10)
    """How long each of the channels that a gateway loses at once has been away."""
    gateway_flaps_within: timedelta = timedelta(minutes=30)
    """Within which time three incidents of a gateway are flapping."""
    gateway_stable_for: timedelta = timedelta(minutes=10)
    """How long a flapping gateway is without trouble before its incident ends."""
    heartbeat_every: timedelta = timedelta(minutes=1)
    """Pause between two calls to HEARTBEAT_URL."""
    offline_for: timedelta = timedelta(minutes=2)
    """How long silence from every gateway is blamed on none."""
    gather_alerts: timedelta = timedelta(seconds=1)
    """How long the first message to a destination waits for what else is due to it."""
    alert_window: timedelta = timedelta(seconds=30)
    """How long after a message to a destination the next one waits for what else there is to tell."""
    alert_doubt: timedelta = timedelta(seconds=15)
    """How long an opening waits at most for the incident of its gateway that may follow."""
    loops: LoopTiming = LOOPS
    """How often background loops come round; back-off and reports of those that fail."""


NORMAL = Timings()
