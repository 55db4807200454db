"""Applies one signal to one channel: merge, derive, decide. The only way a channel changes.

`step` is pure: the same channel and signal give the same result, now, in a replay, in a test.
"""

from collections.abc import Hashable, Iterable, Mapping
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Final, TypeVar, assert_never

from statemachine import never_connected, policy
from statemachine.evidence import NAMED_STATE, advance, came_out_of_turn, merge, qr_is_old, settle, state_of
from statemachine.machine import GATEWAY_TROUBLE
from statemachine.model import Channel, Evidence, Incident, ProbeStreak, Reason, State, Status, Trigger
from statemachine.signals import (
    Alive,
    Answered,
    Configured,
    Deadline,
    Effect,
    GatewaySilence,
    Heard,
    IncidentOpened,
    IncidentResolved,
    LeftTogether,
    RecoveryEnded,
    Signal,
    Verdict,
)

NUDGE_GAP: Final = timedelta(seconds=10)
"""Live traffic on a channel that is not open makes a probe due at most this often."""

STREAK_KINDS: Final = {
    Trigger.SESSION_MISSING: ("session_missing", 2),
    Trigger.UNAUTHORIZED: ("unauthorized", 2),
    Trigger.UNREACHABLE: ("unanswered", 3),
    Trigger.NOT_LOADED: ("unanswered", 3),
}
"""The probe streak that a trigger counts towards, and how many answers complete it; else one does."""

Key = TypeVar("Key", bound=Hashable)


def step(channel: Channel, signal: Signal) -> tuple[Channel, tuple[Effect, ...]]:
    """Return the channel after one signal, and the effects in order."""
    match signal:
        case Heard():
            after = _heard(channel, signal)
        case Alive():
            after = _alive(channel, signal)
        case Answered():
            after = _answered(channel, signal)
        case Verdict():
            after = _settled(channel, signal)
        case Configured():
            after = _configured(channel, signal)
        case IncidentOpened():
            after = _opened_outside(channel, signal)
        case IncidentResolved():
            after = channel._replace(incident=None)
        case RecoveryEnded():
            after = _recovery_ended(channel, signal)
        case GatewaySilence() | LeftTogether():
            after = channel
        case Deadline():
            is_over = channel.lost_until is not None and signal.received_at >= channel.lost_until
            after = _without_lost_session(channel, signal.received_at) if is_over else channel
            after = _proven(after, signal.received_at)
            due, opened = policy.fall_due(after, signal)
            after, effects = policy.decide(channel, due, signal.received_at)
            return after, opened + effects
        case _:
            assert_never(signal)
    return policy.decide(channel, after, signal.received_at)


def fold(
    channels: Mapping[Key, Channel], signals: Iterable[tuple[Key, Signal]]
) -> tuple[dict[Key, Channel], list[tuple[Key, Effect]]]:
    """Return the channels after the signals, and all effects in order, however the signals are batched."""
    folded = dict(channels)
    effects: list[tuple[Key, Effect]] = []
    for key, signal in signals:
        folded[key], new = step(folded[key], signal)
        effects.extend((key, effect) for effect in new)
    return folded, effects


def _heard(channel: Channel, heard: Heard) -> Channel:
    now = heard.received_at
    after = channel._replace(last_event_at=_later(channel.last_event_at, now))
    if heard.trigger is None:
        return after
    late = came_out_of_turn(channel.evidence, heard)
    if not after.has_been_open and heard.fresh:
        after = never_connected.heard(after, heard)
    after = _with_evidence(after, merge(after.evidence, heard), now)
    changed = after.version != channel.version
    if changed and after.fault_at is not None:
        after = after._replace(fault_at=None)
    if after.probe_streak is not None and (
        changed or (heard.trigger is Trigger.CONNECTING and after.probe_streak.kind == "closed")
    ):
        after = after._replace(probe_streak=None)
    if heard.fresh and (changed or not (late or heard.trigger is Trigger.CONNECTING)):
        after = _refreshed(after, now, moved=changed)
    clock_changed = heard.epoch > channel.evidence.epoch > 0
    if heard.needs_probe or clock_changed or (late and NAMED_STATE[heard.trigger] is not after.state):
        after = policy.probe_at(after, now)
    return after


