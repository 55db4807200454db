"""A host full of instances that were never connected: nobody is told, and nothing is ordered."""

from typing import Any

import pytest

from db.connection.types import Connection
from tests.factories import Evolution
from tests.support.service import SOON
from tests.support.story import Story, story

NEVER = 24
LIVE = 4
LASTED = """
select count(*) from zapwatch_states
where state <> 'open' and clock_timestamp() - first_unhealthy_at > make_interval(secs => $1)
"""
"""How many channels have not been open for so many seconds."""


async def imported(told: Story, host: Any) -> tuple[dict[str, str], str]:
    """Import a host; return its channels by instance, and its webhook address."""
    z = told.z
    wishes = {"name": "Lojas", "defaults": {"heartbeat_threshold_minutes": SOON}}
    tenant = (await z.client.post("/tenants", json=wishes)).json()
    body = {"provider": "evolution_api", "base_url": host.url, "api_key": host.key}
    gateway = (await z.client.post("/gateways", json=body)).json()
    answer = await z.client.post(f"/gateways/{gateway['id']}/import", params={"tenant_id": tenant["id"]})
    assert answer.status_code == 202, answer.text
    items = (await z.get("/channels", limit="500"))["items"]
    return {item["instance"]: item["channel_id"] for item in items}, gateway["webhook_url"]


@pytest.mark.parametrize("connects", [True, False])
async def test_importing_dead_instances_is_silent_and_touches_nothing(
    dsn: str, connection: Connection, connects: bool
) -> None:
    async with story(dsn, 40.0) as told:
        host = await told.fleet.evolution("2.3.6" if connects else "2.3.7")
        dead = [host.add(f"dead-{n}", "qr") for n in range(NEVER)]
        live = [host.add(f"live-{n}") for n in range(LIVE)]
        for instance in dead[::2]:
            instance.lose()
        for instance in dead[1::2]:
            instance.lose("connecting")
        channels, hook = await imported(told, host)
        for n, name in enumerate(f"dead-{n}" for n in range(NEVER)):
            said = Evolution(name)
            bodies = [said.update("connecting"), said.qr(), said.update("close", 428), said.qr_limit()]
            await told.z.hear(hook, bodies[n % 4])
        await told.z.until(lambda: connection.fetchval(LASTED, 2 * 60 * SOON), lambda count: count == NEVER)

        assert await told.all_incidents() == []

        live[0].unlink()
        await told.z.hear(hook, Evolution("live-0").update("close", 401))
        await told.z.until(told.open_incidents, lambda opened: set(opened) == {channels["live-0"]})
        assert [it.ordered for it in dead] == [[]] * NEVER
        assert await connection.fetchval("select count(*) from zapwatch_recoveries") == 0
