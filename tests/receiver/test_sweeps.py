"""One call that tells of all channels of a gateway: it spares their probes, and never decides by itself."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from receiver.sandbox import Metrics
from tests.receiver.story import Story, story

SPEED = 20.0
"""Slow enough that a busy machine keeps up: STALE_AFTER is 6 s."""
WITHIN: Any = {"within": 60}


async def fleet_of(told: Story, host: Any, count: int) -> dict[str, Any]:
    """Have so many instances on a host imported and known to be open; return them by their channels' ids."""
    instances = {it.name: it for it in (host.add(f"loja-{n:03}") for n in range(count))}
    gateway = await told.z.client.post(
        "/gateways", json={"provider": "evolution_api", "base_url": host.url, "api_key": host.key}
    )
    imported = await told.z.client.post(f"/gateways/{gateway.json()['id']}/import")
    assert imported.json()["total"] == count
    await told.z.until(
        lambda: told.z.get("/channels", state="open", limit="500"),
        lambda found: len(found["items"]) == count,
        **WITHIN,
    )
    channels = (await told.z.get("/channels", limit="500"))["items"]
    return {channel["channel_id"]: instances[channel["instance"]] for channel in channels}


async def swept(told: Story, host: Any, more: int = 1) -> None:
    """Wait until a host was asked so many times more about all its channels."""
    wanted = len(host.swept) + more
    async with asyncio.timeout(60):
        while len(host.swept) < wanted:  # noqa: ASYNC110
            await asyncio.sleep(0.01)  # the sandbox tells nobody that it was asked


def probes(instances: dict[str, Any]) -> int:
    """How often these were asked about one by one."""
    return sum(len(instance.probed) for instance in instances.values())


@asynccontextmanager
async def metrics(
    dsn: str, answer: Metrics = Metrics.ON, **settings: Any
) -> AsyncIterator[tuple[Story, Any]]:
    """Yield a story and an Evolution host whose `/metrics` answers so."""
    async with story(dsn, speed=SPEED, **settings) as told:
        host = await told.fleet.evolution("2.3.7")
        host.metrics = answer
        yield told, host


async def test_a_fleet_that_a_gateway_tells_of_costs_a_handful_of_calls(dsn: str) -> None:
    async with metrics(dsn) as (told, host):
        channels = await fleet_of(told, host, 300)
        await swept(told, host)
        before, calls = probes(channels), len(host.swept)

        await swept(told, host, 2)

        assert probes(channels) - before < 30
        assert len(host.swept) - calls <= 4
        shown = (await told.z.get("/channels", limit="500"))["items"]
        assert {channel["state"] for channel in shown} == {"open"}
        assert await told.all_incidents() == []
