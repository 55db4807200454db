"""Destinations of alerts: made, listed, changed, tested and deleted by operators of their tenant.

Those without a tenant are the operators' own, and an operator of one tenant sees none of them. What a
configuration holds as a credential is encrypted, and shown only in the answer that made it.
"""

from collections.abc import Iterable, Mapping
from typing import Annotated, Final, Literal
from uuid import UUID

from pydantic import Field
from starlette.responses import Response

from db.alerts import destinations
from db.alerts.alerts import IN_APP
from db.alerts.destinations import Config, Destination, UnknownDestination
from db.connection.types import Record
from db.registry.tenants import UnknownTenant
from db.vault import VaultError
from receiver.alerts.alert_url import EVENTS
from receiver.alerts.message import Event
from receiver.alerts.send_test import TestTooSoon
from receiver.api import views
from receiver.api.alerting.destination_config import Configuration, changed, checked, seen
from receiver.api.body import Body, Id, Name, pointer, read
from receiver.api.endpoint import Call, Json, Operation
from receiver.api.query import Query, page
from receiver.app import App
from receiver.http.problems import Conflict, FieldProblem, Invalid, NotFound, TooMany

INCIDENTS: Final = (Event.INCIDENT_OPENED.value, Event.INCIDENT_RESOLVED.value)
GATEWAYS: Final = (Event.GATEWAY_OPENED.value, Event.GATEWAY_RESOLVED.value)
"""Only operators' destinations get these: a gateway serves many tenants."""
SETS: Final = {"incident.*": INCIDENTS, "gateway.*": GATEWAYS}

EventName = Literal[
    "incident.opened", "incident.resolved", "channel.state_changed", "channel.expiring",
    "gateway.opened", "gateway.resolved", "incident.*", "gateway.*",
]  # fmt: skip
Events = Annotated[list[EventName], Field(min_length=1, max_length=20)]
Minutes = Annotated[int, Field(ge=1, le=7 * 24 * 60)]


class NewDestination(Body):
    """A destination to make; without tenant_id the operators' own, or the token's tenant's."""

    kind: Annotated[str, Field(min_length=1, max_length=50)]
    config: Configuration = Configuration()
    name: Name | None = None
    tenant_id: Id | None = None
    events: Events | None = None
    reminder_minutes: Minutes | None = None


class DestinationPatch(Body):
    """What may change; config is merged (RFC 7396), so that a secret that isn't sent stays."""

    name: Name | None = None
    config: Configuration = Configuration()
    # The default is never used: only what was sent is read.
    events: Events = Field(default=[Event.INCIDENT_OPENED.value])
    reminder_minutes: Minutes | None = None
    enabled: bool = True
    rotate_secret: bool = False


async def index(call: Call) -> Response:
    """List destinations."""
    query = Query(call.request)
    limit, after, tenant_id = query.limit(), query.after_id(), query.id("tenant_id")
    app = call.app
    if call.tenant_id is not None or tenant_id is not None:
        await _ensure_in_app(app, call.tenant_id or tenant_id)
    found = await destinations.list_destinations(
        app.pool, app.vault, call.tenant_id, tenant_id, after, limit + 1
    )
    return Json(page(found, limit, lambda one: _shown(app, one), lambda one: [one.id]))


async def create(call: Call) -> Response:
    """Make a destination; a secret that is made for it is shown now and never again."""
    body = await read(call.request, NewDestination)
    app, tenant_id = call.app, _tenant_for(call, body.tenant_id)
    if body.kind == IN_APP:
        await _refuse_in_app(app, tenant_id)
    if body.kind not in app.notifiers:
        kinds = ", ".join(sorted(app.notifiers))
        raise Invalid([FieldProblem("/kind", f"Must be one of: {kinds}.")])
    given = body.config.given()
    new = destinations.DestinationSpec(
        tenant_id=tenant_id,
        kind=body.kind,
        name=body.name,
        config=checked(app.notifiers[body.kind], given),
        events=_events(body.events or _told_by_default(tenant_id), tenant_id),
        reminder_minutes=body.reminder_minutes,
    )
    try:
        made = await destinations.create_destination(app.pool, app.vault, call.tenant_id, new)
    except UnknownTenant:
        raise _unknown_tenant() from None
    return _with_secret(await _read(call, made), given, 201, {"Location": f"/destinations/{made}"}, app)


async def show(call: Call) -> Response:
    """Show one destination."""
    return Json(_shown(call.app, await _read(call, call.id())))


