"""Applies one signal to one channel: merge, derive, decide. The only way a channel changes.

`step` is pure: the same channel and signal give the same result, now, in a replay, in a test.
"""

from collections.abc import Hashable, Iterable, Mapping
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Final, TypeVar, assert_never

from statemachine.evidence import (
    NAMED_STATE,
    advance,
    came_out_of_turn,
    merge,
    newest_verdict_at,
    settle,
    silence,
    state_of,
)
from statemachine.machine import GATEWAY_TROUBLE
from statemachine.model import Channel, Evidence, Incident, Reason, State, Status, Trigger
from statemachine.policy import flapping, incidents, never_connected
from statemachine.policy.probing import is_probed, later, probe_after_answer, probe_at, refreshed
from statemachine.policy.recovery import may_restart
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
    Judged,
    LeftTogether,
    RecoveryEnded,
    Signal,
    Verdict,
)
from statemachine.verdicts import judge

NUDGE_GAP: Final = timedelta(seconds=10)
"""Live traffic on a channel that is not open makes a probe due at most this often."""

ORDER_LASTS: Final = timedelta(minutes=1)
"""A channel that leaves open so long before an episode of recovery ends may have done so by our order."""

Key = TypeVar("Key", bound=Hashable)


def step(channel: Channel, signal: Signal) -> tuple[Channel, tuple[Effect, ...]]:
    """Return the channel after one signal, and the effects in order."""
    match signal:
        case Heard():
            after = _heard(channel, signal)
        case Alive():
            after = _alive(channel, signal)
        case Answered():
            after = _answered(channel, judge(channel, signal))
        case Judged():
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
        case GatewaySilence():
            after = _silenced(channel, signal)
        case LeftTogether():
            departures = flapping.without(channel.departures, signal.since, signal.until)
            after = channel._replace(departures=departures)
        case Deadline():
            is_over = channel.lost_until is not None and signal.received_at >= channel.lost_until
            after = _without_lost_session(channel, signal.received_at) if is_over else channel
            after = _proven(after, signal.received_at)
            due, opened = incidents.fall_due(after, signal)
            after, effects = incidents.decide(channel, due, signal.received_at)
            return after, opened + effects
        case _:
            assert_never(signal)
    return incidents.decide(channel, after, signal.received_at)


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
    emitted_at = later(channel.emitted_at, min(heard.emitted_at, now)) if heard.fresh else channel.emitted_at
    after = channel._replace(last_event_at=later(channel.last_event_at, now), emitted_at=emitted_at)
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
        after = refreshed(after, now, moved=changed)
    clock_changed = heard.epoch > channel.evidence.epoch > 0
    if heard.needs_probe or clock_changed or (late and NAMED_STATE[heard.trigger] is not after.state):
        after = probe_at(after, now)
    return after


def _alive(channel: Channel, alive: Alive) -> Channel:
    now = alive.received_at
    emitted_at = min(alive.emitted_at or now, now)
    after = channel._replace(
        last_event_at=later(channel.last_event_at, now), emitted_at=later(channel.emitted_at, emitted_at)
    )
    if channel.state is State.OPEN:
        if channel.last_event_at is not None and now < channel.last_event_at:
            # An event after this traffic may have made a probe due: it stays due.
            return after._replace(fresh_at=later(after.fresh_at, now))
        return refreshed(after, now)
    if channel.state is State.ERROR and channel.status.reason is Reason.UNAUTHORIZED:
        return after
    if channel.state is State.ERROR and (channel.probed_at is None or emitted_at > channel.probed_at):
        old = channel.evidence
        evidence = Evidence(Status(State.OPEN), (), emitted_at, old.qr_at, old.epoch)
        return refreshed(_with_evidence(never_connected.connected(after), evidence, now), now)
    return probe_at(after, later(None if channel.probed_at is None else channel.probed_at + NUDGE_GAP, now))


def _answered(channel: Channel, judged: Judged) -> Channel:
    answer, verdict, probe_streak = judged
    now = answer.received_at
    after = channel._replace(probed_at=later(channel.probed_at, answer.began_at))
    if answer.version != channel.version:
        return probe_at(after._replace(probe_due_at=None), now)
    # The answer that begins a stretch is the first; the gaps grow with those that follow.
    probes = channel.probes + 1 if channel.first_unhealthy_at is not None else 0
    after = after._replace(probe_streak=probe_streak, probes=probes)
    if verdict is not None:
        after = _settled(after, verdict)
    elif channel.awaiting_probe is not None:
        after = refreshed(after, now)
    return probe_after_answer(after, now, answer.jitter)


