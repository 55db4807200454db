"""Incidents: listed, shown and acknowledged by operators; opened and resolved elsewhere."""

from typing import Final

from starlette.responses import Response

from db.connection.types import Record
from db.reads.incidents import IncidentFilter, list_incidents, read_incident
from db.reconcile import gateway_health
from receiver.api import views
from receiver.api.endpoint import Call, Json, Operation
from receiver.api.query import Query, page
from receiver.http.problems import NotFound

SUBJECTS: Final = ("channel", "gateway")
KINDS: Final = ("disconnected", "error", "qr_pending", "connecting", "unknown")


async def index(call: Call) -> Response:
    """List incidents of channels and gateways, newest first; all of them unless a status is asked for."""
    query = Query(call.request)
    status = query.word("status", ("open", "resolved", "all"))
    wanted = IncidentFilter(
        subject=query.word("subject", SUBJECTS),
        open={"open": True, "resolved": False}.get(status or "all"),
        tenant_id=query.id("tenant_id"),
        channel_id=query.id("channel_id"),
        gateway_id=query.id("gateway_id"),
        kind=query.word("kind", KINDS),
        since=query.time("since"),
        until=query.time("until"),
    )
    limit, before = query.limit(), query.before_time()
    rows = await list_incidents(call.app.pool, call.tenant_id, wanted, before, limit + 1)
    return Json(page(rows, limit, views.incident, lambda row: [row["started_at"], row["id"]]))


async def show(call: Call) -> Response:
    """Show one incident."""
    return Json(views.incident(await _read(call)))


async def acknowledge(call: Call) -> Response:
    """Acknowledge an incident of a channel or a gateway: it stays open, reminders end."""
    incident = await _read(call)
    if incident["subject"] == "gateway":
        await gateway_health.acknowledge(call.app.pool, call.tenant_id, incident["id"])
    else:
        await call.app.operator_signals.acknowledge(incident["id"])
    return Json(views.incident(await _read(call)))


async def _read(call: Call) -> Record:
    row = await read_incident(call.app.pool, call.tenant_id, call.id())
    if row is None:
        raise NotFound("There is no such incident.")
    return row


operations: Final = [
    Operation("GET", "/incidents", index),
    Operation("GET", "/incidents/{id}", show),
    Operation("POST", "/incidents/{id}/ack", acknowledge),
]
