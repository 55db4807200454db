"""What follows from a change of status: incidents and the next deadline. Derives no state.

An unhealthy stretch runs from leaving open (or from first evidence that isn't open) to the next
opened. It has one clock and at most one incident, whatever states it passes.
"""

from datetime import datetime, timedelta
from typing import Final

from statemachine import never_connected
from statemachine.model import (
    Channel,
    Flap,
    Incident,
    Monitoring,
    Reason,
    RecoverableCondition,
    State,
    Status,
    Wait,
)
from statemachine.signals import Change, Deadline, Effect, Open, Resolve

FLAPS: Final = 5
"""Departures from open within `FLAP_WINDOW` that make an incident by themselves."""
FLAP_WINDOW: Final = timedelta(minutes=30)
FLAP_PAUSE: Final = timedelta(seconds=1)
"""How long a flapping channel's incident waits to see whether others of its gateway left with it."""
LOOKS: Final = 12
"""How many times within `rules.verdict_wait` a due incident looks for the verdict on its gateway."""
STABLE_AFTER: Final = timedelta(minutes=10)
"""How long a flapping channel must stay open before its incident ends."""
LONGEST_GAP: Final = timedelta(seconds=300)
"""The largest gap between probes of one unhealthy channel."""
OPEN_SHARE_OF_JITTER: Final = 0.25
"""How much of the jitter applies to an open channel, whose probe must not come much after STALE_AFTER."""
LONGEST_QUEUE: Final = 10
"""How many times `rules.probe_wait` a due incident waits while its probe is queued for its gateway."""


def decide(before: Channel, after: Channel, now: datetime) -> tuple[Channel, tuple[Effect, ...]]:
    """Return the channel with its incident and due times brought up to date, and the effects."""
    if after.rules.monitoring is Monitoring.REMOVED:
        return _removed(after, now)
    if after.state is State.OPEN:
        after, effects = _recovered(before, after, now)
    else:
        after, effects = _unhealthy(before, after, now)
    if after.flap is not None and (after.incident or after.rules.monitoring is not Monitoring.WATCHED):
        after = after._replace(flap=None)
    due_at, recovery_due_at = next_due(after), _recovery_due(before, after, now)
    if (due_at, recovery_due_at) != (after.due_at, after.recovery_due_at):
        after = after._replace(due_at=due_at, recovery_due_at=recovery_due_at)
    return after, effects


def _removed(channel: Channel, now: datetime) -> tuple[Channel, tuple[Effect, ...]]:
    effects = (
        () if channel.incident is None else (Resolve(channel.incident, now, "channel_removed", alert=False),)
    )
    unmonitored = channel._replace(
        incident=None,
        due_at=None,
        probe_due_at=None,
        awaiting_probe=None,
        flap=None,
        lost_until=None,
        recovery_due_at=None,
    )
    return unmonitored, effects


def _recovered(before: Channel, channel: Channel, now: datetime) -> tuple[Channel, tuple[Effect, ...]]:
    incident = channel.incident
    if incident is None:
        return channel, ()
    alert = channel.rules.monitoring is Monitoring.WATCHED
    if not incident.flapping:
        newer = channel.fresh_at is not None and channel.fresh_at > incident.opened_at
        if before.state is State.OPEN and not newer:
            # Another application opened it while the channel was open here; only new evidence resolves it.
            return channel, ()
        return channel._replace(incident=None), (Resolve(incident, now, "recovered", alert),)
    if channel.since is not None and now >= channel.since + STABLE_AFTER:
        return channel._replace(incident=None, departures=()), (Resolve(incident, now, "stable", alert),)
    return channel, ()


def _unhealthy(before: Channel, after: Channel, now: datetime) -> tuple[Channel, tuple[Effect, ...]]:
    flapped = len(after.departures) == FLAPS and after.departures != before.departures
    if after.incident is not None and never_connected.is_over(before, after):
        return _ended(after, now)
    if after.incident is not None:
        return _kept(before, after, flapped)
    if flapped and after.flap is None:
        after = after._replace(flap=Flap(now, after.status))
    return after, ()


def _ended(channel: Channel, now: datetime) -> tuple[Channel, tuple[Effect, ...]]:
    assert channel.incident is not None
    alert = channel.rules.monitoring is Monitoring.WATCHED
    return channel._replace(incident=None), (Resolve(channel.incident, now, "never_connected", alert),)


