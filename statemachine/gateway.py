"""A gateway's health: whether it answers, and whether its channels leave open together. Pure functions.

One channel's silence is no outage of its gateway, and one answer ends a failure streak. Channels know nothing
of this module: `Deadline` carries until when their gateway's incident stands for theirs.
"""

from collections.abc import Hashable
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final, NamedTuple

ENOUGH: Final = 5
"""How many channels must go unanswered, or leave open, together; or all that a gateway has."""
IN_A_ROW: Final = 3
"""How many answers must fail in a row, however few channels a gateway has."""
OBJECTION: Final = timedelta(seconds=2)
"""How long a failure streak waits for answers that other replicas or other channels got."""
SHARE: Final = 5
"""One in so many of a gateway's channels must leave open together: a fifth."""
FIRST_GAP: Final = timedelta(seconds=1)
"""Between the first two recovery probes of a gateway that is down; each gap is twice the one before."""
SHORTEST_HOLD: Final = timedelta(seconds=5)
"""For so long an open incident holds those of its channels at least, before it has to be renewed."""
OFFLINE_MARGIN: Final = timedelta(seconds=10)
"""By so much channels are in doubt longer than their gateway: its incident comes before theirs."""


class Health(StrEnum):
    """A gateway's state; it is down exactly while it has an open incident."""

    UNKNOWN = "unknown"
    UP = "up"
    DOWN = "down"


class Cause(StrEnum):
    """Why a gateway has an incident. A closed, public list."""

    UNREACHABLE = "unreachable"
    """No answer, or only a proxy's error (502, 504, 52x)."""
    UNAVAILABLE = "unavailable"
    """It answers 503: its licence, or its database."""
    MASS_LOSS = "mass_loss"
    """It may well answer, but its channels left open together."""


class FailureStreak(NamedTuple):
    """Probes that went unanswered with no answer of the gateway meanwhile."""

    since: datetime
    """When the first of them began."""
    last_at: datetime
    """When the newest of them began."""
    channels: tuple[Hashable, ...]
    """Their channels, no more than `ENOUGH` of them."""
    times: int = 1
    unavailable: int = 0
    """How many of them were answered 503."""


def failed(channel: Hashable, began_at: datetime, unavailable: bool) -> FailureStreak:
    """Return one probe that went unanswered."""
    return FailureStreak(began_at, began_at, (channel,), 1, int(unavailable))


def join(one: FailureStreak | None, other: FailureStreak | None) -> FailureStreak | None:
    """Return both streaks as one."""
    if one is None or other is None:
        return one or other
    channels = one.channels + tuple(c for c in other.channels if c not in one.channels)
    return FailureStreak(
        min(one.since, other.since),
        max(one.last_at, other.last_at),
        channels[:ENOUGH],
        one.times + other.times,
        one.unavailable + other.unavailable,
    )


class Gateway(NamedTuple):
    """One gateway as it is kept between two evaluations."""

    health: Health = Health.UNKNOWN
    since: datetime | None = None
    cause: Cause | None = None
    """Of its open incident."""
    failing: FailureStreak | None = None
    suspected_at: datetime | None = None
    """When `failing` was first seen."""
    doubted_at: datetime | None = None
    doubted_until: datetime | None = None
    """Until then silence is blamed on nobody: we may be offline ourselves."""
    held_until: datetime | None = None
    """Until then its channels open no incidents of their own."""
    try_at: datetime | None = None
    """When its next recovery probe is due; set exactly while it gets no other probes."""
    tries: int = 0
    lost: int = 0
    """Of its incident for a mass loss: how many were not back when that last changed."""
    moved_at: datetime | None = None
    """When that was."""


