"""Channels: registered, shown, listed, changed, paused, resumed and deleted by operators."""

from collections.abc import Awaitable
from typing import Annotated, Final, Literal, TypeVar
from uuid import UUID

from pydantic import Field
from starlette.responses import Response

from db.reads.channels import ChannelFilter, ChannelRow, list_channels, list_events
from db.reads.incidents import list_channel_incidents
from db.reconcile import recoveries
from db.registry.address import AddressError
from db.registry.channels import (
    ChannelSpec,
    ChannelUpdate,
    PutBy,
    UnknownChannel,
    change_channel,
    pause_channel,
    register_channel,
    remove_channel,
    resume_channel,
)
from db.registry.gateways import Duplicate
from db.registry.tenants import UnknownTenant
from receiver.api import views
from receiver.api.body import Address, Body, Id, Key, Metadata, Name, read
from receiver.api.endpoint import Call, Json, Operation
from receiver.api.query import Query, page
from receiver.http.problems import Conflict, FieldProblem, Invalid, NotFound
from statemachine.model import State

Result = TypeVar("Result")
Provider = Literal["evolution_api", "wapi", "twilio", "waha"]
SHOWN_STATES: Final = tuple(dict.fromkeys(state.shown for state in State))


class NewChannel(Body):
    """A channel to register."""

    provider: Provider
    instance: Annotated[str, Field(min_length=1, max_length=255, pattern=r"\S")]
    api_url: Address | None = None
    api_key: Key | None = None
    name: Name | None = None
    tenant_id: Id | None = None
    metadata: Metadata = Metadata()


class ChannelPatch(Body):
    """What may change of a channel; null takes a name, an address or a key away."""

    name: Name | None = None
    api_url: Address | None = None
    api_key: Key | None = None
    metadata: Metadata = Metadata()


async def create(call: Call) -> Response:
    """Register a channel; its webhook address is shown now and never again."""
    body = await read(call.request, NewChannel)
    new = ChannelSpec(
        provider=body.provider,
        instance=body.instance,
        api_url=body.api_url,
        api_key=body.api_key,
        name=body.name,
        tenant_id=_tenant_for(call, body.tenant_id),
        metadata=body.metadata.given(),
        put_by=PutBy.of(call.tenant_id),
    )
    async with call.app.pool.acquire() as connection:
        channel_id, token = await _refused(call, register_channel(connection, call.app.vault, new))
    webhook_url = f"{call.app.settings.base_url}/webhooks/{body.provider}/{token}"
    shown = views.channel(await _read(call, channel_id))
    return Json({**shown, "id": channel_id, "webhook_url": webhook_url}, 201, _uncached(channel_id))


async def index(call: Call) -> Response:
    """List channels."""
    query = Query(call.request)
    wanted = ChannelFilter(
        states=query.words("state", SHOWN_STATES),
        down=query.word("down", ("true",)) is not None,
        never_connected=query.word("never_connected", ("true",)) is not None,
        with_incident=query.word("incident", ("open",)) is not None,
        tenant_id=query.id("tenant_id"),
        gateway_id=query.id("gateway_id"),
        q=query.text("q"),
    )
    limit, after = query.limit(), query.after_id()
    rows = await list_channels(call.app.pool, call.tenant_id, wanted, after, limit + 1)
    return Json(page(rows, limit, views.channel_in_list, lambda found: [found.row["channel_id"]]))


async def show(call: Call) -> Response:
    """Show one channel and its settings."""
    return Json(await _whole(call, call.id()))


async def state(call: Call) -> Response:
    """Show one channel's state."""
    return Json(views.channel(await _read(call, call.id())))


async def change(call: Call) -> Response:
    """Change name, address, key and metadata of a channel; metadata is merged (RFC 7396)."""
    channel_id, body = call.id(), await read(call.request, ChannelPatch)
    change = ChannelUpdate(
        given=frozenset(body.model_fields_set),
        name=body.name,
        api_url=body.api_url,
        api_key=body.api_key,
        metadata=body.metadata.given(),
    )
    async with call.app.pool.acquire() as connection:
        has_moved = await _refused(
            call,
            change_channel(connection, call.app.vault, channel_id, change, call.tenant_id),
        )
    if has_moved:
        await call.app.tokens.forget_everywhere(channel_id)
    return await _settled(call, channel_id)


