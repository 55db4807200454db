"""Many channels at once: exactly those that are lost have an incident, in time, and nothing storms."""

import asyncio
import random
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any

import pytest

from db.connection.types import Connection
from receiver.sandbox import Fault, open_fleet
from tests.support.service import Zapwatch, served, time
from tests.support.soak import sized
from tests.support.story import Story, compressed, story

pytestmark = [pytest.mark.soak, pytest.mark.timeout(300)]

CHANNELS = sized(80, 500)
MINUTES = 20
SPEED = sized(100.0, 30.0)
"""Twenty minutes are forty seconds for many channels, which take work, and twelve for few."""
QUICK_SPEED = 100.0
STOPPED = sized(120, 1000)
"""Channels over which nobody watches for a while."""
SHARED = sized(30, 100)
"""Channels that two services share."""
NOT_COMPRESSED = timedelta(seconds=sized(10, 3))
"""Pauses of the service's loops, and a machine busy with other tests; they don't shrink with time."""


async def add_channels(told: Story, count: int, hosts: Sequence[Any], **more: Any) -> dict[str, Any]:
    """Register channels, spread over the hosts; return each one's instance by the channel's id."""
    instances = [(hosts[n % len(hosts)], hosts[n % len(hosts)].add(f"loja-{n:04}")) for n in range(count)]
    ids = [await told.watch(host, instance, state=None, **more) for host, instance in instances]
    return dict(zip(ids, (instance for _, instance in instances), strict=True))


async def all_stand(told: Story, **wanted: int) -> None:
    """Wait until so many channels are in these states."""

    async def counts() -> dict[str, int]:
        total: Counter[str] = Counter()
        for gateway in (await told.z.get("/gateways"))["items"]:
            total.update(gateway["channels"])
        return dict(total)

    await told.z.until(counts, lambda total: total == wanted, within=60)


async def live(told: Story, instance: Any, chance: random.Random, until: float) -> None:
    """Have a healthy channel receive a message now and then, and reconnect a few times."""
    loop = asyncio.get_running_loop()
    reconnects = chance.choice((0, 0, 0, 1, 3))
    while loop.time() < until:
        await told.fleet.pause(chance.uniform(30, 600))
        if reconnects:
            reconnects -= 1
            instance.connect()
        else:
            instance.message()


async def lose(told: Story, instance: Any, chance: random.Random, how: str) -> datetime:
    """Have a channel lost without a word and for good, at some moment; return when."""
    await told.fleet.pause(chance.uniform(60, 600))
    if how == "vanish":
        instance.vanish()
    else:
        instance.order_fault = Fault.ERROR_200
        instance.lose(how)
    return datetime.now(UTC)


async def test_exactly_the_lost_and_the_flapping_have_an_incident_in_time(dsn: str) -> None:
    settings = compressed(SPEED)
    threshold = timedelta(minutes=5) / SPEED
    in_time = threshold + settings["stale_after"] + timedelta(seconds=15) / SPEED + NOT_COMPRESSED
    async with story(dsn, speed=SPEED, doubled=0.1, reordered=0.1) as told:
        chance = random.Random(7)
        hosts = [
            await told.fleet.evolution(version) for version in ("2.3.6", "2.3.6", "2.2.0", "1.8.2", "2.3.7")
        ]
        channels = await add_channels(told, CHANNELS, hosts)
        await all_stand(told, open=CHANNELS)
        mixed = chance.sample(list(channels), CHANNELS)
        twentieth = CHANNELS // 20
        lost, flapping = mixed[:twentieth], mixed[twentieth : 2 * twentieth]
        healthy = mixed[2 * twentieth :]

        until = asyncio.get_running_loop().time() + MINUTES * 60 / SPEED
        ways = ["vanish", "close", "connecting"]
        async with asyncio.TaskGroup() as group:
            losses = [
                group.create_task(lose(told, channels[id], chance, ways[n % 3])) for n, id in enumerate(lost)
            ]
            for id in flapping:
                group.create_task(flap(told, channels[id], chance))
            for id in healthy:
                group.create_task(live(told, channels[id], chance, until))
        await told.fleet.said()
        lost_at = {id: task.result() for id, task in zip(lost, losses, strict=True)}

        incidents = await told.all_incidents()
        assert {incident["channel_id"] for incident in incidents} == {*lost, *flapping}
        assert len(incidents) == len(lost) + len(flapping)
        for incident in incidents:
            if incident["channel_id"] in lost_at:
                assert time(incident["opened_at"]) - lost_at[incident["channel_id"]] <= in_time
                assert not incident["details"].get("flapping")
            else:
                assert incident["details"]["flapping"] is True
            assert incident["resolved_at"] is None


