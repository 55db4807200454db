"""Recovery actions of W-API: a restart, which renews its session where there still is one.

Its address for webhooks can be set anew, too, which revives one that it no longer sends to; no state of a
channel asks for that. docs/provider-facts.md#wapi-calls, #wapi-silence
"""

from typing import Final
from urllib.parse import quote

from receiver.providers.report import Condition, NotApplicable, Order, RecoveryAction, RecoveryPlan, hopeless
from statemachine.model import Reason, RecoverableCondition, State, Trigger

ACTIONS: Final = frozenset({RecoveryAction.RESTART, RecoveryAction.REREGISTER})
RECOVERABLE: Final = (RecoverableCondition.LOST, RecoverableCondition.INCOMPLETE)


def plan_recovery(condition: Condition) -> RecoveryPlan | NotApplicable:
    """Return the recovery plan: a restart after a confirmed disconnect, or of a session without a phone.

    Of the latter a probe says connected, before and after.
    """
    match condition.state, condition.reason:
        case State.DROPPED, Reason.DISCONNECTED:
            return RecoveryPlan(RecoveryAction.RESTART, if_seen=Trigger.DROPPED)
        case State.CONNECTING, Reason.INCOMPLETE_SESSION:
            return RecoveryPlan(RecoveryAction.RESTART, if_seen=None)
        case _:
            return hopeless(condition)


def restart(instance: str, key: str) -> Order:
    """Return the call: a GET."""
    path = f"/instance/restart?instanceId={quote(instance, safe='')}"
    return Order("GET", path, {"Authorization": f"Bearer {key}"})
