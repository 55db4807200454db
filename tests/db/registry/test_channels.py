"""The registry: its changes make channels due, in the order of locks that apply keeps."""

import asyncio
import json
from uuid import UUID, uuid4

import pytest

from db.connection.json_columns import merge_patch
from db.connection.types import Connection
from db.registry.channels import (
    ChannelSpec,
    ChannelUpdate,
    UnknownChannel,
    change_channel,
    pause_channel,
    register_channel,
    remove_channel,
    resume_channel,
)
from db.registry.gateways import Duplicate
from db.registry.tenants import Tenant, UnknownTenant, change_tenant, create_tenant
from db.vault import Vault
from tests.conftest import connected

VAULT = Vault([bytes(32)])


async def registered(connection: Connection, instance: str = "loja", tenant_id: UUID | None = None) -> UUID:
    new = ChannelSpec(
        provider="evolution_api",
        instance=instance,
        api_url="http://evo.example",
        api_key="k",
        tenant_id=tenant_id,
    )
    channel_id, _ = await register_channel(connection, VAULT, new)
    return channel_id


@pytest.mark.parametrize(
    ("target", "patch", "result"),
    [
        ({"a": "b"}, {"a": "c"}, {"a": "c"}),
        ({"a": "b"}, {"b": "c"}, {"a": "b", "b": "c"}),
        ({"a": "b"}, {"a": None}, {}),
        ({"a": "b", "b": "c"}, {"a": None}, {"b": "c"}),
        ({"a": ["b"]}, {"a": "c"}, {"a": "c"}),
        ({"a": "c"}, {"a": ["b"]}, {"a": ["b"]}),
        ({"a": {"b": "c"}}, {"a": {"b": "d", "c": None}}, {"a": {"b": "d"}}),
        ({"a": [{"b": "c"}]}, {"a": [1]}, {"a": [1]}),
        (["a", "b"], ["c", "d"], ["c", "d"]),
        ({"a": "b"}, ["c"], ["c"]),
        ({"a": "foo"}, None, None),
        ({"e": None}, {"a": 1}, {"e": None, "a": 1}),
        ([1, 2], {"a": "b", "c": None}, {"a": "b"}),
        ({}, {"a": {"bb": {"ccc": None}}}, {"a": {"bb": {}}}),
    ],
)
def test_merge_patch_does_what_rfc_7396_shows(target: object, patch: object, result: object) -> None:
    assert merge_patch(target, patch) == result


async def test_unknown_tenant_registers_nothing(connection: Connection) -> None:
    with pytest.raises(UnknownTenant):
        await registered(connection, tenant_id=uuid4())

    assert await connection.fetchval("select count(*) from notification_channels") == 0


async def test_duplicate_leaves_nothing_behind(connection: Connection) -> None:
    first = await registered(connection)

    with pytest.raises(Duplicate) as error:
        await registered(connection)

    counts = await connection.fetchrow(
        "select (select count(*) from notification_channels), (select count(*) from zapwatch_tokens)"
    )
    assert error.value.id == first
    assert counts is not None
    assert tuple(counts) == (1, 1)


@pytest.mark.parametrize("metadata", ["null", "[]", '"x"', "1"])
async def test_odd_metadata_of_an_application_becomes_an_object(
    connection: Connection, metadata: str
) -> None:
    channel_id = await registered(connection)
    await connection.execute("update notification_channels set metadata = $1::text::jsonb", metadata)

    change = ChannelUpdate(given=frozenset({"metadata"}), metadata={"alerts_enabled": False})
    await change_channel(connection, VAULT, channel_id, change, None)

    kept = await connection.fetchval("select metadata from notification_channels")
    assert json.loads(kept) == {"alerts_enabled": False}


async def test_empty_change_changes_nothing_and_makes_nothing_due(connection: Connection) -> None:
    channel_id = await registered(connection)
    before = await connection.fetchrow("select * from zapwatch_states")

    await change_channel(connection, VAULT, channel_id, ChannelUpdate(given=frozenset()), None)

    assert await connection.fetchrow("select * from zapwatch_states") == before


async def test_pausing_twice_keeps_the_first_time(connection: Connection) -> None:
    channel_id = await registered(connection)
    await pause_channel(connection, channel_id, None)
    first = await connection.fetchval("select paused_at from zapwatch_channels")

    await pause_channel(connection, channel_id, None)

    assert await connection.fetchval("select paused_at from zapwatch_channels") == first


async def test_change_of_a_paused_channel_does_not_have_it_probed(connection: Connection) -> None:
    channel_id = await registered(connection)
    await pause_channel(connection, channel_id, None)

    change = ChannelUpdate(given=frozenset({"api_key"}), api_key="new")
    await change_channel(connection, VAULT, channel_id, change, None)

    assert await connection.fetchval("select probe_due_at from zapwatch_states") is None


async def test_removed_channel_is_unknown_to_every_change(connection: Connection) -> None:
    channel_id = await registered(connection)
    await remove_channel(connection, channel_id, None)

    for work in (remove_channel, pause_channel, resume_channel):
        with pytest.raises(UnknownChannel):
            await work(connection, channel_id, None)
    with pytest.raises(UnknownChannel):
        await change_channel(connection, VAULT, channel_id, ChannelUpdate(given=frozenset()), None)


async def test_tenants_change_waits_for_a_batch_instead_of_deadlocking(
    dsn: str, connection: Connection
) -> None:
    tenant_id = await create_tenant(connection, Tenant("Loja", "en", "UTC", {}))
    ids = sorted([await registered(connection, f"loja-{number}", tenant_id) for number in range(20)])

    async def batches(own: Connection) -> None:
        for _ in range(20):
            async with own.transaction():
                for channel_id in ids:
                    await own.execute(
                        "select 1 from zapwatch_states where channel_id = $1 for no key update", channel_id
                    )
                await own.execute("update notification_channels set connection_status = 'open'")

    async def changes(own: Connection) -> None:
        for number in range(20):
            await change_tenant(own, tenant_id, {"defaults": {"heartbeat_threshold_minutes": number}})
            patch = ChannelUpdate(given=frozenset({"metadata"}), metadata={"n": number})
            await change_channel(own, VAULT, ids[number], patch, None)

    async with connected(dsn) as one, connected(dsn) as two:
        await asyncio.wait_for(asyncio.gather(batches(one), changes(two)), 30)

    due = await connection.fetchval("select count(*) from zapwatch_states where due_at is not null")
    assert due == 20
