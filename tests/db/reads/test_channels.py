"""Reads of one tenant: row security holds even where a statement would forget it."""

from collections.abc import AsyncIterator
from uuid import UUID, uuid4

import pytest

from db.connection.json_columns import load
from db.connection.pool import open_pool
from db.connection.tenant_scope import reading
from db.connection.types import Connection, Pool
from db.reads.channels import ChannelFilter, find_channels, list_channels
from db.reads.incidents import IncidentFilter, list_incidents
from db.registry.channels import ChannelSpec, register_channel
from db.registry.tenants import Tenant, create_tenant
from db.vault import Vault

VAULT = Vault([bytes(32)])


@pytest.fixture
async def pool(dsn: str) -> AsyncIterator[Pool]:
    async with await open_pool(dsn) as opened:
        yield opened


async def two_tenants(connection: Connection) -> tuple[UUID, UUID]:
    """Make two tenants with a channel each and return their ids."""
    made = []
    for name in ("one", "two"):
        tenant_id = await create_tenant(connection, Tenant(name, "pt-BR", "America/Sao_Paulo", {}))
        new = ChannelSpec(provider="wapi", instance=name, api_key="k", tenant_id=tenant_id)
        await register_channel(connection, VAULT, new)
        made.append(tenant_id)
    return made[0], made[1]


async def test_scoped_connection_sees_one_tenants_rows_without_any_where(
    pool: Pool, connection: Connection
) -> None:
    one, _ = await two_tenants(connection)

    async with reading(pool, one) as scoped:
        seen = await scoped.fetch("select tenant_id from zapwatch_channels")
        states = await scoped.fetch("select tenant_id from zapwatch_states")
        gateways = await scoped.fetchval("select count(*) from zapwatch_gateways")

    assert [row["tenant_id"] for row in seen] == [one]
    assert [row["tenant_id"] for row in states] == [one]
    assert gateways == 0


async def test_scope_ends_with_the_block_and_does_not_stay_on_the_connection(
    dsn: str, connection: Connection
) -> None:
    one, _ = await two_tenants(connection)

    async with await open_pool(dsn) as pool:
        async with reading(pool, one) as first:
            pid = first.get_server_pid()
        async with reading(pool, None) as second:
            count = await second.fetchval("select count(*) from zapwatch_channels")
            same = second.get_server_pid() == pid

    assert same
    assert count == 2


async def test_scoped_connection_cannot_write(pool: Pool, connection: Connection) -> None:
    one, _ = await two_tenants(connection)

    async with reading(pool, one) as scoped:
        with pytest.raises(Exception, match="read-only transaction"):
            await scoped.execute("update zapwatch_channels set name = 'x'")


async def test_filter_for_another_tenant_finds_nothing(pool: Pool, connection: Connection) -> None:
    one, two = await two_tenants(connection)

    channels = await list_channels(pool, one, ChannelFilter(tenant_id=two), None, 10)
    incidents = await list_incidents(pool, one, IncidentFilter(tenant_id=two), None, 10)

    assert (channels, incidents) == ([], [])


async def test_tenant_knows_whether_its_channel_is_configured_though_it_sees_no_gateway(
    pool: Pool, connection: Connection
) -> None:
    one, _ = await two_tenants(connection)

    [found] = await list_channels(pool, one, ChannelFilter(), None, 10)
    key = one, found.row["channel_id"]
    again = (await find_channels(pool, [key])).get(key)

    assert found.configured
    assert found.api_url == "https://api.w-api.app/v1"
    assert again is not None
    assert again[1:] == found[1:]


async def test_unknown_channel_is_none(pool: Pool) -> None:
    assert await find_channels(pool, [(None, uuid4())]) == {}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        (None, None),
        ('{"a": 1}', {"a": 1}),
        ("123456789012345678901234567890", 123456789012345678901234567890.0),
        ("1" + "0" * 400, float("inf")),
        ("[" * 100_000 + "]" * 100_000, None),
    ],
)
def test_json_of_other_applications_is_read_as_far_as_it_can_be(text: str | None, value: object) -> None:
    assert load(text) == value
