"""Recovery actions of Evolution API, and when they help: never logout, never delete, never a loop.

Restart frees an instance that is stuck in connecting, and does no good elsewhere: v2 answers with an error
when it is closed, v1 opens a second socket beside an open one. Connect opens a new socket on a closed
instance. docs/provider-facts.md#evolution-orders
"""

from typing import Final

from receiver.providers.evolution.versions import is_v1
from receiver.providers.report import (
    Condition,
    NotApplicable,
    Order,
    RecoveryAction,
    RecoveryPlan,
    hopeless,
    segment,
)
from statemachine.model import RecoverableCondition, State, Trigger

ACTIONS: Final = frozenset({RecoveryAction.RESTART, RecoveryAction.CONNECT})
RECOVERABLE: Final = (RecoverableCondition.STUCK, RecoverableCondition.DROPPED)


def plan_recovery(condition: Condition) -> RecoveryPlan | NotApplicable:
    """Return the recovery plan: restart from a connecting that is not fresh, connect from a dropped close."""
    match condition.state:
        case State.CONNECTING if condition.lasted < condition.stuck_after:
            return NotApplicable("It has not been connecting for long, and may open by itself.")
        case State.CONNECTING if condition.version is None:
            return NotApplicable("Its gateway's version is not known yet, and so not how to restart it.")
        case State.CONNECTING:
            return RecoveryPlan(RecoveryAction.RESTART, if_seen=Trigger.CONNECTING)
        case State.DROPPED:
            return RecoveryPlan(RecoveryAction.CONNECT, if_seen=Trigger.DROPPED)
        case _:
            return hopeless(condition)


def order(action: RecoveryAction, instance: str, key: str, version: str | None) -> Order:
    """Return the call: restart is PUT in v1 and POST from 2.0 on; the other verb is an unknown route."""
    if action is RecoveryAction.CONNECT:
        return Order("GET", f"/instance/connect/{segment(instance)}", {"apikey": key})
    return Order(
        "PUT" if is_v1(version) else "POST", f"/instance/restart/{segment(instance)}", {"apikey": key}
    )
