"""Recovery by hand: one order to a channel's gateway, within the budgets of automatic recovery."""

from typing import Final
from uuid import UUID

from starlette.responses import Response

from db.codec.channel import state_of
from db.reconcile.recoveries import Outcome, OverBudget
from receiver.api.endpoint import Call, Json, Operation
from receiver.http.problems import Conflict, NotFound, TooMany
from receiver.outbound.credentials import Unaskable
from receiver.recovery.orders import RecoveryAttempt, RecoveryDeclined

NOT_NEEDED: Final = "not_needed"
"""The outcome when a probe says open before anything was ordered."""


async def restart(call: Call) -> Response:
    """Have the gateway restart or connect a channel where that can help, and probe it; takes some seconds.

    409: it can't help, for the reason in `detail`. 429: the budget is used up until `Retry-After`.
    """
    channel_id = call.id()
    tried = await _ordered(call, channel_id)
    if tried.action is None and not tried.recovered:
        raise Conflict(f"Nothing was ordered. {tried.problem}")
    found = await call.app.channels.find((call.tenant_id, channel_id))
    if found is None:
        raise _unknown()
    return Json({**_shown(tried), "state": state_of(found.row["state"]).shown})


async def _ordered(call: Call, channel_id: UUID) -> RecoveryAttempt:
    try:
        tried = await call.app.recovery.by_hand(channel_id, call.tenant_id)
    except RecoveryDeclined as reason:
        raise Conflict(str(reason)) from None
    except Unaskable as reason:
        raise Conflict(f"Its gateway can't be asked: {reason}.") from None
    except OverBudget as reason:
        raise TooMany(str(reason), reason.wait) from None
    if tried is None:
        raise _unknown()
    return tried


def _shown(tried: RecoveryAttempt) -> dict[str, object]:
    probed = tried.probed
    outcome = Outcome.RECOVERED if tried.recovered else Outcome.FAILED
    return {
        "action": tried.action,
        "outcome": NOT_NEEDED if tried.action is None else outcome,
        "problem": tried.problem if tried.action is not None else None,
        "tries": tried.number,
        "probe": None
        if probed is None
        else {
            "outcome": probed.outcome,
            "http_status": probed.http_status,
            "took_ms": round(probed.took.total_seconds() * 1000),
        },
    }


def _unknown() -> NotFound:
    return NotFound("There is no such channel.")


operations: Final = [Operation("POST", "/channels/{id}/restart", restart)]