def _alive(channel: Channel, alive: Alive) -> Channel:
    now = alive.received_at
    after = channel._replace(last_event_at=_later(channel.last_event_at, now))
    if channel.state is State.OPEN:
        if channel.last_event_at is not None and now < channel.last_event_at:
            # An event after this traffic may have made a probe due: it stays due.
            return after._replace(fresh_at=_later(after.fresh_at, now))
        return _refreshed(after, now)
    emitted_at = min(alive.emitted_at or now, now)
    if channel.state is State.ERROR and (channel.probed_at is None or emitted_at > channel.probed_at):
        evidence = Evidence(Status(State.OPEN), (), now, channel.evidence.qr_at, channel.evidence.epoch)
        return _refreshed(_with_evidence(never_connected.connected(after), evidence, now), now)
    return policy.probe_at(
        after, _later(None if channel.probed_at is None else channel.probed_at + NUDGE_GAP, now)
    )


def _answered(channel: Channel, answer: Answered) -> Channel:
    now = answer.received_at
    after = channel._replace(probed_at=_later(channel.probed_at, answer.began_at))
    if answer.version != channel.version:
        return policy.probe_at(after._replace(probe_due_at=None), now)
    verdict = verdict_of(channel, answer)
    probe_streak = None if verdict or _may_be_falsely_open(channel, answer) else _count(channel, answer)[0]
    # The answer that begins a stretch is the first; the gaps grow with those that follow.
    probes = channel.probes + 1 if channel.first_unhealthy_at is not None else 0
    after = after._replace(probe_streak=probe_streak, probes=probes)
    if verdict is not None:
        after = _settled(after, verdict)
    elif channel.awaiting_probe is not None:
        after = _refreshed(after, now)
    return policy.probe_after_answer(after, now, answer.jitter)


def verdict_of(channel: Channel, answer: Answered) -> Verdict | None:
    """Return the verdict that an answer completes, or None while it needs more like it or came too late."""
    probe_streak, counts = _count(channel, answer)
    if not counts or answer.version != channel.version or _may_be_falsely_open(channel, answer):
        return None
    return Verdict(
        received_at=answer.received_at,
        dated_at=answer.counted_from or probe_streak.first_at,
        began_at=answer.began_at,
        trigger=answer.trigger,
        reason=answer.reason,
        status=answer.status,
        session_lost=answer.session_lost,
    )


def _count(channel: Channel, answer: Answered) -> tuple[ProbeStreak, bool]:
    """Return the answers of this kind in a row with this one, and whether they are enough."""
    kind, needed = STREAK_KINDS.get(answer.trigger, (answer.trigger.value, 1))
    if answer.trigger is Trigger.DROPPED and _may_be_falsely_closed(channel, answer.began_at):
        kind, needed = "closed", 2
    if answer.certain or _confirms_status(channel, answer):
        needed = 1
    old = channel.probe_streak
    if old is None or old.kind != kind:
        new = ProbeStreak(kind, 1, answer.began_at, answer.began_at)
    elif answer.began_at - old.last_at < channel.rules.retry_after:
        new = old
    else:
        new = ProbeStreak(kind, old.count + 1, old.first_at, answer.began_at)
    return new, new.count >= needed


def _confirms_status(channel: Channel, answer: Answered) -> bool:
    """True when the answer's verdict would change neither state nor reason."""
    status = advance(channel.status, answer.trigger, answer.reason, answer.status)
    return status[:2] == channel.status[:2]


def _may_be_falsely_closed(channel: Channel, now: datetime) -> bool:
    """Evolution's memory flips between close and connecting while it retries.

    docs/provider-facts.md#evolution-flips
    """
    if channel.state is State.QR_PENDING:
        return not qr_is_old(channel.evidence, now)
    return channel.state is State.CONNECTING


def _may_be_falsely_open(channel: Channel, answer: Answered) -> bool:
    """The gateway of a channel that is open but dead goes on reporting open: that proves nothing."""
    is_dead = channel.status.reason is Reason.OPEN_BUT_DEAD
    return is_dead and answer.trigger is Trigger.OPENED and not answer.certain


def _settled(channel: Channel, verdict: Verdict) -> Channel:
    settled_at = channel.evidence.settled_at
    if settled_at is not None and verdict.began_at <= settled_at:
        return channel
    if verdict.session_lost and not policy.may_restart(channel):
        verdict = replace(verdict, trigger=Trigger.UNPAIRED)
    after = never_connected.connected(channel) if verdict.trigger is Trigger.OPENED else channel
    after = after._replace(probed_at=_later(channel.probed_at, verdict.began_at))
    after = _with_evidence(after, settle(channel.evidence, verdict), verdict.dated_at)
    if verdict.session_lost and after.state is State.DROPPED and after.lost_until is None:
        after = after._replace(lost_until=verdict.received_at + channel.rules.recovery_wait)
    if not after.has_been_open:
        after = never_connected.settled(after, verdict)
    is_about_session = verdict.trigger not in GATEWAY_TROUBLE or after.state is State.ERROR
    if not is_about_session and channel.awaiting_probe is None:
        return after
    return _refreshed(after, verdict.received_at)


