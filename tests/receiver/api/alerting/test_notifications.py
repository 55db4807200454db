"""Notifications inside applications over HTTP: ours alone, by tenant, and read once."""

from typing import Any
from uuid import uuid4

from db.connection.types import Connection
from tests.receiver.conftest import Api


async def told(connection: Connection, tenant: str, type_: str = "system_alert") -> str:
    """Insert a notification as the dispatcher does, and return its id."""
    insert = """
        insert into notifications (tenant_id, owner_id, type, ref_id, payload)
        values ($1::text::uuid, gen_random_uuid(), $2, gen_random_uuid(), '{"title": "Loja"}') returning id"""
    return str(await connection.fetchval(insert, tenant, type_))


async def listed(client: Any, **params: Any) -> list[str]:
    answer = await client.get("/notifications", params=params)
    assert answer.status_code == 200, answer.text
    return [item["id"] for item in answer.json()["items"]]


async def test_a_tenant_sees_its_own_newest_first(api: Api, connection: Connection) -> None:
    ours, theirs = await api.tenant("Ours"), await api.tenant("Theirs")
    first = await told(connection, ours, "instance_disconnected")
    second, other = await told(connection, ours), await told(connection, theirs)

    async with api.operator_of(ours) as client:
        seen = await listed(client)
        [item, _] = (await client.get("/notifications")).json()["items"]
        foreign = await listed(client, tenant_id=theirs)
        page = (await client.get("/notifications?limit=1")).json()
        rest = await listed(client, limit=1, cursor=page["next"])

    assert seen == [second, first]
    assert set(item) == {"id", "tenant_id", "owner_id", "type", "ref_id", "payload", "read_at", "created_at"}
    assert item["payload"] == {"title": "Loja"}
    assert foreign == []
    assert rest == [first]
    assert await listed(api.client) == [other, second, first]
    assert await listed(api.client, tenant_id=theirs) == [other]


async def test_what_other_applications_tell_their_people_is_not_shown(
    api: Api, connection: Connection
) -> None:
    tenant = await api.tenant()
    other = await told(connection, tenant, "new_patient")

    async with api.operator_of(tenant) as client:
        seen, answer = await listed(client), await client.post(f"/notifications/{other}/read")

    assert seen == []
    assert answer.status_code == 404


async def test_a_notification_is_read_once(api: Api, connection: Connection) -> None:
    tenant = await api.tenant()
    one, two = await told(connection, tenant), await told(connection, tenant)

    async with api.operator_of(tenant) as client:
        first = (await client.post(f"/notifications/{one}/read")).json()
        again = (await client.post(f"/notifications/{one}/read")).json()
        unread = await listed(client, unread="true")

    assert first["read_at"] is not None
    assert again == first
    assert unread == [two]


async def test_nobody_reads_for_another_tenant(api: Api, connection: Connection) -> None:
    ours, theirs = await api.tenant("Ours"), await api.tenant("Theirs")
    other = await told(connection, theirs)

    async with api.operator_of(ours) as client:
        answers = [await client.post(f"/notifications/{id}/read") for id in (other, uuid4(), "x")]

    assert [answer.status_code for answer in answers] == [404] * 3
    assert await connection.fetchval("select read_at from notifications") is None