async def delete(call: Call) -> Response:
    """Delete a channel; its history stays, its open incident resolves without an alert."""
    channel_id = call.id()
    async with call.app.pool.acquire() as connection:
        await _refused(call, remove_channel(connection, channel_id, call.tenant_id))
    await call.app.tokens.forget_everywhere(channel_id)
    await call.app.operator_signals.apply_now(channel_id)
    return Response(status_code=204)


async def pause(call: Call) -> Response:
    """Pause a channel: no probes and no alerts."""
    channel_id = call.id()
    async with call.app.pool.acquire() as connection:
        await _refused(call, pause_channel(connection, channel_id, call.tenant_id))
    return await _settled(call, channel_id)


async def resume(call: Call) -> Response:
    """End a pause."""
    channel_id = call.id()
    async with call.app.pool.acquire() as connection:
        await _refused(call, resume_channel(connection, channel_id, call.tenant_id))
    return await _settled(call, channel_id)


async def events(call: Call) -> Response:
    """List a channel's events, newest first."""
    query = Query(call.request)
    limit, before = query.limit(), query.before_number()
    rows = await list_events(call.app.pool, call.tenant_id, call.id(), before, limit + 1)
    if rows is None:
        raise _unknown()
    return Json(page(rows, limit, views.event, lambda row: [row["id"]]))


async def incidents(call: Call) -> Response:
    """List a channel's incidents that are open or began within some days, newest first."""
    query = Query(call.request)
    within, limit, before = query.days("days", 7), query.limit(), query.before_time()
    rows = await list_channel_incidents(call.app.pool, call.tenant_id, call.id(), within, before, limit + 1)
    if rows is None:
        raise _unknown()
    return Json(page(rows, limit, views.incident, lambda row: [row["started_at"], row["id"]]))


async def _read(call: Call, channel_id: UUID) -> ChannelRow:
    found = await call.app.channels.find((call.tenant_id, channel_id))
    if found is None:
        raise _unknown()
    return found


async def _whole(call: Call, channel_id: UUID) -> dict[str, object]:
    found = await _read(call, channel_id)
    last = await recoveries.last_recovery(call.app.pool, call.tenant_id, channel_id)
    return {**views.whole_channel(found), "recovery": views.recovery(found, last)}


async def _settled(call: Call, channel_id: UUID) -> Response:
    """Apply a change at once and return the channel."""
    await call.app.operator_signals.apply_now(channel_id)
    return Json(await _whole(call, channel_id))


async def _refused(call: Call, work: Awaitable[Result]) -> Result:
    """Await a write and turn its errors into problems."""
    try:
        return await work
    except UnknownChannel:
        raise _unknown() from None
    except UnknownTenant:
        raise Invalid([FieldProblem("/tenant_id", "There is no such tenant.")]) from None
    except AddressError as error:
        raise Invalid([FieldProblem("/api_url", str(error))]) from None
    except Duplicate as duplicate:
        visible = call.tenant_id in (None, duplicate.tenant_id)
        detail = "This instance of this gateway is registered already."
        raise Conflict(detail, duplicate.id if visible else None) from None


def _tenant_for(call: Call, wanted: UUID | None) -> UUID | None:
    if call.tenant_id is not None and wanted not in (None, call.tenant_id):
        raise Invalid([FieldProblem("/tenant_id", "This token belongs to another tenant.")])
    return call.tenant_id or wanted


def _unknown() -> NotFound:
    return NotFound("There is no such channel.")


def _uncached(channel_id: UUID) -> dict[str, str]:
    return {"Location": f"/channels/{channel_id}", "Cache-Control": "no-store"}


operations: Final = [
    Operation("GET", "/channels", index),
    Operation("POST", "/channels", create),
    Operation("GET", "/channels/{id}", show),
    Operation("PATCH", "/channels/{id}", change),
    Operation("DELETE", "/channels/{id}", delete),
    Operation("GET", "/channels/{id}/state", state),
    Operation("POST", "/channels/{id}/pause", pause),
    Operation("POST", "/channels/{id}/resume", resume),
    Operation("GET", "/channels/{id}/events", events),
    Operation("GET", "/channels/{id}/incidents", incidents),
]