class GatewaySnapshot(NamedTuple):
    """All that one evaluation of a gateway needs to know, counted."""

    now: datetime
    answered_at: datetime | None = None
    """When it last answered a replica, if it has since the last evaluation."""
    failing: FailureStreak | None = None
    """Probes that went unanswered since the last evaluation."""
    offline: bool = False
    """No gateway answered since those failures, for longer than that is taken for our own outage."""
    probed: int = ENOUGH
    """Its channels that can be probed; counted no further than `ENOUGH`."""
    watched: int = 0
    left: int = 0
    """The most of them that left open within one window, lately; of an open incident, since it opened."""
    left_since: datetime | None = None
    """When the first of those left."""
    lost: int = 0
    """How many of its open incident's channels are not open."""

    @property
    def mass_loss_at(self) -> int:
        """How many channels that leave open together are a mass loss."""
        return max(ENOUGH, -(-self.watched // SHARE))


@dataclass(frozen=True, slots=True)
class Limits:
    """An installation's times for gateways."""

    settle: timedelta = timedelta(seconds=60)
    """How long after a gateway's return its channels are probed before incidents of theirs open."""
    breaker_max: timedelta = timedelta(seconds=60)

    @property
    def hold(self) -> timedelta:
        """For how long at a time an open incident holds those of its channels."""
        return max(self.settle, SHORTEST_HOLD)


@dataclass(frozen=True, slots=True)
class Down:
    """Effect: an incident opens, or its cause is a graver one now."""

    cause: Cause
    started_at: datetime
    perhaps_offline: bool = False
    """It may be us who are offline: no gateway answered."""


@dataclass(frozen=True, slots=True)
class Up:
    """Effect: the incident ends."""


GatewayEffect = Down | Up


def decide(gateway: Gateway, seen: GatewaySnapshot, limits: Limits) -> tuple[Gateway, GatewayEffect | None]:
    """Return the gateway after one evaluation, and the effect on its incident, if any."""
    answered = _has_answered(gateway, seen)
    gateway = _with_answers(gateway, seen, answered)
    cause = _probe_failure_cause(gateway, seen)
    if cause is None and gateway.cause is None and _is_mass_loss(gateway, seen):
        cause = Cause.MASS_LOSS
    if cause is not None and gateway.cause in (None, Cause.MASS_LOSS) and cause is not gateway.cause:
        return _open(gateway, cause, seen, limits)
    if gateway.cause is None:
        return gateway, None
    if gateway.cause is Cause.MASS_LOSS:
        gateway = _count(gateway, seen)
        still = seen.lost < seen.mass_loss_at or _has_passed(gateway.moved_at, limits.settle, seen.now)
        over = still and seen.left < seen.mass_loss_at
    else:
        over = answered
    return _resolve(gateway, seen, limits) if over else (_hold(gateway, seen, limits), None)


def next_gap(tries: int, limits: Limits) -> timedelta:
    """Return how long after a failed recovery probe the next one begins."""
    gap: timedelta = FIRST_GAP * 2 ** min(tries, 20)
    return min(gap, limits.breaker_max)


def _has_answered(gateway: Gateway, seen: GatewaySnapshot) -> bool:
    """Return whether there is an answer since probes began to fail; an earlier one proves nothing."""
    if seen.answered_at is None:
        return False
    silent_since = gateway.failing.since if gateway.failing else gateway.doubted_at
    return silent_since is None or silent_since <= seen.answered_at


def _with_answers(gateway: Gateway, seen: GatewaySnapshot, answered: bool) -> Gateway:
    if answered:
        gateway = gateway._replace(failing=None, suspected_at=None, doubted_at=None, doubted_until=None)
        if gateway.health is Health.UNKNOWN:
            gateway = gateway._replace(health=Health.UP, since=seen.now)
    failing = seen.failing
    if failing is None or (seen.answered_at is not None and failing.since <= seen.answered_at):
        return gateway
    suspected_at = gateway.suspected_at or seen.now
    if not seen.offline:
        gateway = gateway._replace(doubted_at=None, doubted_until=None)
    return gateway._replace(failing=join(gateway.failing, failing), suspected_at=suspected_at)


def _probe_failure_cause(gateway: Gateway, seen: GatewaySnapshot) -> Cause | None:
    """Return the cause when enough probes in a row went unanswered; None while it isn't proven."""
    failing = gateway.failing
    if failing is None or failing.times < IN_A_ROW or _is_open_question(gateway, seen):
        return None
    if len(failing.channels) < max(1, min(ENOUGH, seen.probed)):
        return None
    return Cause.UNAVAILABLE if 2 * failing.unavailable > failing.times else Cause.UNREACHABLE


def _is_mass_loss(gateway: Gateway, seen: GatewaySnapshot) -> bool:
    return seen.left >= seen.mass_loss_at and not _is_open_question(gateway, seen)


def _is_open_question(gateway: Gateway, seen: GatewaySnapshot) -> bool:
    """Return whether silence may still turn out to be ours, or only some channels'."""
    if gateway.doubted_until is not None and seen.now < gateway.doubted_until - OFFLINE_MARGIN:
        return True
    return gateway.suspected_at is not None and seen.now - gateway.suspected_at < OBJECTION


def _open(gateway: Gateway, cause: Cause, seen: GatewaySnapshot, limits: Limits) -> tuple[Gateway, Down]:
    silent = cause is not Cause.MASS_LOSS
    started_at = gateway.failing.since if silent and gateway.failing else seen.left_since or seen.now
    is_new = gateway.cause is None
    after = gateway._replace(
        health=Health.DOWN,
        since=seen.now if is_new else gateway.since,
        cause=cause,
        doubted_at=None,
        doubted_until=None,
        held_until=seen.now + limits.hold,
        try_at=seen.now + FIRST_GAP if silent else None,
        tries=0,
        lost=seen.left,
        moved_at=seen.now,
    )
    return after, Down(cause, started_at, silent and gateway.doubted_at is not None)


def _count(gateway: Gateway, seen: GatewaySnapshot) -> Gateway:
    if seen.lost == gateway.lost:
        return gateway
    return gateway._replace(lost=seen.lost, moved_at=seen.now)


def _has_passed(since: datetime | None, span: timedelta, now: datetime) -> bool:
    return since is None or now - since >= span


def _hold(gateway: Gateway, seen: GatewaySnapshot, limits: Limits) -> Gateway:
    """Renew the hold when half of it is over."""
    if gateway.held_until is not None and gateway.held_until - seen.now > limits.hold / 2:
        return gateway
    return gateway._replace(held_until=seen.now + limits.hold)


def _resolve(gateway: Gateway, seen: GatewaySnapshot, limits: Limits) -> tuple[Gateway, Up]:
    after = Gateway(health=Health.UP, since=seen.now, held_until=seen.now + limits.settle)
    return after, Up()
