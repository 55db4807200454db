"""Counts the answers of probes until they are a verdict."""

from dataclasses import replace
from datetime import datetime
from typing import Final

from statemachine.evidence import advance, qr_is_old
from statemachine.model import GATEWAY_REASONS, Channel, ProbeStreak, Reason, State, Trigger
from statemachine.signals import Answered, Judged, Verdict

STREAK_KINDS: Final = {
    Trigger.SESSION_MISSING: ("session_missing", 2),
    Trigger.UNAUTHORIZED: ("unauthorized", 2),
    Trigger.UNREACHABLE: ("unanswered", 3),
    Trigger.NOT_LOADED: ("unanswered", 3),
}
"""The probe streak that a trigger counts towards, and how many answers complete it; else one does."""


def judge(channel: Channel, answer: Answered) -> Judged:
    """Return the answer with the verdict that it completes, or with the probe streak that needs more like it.

    With neither, when it came too late or proves nothing.
    """
    if answer.version != channel.version or _proves_nothing(channel, answer):
        return Judged(answer, None, None)
    answer = _with_gateways_reason(channel, answer)
    probe_streak, counts = _count(channel, answer)
    if not counts:
        return Judged(answer, None, probe_streak)
    verdict = Verdict(
        received_at=answer.received_at,
        dated_at=answer.counted_from or probe_streak.first_at,
        began_at=answer.began_at,
        trigger=answer.trigger,
        reason=answer.reason,
        status=answer.status,
        session_lost=answer.session_lost,
    )
    return Judged(answer, verdict, None)


def _proves_nothing(channel: Channel, answer: Answered) -> bool:
    """True for `open` of a channel that is open but dead, and for a refused key of one that still speaks."""
    if answer.trigger is Trigger.UNAUTHORIZED:
        emitted_at = channel.emitted_at
        return emitted_at is not None and answer.received_at - emitted_at < channel.rules.stale_after
    is_dead = channel.status.reason is Reason.OPEN_BUT_DEAD
    return is_dead and answer.trigger is Trigger.OPENED and not answer.certain


def _with_gateways_reason(channel: Channel, answer: Answered) -> Answered:
    """Return the answer; silence adds nothing to a verdict on the gateway while that may still hold."""
    if answer.own or answer.trigger is not Trigger.UNREACHABLE:
        return answer
    _, reason, code = channel.status
    return replace(answer, reason=reason, status=code) if reason in GATEWAY_REASONS else answer


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
