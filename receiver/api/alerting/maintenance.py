"""Maintenance windows, during which no alerts are sent; incidents are still recorded."""

from datetime import UTC, datetime
from typing import Annotated, Final
from uuid import UUID

from pydantic import Field
from starlette.responses import Response

from db.alerts import maintenance
from db.connection.types import Record
from receiver.api import views
from receiver.api.body import Body, Id, Time, read
from receiver.api.endpoint import Call, Json, Operation
from receiver.api.query import Query, page
from receiver.http.problems import FieldProblem, Invalid, NotFound

_SUBJECTS: Final = ("tenant_id", "channel_id", "gateway_id")


class NewWindow(Body):
    """A window to open, of one channel, gateway or tenant; of everything that the token may see without."""

    ends_at: Time
    starts_at: Time | None = None
    tenant_id: Id | None = None
    channel_id: Id | None = None
    gateway_id: Id | None = None
    why: Annotated[str, Field(max_length=500)] | None = None


async def index(call: Call) -> Response:
    """List maintenance windows, the latest to begin first."""
    query = Query(call.request)
    limit, before, tenant_id = query.limit(), query.before_time(), query.id("tenant_id")
    rows = await maintenance.list_windows(call.app.pool, call.tenant_id, tenant_id, before, limit + 1)
    return Json(page(rows, limit, views.window, lambda row: [row["starts_at"], row["id"]]))


async def create(call: Call) -> Response:
    """Open a window without alerts; incidents still open at its end are sent then."""
    body = await read(call.request, NewWindow)
    _expect_sense(body)
    new = maintenance.MaintenanceSpec(
        starts_at=body.starts_at,
        ends_at=body.ends_at,
        tenant_id=_tenant_for(call, body),
        channel_id=body.channel_id,
        gateway_id=body.gateway_id,
        why=body.why,
    )
    try:
        window_id = await maintenance.create_window(call.app.pool, call.tenant_id, new)
    except maintenance.UnknownSubject as error:
        name = str(error)
        what = name.removesuffix("_id")
        raise Invalid([FieldProblem(f"/{name}", f"There is no such {what}.")]) from None
    return Json(views.window(await _read(call, window_id)), 201, {"Location": f"/maintenance/{window_id}"})


async def show(call: Call) -> Response:
    """Show one maintenance window."""
    return Json(views.window(await _read(call, call.id())))


async def end(call: Call) -> Response:
    """End a window at once, or forget one that has not begun; delayed alerts are sent soon."""
    try:
        await maintenance.end_window(call.app.pool, call.tenant_id, call.id())
    except maintenance.UnknownWindow:
        raise _unknown() from None
    return Response(status_code=204)


def _expect_sense(body: NewWindow) -> None:
    named = [name for name in _SUBJECTS if getattr(body, name) is not None]
    problems = [
        FieldProblem(f"/{name}", "Name one of tenant_id, channel_id and gateway_id, or none.")
        for name in named[1:]
    ]
    now = datetime.now(UTC)
    if body.ends_at <= max(now, body.starts_at or now):
        problems.append(FieldProblem("/ends_at", "Must be in the future, and after starts_at."))
    if problems:
        raise Invalid(problems)


def _tenant_for(call: Call, body: NewWindow) -> UUID | None:
    """Return the window's tenant; an operator of one tenant opens windows of that tenant only."""
    if call.tenant_id is None:
        return body.tenant_id
    if body.gateway_id is not None:
        call.require_all_tenants()
    if body.tenant_id not in (None, call.tenant_id):
        raise Invalid([FieldProblem("/tenant_id", "This token belongs to another tenant.")])
    return call.tenant_id


async def _read(call: Call, window_id: UUID) -> Record:
    try:
        return await maintenance.read_window(call.app.pool, call.tenant_id, window_id)
    except maintenance.UnknownWindow:
        raise _unknown() from None


def _unknown() -> NotFound:
    return NotFound("There is no such maintenance window.")


operations: Final = [
    Operation("GET", "/maintenance", index),
    Operation("POST", "/maintenance", create),
    Operation("GET", "/maintenance/{id}", show),
    Operation("DELETE", "/maintenance/{id}", end),
]
