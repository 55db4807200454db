"""Channels that an application made are registered once, whatever their credentials hold."""

import asyncio
import json
from typing import Any
from uuid import UUID, uuid4

import pytest

from db.connection.types import Connection, Record
from db.registry.adopt import adopt
from db.vault import Vault
from tests.conftest import connected

VAULT = Vault([bytes(range(32))])


@pytest.mark.parametrize(
    "credentials",
    [
        {"api_url": "http://Evo.example/", "api_key": "k", "instance_name": "loja"},
        {"apiUrl": "http://evo.example:80", "apikey": "k", "instance": "loja"},
        {"url": " http://evo.example ", "token": "k", "instance": "loja", "more": {"a": 1}},
        {"api_url": None, "apiUrl": "", "url": "http://evo.example", "token": "k", "instance": "loja"},
    ],
)
async def test_credentials_in_every_known_spelling_make_a_configured_channel(
    connection: Connection, credentials: dict[str, Any]
) -> None:
    channel_id = await _made_by_application(connection, credentials)

    adopted = await adopt(connection, VAULT)

    row = await _registered(connection, channel_id)
    assert adopted == 1
    assert (row["base_url"], row["instance"]) == ("http://evo.example", "loja")
    assert VAULT.open(row["api_key"], f"channel:{channel_id}") == b"k"
    assert row["probe_due_at"] is not None
    assert json.loads(row["memory"]) == {"has_been_open": True}
    assert row["put_by"] == "operator"


async def test_credentials_are_left_as_found(connection: Connection) -> None:
    found = {"api_url": "http://evo.example", "api_key": "k", "instance": "loja"}
    channel_id = await _made_by_application(connection, found)

    await adopt(connection, VAULT)

    left = await connection.fetchval(
        "select credentials from notification_channels where id = $1", channel_id
    )
    assert json.loads(left) == found


@pytest.mark.parametrize(
    "credentials",
    [
        None,
        [],
        "gAAAAABencrypted",
        {},
        {"api_url": "evo.example", "api_key": "k", "instance": "loja"},
        {"api_url": "http://evo.example", "instance": "loja"},
        {"api_url": "http://evo.example", "api_key": {"v": 1}, "instance": "loja"},
        {"api_url": "http://evo.example", "api_key": "k"},
        {"api_url": "http://evo.example", "api_key": "k", "instance": "x" * 300},
        {"api_url": "http://evo.example/" + "x" * 3000, "api_key": "k", "instance": "loja"},
    ],
)
async def test_unreadable_credentials_make_an_unconfigured_channel(
    connection: Connection, credentials: object
) -> None:
    channel_id = await _made_by_application(connection, credentials)

    adopted = await adopt(connection, VAULT)

    assert adopted == 1
    assert (await _registered(connection, channel_id))["probe_due_at"] is None


async def test_wapi_needs_no_address(connection: Connection) -> None:
    channel_id = await _made_by_application(connection, {"token": "k", "instance": "ABC"}, provider="wapi")

    await adopt(connection, VAULT)

    row = await _registered(connection, channel_id)
    assert row["base_url"] == "https://api.w-api.app/v1"
    assert row["probe_due_at"] is not None


async def test_second_channel_of_an_instance_is_registered_without_it(connection: Connection) -> None:
    credentials = {"api_url": "http://evo.example", "api_key": "k", "instance": "loja"}
    ids = [await _made_by_application(connection, credentials) for _ in range(3)]

    adopted = await adopt(connection, VAULT)

    instances = [(await _registered(connection, channel_id))["instance"] for channel_id in ids]
    assert adopted == 3
    assert sorted(instances, key=str) == [None, None, "loja"]


async def test_adopting_again_changes_nothing(connection: Connection) -> None:
    credentials = {"api_url": "http://evo.example", "api_key": "k", "instance": "loja"}
    channel_id = await _made_by_application(connection, credentials)
    await adopt(connection, VAULT)
    before = await _registered(connection, channel_id)

    adopted = await adopt(connection, VAULT)

    assert adopted == 0
    assert await _registered(connection, channel_id) == before


async def test_unknown_providers_and_deleted_channels_are_left_alone(connection: Connection) -> None:
    await connection.execute(
        "alter table notification_channels drop constraint notification_channels_provider_check"
    )
    await _made_by_application(connection, {}, provider="telegram")
    deleted = await _made_by_application(connection, {})
    await connection.execute("update notification_channels set deleted_at = now() where id = $1", deleted)

    adopted = await adopt(connection, VAULT)

    assert adopted == 0


async def test_replicas_that_adopt_at_once_register_each_channel_once(
    dsn: str, connection: Connection
) -> None:
    for number in range(50):
        credentials = {"api_url": f"http://{number % 5}.example", "api_key": "k", "instance": str(number)}
        await _made_by_application(connection, credentials)

    async with connected(dsn) as one, connected(dsn) as two:
        counts = await asyncio.gather(adopt(one, VAULT), adopt(two, VAULT))

    configured = await connection.fetchval(
        "select count(*) from zapwatch_states where probe_due_at is not null"
    )
    assert sum(counts) == 50
    assert configured == 50


async def test_ten_thousand_channels_are_adopted_in_chunks(connection: Connection) -> None:
    await connection.execute(
        "with t as (insert into tenants (name) values ('Loja') returning id)"
        " insert into notification_channels (tenant_id, provider, credentials)"
        " select t.id, 'evolution_api', jsonb_build_object('api_url', 'http://evo.example', 'token', 'k',"
        " 'instance', n) from t, generate_series(1, 10000) n"
    )

    adopted = await adopt(connection, VAULT)

    states = await connection.fetchval("select count(*) from zapwatch_states where probe_due_at is not null")
    assert (adopted, states) == (10_000, 10_000)


async def _made_by_application(
    connection: Connection, credentials: object, provider: str = "evolution_api"
) -> UUID:
    channel_id = uuid4()
    await connection.execute(
        "with t as (insert into tenants (name) values ('Loja') returning id)"
        " insert into notification_channels (id, tenant_id, provider, credentials)"
        " select $1, t.id, $2, $3::text::jsonb from t",
        channel_id,
        provider,
        json.dumps(credentials),
    )
    return channel_id


async def _registered(connection: Connection, channel_id: UUID) -> Record:
    row = await connection.fetchrow(
        "select c.*, g.base_url, s.probe_due_at, s.memory from zapwatch_channels c"
        " join zapwatch_gateways g on g.id = c.gateway_id join zapwatch_states s using (channel_id)"
        " where c.channel_id = $1",
        channel_id,
    )
    assert row is not None
    return row
