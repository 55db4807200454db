"""When a channel's trouble is an incident: grace, flapping, end. Derives no state, and asks nothing.

An unhealthy stretch runs from leaving open (or from first evidence that isn't open) to the next
opened. It has one clock and at most one incident, whatever states it passes.
"""

from datetime import datetime
from typing import Final

from statemachine.model import (
    GATEWAY_REASONS,
    Channel,
    Incident,
    Monitoring,
    Reason,
    State,
    Status,
    Wait,
)
from statemachine.policy import flapping, never_connected
from statemachine.policy.flapping import STABLE_AFTER
from statemachine.policy.probing import probe_at
from statemachine.policy.recovery import recovery_due
from statemachine.signals import Change, Deadline, Effect, Open, Resolve

LONGEST_QUEUE: Final = 10
"""How many times `rules.probe_wait` a due incident waits while its probe is queued for its gateway."""
LOOKS: Final = 6
"""How many times within `rules.probe_wait` a due incident looks for the next trial of a silent gateway."""


def decide(before: Channel, after: Channel, now: datetime) -> tuple[Channel, tuple[Effect, ...]]:
    """Return the channel with its incident and due times brought up to date, and the effects."""
    if after.rules.monitoring is Monitoring.REMOVED:
        return _removed(after, now)
    if after.state is State.OPEN:
        after, effects = _recovered(before, after, now)
    else:
        after, effects = _unhealthy(before, after, now)
    if after.departures and after.rules.monitoring is not Monitoring.WATCHED:
        after = after._replace(departures=())
    due_at, recovery_due_at = next_due(after), recovery_due(before, after, now)
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
        departures=(),
        lost_until=None,
        recovery_due_at=None,
    )
    return unmonitored, effects


def _recovered(before: Channel, channel: Channel, now: datetime) -> tuple[Channel, tuple[Effect, ...]]:
    incident = channel.incident
    if incident is None:
        return channel, ()
    if incident.flapping:
        if channel.since is None or now < channel.since + STABLE_AFTER:
            return _kept(before, channel, incident)
        return _resolved(channel._replace(departures=()), incident, now, "stable")
    newer = channel.fresh_at is not None and channel.fresh_at > incident.opened_at
    if before.state is State.OPEN and not newer:
        # Another application opened it while the channel was open here; only new evidence resolves it.
        return channel, ()
    return _resolved(channel, incident, now, "recovered")


def _resolved(
    channel: Channel, incident: Incident, now: datetime, why: str
) -> tuple[Channel, tuple[Effect, ...]]:
    alert = channel.rules.monitoring is Monitoring.WATCHED
    return channel._replace(incident=None), (Resolve(incident, now, why, alert),)


def _unhealthy(before: Channel, after: Channel, now: datetime) -> tuple[Channel, tuple[Effect, ...]]:
    incident = after.incident
    if incident is None:
        return after, ()
    if never_connected.is_over(before, after):
        return _resolved(after, incident, now, "never_connected")
    return _kept(before, after, incident)


def _kept(before: Channel, after: Channel, incident: Incident) -> tuple[Channel, tuple[Effect, ...]]:
    if after.status == before.status:
        return after, ()
    return _changed(after, incident, incident.departures)


def _changed(channel: Channel, incident: Incident, departures: int) -> tuple[Channel, tuple[Effect, ...]]:
    changed = describe(channel, incident.opened_at, departures)._replace(started_at=incident.started_at)
    if changed == incident:
        return channel, ()
    return channel._replace(incident=changed), (Change(changed),)


def _opened(channel: Channel, now: datetime, departures: int = 0) -> tuple[Channel, tuple[Effect, ...]]:
    incident = describe(channel, now, departures)
    return channel._replace(incident=incident, awaiting_probe=None), (Open(incident),)


def describe(channel: Channel, opened_at: datetime, departures: int = 0) -> Incident:
    """Return the incident for the channel's status, or for its last departure if it is open again.

    `departures`: how many were counted, if it flaps. A terminal reason is told as what it is, then, too.
    """
    last = channel.departures[-1] if channel.departures else None
    state, reason, code = last.status if last and channel.state is State.OPEN else channel.status
    started_at = unhealthy_since(channel) or (last.at if last else opened_at)
    if departures and not channel.status.terminal:
        reason, code = Reason.FLAPPING, None
    return Incident(state.shown, state.value, started_at, opened_at, reason, code, departures > 0, departures)