def _kept(before: Channel, after: Channel, flapped: bool) -> tuple[Channel, tuple[Effect, ...]]:
    assert after.incident is not None
    if after.status == before.status and not flapped:
        return after, ()
    changed = describe(after, after.incident.opened_at, flapping=flapped or after.incident.flapping)
    changed = changed._replace(started_at=after.incident.started_at)
    if changed == after.incident:
        return after, ()
    return after._replace(incident=changed), (Change(changed),)


def _opened(channel: Channel, now: datetime) -> tuple[Channel, tuple[Effect, ...]]:
    incident = describe(channel, now, channel.flap is not None)
    after = channel._replace(incident=incident, awaiting_probe=None, flap=None, not_before=None)
    return after, (Open(incident),)


def describe(channel: Channel, opened_at: datetime, flapping: bool = False) -> Incident:
    """Return the incident for the channel's status, or for its last departure if it is open again."""
    flap = channel.flap
    state, reason, code = flap.standing if flap and channel.state is State.OPEN else channel.status
    started_at = unhealthy_since(channel) or (flap.at if flap else opened_at)
    return Incident(state.shown, state.value, started_at, opened_at, reason, code, flapping)


def fall_due(channel: Channel, deadline: Deadline) -> tuple[Channel, tuple[Effect, ...]]:
    """Return the channel after its deadline, and the incident that opens if its evidence is fresh.

    On old evidence a probe comes first; the incident then opens unless the answer is open, or when the
    probe can't be made within `rules.probe_wait`. Waiting for a concurrency slot is not counted, up to
    `LONGEST_QUEUE`: after a stop of ours, all channels of one gateway may be due at once.
    Before all that, what the gateway's own trouble explains opens nothing.
    """
    now = deadline.received_at
    if channel.flap is not None:
        return _flap_due(channel, channel.flap, deadline)
    grace_ends_at = incident_due(channel)
    if grace_ends_at is None or now < grace_ends_at:
        return channel, ()
    if not deadline.certain and (look_at := _waits_for_gateway(channel, deadline, grace_ends_at)):
        return channel._replace(not_before=look_at), ()
    is_fresh = channel.fresh_at is not None and now - channel.fresh_at <= channel.rules.stale_after
    if deadline.certain or is_fresh:
        return _opened(channel, now)
    waiting = channel.awaiting_probe
    wait = channel.rules.probe_wait
    if waiting is None or wait is None:
        return _awaiting(channel, waiting.since if waiting else now, None if wait is None else now + wait), ()
    since, until = waiting.since, waiting.until or waiting.since + wait
    if now >= until + wait:
        # Monitoring was interrupted: a stop of ours, or a pause. The wait begins anew.
        return _awaiting(channel, now, now + wait), ()
    if now < until:
        return _awaiting(channel, since, until), ()
    if deadline.queued and now < since + LONGEST_QUEUE * wait:
        return _awaiting(channel, since, now + wait), ()
    return _opened(channel, now)


def _flap_due(channel: Channel, flap: Flap, deadline: Deadline) -> tuple[Channel, tuple[Effect, ...]]:
    """Open the flapping channel's incident, unless its gateway shook it: then count departures anew."""
    now = deadline.received_at
    if deadline.certain:
        return _opened(channel, now)
    if now < flap.at + FLAP_PAUSE:
        return channel, ()
    if _is_ahead(deadline.held_until, now):
        return channel._replace(flap=None, departures=channel.departures[-1:]), ()
    if look_at := _waits_for_gateway(channel, deadline, flap.at):
        return channel._replace(not_before=look_at), ()
    return _opened(channel, now)


def _waits_for_gateway(channel: Channel, deadline: Deadline, due_at: datetime) -> datetime | None:
    """Return when to look again at what has been due since then; None: the channel's trouble is its own."""
    now, wait = deadline.received_at, channel.rules.verdict_wait
    if _is_ahead(deadline.held_until, now):
        return deadline.held_until
    if channel.state is State.ERROR and _is_ahead(deadline.doubted_until, now):
        return deadline.doubted_until
    if deadline.suspect and now < due_at + wait:
        return min(now + wait / LOOKS, due_at + wait)
    return None


def _is_ahead(moment: datetime | None, now: datetime) -> bool:
    return moment is not None and moment > now


def _awaiting(channel: Channel, since: datetime, until: datetime | None) -> Channel:
    return probe_at(channel._replace(awaiting_probe=Wait(since, until)), since)


def incident_due(channel: Channel) -> datetime | None:
    """Return when the grace of the present stretch ends; None when no incident is to open."""
    if channel.incident is not None or channel.rules.monitoring is not Monitoring.WATCHED:
        return None
    since = unhealthy_since(channel)
    if since is None:
        return None
    due = since + channel.rules.threshold
    if channel.terminal_at is not None and not channel.rules.terminal_waits:
        due = min(due, max(channel.terminal_at, since) + channel.rules.terminal_grace)
    return due if channel.lost_until is None else max(due, channel.lost_until)


