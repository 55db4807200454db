"""Gateways: registered, shown and listed by operators of all tenants; tenants see none."""

from datetime import UTC, datetime
from typing import Annotated, Final
from uuid import UUID

from pydantic import Field
from starlette.responses import Response

from db.reads.gateways import list_gateways, read_gateway
from db.reconcile.check_jobs import start_check
from db.registry.address import AddressError
from db.registry.gateways import Duplicate, gateway_to_list, keep_gateway_key, register_gateway
from db.registry.tenants import UnknownTenant
from db.vault import VaultError
from receiver.api import views
from receiver.api.body import Body, Key, Name, read
from receiver.api.channels.channels import Provider
from receiver.api.endpoint import Call, Json, Operation
from receiver.api.query import Query, page
from receiver.http.problems import BadGateway, Conflict, FieldProblem, Invalid, NotFound
from receiver.outbound.client import LISTED_WITHIN, open_client
from receiver.outbound.container import localhost
from receiver.provisioning import instances
from receiver.provisioning.refused_keys import CURE, ListedGateway, check_keys


class NewGateway(Body):
    """A gateway to register."""

    provider: Provider
    base_url: Annotated[str, Field(min_length=1, max_length=2048, pattern=r"\S")]
    api_key: Key
    name: Name | None = None


class Import(Body):
    """How to import a gateway's instances."""

    api_key: Key | None = None
    """A key that works, in place of the gateway's; it is kept."""
    replace_keys: bool = False
    """Whether channels whose own key the gateway refuses get the one that works."""


async def create(call: Call) -> Response:
    """Register a gateway; its webhook address serves every channel on it and is shown now and never again."""
    call.require_all_tenants()
    body = await read(call.request, NewGateway)
    app = call.app
    try:
        async with app.pool.acquire() as connection:
            gateway_id, token = await register_gateway(
                connection, app.vault, body.provider, body.base_url, body.api_key, body.name
            )
    except AddressError as error:
        raise Invalid([FieldProblem("/base_url", str(error))]) from None
    except Duplicate as duplicate:
        raise Conflict("This gateway is registered already.", duplicate.id) from None
    found = await read_gateway(app.pool, None, gateway_id)
    assert found is not None
    webhook_url = f"{app.settings.base_url}/webhooks/{body.provider}/{token}"
    headers = {"Location": f"/gateways/{gateway_id}", "Cache-Control": "no-store"}
    return Json({**views.gateway(found), "webhook_url": webhook_url}, 201, headers)


async def import_instances(call: Call) -> Response:
    """Register every instance found on a gateway; answers with the check that probes its channels.

    Channels whose own key the gateway refuses now are counted in `refused_keys`; with `replace_keys` they get
    the key that works.
    """
    call.require_all_tenants()
    tenant_id = Query(call.request).id("tenant_id")
    wanted = await read(call.request, Import, optional=True)
    app, gateway_id = call.app, call.id()
    gateway = await _listable(call, gateway_id, wanted.api_key)
    try:
        async with open_client(LISTED_WITHIN, localhost()) as client:
            listed = await instances.list_instances(client, gateway.provider, gateway.base_url, gateway.key)
        if wanted.api_key is not None:
            async with app.pool.acquire() as connection:
                await keep_gateway_key(connection, app.vault, gateway_id, wanted.api_key)
        new = await instances.register(app.pool, app.vault, gateway.provider, gateway_id, tenant_id, listed)
    except instances.NotListed as reason:
        raise BadGateway(str(reason)) from None
    except UnknownTenant:
        raise Invalid([FieldProblem("/tenant_id", "There is no such tenant.")]) from None
    if new:
        # An instance may now be another channel: another application may have deleted the old one.
        await app.tokens.forget_everywhere(gateway_id)
    keys = await check_keys(app.pool, app.vault, app.client, gateway, listed, wanted.replace_keys)
    async with app.pool.acquire() as connection:
        check = await start_check(connection, datetime.now(UTC), None, gateway_id=gateway_id)
    shown = {
        "id": check.id,
        "total": len(listed),
        "new": new,
        "refused_keys": keys.refused,
        "replaced_keys": keys.replaced,
        "hint": CURE if keys.refused and not wanted.replace_keys else None,
    }
    return Json(shown, 202, {"Location": f"/check/{check.id}"})


async def _listable(call: Call, gateway_id: UUID, given: str | None) -> ListedGateway:
    """Return a gateway with its key, or the one that was given for it."""
    try:
        async with call.app.pool.acquire() as connection:
            found = await gateway_to_list(connection, call.app.vault, gateway_id, given)
    except VaultError as error:
        raise Conflict(f"The gateway's key can't be opened ({error}); give it again.") from None
    if found is None:
        raise NotFound("There is no such gateway.")
    provider, base_url, key = found
    if key is None or not base_url:
        raise Conflict("The gateway has no key or no address of its own, so it can't be asked.")
    return ListedGateway(gateway_id, provider, base_url, key)


async def index(call: Call) -> Response:
    """List gateways."""
    query = Query(call.request)
    limit, after = query.limit(), query.after_id()
    rows = await list_gateways(call.app.pool, call.tenant_id, after, limit + 1)
    return Json(page(rows, limit, views.gateway, lambda found: [found.row["id"]]))


async def show(call: Call) -> Response:
    """Show one gateway."""
    found = await read_gateway(call.app.pool, call.tenant_id, call.id())
    if found is None:
        raise NotFound("There is no such gateway.")
    return Json(views.gateway(found))


operations: Final = [
    Operation("GET", "/gateways", index),
    Operation("POST", "/gateways", create),
    Operation("GET", "/gateways/{id}", show),
    Operation("POST", "/gateways/{id}/import", import_instances),
]