async def change(call: Call) -> Response:
    """Change a destination; `rotate_secret` makes a new secret, shown now; for a while both sign."""
    body, app, destination_id = await read(call.request, DestinationPatch), call.app, call.id()
    patch = body.config.given()
    if body.rotate_secret:
        patch["rotate_secret"] = True

    def configure(row: Record, before: Config) -> Config:
        if row["kind"] not in app.notifiers:
            raise Conflict("This version knows no such kind of destination.")
        return changed(app.notifiers[row["kind"]], before, patch)

    given = body.model_dump(include={"name", "reminder_minutes", "enabled"}, exclude_unset=True)
    if "events" in body.model_fields_set:
        owner = (await _read(call, destination_id)).tenant_id
        given["events"] = list(_events(body.events, owner))
    try:
        await destinations.change_destination(
            app.pool,
            app.vault,
            call.tenant_id,
            destination_id,
            given,
            configure if patch else None,
        )
    except UnknownDestination:
        raise _unknown() from None
    except VaultError as error:
        raise Conflict(f"The configuration can't be opened ({error}); make the destination anew.") from None
    found = await _read(call, destination_id)
    if body.rotate_secret:
        return _with_secret(found, {}, 200, {}, app)
    return Json(_shown(app, found))


async def delete(call: Call) -> Response:
    """Delete a destination, with the log of what was sent there."""
    found = await _read(call, call.id())
    if found.kind == IN_APP:
        detail = (
            "A tenant's own application stays; PATCH it with `enabled: false` to have nothing told there."
        )
        raise Conflict(detail)
    try:
        await destinations.delete_destination(call.app.pool, call.tenant_id, found.id)
    except UnknownDestination:
        raise _unknown() from None
    return Response(status_code=204)


async def test(call: Call) -> Response:
    """Send one message now, and return the destination's answer; it is in the delivery log, too.

    429: the destination was tried within the last 10 s; come again after `Retry-After`.
    """
    found = await _read(call, call.id())
    if found.config is None:
        raise Conflict("No secret key opens the configuration; make the destination anew.")
    if found.kind not in call.app.notifiers:
        raise Conflict("This kind of destination can't be tried here.")
    try:
        tested = await call.app.test_send.send(found, found.config)
    except TestTooSoon as early:
        raise TooMany("This destination was tried only just now.", early.again_in) from None
    except UnknownDestination:
        raise _unknown() from None
    return Json(views.tested(tested))


async def _read(call: Call, destination_id: UUID) -> Destination:
    try:
        return await destinations.read_destination(
            call.app.pool, call.app.vault, call.tenant_id, destination_id
        )
    except UnknownDestination:
        raise _unknown() from None


async def _ensure_in_app(app: App, tenant_id: UUID | None) -> UUID | None:
    try:
        return None if tenant_id is None else await destinations.in_app_of(app.pool, app.vault, tenant_id)
    except UnknownTenant:
        return None


async def _refuse_in_app(app: App, tenant_id: UUID | None) -> None:
    if tenant_id is None:
        raise Invalid([FieldProblem("/kind", "Operators have no application beside Zapwatch to be told in.")])
    existing = await _ensure_in_app(app, tenant_id)
    if existing is None:
        raise _unknown_tenant()
    raise Conflict("A tenant has one destination in its application from the start: change that.", existing)


def _shown(app: App, found: Destination) -> dict[str, object]:
    return views.destination(found, seen(app.notifiers.get(found.kind), found.config))


def _with_secret(
    found: Destination, given: Config, status: int, headers: Mapping[str, str], app: App
) -> Response:
    """Return the new secret in this answer only."""
    made = "secret" not in given and found.config is not None and "secret" in found.config
    secret = {"secret": found.config["secret"]} if made and found.config is not None else {}
    shown = {**_shown(app, found), **secret}
    return Json(shown, status, {**headers, "Cache-Control": "no-store"})


def _tenant_for(call: Call, wanted: UUID | None) -> UUID | None:
    if call.tenant_id is not None and wanted not in (None, call.tenant_id):
        raise Invalid([FieldProblem("/tenant_id", "This token belongs to another tenant.")])
    return call.tenant_id or wanted


def _told_by_default(tenant_id: UUID | None) -> Iterable[str]:
    return INCIDENTS if tenant_id is not None else EVENTS


def _events(names: Iterable[str], tenant_id: UUID | None) -> tuple[str, ...]:
    """Return the events by their whole names, each once."""
    named = [(index, one) for index, name in enumerate(names) for one in SETS.get(name, (name,))]
    wrong = {index for index, name in named if tenant_id is not None and name in GATEWAYS}
    if wrong:
        detail = "Only operators are told of gateways."
        raise Invalid([FieldProblem(pointer("events", index), detail) for index in sorted(wrong)])
    return tuple(dict.fromkeys(name for _, name in named))


def _unknown() -> NotFound:
    return NotFound("There is no such destination.")


def _unknown_tenant() -> Invalid:
    return Invalid([FieldProblem("/tenant_id", "There is no such tenant.")])


operations: Final = [
    Operation("GET", "/destinations", index),
    Operation("POST", "/destinations", create),
    Operation("GET", "/destinations/{id}", show),
    Operation("PATCH", "/destinations/{id}", change),
    Operation("DELETE", "/destinations/{id}", delete),
    Operation("POST", "/destinations/{id}/test", test),
]
