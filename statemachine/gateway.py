"""A gateway's health: whether it answers, accepts keys, and loses many channels at once. Pure functions.

One channel's silence is no outage of its gateway, and one answer ends a failure streak. Channels know nothing
of this module: what a gateway's trouble says of them reaches them as signals of their own.
"""

from collections.abc import Collection, Hashable, Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final, NamedTuple

ENOUGH: Final = 5
"""How many channels must go unanswered, or leave open, together; or all that a gateway has."""
IN_A_ROW: Final = 3
"""How many answers must fail in a row, however few channels a gateway has."""
REFUSED: Final = 3
"""How many channels' keys must be refused; or all that a gateway has."""
REFUSED_IN_A_ROW: Final = 2
"""How many times each of them, on average, with no key accepted meanwhile."""
OBJECTION: Final = timedelta(seconds=2)
"""How long a streak waits for answers that other replicas or other channels got."""
SHARE: Final = 5
"""One in so many of a gateway's channels must leave open together: a fifth."""
FIRST_GAP: Final = timedelta(seconds=1)
"""Between the first two recovery probes of a gateway that is down; each gap is twice the one before."""
FALLS: Final = 3
"""How many incidents that begin within `Limits.flaps_within` are flapping: the last is kept open."""


class Health(StrEnum):
    """A gateway's state; it is down exactly while it is silent or unavailable."""

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
    UNAUTHORIZED = "unauthorized"
    """It answers, and refuses the keys."""


SILENT: Final = frozenset({Cause.UNREACHABLE, Cause.UNAVAILABLE})
"""The causes with which a gateway is down: they are graver than the others."""


class ChannelFailures(NamedTuple):
    """Probes of one channel that failed."""

    channel: Hashable
    since: datetime
    """When the first of them began."""
    last_at: datetime
    """When the newest of them began."""
    times: int = 1
    unavailable: int = 0
    """How many of them were answered 503."""


class FailureStreak(NamedTuple):
    """Probes that failed with no better answer of the gateway meanwhile; there is at least one."""

    failures: tuple[ChannelFailures, ...]

    @property
    def since(self) -> datetime:
        """When the first of them began."""
        return min(one.since for one in self.failures)

    @property
    def last_at(self) -> datetime:
        """When the newest of them began."""
        return max(one.last_at for one in self.failures)

    @property
    def channels(self) -> tuple[Hashable, ...]:
        """Their channels."""
        return tuple(one.channel for one in self.failures)

    @property
    def times(self) -> int:
        """How many there are."""
        return sum(one.times for one in self.failures)

    @property
    def unavailable(self) -> int:
        """How many of them were answered 503."""
        return sum(one.unavailable for one in self.failures)

    def of(self, witnesses: Collection[Hashable]) -> "FailureStreak | None":
        """Return what these channels say; None when they say nothing."""
        theirs = tuple(one for one in self.failures if one.channel in witnesses)
        return FailureStreak(theirs) if theirs else None


def failed(channel: Hashable, began_at: datetime, unavailable: bool = False) -> FailureStreak:
    """Return one probe that failed."""
    return FailureStreak((ChannelFailures(channel, began_at, began_at, 1, int(unavailable)),))


def streak(
    since: datetime, last_at: datetime, channels: Iterable[Hashable], times: int, unavailable: int = 0
) -> FailureStreak | None:
    """Return the streak of which only totals were kept; None without a channel."""
    each = [ChannelFailures(channel, since, last_at) for channel in channels]
    if not each:
        return None
    first = each[0]._replace(times=times - len(each) + 1, unavailable=unavailable)
    return FailureStreak((first, *each[1:]))


def join(one: FailureStreak | None, other: FailureStreak | None) -> FailureStreak | None:
    """Return both streaks as one."""
    if one is None or other is None:
        return one or other
    joined = {failures.channel: failures for failures in one.failures}
    for new in other.failures:
        old = joined.get(new.channel)
        joined[new.channel] = (
            new
            if old is None
            else ChannelFailures(
                new.channel,
                min(old.since, new.since),
                max(old.last_at, new.last_at),
                old.times + new.times,
                old.unavailable + new.unavailable,
            )
        )
    return FailureStreak(tuple(joined.values()))


