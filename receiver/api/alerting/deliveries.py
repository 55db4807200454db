"""The delivery log: each decision, its reason, and the answers of destinations; written elsewhere."""

from typing import Final

from starlette.responses import Response

from db.alerts import deliveries
from receiver.api import views
from receiver.api.endpoint import Call, Json, Operation
from receiver.api.query import Query, page


async def index(call: Call) -> Response:
    """List decisions about incidents and destinations with each try to deliver, newest first."""
    query = Query(call.request)
    incident_id, destination_id = query.id("incident_id"), query.id("destination_id")
    limit, before = query.limit(), query.before_number()
    found = await deliveries.list_deliveries(
        call.app.pool, call.tenant_id, incident_id, destination_id, before, limit + 1
    )
    return Json(page(found, limit, views.delivery, lambda one: [one.decision["id"]]))


operations: Final = [Operation("GET", "/deliveries", index)]
