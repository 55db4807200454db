"""One incident for one cause: gateways in trouble as a whole, seen by an operator over HTTP."""

import asyncio
from datetime import timedelta
from typing import Any

import pytest

from db.connections import Connection
from receiver.sandbox import Fault
from tests.receiver.story import Story, story

SOON: dict[str, Any] = {"metadata": {"heartbeat_threshold_minutes": 0.01}}
"""A channel whose own incident would open long before any of these stories ends."""
BRISK: dict[str, Any] = {
    "verdict_within": timedelta(seconds=6),
    "gateway_settle": timedelta(seconds=2),
    "breaker_max": timedelta(seconds=1),
    "stale_after": timedelta(seconds=1),
    "retry_after": timedelta(seconds=0.2),
    "probe_timeout": timedelta(seconds=1),
}


async def fill(told: Story, host: Any, count: int, **more: Any) -> dict[str, Any]:
    """Register so many channels of a host and return each one's instance by id, once all are open."""
    instances = [host.add(f"loja-{n:04}") for n in range(count)]
    ids = [await told.watch(host, instance, state=None, **{**SOON, **more}) for instance in instances]
    for id in ids:
        await told.becomes(id, "open")
    return dict(zip(ids, instances, strict=True))


async def gateway(told: Story, host: Any) -> Any:
    """Return what an operator sees of a host."""
    items = (await told.z.get("/gateways", limit="500"))["items"]
    return next(item for item in items if item["base_url"] == host.url)


async def goes(told: Story, host: Any, state: str) -> Any:
    """Return the gateway once it is in this state."""
    return await told.z.until(lambda: gateway(told, host), lambda it: it["state"] == state, within=40)


async def alerts(connection: Connection) -> list[tuple[str, bool]]:
    """Return of what operators and tenants are told: the kind, and whether it is about a gateway."""
    rows = await connection.fetch(
        "select kind, incident_id is null as whole from zapwatch_alerts order by id"
    )
    return [(row["kind"], row["whole"]) for row in rows]


@pytest.mark.parametrize("fault", [Fault.HANG, Fault.REFUSED, Fault.UNAVAILABLE, Fault.RESET])
async def test_a_dead_host_is_one_incident_and_none_of_its_channels(
    dsn: str, connection: Connection, fault: Fault
) -> None:
    async with story(dsn, **BRISK) as told:
        host = await told.fleet.evolution()
        channels = await fill(told, host, 12)
        assert (await goes(told, host, "up"))["incident"] is None

        host.fault = fault
        down = await goes(told, host, "down")
        await asyncio.gather(*(told.asked(instance, 0) for instance in channels.values()))
        await told.z.until(lambda: alerts(connection), lambda told: told)
        host.fault = None
        up = await goes(told, host, "up")

        assert down["incident"]["affected"] == 12
        assert down["incident"]["cause"] == ("unavailable" if fault is Fault.UNAVAILABLE else "unreachable")
        assert up["incident"] is None
        for id in channels:
            await told.becomes(id, "open")
        assert await told.all_incidents() == []
        assert await alerts(connection) == [("opened", True), ("resolved", True)]