def unhealthy_since(channel: Channel) -> datetime | None:
    """Return when that began for which an incident is to open; None: nothing is wrong.

    A channel that was never connected waits for its first scan, so that only its own fault counts.
    """
    return channel.first_unhealthy_at if channel.has_been_open else never_connected.fault_since(channel)


def next_due(channel: Channel) -> datetime | None:
    """Return the channel's next deadline; None when it has none."""
    due = _incident_deadline(channel)
    if due is not None and channel.not_before is not None:
        due = max(due, channel.not_before)
    others = (due, channel.lost_until, never_connected.due_at(channel))
    return min((at for at in others if at is not None), default=None)


def _incident_deadline(channel: Channel) -> datetime | None:
    """Return when an incident is to open, or to end, if the gateway's own trouble doesn't explain it."""
    if channel.flap is not None:
        return channel.flap.at + FLAP_PAUSE
    if channel.state is State.OPEN:
        flapping = channel.incident is not None and channel.incident.flapping and channel.since is not None
        return channel.since + STABLE_AFTER if flapping and channel.since else None
    due = incident_due(channel)
    return due if due is None or channel.awaiting_probe is None else channel.awaiting_probe.until


def may_restart(channel: Channel) -> bool:
    """True when a session that a probe finds lost may be restarted before it counts as unpaired."""
    return _may_recover(channel) and RecoverableCondition.LOST in channel.rules.recoverable


def _may_recover(channel: Channel) -> bool:
    """A channel that was never open waits for its first scan: no recovery action helps."""
    return channel.rules.recovery and channel.has_been_open and is_probed(channel)


def recoverable_condition_of(channel: Channel) -> RecoverableCondition | None:
    """Return the condition that a recovery action may end; None: there is none, or none may be ordered.

    An error is the gateway's silence, unpaired and a QR need a scan: none of them is recoverable.
    """
    match channel.state:
        case State.DROPPED:
            condition = (
                RecoverableCondition.DROPPED if channel.lost_until is None else RecoverableCondition.LOST
            )
        case State.CONNECTING if channel.status.reason is Reason.INCOMPLETE_SESSION:
            condition = RecoverableCondition.INCOMPLETE
        case State.CONNECTING:
            condition = RecoverableCondition.STUCK
        case _:
            return None
    return condition if condition in channel.rules.recoverable and _may_recover(channel) else None


def _recovery_due(before: Channel, after: Channel, now: datetime) -> datetime | None:
    """Return from when on an action may be ordered: set when the condition begins, kept while it lasts."""
    condition = recoverable_condition_of(after)
    if condition is None:
        return None
    if condition is recoverable_condition_of(before) and after.recovery_due_at is not None:
        return after.recovery_due_at
    since = after.since or now
    match condition:
        case RecoverableCondition.STUCK:
            return since + after.rules.stuck_after
        case RecoverableCondition.DROPPED:
            # Most gateways connect a dropped session by themselves, within a second.
            return since + after.rules.retry_after
        case _:
            return now


def is_probed(channel: Channel) -> bool:
    """True when the channel may be probed at all."""
    return channel.rules.configured and channel.rules.monitoring is Monitoring.WATCHED


def probe_at(channel: Channel, when: datetime) -> Channel:
    """Return the channel with its next probe no later than `when`."""
    if not is_probed(channel):
        return channel._replace(probe_due_at=None)
    if channel.probe_due_at is not None and channel.probe_due_at <= when:
        return channel
    return channel._replace(probe_due_at=when)


def probe_after_answer(channel: Channel, now: datetime, jitter: float) -> Channel:
    """Return the channel with its next probe set, after one was answered at `now`."""
    if not is_probed(channel):
        return channel._replace(probe_due_at=None)
    rules = channel.rules
    if channel.probe_streak is not None:
        gap = rules.retry_after
    elif channel.state is State.OPEN:
        gap, jitter = rules.stale_after, 1 + (jitter - 1) * OPEN_SHARE_OF_JITTER
    else:
        gap = min(rules.retry_after * 2 ** min(channel.probes, 10), LONGEST_GAP)
    return channel._replace(probe_due_at=now + gap * jitter)


def scan_needed(channel: Channel, status: Status) -> Status:
    """Return the status, where a QR of a channel that has been open means that it needs a scan."""
    if status.state is State.QR_PENDING and channel.has_been_open:
        return status._replace(reason=Reason.SCAN_NEEDED)
    return status