def _settled(channel: Channel, verdict: Verdict) -> Channel:
    newest_at = newest_verdict_at(channel.evidence)
    if newest_at is not None and verdict.began_at <= newest_at:
        return channel
    if verdict.session_lost and not may_restart(channel):
        verdict = replace(verdict, trigger=Trigger.UNPAIRED)
    after = never_connected.connected(channel) if verdict.trigger is Trigger.OPENED else channel
    after = after._replace(probed_at=later(channel.probed_at, verdict.began_at))
    after = _with_evidence(after, settle(channel.evidence, verdict), verdict.dated_at)
    if verdict.session_lost and after.state is State.DROPPED and after.lost_until is None:
        after = after._replace(lost_until=verdict.received_at + channel.rules.recovery_wait)
    if not after.has_been_open:
        after = never_connected.settled(after, verdict)
    is_about_session = verdict.trigger not in GATEWAY_TROUBLE or after.state is State.ERROR
    if not is_about_session and channel.awaiting_probe is None:
        return after
    return refreshed(after, verdict.received_at)


def _silenced(channel: Channel, told: GatewaySilence) -> Channel:
    """Return the channel after the verdict on its gateway: given once, late or twice it says the same.

    A channel that sent something, or was answered, since the silence began has proven that it was no silence
    until then.
    """
    now, since = told.received_at, told.since
    if not is_probed(channel):
        return channel
    for proven_at in (channel.emitted_at, channel.evidence.settled_at):
        if proven_at is not None and proven_at > since:
            if now - proven_at < channel.rules.stale_after:
                return channel
            since = proven_at
    evidence = silence(channel.evidence, told.reason, since)
    dated_at = since if channel.since is None else max(since, channel.since)
    after = _with_evidence(channel, evidence, dated_at, by_gateway=True)
    if after.status == channel.status:
        return after
    return probe_at(after._replace(probe_streak=None), now + channel.rules.retry_after)


def _proven(channel: Channel, now: datetime) -> Channel:
    """Return the channel after logouts of a channel without sign of a connection were decided."""
    after = never_connected.decided(channel, now)
    is_proven = after.has_been_open and not channel.has_been_open
    return _with_evidence(after, after.evidence, now) if is_proven else after


def _recovery_ended(channel: Channel, ended: RecoveryEnded) -> Channel:
    if channel.recovery_due_at is not None:
        channel = channel._replace(recovery_due_at=ended.again_at)
    if ended.ordered:
        departures = flapping.without(channel.departures, ended.received_at - ORDER_LASTS, ended.received_at)
        channel = channel._replace(departures=departures)
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
    if not may_restart(after):
        after = _without_lost_session(after, configured.received_at)
    if not is_probed(after):
        return after._replace(probe_due_at=None)
    if not is_probed(channel) or channel.probe_due_at is None:
        return probe_at(after, configured.received_at)
    return after


def _opened_outside(channel: Channel, signal: IncidentOpened) -> Channel:
    if channel.incident is not None:
        return channel._replace(incident=channel.incident._replace(kind=signal.kind))
    incident = Incident(signal.kind, signal.last_state, signal.received_at, signal.received_at)
    return channel._replace(incident=incident)


def _with_evidence(
    channel: Channel, evidence: Evidence, dated_at: datetime, by_gateway: bool = False
) -> Channel:
    """Return the channel with this evidence and its status, the stretch's times kept; dated by our clock."""
    before = channel.status
    status = incidents.scan_needed(channel, state_of(evidence))
    if status == before:
        return channel._replace(evidence=evidence)
    state = status.state
    healthy = state in (State.OPEN, State.UNKNOWN)
    has_left = before.state is State.OPEN and not healthy and not by_gateway
    departures = channel.departures
    if has_left:
        departures = flapping.departed(channel, dated_at, status)
    elif state is State.OPEN:
        departures = flapping.returned(channel, dated_at)
    return channel._replace(
        evidence=evidence,
        status=status,
        version=channel.version + (status[:2] != before[:2]),
        since=channel.since if state.shown == before.state.shown else dated_at,
        first_unhealthy_at=None if healthy else channel.first_unhealthy_at or dated_at,
        terminal_at=(channel.terminal_at or dated_at) if status.terminal else None,
        lost_until=channel.lost_until if state is State.DROPPED else None,
        departures=departures,
        left_at=dated_at if has_left else channel.left_at,
        probes=0 if healthy else channel.probes,
    )
