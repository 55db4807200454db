"""Merges evidence, and derives the state from it; decides nothing about incidents.

Merging webhooks is commutative, associative and idempotent, so lateness, doubling and batching need
no special case. Per trigger only the newest is kept; for unpaired the newest per reason, with and
without the gateway's status code, because several events of one logout give different reasons, and the
most specific one is to be shown.
"""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Final

from statemachine.machine import GATEWAY_TROUBLE, TABLE, Ignored, Keep
from statemachine.model import GATEWAY_REASONS, Evidence, Reason, State, Status, Trigger, Trouble, Witness
from statemachine.signals import Heard, Verdict

PROBE_TOLERANCE: Final = timedelta(seconds=2)
"""A webhook emitted at most this long before a probe counts as newer: clock offsets are estimates."""

QR_LIFE: Final = timedelta(minutes=3)
"""After this long without a new QR, a probe's answer applies to a channel in `qr_pending` unchanged."""

NAMED_STATE: Final = {
    Trigger.OPENED: State.OPEN,
    Trigger.CONNECTING: State.CONNECTING,
    Trigger.QR_ISSUED: State.QR_PENDING,
    Trigger.DROPPED: State.DROPPED,
    Trigger.UNPAIRED: State.UNPAIRED,
}
"""The state that each webhook trigger reports."""

SPECIFICITY: Final[dict[Reason | None, int]] = {
    reason: rank
    for rank, reason in enumerate(
        (
            Reason.SESSION_MISSING,
            Reason.DISCONNECTED,
            Reason.LOGGED_OUT,
            Reason.CONNECTION_LOST,
            Reason.QR_LIMIT,
            Reason.LOGGED_OUT_BY_API,
            Reason.BANNED_TEMPORARILY,
            Reason.BANNED,
            Reason.EXPIRED,
            Reason.INSTANCE_REMOVED,
        ),
        start=1,
    )
}
"""How specific a reason for being unpaired is; that of other reasons is 0."""


def advance(current: Status, trigger: Trigger, reason: Reason | None, code: int | None) -> Status:
    """Return the status that follows from one trigger, by the table."""
    decision = TABLE[current.state, trigger]
    if isinstance(decision, State):
        return Status(decision) if decision is State.OPEN else Status(decision, reason, code)
    return _ignore(current, decision, reason, code)


def _ignore(current: Status, decision: Ignored, reason: Reason | None, code: int | None) -> Status:
    match decision.keep:
        case Keep.NEWEST:
            return Status(current.state, reason, code)
        case Keep.BETTER if _specificity(reason, code) > _specificity(current.reason, current.code):
            return Status(current.state, reason, code)
        case _:
            return current


def _specificity(reason: Reason | None, code: int | None) -> tuple[int, bool]:
    return SPECIFICITY.get(reason, 0), code is not None


def state_of(evidence: Evidence) -> Status:
    """Return the status that follows from the evidence: the witnesses applied to the base in time order.

    Trouble stands directly after the last witness that was emitted before it.
    """
    witnesses, trouble = _in_order(evidence.witnesses), evidence.trouble
    if trouble is None:
        return _applied(evidence.base, witnesses)
    before = max((n for n, w in enumerate(witnesses, start=1) if _is_before(w, trouble)), default=0)
    current = _applied(evidence.base, witnesses[:before])
    current = advance(current, trouble.trigger, trouble.reason, trouble.status)
    return _applied(current, witnesses[before:])


def _applied(current: Status, witnesses: Sequence[Witness]) -> Status:
    for witness in witnesses:
        current = advance(current, witness.trigger, witness.reason, witness.status)
    return current


def _is_before(webhook: Witness | Heard, trouble: Trouble) -> bool:
    """True when the gateway emitted a webhook before this trouble.

    A gateway's silence is known to have begun after what it emitted last.
    """
    if trouble.reason in GATEWAY_REASONS:
        return min(webhook.emitted_at, webhook.received_at) <= trouble.at
    return webhook.received_at <= trouble.at or webhook.emitted_at < trouble.at - PROBE_TOLERANCE


def _in_order(witnesses: tuple[Witness, ...]) -> Sequence[Witness]:
    if len(witnesses) < 2:
        return witnesses
    if len(witnesses) == 2 and witnesses[0].at != witnesses[1].at:
        first, second = witnesses
        return witnesses if first.at < second.at else (second, first)
    opened = next((w.at for w in witnesses if w.trigger is Trigger.OPENED), None)
    # Of equal times opened comes before unpaired, otherwise arrival decides.
    return sorted(
        witnesses, key=lambda w: (w.at, w.trigger is Trigger.UNPAIRED and w.at == opened, w.received_at)
    )