async def flap(told: Story, instance: Any, chance: random.Random) -> None:
    """Have a channel replaced and connected again, often enough that disorder hides not too much of it."""
    await told.fleet.pause(chance.uniform(60, 600))
    await instance.flap(24, gap=20)


async def test_a_stop_of_ours_makes_no_storm(dsn: str, connection: Connection) -> None:
    """All channels drop; while nobody watches all but one come back, and every grace ends."""
    unhurried = {
        **compressed(QUICK_SPEED),
        "stale_after": timedelta(minutes=5),
        "retry_after": timedelta(minutes=5),
        "recovery_speed": 1.0,
        # Not a mass loss, after which all would be asked while somebody still watches.
        "verdict_within": timedelta(0),
    }
    async with open_fleet(speed=QUICK_SPEED) as fleet:
        hosts = [await fleet.evolution() for _ in range(4)]
        async with served(dsn, **unhurried) as z:
            before = Story(z, fleet)
            channels = await add_channels(
                before, STOPPED, hosts, metadata={"heartbeat_threshold_minutes": 60}
            )
            await all_stand(before, open=STOPPED)
            for instance in channels.values():
                instance.say_late(0, "connecting")
            await all_stand(before, connecting=STOPPED)
        down, instance = next(iter(channels.items()))
        instance.order_fault = Fault.ERROR_200
        instance.lose("close")
        await connection.execute(
            """update notification_channels set metadata = '{"heartbeat_threshold_minutes": 0.01}'"""
        )
        await fleet.pause(200)

        quick = {
            **compressed(QUICK_SPEED),
            "stale_after": timedelta(seconds=2),
            "probe_timeout": timedelta(seconds=8),
            "recovery_speed": 1.0,
        }
        async with served(dsn, **quick) as z:
            after = Story(z, fleet)
            await all_stand(after, open=STOPPED - 1, disconnected=1)
            await after.z.incident(down)

            assert [incident["channel_id"] for incident in await after.all_incidents()] == [down]


async def test_replicas_share_the_probes_and_open_an_incident_once(dsn: str) -> None:
    stale = timedelta(seconds=2)
    # Of a host of which one question ran into the time-out, others are asked early.
    settings = {**compressed(QUICK_SPEED), "stale_after": stale, "probe_timeout": timedelta(seconds=8)}
    async with (
        open_fleet(speed=QUICK_SPEED) as fleet,
        served(dsn, **settings) as one,
        served(dsn, **settings) as two,
    ):
        told = Story(one, fleet)
        host = await fleet.evolution()
        channels = await add_channels(told, SHARED, [host])
        await all_stand(told, open=SHARED)
        lost = next(iter(channels))
        others = [instance for id, instance in channels.items() if id != lost]

        channels[lost].vanish()
        await told.z.incident(lost)
        await asyncio.gather(*(told.asked(instance, 3) for instance in others))
        probes = [await probes_of(z) for z in (one, two)]
        (incident,) = await told.all_incidents()
        events = await told.z.events(lost)

    assert incident["channel_id"] == lost
    assert [event["data"]["opened"] for event in events if event["source"] == "deadline"] == [True]
    for instance in others:
        gaps = [later - earlier for earlier, later in pairwise(instance.probed)]
        # The service's clock starts when the answer came, the gateway's when it was asked.
        assert min(gaps) > stale.total_seconds() * 0.9
    assert min(probes) > 0
    assert host.most_at_once <= 20


async def probes_of(z: Zapwatch) -> float:
    """Return how many probes a service has made."""
    lines = (await z.client.get("/metrics")).text.splitlines()
    counts = [line for line in lines if line.startswith("zapwatch_probe_seconds_count")]
    return sum(float(line.rpartition(" ")[2]) for line in counts)