def _proven(channel: Channel, now: datetime) -> Channel:
    """Return the channel after logouts of a channel without sign of a connection were decided."""
    after = never_connected.decided(channel, now)
    return _with_evidence(after, after.evidence, now) if after.has_been_open else after


def _recovery_ended(channel: Channel, ended: RecoveryEnded) -> Channel:
    if channel.recovery_due_at is not None:
        channel = channel._replace(recovery_due_at=ended.again_at)
    return _without_lost_session(channel, ended.received_at) if ended.failed else channel


def _without_lost_session(channel: Channel, now: datetime) -> Channel:
    """Return the channel with a session that is still lost counted as unpaired.

    The base of the evidence changes, as if the probe had found that: later webhooks still count.
    """
    if channel.lost_until is None:
        return channel
    _, reason, code = channel.status
    base = advance(channel.evidence.base, Trigger.UNPAIRED, reason, code)
    return _with_evidence(channel._replace(lost_until=None), channel.evidence._replace(base=base), now)


def _configured(channel: Channel, configured: Configured) -> Channel:
    after = channel._replace(rules=configured.rules)
    if not policy.may_restart(after):
        after = _without_lost_session(after, configured.received_at)
    if not policy.is_probed(after):
        return after._replace(probe_due_at=None)
    if not policy.is_probed(channel) or channel.probe_due_at is None:
        return policy.probe_at(after, configured.received_at)
    return after


def _opened_outside(channel: Channel, signal: IncidentOpened) -> Channel:
    if channel.incident is not None:
        return channel._replace(incident=channel.incident._replace(kind=signal.kind))
    incident = Incident(signal.kind, signal.last_state, signal.received_at, signal.received_at)
    return never_connected.connected(channel)._replace(incident=incident)


def _with_evidence(channel: Channel, evidence: Evidence, dated_at: datetime) -> Channel:
    """Return the channel with this evidence and its status, the stretch's times kept; dated by our clock."""
    before = channel.status
    status = policy.scan_needed(channel, state_of(evidence))
    if status == before:
        return channel._replace(evidence=evidence)
    state = status.state
    healthy = state in (State.OPEN, State.UNKNOWN)
    return channel._replace(
        evidence=evidence,
        status=status,
        version=channel.version + (status[:2] != before[:2]),
        since=channel.since if state.shown == before.state.shown else dated_at,
        first_unhealthy_at=None if healthy else channel.first_unhealthy_at or dated_at,
        terminal_at=(channel.terminal_at or dated_at) if status.terminal else None,
        lost_until=channel.lost_until if state is State.DROPPED else None,
        departures=_departures(channel, dated_at) if before.state is State.OPEN else channel.departures,
        probes=0 if healthy else channel.probes,
        not_before=None if healthy else channel.not_before,
    )


def _departures(channel: Channel, now: datetime) -> tuple[datetime, ...]:
    recent = [at for at in channel.departures if now - at < policy.FLAP_WINDOW]
    return (*recent, now)[-policy.FLAPS :]


def _refreshed(channel: Channel, now: datetime, moved: bool = True) -> Channel:
    """Return the channel with fresh evidence: a due incident need not wait for a probe any longer.

    In an unhealthy stretch only evidence that changed the status brings the next probe nearer.
    """
    fresh_at = _later(channel.fresh_at, now)
    if channel.state is State.OPEN:
        # Live traffic between two failed probes: they are no streak.
        probe_streak = (
            channel.probe_streak if channel.probe_streak and now <= channel.probe_streak.last_at else None
        )
        probe_due_at = now + channel.rules.stale_after if policy.is_probed(channel) else None
        return channel._replace(
            fresh_at=fresh_at, awaiting_probe=None, probe_streak=probe_streak, probe_due_at=probe_due_at
        )
    after = channel._replace(fresh_at=fresh_at, awaiting_probe=None)
    if moved or channel.probe_due_at is None:
        return policy.probe_at(after, now + channel.rules.retry_after)
    return after


def _later(one: datetime | None, other: datetime) -> datetime:
    return other if one is None else max(one, other)
