"""What W-API can be told to do for an instance: a restart, which renews its session where there still is one.

Its address for webhooks can be set anew, too, which revives one that it no longer sends to; no state of a
channel asks for that. docs/provider-facts.md#wapi-calls, #wapi-silence
"""

from typing import Final
from urllib.parse import quote

from receiver.providers.report import Condition, Futile, Order, Remedy, Treatment, hopeless
from statemachine.model import Ailment, Reason, State, Trigger

REMEDIES: Final = frozenset({Remedy.RESTART, Remedy.REREGISTER})
CURABLE: Final = (Ailment.LOST, Ailment.INCOMPLETE)


def treat(condition: Condition) -> Treatment | Futile:
    """Return what helps: a restart after a confirmed disconnect, or of a session without a phone.

    Of the latter a probe says connected, before and after.
    """
    match condition.state, condition.reason:
        case State.DROPPED, Reason.DISCONNECTED:
            return Treatment(Remedy.RESTART, if_seen=Trigger.DROPPED)
        case State.CONNECTING, Reason.INCOMPLETE_SESSION:
            return Treatment(Remedy.RESTART, if_seen=None)
        case _:
            return hopeless(condition)


def restart(instance: str, key: str) -> Order:
    """Return the call: a GET."""
    path = f"/instance/restart?instanceId={quote(instance, safe='')}"
    return Order("GET", path, {"Authorization": f"Bearer {key}"})
