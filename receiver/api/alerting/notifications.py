"""Notifications inside a tenant's application: those that we wrote, listed and noted as read."""

from typing import Final

from starlette.responses import Response

from db.alerts import notifications
from receiver.api import views
from receiver.api.endpoint import Call, Json, Operation
from receiver.api.query import Query, page
from receiver.http.problems import NotFound


async def index(call: Call) -> Response:
    """List notifications inside a tenant's application, newest first."""
    query = Query(call.request)
    limit, before, tenant_id = query.limit(), query.before_time(), query.id("tenant_id")
    unread = query.word("unread", ("true", "false")) == "true"
    if call.tenant_id is not None and tenant_id not in (None, call.tenant_id):
        return Json({"items": [], "next": None})
    rows = await notifications.list_notifications(
        call.app.pool, call.tenant_id or tenant_id, before, limit + 1, unread=unread
    )
    return Json(page(rows, limit, views.notification, lambda row: [row["created_at"], row["id"]]))


async def mark_read(call: Call) -> Response:
    """Note that a notification was read; the first time counts."""
    row = await notifications.read_notification(call.app.pool, call.tenant_id, call.id())
    if row is None:
        raise NotFound("There is no such notification.")
    return Json(views.notification(row))


operations: Final = [
    Operation("GET", "/notifications", index),
    Operation("POST", "/notifications/{id}/read", mark_read),
]