class Gateway(NamedTuple):
    """One gateway as it is kept between two evaluations."""

    health: Health = Health.UNKNOWN
    since: datetime | None = None
    cause: Cause | None = None
    """Of its open incident."""
    failing: FailureStreak | None = None
    perhaps_offline: bool = False
    """No gateway answered since `failing`: it may be us who are offline."""
    suspected_at: datetime | None = None
    """When `failing` was first seen."""
    refusing: FailureStreak | None = None
    """Probes whose key was refused, with none accepted since."""
    try_at: datetime | None = None
    """When its next recovery probe is due; set exactly while it gets no other probes."""
    tries: int = 0
    tried_at: datetime | None = None
    """When the newest probe with a known result began, or was answered."""
    lost: int = 0
    """Of its incident for a mass loss: how many are away, or fewest were since it was one."""
    moved_at: datetime | None = None
    """When channels last returned, so that it is as few."""
    calm_since: datetime | None = None
    """Since when the trouble of its open incident is over; set only while a flapping one is kept open."""
    settles_until: datetime | None = None
    """Until then, after its trouble, that of its channels is explained by it."""
    falls: tuple[datetime, ...] = ()
    """When its last incidents began, or began again, within `Limits.flaps_within`."""


class GatewaySnapshot(NamedTuple):
    """All that one evaluation of a gateway needs to know, counted. Only witnesses count."""

    now: datetime
    answered_at: datetime | None = None
    """When it last answered a replica, if it has since the last evaluation."""
    failing: FailureStreak | None = None
    """Probes that went unanswered since the last evaluation."""
    offline: bool = False
    """No gateway answered since those failures, for longer than that is taken for our own outage."""
    accepted_at: datetime | None = None
    """When it last accepted its own key, if it has since the last evaluation."""
    accepted_own_at: datetime | None = None
    """When it last accepted a channel's own key: that says nothing of the gateway's."""
    refusing: FailureStreak | None = None
    """Probes whose key was refused since the last evaluation."""
    by_gateway_key: Collection[Hashable] = ()
    """Which of the channels whose key was refused have none of their own, so that it was the gateway's."""
    probed: int = ENOUGH
    """Its channels that can be probed; counted no further than `ENOUGH`."""
    unkeyed: int = ENOUGH
    """How many of those have no key of their own."""
    watched: int = 0
    left: int = 0
    """The most of them that left open within one window, lately, and have been away for long enough."""
    left_since: datetime | None = None
    """When the first of those left."""
    lost: int = 0
    """How many channels of its open incident are away."""

    @property
    def mass_loss_at(self) -> int:
        """How many channels that leave open together are a mass loss."""
        return max(ENOUGH, -(-self.watched // SHARE))


@dataclass(frozen=True, slots=True)
class Limits:
    """An installation's times for gateways."""

    settle: timedelta = timedelta(seconds=60)
    """How long after a gateway's return the trouble of its channels is explained by its own."""
    breaker_max: timedelta = timedelta(seconds=60)
    tell_after: timedelta = timedelta(seconds=30)
    """How long after its beginning an incident is told."""
    away: timedelta = timedelta(seconds=10)
    """How long each channel of a mass loss has been away at least."""
    window: timedelta = timedelta(seconds=60)
    """Within which time channels leave together."""
    flaps_within: timedelta = timedelta(minutes=30)
    stable: timedelta = timedelta(minutes=10)
    """How long a flapping gateway must be without trouble before its incident ends."""


@dataclass(frozen=True, slots=True)
class Down:
    """Effect: an incident opens, is in trouble again, or has a graver cause now."""

    cause: Cause
    started_at: datetime
    perhaps_offline: bool = False
    """It may be us who are offline: no gateway answered."""
    flapping: bool = False


@dataclass(frozen=True, slots=True)
class Calm:
    """Effect: the trouble is over, but the incident of a flapping gateway stays open."""


@dataclass(frozen=True, slots=True)
class Up:
    """Effect: the incident ends."""


@dataclass(frozen=True, slots=True)
class Removed:
    """Effect: the incident ends, for none of the gateway's channels is watched any more."""


GatewayEffect = Down | Calm | Up | Removed


def decide(gateway: Gateway, seen: GatewaySnapshot, limits: Limits) -> tuple[Gateway, GatewayEffect | None]:
    """Return the gateway after one evaluation, and the effect on its incident, if any."""
    answered = _is_answer(gateway, seen)
    gateway = _with_keys(_with_answers(gateway, seen, answered), seen)
    cause = _new_cause(gateway, seen)
    if cause is not None:
        return _fall(gateway, cause, seen, limits)
    if gateway.cause is None:
        return gateway, None
    if gateway.calm_since is not None:
        return _resolve(gateway) if seen.now - gateway.calm_since >= limits.stable else (gateway, None)
    gateway = _count(gateway, seen)
    if not _is_over(gateway, seen, answered, limits):
        return gateway, None
    return _end(gateway, seen, limits)


def unwatched(gateway: Gateway) -> tuple[Gateway, GatewayEffect | None]:
    """Return a gateway none of whose channels is watched any more, and the effect on its incident, if any.

    Nothing is known of it from then on.
    """
    return Gateway(tried_at=gateway.tried_at), None if gateway.cause is None else Removed()


def next_gap(tries: int, limits: Limits) -> timedelta:
    """Return how long after a failed recovery probe the next one begins."""
    gap: timedelta = FIRST_GAP * 2 ** min(tries, 20)
    return min(gap, limits.breaker_max)


def _is_answer(gateway: Gateway, seen: GatewaySnapshot) -> bool:
    """Return whether there is an answer since probes began to fail; an earlier one proves nothing."""
    if seen.answered_at is None:
        return False
    return gateway.failing is None or gateway.failing.since <= seen.answered_at


def _with_answers(gateway: Gateway, seen: GatewaySnapshot, answered: bool) -> Gateway:
    if answered:
        gateway = gateway._replace(failing=None, suspected_at=None, perhaps_offline=False)
        if gateway.health is Health.UNKNOWN:
            gateway = gateway._replace(health=Health.UP, since=seen.now)
    tried = [at for at in (gateway.tried_at, seen.answered_at, seen.failing and seen.failing.last_at) if at]
    gateway = gateway._replace(tried_at=max(tried, default=None))
    failing = seen.failing
    if failing is None or (seen.answered_at is not None and failing.since <= seen.answered_at):
        return gateway
    return gateway._replace(
        failing=join(gateway.failing, failing),
        perhaps_offline=seen.offline,
        suspected_at=gateway.suspected_at or seen.now,
    )


def _with_keys(gateway: Gateway, seen: GatewaySnapshot) -> Gateway:
    left = (_still_refused(refusing, seen) for refusing in (gateway.refusing, seen.refusing))
    return gateway._replace(refusing=join(*left))


def _still_refused(refusing: FailureStreak | None, seen: GatewaySnapshot) -> FailureStreak | None:
    """Return what no accepted key has ended; one of a channel's own proves nothing of the gateway's."""
    if refusing is None or (seen.accepted_at is not None and refusing.since <= seen.accepted_at):
        return None
    if seen.accepted_own_at is not None and refusing.since <= seen.accepted_own_at:
        return refusing.of(seen.by_gateway_key)
    return refusing


def _new_cause(gateway: Gateway, seen: GatewaySnapshot) -> Cause | None:
    """Return the cause of new trouble, which opens an incident or is graver than that of the open one."""
    in_trouble = gateway.cause is not None and gateway.calm_since is None
    if in_trouble and gateway.cause in SILENT:
        return None
    silence = _silence(gateway, seen)
    if silence is not None or in_trouble:
        return silence
    if _is_refused(gateway, seen):
        return Cause.UNAUTHORIZED
    return Cause.MASS_LOSS if _is_mass_loss(gateway, seen) else None


def _silence(gateway: Gateway, seen: GatewaySnapshot) -> Cause | None:
    """Return the cause when enough probes in a row went unanswered; None while it isn't proven."""
    failing = gateway.failing
    if failing is None or failing.times < IN_A_ROW or _is_open_question(gateway, seen):
        return None
    if len(failing.channels) < max(1, min(ENOUGH, seen.probed)):
        return None
    return Cause.UNAVAILABLE if 2 * failing.unavailable > failing.times else Cause.UNREACHABLE


def _is_refused(gateway: Gateway, seen: GatewaySnapshot) -> bool:
    refusing = gateway.refusing
    if refusing is None or seen.now - refusing.since < OBJECTION:
        return False
    is_gateways = all(channel in seen.by_gateway_key for channel in refusing.channels)
    needed = max(1, min(REFUSED, seen.unkeyed if is_gateways else seen.probed))
    return len(refusing.channels) >= needed and refusing.times >= REFUSED_IN_A_ROW * needed


def _is_mass_loss(gateway: Gateway, seen: GatewaySnapshot) -> bool:
    return seen.left >= seen.mass_loss_at and not _is_open_question(gateway, seen)


def _is_open_question(gateway: Gateway, seen: GatewaySnapshot) -> bool:
    """Return whether silence may still turn out to be only some channels'."""
    return gateway.suspected_at is not None and seen.now - gateway.suspected_at < OBJECTION


def _fall(
    gateway: Gateway, cause: Cause, seen: GatewaySnapshot, limits: Limits
) -> tuple[Gateway, GatewayEffect]:
    started_at = _began_at(gateway, cause, seen)
    falls = gateway.falls
    if gateway.cause is None or gateway.calm_since is not None:
        recent = (at for at in falls if started_at - at < limits.flaps_within)
        falls = (*recent, started_at)[-FALLS:]
    silent = cause in SILENT
    after = gateway._replace(
        health=Health.DOWN if silent else gateway.health,
        since=seen.now if silent else gateway.since,
        cause=cause,
        try_at=seen.now + FIRST_GAP if silent else None,
        tries=0,
        lost=seen.left,
        moved_at=seen.now,
        calm_since=None,
        settles_until=None,
        falls=falls,
    )
    return after, Down(cause, started_at, silent and gateway.perhaps_offline, len(falls) == FALLS)


def _began_at(gateway: Gateway, cause: Cause, seen: GatewaySnapshot) -> datetime:
    if cause is Cause.MASS_LOSS:
        return seen.left_since or seen.now
    failures = gateway.refusing if cause is Cause.UNAUTHORIZED else gateway.failing
    return failures.since if failures else seen.now


def _count(gateway: Gateway, seen: GatewaySnapshot) -> Gateway:
    """Return a gateway with how many are away; only fewer than ever since are a return."""
    if gateway.cause is not Cause.MASS_LOSS:
        return gateway
    if seen.lost < gateway.lost:
        return gateway._replace(lost=seen.lost, moved_at=seen.now)
    return gateway._replace(lost=seen.lost) if seen.lost >= seen.mass_loss_at else gateway


def _is_over(gateway: Gateway, seen: GatewaySnapshot, answered: bool, limits: Limits) -> bool:
    """Return whether the trouble of an open incident is over."""
    if gateway.cause in SILENT:
        return answered
    if gateway.cause is Cause.UNAUTHORIZED:
        return gateway.refusing is None
    if max(seen.lost, seen.left) >= seen.mass_loss_at:
        return False
    return seen.lost == 0 or gateway.moved_at is None or seen.now - gateway.moved_at >= limits.settle


def _end(gateway: Gateway, seen: GatewaySnapshot, limits: Limits) -> tuple[Gateway, GatewayEffect]:
    """Return the gateway at the end of its trouble; its incident ends, too, unless it flaps."""
    was_down = gateway.health is Health.DOWN
    after = gateway._replace(
        health=Health.UP if was_down else gateway.health,
        since=seen.now if was_down else gateway.since,
        try_at=None,
        tries=0,
        lost=0,
        moved_at=None,
        # A mass loss has settled when it ends.
        settles_until=seen.now + (timedelta(0) if gateway.cause is Cause.MASS_LOSS else limits.settle),
    )
    if len(gateway.falls) == FALLS:
        return after._replace(calm_since=seen.now), Calm()
    return _resolve(after)


def _resolve(gateway: Gateway) -> tuple[Gateway, Up]:
    return gateway._replace(cause=None, calm_since=None), Up()
