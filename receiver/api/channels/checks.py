"""Checks: probes that operators request; of one channel with its answer, of all with their progress."""

from datetime import UTC, datetime
from typing import Final
from uuid import UUID

from starlette.responses import Response

from db.codec.channel import state_of
from db.reconcile.check_jobs import Check, read_check, start_check
from db.reconcile.claims import ProbeTarget, probe_target
from receiver.api.endpoint import Call, Json, Operation
from receiver.api.query import Query
from receiver.http.problems import Conflict, NotFound
from receiver.outbound.credentials import Unaskable


async def check_channel(call: Call) -> Response:
    """Probe one channel now; the answer counts as one, and may need others like it to change the state."""
    target = await _askable(call, call.id())
    try:
        probed = await call.app.operator_signals.check_now(target)
    except Unaskable as reason:
        raise Conflict(f"The channel can't be probed: {reason}.") from None
    found = await call.app.channels.find((call.tenant_id, target.channel_id))
    if found is None:
        raise _unknown()
    return Json(
        {
            "outcome": probed.outcome,
            "state": state_of(found.row["state"]).shown,
            "http_status": probed.http_status,
            "took_ms": round(probed.took.total_seconds() * 1000),
        }
    )


async def check_all(call: Call) -> Response:
    """Probe all channels now, or one; answers with the check that runs, if one does."""
    channel_id = Query(call.request).id("channel_id")
    if channel_id is not None:
        await _askable(call, channel_id)
    async with call.app.pool.acquire() as connection:
        check = await start_check(connection, datetime.now(UTC), call.tenant_id, channel_id)
    return Json(_shown(check), 202, {"Location": f"/check/{check.id}"})


async def show(call: Call) -> Response:
    """Show how far a check is."""
    async with call.app.pool.acquire() as connection:
        check = await read_check(connection, call.id(), call.tenant_id)
    if check is None:
        raise NotFound("There is no such check; they are forgotten after a day.")
    return Json(_shown(check))


async def _askable(call: Call, channel_id: UUID) -> ProbeTarget:
    async with call.app.pool.acquire() as connection:
        found = await probe_target(connection, channel_id, call.tenant_id)
    if found is None:
        raise _unknown()
    target, paused = found
    if paused:
        raise Conflict("The channel is paused or inactive, so it isn't probed.")
    if not target.configured:
        raise Conflict("The channel has no address or no key, so it can't be probed.")
    return target


def _shown(check: Check) -> dict[str, object]:
    return {
        "id": check.id,
        "channel_id": check.channel_id,
        "total": check.total,
        "done": check.done,
        "started_at": check.started_at,
        "finished_at": check.finished_at,
    }


def _unknown() -> NotFound:
    return NotFound("There is no such channel.")


operations: Final = [
    Operation("POST", "/channels/{id}/check", check_channel),
    Operation("POST", "/check", check_all),
    Operation("GET", "/check/{id}", show),
]
