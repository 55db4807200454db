"""From an incident to what people were told, by hand: each story is one of rows."""

from datetime import timedelta
from uuid import UUID

from receiver.alerts.message import DeliveryResult
from tests.receiver.alerts.desk import Desk


async def count(desk: Desk, incident: UUID) -> tuple[bool, int]:
    """Return whether somebody was told of an incident, and how often."""
    row = await desk.connection.fetchrow(
        "select notified_at is not null as told, notification_count from whatsapp_connection_incidents "
        "where id = $1",
        incident,
    )
    assert row is not None
    return row["told"], row["notification_count"]


async def test_an_incident_is_told_once_and_its_end_with_the_duration(desk: Desk) -> None:
    tenant = await desk.tenant(locale="en", time_zone="Europe/Lisbon")
    channel = await desk.channel(tenant, "Centro")
    await desk.destination(tenant, "ana")

    incident = await desk.open(channel)
    await desk.tell()
    await desk.tell()
    await desk.resolve(channel)
    await desk.tell()

    assert desk.sink.events("ana") == ["incident.opened", "incident.resolved"]
    (_, opened), (_, resolved) = desk.sink.told
    assert (opened.locale, opened.time_zone, opened.tenant_id) == ("en", "Europe/Lisbon", tenant)
    assert (opened.items[0].name, opened.items[0].reason, opened.items[0].resolved_at) == (
        "Centro",
        "logged_out",
        None,
    )
    assert resolved.items[0].resolved_at is not None
    assert {opened.items[0].incident_id, resolved.items[0].incident_id} == {incident}
    assert await count(desk, incident) == (True, 1)
    assert await desk.connection.fetchval("select count(*) from zapwatch_attempts where is_ok") == 2


async def test_members_are_told_inside_their_application(desk: Desk) -> None:
    tenant = await desk.tenant()
    admins = {await desk.member(tenant), await desk.member(tenant, "tenant_admin")}
    await desk.member(tenant, "receptionist")
    await desk.member(tenant, status="gone")
    channel = await desk.channel(tenant, "Centro")

    incident = await desk.open(channel)
    await desk.tell()

    rows = await desk.connection.fetch(
        "select owner_id, type, ref_id, payload->>'body' as body from notifications"
    )
    assert {row["owner_id"] for row in rows} == admins
    assert {(row["type"], row["ref_id"]) for row in rows} == {("instance_disconnected", incident)}
    assert {row["body"].partition("\n")[0] for row in rows} == {
        "WhatsApp da unidade Centro perdeu conexão. Reconecte via QR Code em Configurações."
    }


async def test_what_fails_is_tried_again_with_the_same_id(desk: Desk) -> None:
    tenant = await desk.tenant()
    await desk.destination(tenant, "ana")
    desk.sink.answers["ana"] = [
        DeliveryResult(False, status=500, answer="oops\x00\n no"),
        DeliveryResult(False),
    ]

    incident = await desk.open(await desk.channel(tenant))
    await desk.tell()
    before = await count(desk, incident)
    for _ in range(2):
        await desk.later(timedelta(seconds=6))
        await desk.tell()

    assert len({message.id for _, message in desk.sink.told}) == 1
    attempts = await desk.connection.fetch("select is_ok, status, answer from zapwatch_attempts order by id")
    assert [tuple(row) for row in attempts] == [
        (False, 500, "oops no"),
        (False, None, None),
        (True, 200, "thanks"),
    ]
    assert (before, await count(desk, incident)) == ((False, 0), (True, 1))
