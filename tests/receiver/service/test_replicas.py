"""Any number of services on one database: three open the incidents that one opens, and tell of each once."""

import asyncio
from collections import Counter
from contextlib import AsyncExitStack
from datetime import timedelta
from typing import Any

import pytest

from db.connection.types import Connection
from receiver.sandbox import open_fleet
from tests.factories import Evolution
from tests.support.service import Zapwatch, served
from tests.support.story import Story, compressed

EACH = 6
"""Channels of each fate."""
SPEED = 100.0
FATES = {
    "unlinked": ("disconnected", False),
    "vanished": ("disconnected", False),
    "flapping": ("connecting", True),
    "reconnected": None,
    "healthy": None,
}
"""What becomes of a channel: the kind of its incident and whether it flaps, None for no incident."""


async def tell(replicas: list[Zapwatch], hook: str, *bodies: object) -> None:
    """Have every replica hear each webhook, all at once: a gateway that delivers several times."""
    for body in bodies:
        answers = await asyncio.gather(*(z.client.post(hook, json=body) for z in replicas))
        assert {answer.status_code for answer in answers} == {204}


async def happen(replicas: list[Zapwatch], fate: str, hook: str, instance: Any) -> None:
    """Let a channel meet its fate."""
    told = Evolution(instance.name)
    match fate:
        case "unlinked":
            instance.lose("close")
            await tell(replicas, hook, told.update("close", 401))
        case "vanished":
            instance.vanish()
        case "flapping":
            for _ in range(22):
                await tell(replicas, hook, told.update("connecting"), told.update("open"))
        case "reconnected":
            await tell(replicas, hook, told.update("connecting"), told.update("open"))


@pytest.mark.parametrize("count", [1, 3])
async def test_three_replicas_open_the_incidents_that_one_opens(
    dsn: str, connection: Connection, count: int
) -> None:
    settings = {**compressed(SPEED), "stale_after": timedelta(seconds=2)}
    async with AsyncExitStack() as stack:
        fleet = await stack.enter_async_context(open_fleet(speed=SPEED))
        replicas = [await stack.enter_async_context(served(dsn, **settings)) for _ in range(count)]
        story = Story(replicas[0], fleet)
        # A few channels of each host: more that are lost together would be the host's incident.
        hosts = [await fleet.evolution() for _ in range(EACH)]
        channels = {}
        for host in hosts:
            instances = {fate: host.add(f"{fate}-loja") for fate in FATES}
            for channel, (fate, instance) in zip(
                await story.watch_all(host, instances.values()), instances.items(), strict=True
            ):
                instance.webhook = None
                channels[channel] = fate, instance

        await asyncio.gather(
            *(
                happen(replicas, fate, story.z.hooks[id], instance)
                for id, (fate, instance) in channels.items()
            )
        )

        wanted = {id: FATES[fate] for id, (fate, _) in channels.items() if FATES[fate] is not None}
        await story.z.until(story.open_incidents, lambda found: found.keys() >= wanted.keys(), within=40)
        await asyncio.gather(*(story.asked(it, 2) for fate, it in channels.values() if fate != "vanished"))
        incidents = await story.all_incidents()

    found = {it["channel_id"]: (it["kind"], it["details"].get("flapping") is True) for it in incidents}
    assert len(incidents) == len(found)
    assert found.keys() == wanted.keys()
    assert Counter(found.values()) == Counter(wanted.values())
    told = "select kind, count(*) from zapwatch_alerts group by kind"
    assert {row["kind"]: row["count"] for row in await connection.fetch(told)} == {"opened": len(wanted)}
