"""Which condition of a channel a recovery action may end, and from when on one may be ordered."""

from datetime import datetime

from statemachine.model import Channel, Reason, RecoverableCondition, State
from statemachine.policy.probing import is_probed


def may_restart(channel: Channel) -> bool:
    """True when a session that a probe finds lost may be restarted before it counts as unpaired."""
    return _may_recover(channel) and RecoverableCondition.LOST in channel.rules.recoverable


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


def recovery_due(before: Channel, after: Channel, now: datetime) -> datetime | None:
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


def _may_recover(channel: Channel) -> bool:
    """A channel that was never open waits for its first scan: no recovery action helps."""
    return channel.rules.recovery and channel.has_been_open and is_probed(channel)