def fall_due(channel: Channel, deadline: Deadline) -> tuple[Channel, tuple[Effect, ...]]:
    """Return the channel after its deadline, and the incident that opens if its evidence is fresh.

    On old evidence a probe comes first; the incident then opens unless the answer is open, or when the
    probe can't be made within `rules.probe_wait`. Waiting for a concurrency slot is not counted, up to
    `LONGEST_QUEUE`: after a stop of ours, all channels of one gateway may be due at once.
    """
    now = deadline.received_at
    if deadline.certain and channel.incident is None and channel.state is State.OPEN:
        return _opened(channel, now, flapping.count(channel.departures) or flapping.FLAPS)
    found_at = flapping.found_at(channel)
    if found_at is not None and found_at <= now:
        departures = flapping.count(channel.departures)
        if channel.incident is None:
            return _opened(channel, now, departures)
        return _changed(channel, channel.incident, departures)
    grace_ends_at = incident_due(channel)
    if grace_ends_at is None or now < grace_ends_at:
        return channel, ()
    if deadline.certain:
        return _opened(channel, now)
    if channel.status.reason in GATEWAY_REASONS:
        return _silenced_due(channel, deadline)
    if channel.fresh_at is not None and now - channel.fresh_at <= channel.rules.stale_after:
        return _opened(channel, now)
    return _due_on_old_evidence(channel, now, deadline.queued)


def _due_on_old_evidence(channel: Channel, now: datetime, queued: bool) -> tuple[Channel, tuple[Effect, ...]]:
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
    if queued and now < since + LONGEST_QUEUE * wait:
        return _awaiting(channel, since, now + wait), ()
    return _opened(channel, now)


def _silenced_due(channel: Channel, deadline: Deadline) -> tuple[Channel, tuple[Effect, ...]]:
    """Open the incident of a channel whose gateway is silent; one that may be back is asked first.

    While the gateway is down, its own failed trial is the evidence. Once it has answered, the channel's own
    answer is awaited, at most until the gateway has settled.
    """
    now, failed_at, settles_until = (
        deadline.received_at,
        deadline.gateway_failed_at,
        deadline.gateway_settles_until,
    )
    if failed_at is not None and now - failed_at <= channel.rules.stale_after:
        return _opened(channel, now)
    if failed_at is None and settles_until is not None and now < settles_until:
        return _awaiting(channel, now, settles_until), ()
    if failed_at is None and settles_until is not None and channel.awaiting_probe is not None:
        return _opened(channel, now)
    waiting, wait = channel.awaiting_probe, channel.rules.probe_wait
    if failed_at is None or wait is None or (waiting and now >= waiting.since + LONGEST_QUEUE * wait):
        return _due_on_old_evidence(channel, now, queued=False)
    return _awaiting(channel, waiting.since if waiting else now, now + wait / LOOKS), ()


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
    """Return since when there is what an incident is to open for; None: nothing is wrong.

    A channel that was never connected waits for its first scan, so that only its own fault counts.
    """
    return channel.first_unhealthy_at if channel.has_been_open else never_connected.fault_since(channel)


def next_due(channel: Channel) -> datetime | None:
    """Return the channel's next deadline; None when it has none."""
    due = (
        _stretch_due(channel),
        channel.lost_until,
        flapping.found_at(channel),
        never_connected.due_at(channel),
    )
    return min((at for at in due if at is not None), default=None)


def _stretch_due(channel: Channel) -> datetime | None:
    """Return when an incident is to open, or the one of a flapping channel to end."""
    if channel.state is State.OPEN:
        flaps = channel.incident is not None and channel.incident.flapping and channel.since is not None
        return channel.since + STABLE_AFTER if flaps and channel.since else None
    due = incident_due(channel)
    return due if due is None or channel.awaiting_probe is None else channel.awaiting_probe.until


def scan_needed(channel: Channel, status: Status) -> Status:
    """Return the status, where a QR of a channel that has been open means that it needs a scan."""
    if status.state is State.QR_PENDING and channel.has_been_open:
        return status._replace(reason=Reason.SCAN_NEEDED)
    return status
