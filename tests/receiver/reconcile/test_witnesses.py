"""What is evidence of a gateway's trouble, and whose channels are: seen by operators over HTTP."""

from datetime import timedelta
from typing import Any

from db.connection.types import Connection
from receiver.sandbox import Fault
from tests.receiver.reconcile.test_gateway_health import (
    BRISK,
    LOST,
    UNASKED,
    asked_again,
    calm,
    fill,
    gateway,
    goes,
    trouble,
)
from tests.support.story import Story, story


async def put_by(connection: Connection, ids: Any, tenant: str | None = None) -> None:
    """Have channels be put there by their tenant, or by another one."""
    await connection.execute(
        "update zapwatch_channels set put_by = 'tenant', tenant_id = coalesce($2::uuid, tenant_id) "
        "where channel_id = any ($1::uuid[])",
        list(ids),
        tenant,
    )


async def other_tenant(told: Story) -> str:
    """Make a tenant and return its id."""
    return str((await told.z.client.post("/tenants", json={"name": "Outra"})).json()["id"])


async def test_what_another_tenant_adds_takes_nothing_from_the_first_ones_evidence(
    dsn: str, connection: Connection
) -> None:
    async with story(dsn, **UNASKED) as told:
        host = await told.fleet.evolution()
        channels = await fill(told, host, 12, **LOST)
        added = list(channels)[6:]
        await put_by(connection, channels)
        await put_by(connection, added, await other_tenant(told))

        for id in list(channels)[:6]:
            channels[id].drop(None)
        found = await trouble(told, host)
        affected = await connection.fetch("select channel_id::text as id from zapwatch_affected_channels")

        assert found["incident"]["cause"] == "mass_loss"
        assert {row["id"] for row in affected} == set(channels) - set(added)


async def test_losses_that_a_later_tenant_invents_are_no_mass_loss(dsn: str, connection: Connection) -> None:
    async with story(dsn, **UNASKED) as told:
        host = await told.fleet.evolution()
        channels = await fill(told, host, 12, **LOST)
        added = list(channels)[6:]
        await put_by(connection, channels)
        await put_by(connection, added, await other_tenant(told))

        for id in added:
            channels[id].drop(None)
        await told.z.until(told.open_incidents, lambda found: set(found) == set(added), 40)

        assert (await gateway(told, host))["incident"] is None


async def test_three_dead_keys_are_no_refusal_of_a_gateway_that_accepts_others(dsn: str) -> None:
    settings = {**BRISK, "stale_after": timedelta(seconds=20), "retry_after": timedelta(seconds=1)}
    async with story(dsn, **settings) as told:
        host = await told.fleet.evolution()
        channels = await fill(told, host, 6, metadata={"heartbeat_threshold_minutes": 5})
        dead = list(channels)[:3]
        for id in dead:
            channels[id].key = "another"
            channels[id].drop(0.1)

        for id in dead:
            await told.becomes(id, "error", "unauthorized")
        for _ in range(3):
            await asked_again(told, [channels[id] for id in dead])

        assert (await gateway(told, host))["incident"] is None


async def test_our_own_line_is_not_blamed_any_longer_once_another_gateway_has_answered(
    dsn: str, connection: Connection
) -> None:
    settings = {**BRISK, "offline_for": timedelta(seconds=3)}
    async with story(dsn, **settings) as told:
        dead, *others = [await told.fleet.evolution() for _ in range(3)]
        for host in (dead, *others):
            await fill(told, host, 3)
        for host in (dead, *others):
            host.fault = Fault.HANG
        for host in (dead, *others):
            await goes(told, host, "down")

        for host in others:
            host.fault = None
            await calm(told, host)

        async def details() -> str:
            text: str = await connection.fetchval(
                "select details::text from zapwatch_gateway_incidents where resolved_at is null"
            )
            return text

        assert await told.z.until(details, lambda text: "perhaps_offline" not in text, 30) == "{}"
        assert (await gateway(told, dead))["state"] == "down"
