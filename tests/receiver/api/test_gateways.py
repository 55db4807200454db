"""Gateways over HTTP: one address for every channel on them, and their channels counted by state."""

from uuid import UUID, uuid4

import pytest

from db.connection.types import Connection
from db.vault import Vault
from receiver.http.auth import Tokens
from tests.receiver.conftest import KEY, Api

GATEWAY = {"provider": "evolution_api", "base_url": "http://evo.example:8080/", "api_key": "global-key"}


async def test_gateway_gets_a_webhook_address_for_every_channel_on_it(
    api: Api, connection: Connection
) -> None:
    channel = await api.channel(api_url="http://evo.example:8080")

    answer = await api.client.post("/gateways", json={**GATEWAY, "name": "Main"})

    shown = answer.json()
    tokens = Tokens(api.pool)
    target = await tokens.resolve("evolution_api", shown["webhook_url"].rpartition("/")[2])
    assert answer.status_code == 201
    assert target is not None
    assert (target.kind, str(target.gateway_id), target.channel_id) == ("gateway", shown["id"], None)
    found = await tokens.channel_of(target.gateway_id, "loja-01")
    assert found is not None
    assert str(found.channel_id) == channel["id"]


async def test_key_of_a_gateway_is_sealed_for_it_and_configures_its_channels(
    api: Api, connection: Connection
) -> None:
    channel = await api.channel(api_url="http://evo.example:8080")

    answer = await api.client.post("/gateways", json=GATEWAY)

    sealed = await connection.fetchval("select api_key from zapwatch_gateways")
    state = (await api.client.get(f"/channels/{channel['id']}/state")).json()
    assert Vault([KEY]).open(sealed, f"gateway:{answer.json()['id']}") == b"global-key"
    assert "global-key" not in answer.text
    assert state["monitoring"]["configured"] is True
    assert state["next_check_at"] is not None
    assert await connection.fetchval("select due_at is not null from zapwatch_states") is True


async def test_gateway_is_registered_once(api: Api) -> None:
    first = await api.client.post("/gateways", json=GATEWAY)

    second = await api.client.post("/gateways", json={**GATEWAY, "base_url": "HTTP://EVO.example:8080"})

    assert second.status_code == 409
    assert second.json()["id"] == first.json()["id"]


async def test_gateway_counts_its_channels_by_shown_state(api: Api, connection: Connection) -> None:
    for instance, state in (("a", "open"), ("b", "disconnected/dropped"), ("c", "disconnected/unpaired")):
        channel = await api.channel(instance, api_url="http://evo.example")
        await connection.execute(
            "update zapwatch_states set state = $2 where channel_id = $1", UUID(channel["id"]), state
        )
    await api.channel("without address")
    gone = await api.channel("gone", api_url="http://evo.example")
    await api.client.delete(f"/channels/{gone['id']}")

    items = (await api.client.get("/gateways")).json()["items"]
    one = (await api.client.get(f"/gateways/{items[0]['id']}")).json()

    assert [item["base_url"] for item in items] == ["http://evo.example"]
    assert one == items[0]
    assert one == {
        "id": one["id"],
        "provider": "evolution_api",
        "base_url": "http://evo.example",
        "name": None,
        "version": None,
        "state": "unknown",
        "since": None,
        "incident": None,
        "channels": {"open": 1, "disconnected": 2},
        "never_connected": 3,
    }


@pytest.mark.parametrize(
    ("change", "pointer"),
    [
        ({"provider": "x"}, "/provider"),
        ({"base_url": "evo.example"}, "/base_url"),
        ({"base_url": ""}, "/base_url"),
        ({"base_url": "http://ü"}, "/base_url"),
        ({"api_key": None}, "/api_key"),
        ({"name": "\0"}, "/name"),
    ],
)
async def test_bad_field_is_named(refusing: Api, change: dict[str, object], pointer: str) -> None:
    answer = await refusing.client.post("/gateways", json={**GATEWAY, **change})

    assert answer.status_code == 422
    assert [error["pointer"] for error in answer.json()["errors"]] == [pointer]


async def test_unknown_gateway_is_404(refusing: Api) -> None:
    assert (await refusing.client.get(f"/gateways/{uuid4()}")).status_code == 404
    assert (await refusing.client.get("/gateways/x")).status_code == 404