def newest_verdict_at(evidence: Evidence) -> datetime | None:
    """Return when the probe of the newest verdict began, whatever it was about; None before the first."""
    times = (evidence.settled_at, evidence.trouble and evidence.trouble.at)
    return max((at for at in times if at is not None), default=None)


def is_older_than_probe(evidence: Evidence, emitted_at: datetime) -> bool:
    """True when a webhook was emitted so long before the last applied probe that it has no effect."""
    return evidence.settled_at is not None and emitted_at < evidence.settled_at - PROBE_TOLERANCE


def is_overtaken(evidence: Evidence, emitted_at: datetime) -> bool:
    """True when there is evidence of the connection from after a webhook that was emitted at this time."""
    return is_older_than_probe(evidence, emitted_at) or any(
        witness.emitted_at > emitted_at for witness in evidence.witnesses
    )


def merge(evidence: Evidence, heard: Heard) -> Evidence:
    """Return the evidence with one more webhook in it."""
    if heard.epoch > evidence.epoch:
        evidence = Evidence(state_of(evidence), (), newest_verdict_at(evidence), evidence.qr_at, heard.epoch)
    if heard.trigger is None or not heard.fresh or is_older_than_probe(evidence, heard.emitted_at):
        return evidence
    witness = Witness(
        heard.at, heard.received_at, heard.emitted_at, heard.trigger, heard.reason, heard.status
    )
    kind, kept, newest = _kind(witness), [], witness
    for other in evidence.witnesses:
        if _kind(other) != kind:
            kept.append(other)
        elif (other.at, other.received_at) > (witness.at, witness.received_at):
            newest = other
    qr_at = evidence.qr_at
    if heard.trigger is Trigger.QR_ISSUED and newest is witness:
        qr_at = heard.received_at if qr_at is None else max(qr_at, heard.received_at)
    return evidence._replace(witnesses=(*kept, newest), qr_at=qr_at)


def _kind(witness: Witness) -> tuple[object, ...]:
    if witness.trigger is not Trigger.UNPAIRED:
        return (witness.trigger,)
    return (witness.trigger, witness.reason, witness.status is None)


def settle(evidence: Evidence, verdict: Verdict) -> Evidence:
    """Return the evidence after a probe's verdict: a new base, and of the webhooks only the later ones.

    Trouble of the gateway leaves both as they are.
    """
    before = state_of(evidence)
    current = advance(before, verdict.trigger, verdict.reason, verdict.status)
    if verdict.trigger in GATEWAY_TROUBLE:
        trouble = Trouble(verdict.began_at, verdict.trigger, verdict.reason, verdict.status)
        return evidence if current == before else evidence._replace(trouble=trouble)
    if (
        before.state is State.QR_PENDING
        and verdict.trigger is Trigger.CONNECTING
        and qr_is_old(evidence, verdict.began_at)
    ):
        current = Status(State.CONNECTING, verdict.reason, verdict.status)
    oldest = verdict.began_at - PROBE_TOLERANCE
    later = tuple(
        w for w in evidence.witnesses if w.received_at > verdict.began_at and w.emitted_at >= oldest
    )
    return evidence._replace(base=current, witnesses=later, settled_at=verdict.began_at, trouble=None)


def silence(evidence: Evidence, reason: Reason, since: datetime) -> Evidence:
    """Return the evidence after the verdict that the gateway is silent since then; it discards nothing."""
    return evidence._replace(trouble=Trouble(since, Trigger.UNREACHABLE, reason, None))


def qr_is_old(evidence: Evidence, now: datetime) -> bool:
    """True when no QR came for so long that none can still be scanned."""
    shown_at = evidence.qr_at or evidence.settled_at
    return shown_at is None or now - shown_at > QR_LIFE


def came_out_of_turn(evidence: Evidence, heard: Heard) -> bool:
    """True when a webhook was late, doubled or equal in time to another one, as seen before merging it."""
    if not heard.fresh or is_older_than_probe(evidence, heard.emitted_at):
        return True
    if evidence.trouble is not None and _is_before(heard, evidence.trouble):
        return True
    return heard.epoch <= evidence.epoch and any(w.at >= heard.at for w in evidence.witnesses)
