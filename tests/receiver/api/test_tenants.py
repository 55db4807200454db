"""Tenants over HTTP, and what an operator of one tenant can't see."""

from uuid import UUID, uuid4

import pytest

from db.connection.types import Connection
from tests.receiver.conftest import Api


async def test_tenant_has_defaults_until_they_are_changed(api: Api) -> None:
    tenant_id = await api.tenant("Loja")

    answer = await api.client.patch(f"/tenants/{tenant_id}", json={"locale": "es", "defaults": {"x": 1}})

    shown = answer.json()
    assert answer.status_code == 200
    assert (shown["name"], shown["locale"], shown["time_zone"]) == ("Loja", "es", "America/Sao_Paulo")
    assert shown["defaults"] == {"x": 1}
    assert (await api.client.get(f"/tenants/{tenant_id}")).json() == shown


async def test_defaults_of_a_tenant_hold_for_its_channels_and_make_them_due(
    api: Api, connection: Connection
) -> None:
    tenant_id = await api.tenant()
    plain = await api.channel("plain", tenant_id=tenant_id)
    own = await api.channel("own", tenant_id=tenant_id, metadata={"heartbeat_threshold_minutes": 3})
    await api.channel("other")

    await api.client.patch(f"/tenants/{tenant_id}", json={"defaults": {"heartbeat_threshold_minutes": 30}})

    minutes = [
        (await api.client.get(f"/channels/{item['id']}/state")).json()["monitoring"]["threshold_minutes"]
        for item in (plain, own)
    ]
    due = await connection.fetch("select channel_id from zapwatch_states where due_at is not null")
    assert minutes == [30, 3]
    assert {str(row["channel_id"]) for row in due} == {plain["id"], own["id"]}


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({"name": ""}, "/name"),
        ({"name": None}, "/name"),
        ({"locale": "de"}, "/locale"),
        ({"time_zone": "Mars/Base"}, "/time_zone"),
        ({"time_zone": "../etc/passwd"}, "/time_zone"),
        ({"time_zone": "America"}, "/time_zone"),
        ({"defaults": {"alerts_enabled": "yes"}}, "/defaults/alerts_enabled"),
        ({"id": "x"}, "/id"),
    ],
)
async def test_bad_field_is_named(api: Api, body: dict[str, object], pointer: str) -> None:
    tenant_id = await api.tenant()

    made = await api.client.post("/tenants", json={"name": "x", **body})
    changed = await api.client.patch(f"/tenants/{tenant_id}", json=body)

    for answer in (made, changed):
        assert answer.status_code == 422
        assert [error["pointer"] for error in answer.json()["errors"]] == [pointer]


async def test_unknown_tenant_is_404(api: Api) -> None:
    assert (await api.client.patch(f"/tenants/{uuid4()}", json={})).status_code == 404
    assert (await api.client.get("/tenants/x")).status_code == 404


async def test_operator_of_a_tenant_sees_its_things_only(api: Api, connection: Connection) -> None:
    mine, theirs = await api.tenant("Mine"), await api.tenant("Theirs")
    here = await api.channel("here", tenant_id=mine, api_url="http://evo.example", api_key="k")
    there = await api.channel("there", tenant_id=theirs)
    for channel in (here, there):
        await connection.execute(
            "insert into whatsapp_connection_incidents (tenant_id, channel_id, provider, kind, started_at)"
            " select tenant_id, id, provider, 'error', now() from notification_channels where id = $1",
            UUID(channel["id"]),
        )
    foreign = await connection.fetchval(
        "select id from whatsapp_connection_incidents where channel_id = $1", UUID(there["id"])
    )

    async with api.operator_of(mine) as client:
        lists = {
            path: (await client.get(path)).json()["items"]
            for path in ("/channels", "/incidents", "/tenants", "/gateways", f"/channels?tenant_id={theirs}")
        }
        hidden = [
            (await client.request(method, path, json={})).status_code
            for method, path in (
                ("GET", f"/channels/{there['id']}"),
                ("PATCH", f"/channels/{there['id']}"),
                ("DELETE", f"/channels/{there['id']}"),
                ("POST", f"/channels/{there['id']}/pause"),
                ("POST", f"/channels/{there['id']}/resume"),
                ("GET", f"/channels/{there['id']}/state"),
                ("GET", f"/channels/{there['id']}/events"),
                ("GET", f"/channels/{there['id']}/incidents"),
                ("GET", f"/incidents/{foreign}"),
                ("POST", f"/incidents/{foreign}/ack"),
                ("GET", f"/tenants/{theirs}"),
                ("PATCH", f"/tenants/{theirs}"),
            )
        ]
        own = (await client.get(f"/channels/{here['id']}/state")).json()

    assert [item["channel_id"] for item in lists["/channels"]] == [here["id"]]
    assert [item["channel_id"] for item in lists["/incidents"]] == [here["id"]]
    assert [item["id"] for item in lists["/tenants"]] == [mine]
    assert lists["/gateways"] == lists[f"/channels?tenant_id={theirs}"] == []
    assert hidden == [404] * 12
    assert own["monitoring"]["configured"] is True


async def test_operator_of_a_tenant_registers_for_it_only(api: Api) -> None:
    mine, theirs = await api.tenant("Mine"), await api.tenant("Theirs")
    await api.channel("taken", tenant_id=theirs)
    body = {"provider": "evolution_api", "instance": "new"}

    async with api.operator_of(mine) as client:
        made = await client.post("/channels", json=body)
        refused = await client.post("/channels", json={**body, "tenant_id": theirs})
        taken = await client.post("/channels", json={**body, "instance": "taken"})
        gateway = await client.post(
            "/gateways", json={"provider": "waha", "base_url": "http://w.example", "api_key": "k"}
        )
        tenant = await client.post("/tenants", json={"name": "More"})

    assert made.json()["tenant_id"] == mine
    assert refused.status_code == 422
    assert (taken.status_code, "id" in taken.json()) == (409, False)
    assert (gateway.status_code, tenant.status_code) == (403, 403)
