"""Tenants: made and listed by operators of all tenants; a tenant's own operator sees and changes only it."""

from typing import Annotated, Final, Literal
from uuid import UUID
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import AfterValidator
from pydantic_core import PydanticCustomError
from starlette.responses import Response

from db.connection.json_columns import merge_patch
from db.reads.tenants import list_tenants
from db.registry import tenants
from receiver.api import views
from receiver.api.body import Body, Metadata, Name, read
from receiver.api.endpoint import Call, Json, Operation
from receiver.api.query import Query, page
from receiver.http.problems import NotFound


def _time_zone(name: str) -> str:
    try:
        return ZoneInfo(name).key
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise PydanticCustomError("time_zone", "Must be a time zone such as America/Sao_Paulo") from None


Locale = Literal["pt-BR", "en", "es"]
TimeZone = Annotated[str, AfterValidator(_time_zone)]


class NewTenant(Body):
    """A tenant to make."""

    name: Name
    locale: Locale = "pt-BR"
    time_zone: TimeZone = "America/Sao_Paulo"
    defaults: Metadata = Metadata()


class TenantPatch(Body):
    """What may change of a tenant; defaults are merged (RFC 7396)."""

    # The defaults are never used: only what was sent is read.
    name: Name = "-"
    locale: Locale = "pt-BR"
    time_zone: TimeZone = "UTC"
    defaults: Metadata = Metadata()

    def given(self) -> dict[str, object]:
        """Return what was sent and nothing else."""
        return self.model_dump(exclude_unset=True)


async def index(call: Call) -> Response:
    """List tenants."""
    query = Query(call.request)
    limit, after = query.limit(), query.after_id()
    rows = await list_tenants(call.app.pool, call.tenant_id, after, limit + 1)
    return Json(page(rows, limit, views.tenant, lambda row: [row["id"]]))


async def create(call: Call) -> Response:
    """Make a tenant."""
    call.require_all_tenants()
    body = await read(call.request, NewTenant)
    defaults = merge_patch({}, body.defaults.given())
    tenant = tenants.Tenant(body.name, body.locale, body.time_zone, defaults)
    async with call.app.pool.acquire() as connection:
        tenant_id = await tenants.create_tenant(connection, tenant)
    return Json(await _shown(call, tenant_id), 201, {"Location": f"/tenants/{tenant_id}"})


async def show(call: Call) -> Response:
    """Show one tenant."""
    return Json(await _shown(call, call.id()))


async def change(call: Call) -> Response:
    """Change a tenant; its channels follow its new defaults."""
    tenant_id = call.id()
    if call.tenant_id not in (None, tenant_id):
        raise _unknown()
    body = await read(call.request, TenantPatch)
    async with call.app.pool.acquire() as connection:
        try:
            await tenants.change_tenant(connection, tenant_id, body.given())
        except tenants.UnknownTenant:
            raise _unknown() from None
    return Json(await _shown(call, tenant_id))


async def _shown(call: Call, tenant_id: UUID) -> dict[str, object]:
    if call.tenant_id not in (None, tenant_id):
        raise _unknown()
    rows = await list_tenants(call.app.pool, tenant_id, None, 1)
    if not rows:
        raise _unknown()
    return views.tenant(rows[0])


def _unknown() -> NotFound:
    return NotFound("There is no such tenant.")


operations: Final = [
    Operation("GET", "/tenants", index),
    Operation("POST", "/tenants", create),
    Operation("GET", "/tenants/{id}", show),
    Operation("PATCH", "/tenants/{id}", change),
]
