"""One call that tells of all channels of a gateway: it spares their probes, and never decides by itself."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

import pytest

from db.connection.types import Connection
from receiver.sandbox import Fault, HostMetrics
from tests.support.eventually import eventually
from tests.support.soak import sized
from tests.support.story import Story, story

SPEED = 60.0
"""STALE_AFTER is 2 s."""
OF_MANY = sized(40.0, 20.0)
"""Slow enough that a busy machine keeps up with many channels."""
MANY = sized(100, 300)
CALM: Any = {"stale_after": timedelta(minutes=2), "retry_after": timedelta(seconds=0.5)}
"""Settings under which nothing is due for long, but what a test makes due."""
SOON = """
update zapwatch_states set probe_due_at = now() + interval '1 minute'
where probe_due_at < now() + interval '3 minutes'
"""
SWEEP = "update zapwatch_gateways set sweep_due_at = now()"
SEEN = "select probed_at from zapwatch_states where channel_id = $1"
DUE = "update zapwatch_states set probe_due_at = now() where channel_id = $1"
PUT_OFF = "update zapwatch_states set probe_due_at = now() + interval '1 hour' where channel_id = $1"


async def fleet_of(told: Story, host: Any, count: int) -> dict[str, Any]:
    """Have so many instances of a host imported and known to be open; return them by their channels' ids."""
    is_wapi = type(host).__name__ == "WapiHost"
    instances = [host.add() if is_wapi else host.add(f"loja-{n:03}") for n in range(count)]
    provider = "wapi" if is_wapi else "evolution_api"
    body = {"provider": provider, "base_url": host.url, "api_key": host.key}
    gateway = (await told.z.client.post("/gateways", json=body)).json()["id"]
    assert (await told.z.client.post(f"/gateways/{gateway}/import")).json()["total"] == count
    await told.z.until(lambda: states(told), lambda found: list(found.values()) == ["open"] * count, 60)
    named = {instance.name: instance for instance in instances}
    channels = (await told.z.get("/channels", limit="500"))["items"]
    return {channel["channel_id"]: named[channel["instance"]] for channel in channels}


async def states(told: Story) -> dict[str, str]:
    """Return the states of all channels by their ids."""
    found = (await told.z.get("/channels", limit="500"))["items"]
    return {channel["channel_id"]: channel["state"] for channel in found}


def probes(channels: dict[str, Any]) -> int:
    """How often these were asked about one by one."""
    return sum(len(instance.probed) for instance in channels.values())


async def asked(calls: list[float], more: int = 1) -> None:
    """Wait until a host was asked so many times more about all its channels."""
    wanted = len(calls) + more
    await eventually(lambda: len(calls) >= wanted, within=60)


async def lose(told: Story, connection: Connection, channel: str, instance: Any) -> None:
    """Have a session lost that nothing tries to bring back, and the loss found by a probe."""
    await told.z.client.patch(f"/channels/{channel}", json={"metadata": {"auto_recovery": False}})
    instance.lose("close")
    await connection.execute(DUE, channel)
    await told.becomes(channel, "disconnected")


async def sweep(told: Story, connection: Connection, calls: list[float]) -> None:
    """Have a sweep made now, with probes due that it may spare, and wait until it was written."""
    before = await outcomes(told)
    await connection.execute(SOON)
    await connection.execute(SWEEP)
    await asked(calls)
    await told.z.until(lambda: outcomes(told), lambda found: found > before, 60)


async def outcomes(told: Story) -> float:
    """Return how many sweeps ended, however they did."""
    family = next(iter(told.z.app.metrics.sweeps.collect()))
    return sum(float(sample.value) for sample in family.samples if sample.name.endswith("_total"))


@asynccontextmanager
async def metrics(
    dsn: str, answer: HostMetrics = HostMetrics.ON, speed: float = SPEED, **settings: Any
) -> AsyncIterator[tuple[Story, Any]]:
    """Yield a story and an Evolution host whose `/metrics` answers so."""
    async with story(dsn, speed=speed, **settings) as told:
        host = await told.fleet.evolution("2.3.7")
        host.metrics = answer
        yield told, host


@pytest.mark.soak
async def test_a_fleet_that_its_gateway_tells_of_costs_a_handful_of_calls(dsn: str) -> None:
    async with metrics(dsn, speed=OF_MANY) as (told, host):
        channels = await fleet_of(told, host, MANY)
        await asked(host.swept)
        before, calls = probes(channels), len(host.swept)

        await asked(host.swept, 2)

        assert probes(channels) - before < MANY / 10
        assert len(host.swept) - calls <= 4
        assert set((await states(told)).values()) == {"open"}
        assert await told.all_incidents() == []


@pytest.mark.parametrize(("silent_loss", "reason"), [("lose", "disconnected"), ("vanish", "session_missing")])
async def test_what_is_lost_there_without_a_word_is_found(dsn: str, silent_loss: str, reason: str) -> None:
    async with metrics(dsn) as (told, host):
        channels = await fleet_of(told, host, 30)
        await asked(host.swept)
        lost = list(channels)[7]

        getattr(channels[lost], silent_loss)()

        await told.z.until(lambda: told.z.stands(lost), lambda it: it[:2] == ("disconnected", reason), 60)
        assert [state for state in (await states(told)).values() if state != "open"] == ["disconnected"]


async def test_a_loss_is_found_before_its_own_probe_is_due(dsn: str, connection: Connection) -> None:
    async with metrics(dsn, **CALM) as (told, host):
        channels = await fleet_of(told, host, 6)
        lost, instance = next(iter(channels.items()))
        instance.lose("close")

        await sweep(told, connection, host.swept)

        await told.becomes(lost, "disconnected", "disconnected")
        assert len(instance.probed) == 2


async def test_metrics_alone_end_no_session(dsn: str, connection: Connection) -> None:
    async with metrics(dsn, **CALM) as (told, host):
        channels = await fleet_of(told, host, 6)
        misnamed, instance = next(iter(channels.items()))
        host.mistold[instance.name] = "close"
        seen_at = await connection.fetchval(SEEN, misnamed)

        await sweep(told, connection, host.swept)

        await told.z.until(lambda: connection.fetchval(SEEN, misnamed), lambda at: at > seen_at, 60)
        assert len(instance.probed) == 2
        assert (await told.z.state(misnamed))["state"] == "open"
        assert await told.all_incidents() == []


async def test_a_channel_that_metrics_leave_out_is_asked_itself_and_not_lost(dsn: str) -> None:
    async with metrics(dsn) as (told, host):
        channels = await fleet_of(told, host, 8)
        left_out, instance = next(iter(channels.items()))
        host.unlisted.add(instance.name)

        await told.asked(instance, 2)

        assert (await told.z.state(left_out))["state"] == "open"
        assert await told.all_incidents() == []
        instance.vanish()
        await told.z.until(lambda: told.z.stands(left_out), lambda it: it[1] == "session_missing", 60)


async def test_a_booting_gateway_has_its_channels_asked_when_they_are_due_and_not_before(
    dsn: str, connection: Connection
) -> None:
    async with metrics(dsn, **CALM) as (told, host):
        channels = await fleet_of(told, host, 6)
        for instance in channels.values():
            instance.state = None

        await sweep(told, connection, host.swept)

        due_in = await connection.fetchval("select min(probe_due_at) - now() from zapwatch_states")
        assert due_in > timedelta(seconds=5)
        assert set((await states(told)).values()) == {"open"}


@pytest.mark.parametrize(
    "answer", [HostMetrics.OFF, HostMetrics.FORBIDDEN, HostMetrics.LOCKED, HostMetrics.MISCONFIGURED]
)
async def test_a_gateway_that_refuses_is_tried_once_and_its_channels_are_probed(
    dsn: str, answer: HostMetrics
) -> None:
    async with metrics(dsn, answer) as (told, host):
        channels = await fleet_of(told, host, 8)
        lost, instance = next(iter(channels.items()))

        await asyncio.gather(*(told.asked(other) for other in channels.values()))
        instance.vanish()

        await told.z.until(lambda: told.z.stands(lost), lambda it: it[1] == "session_missing", 60)
        assert len(host.swept) == 1


@pytest.mark.parametrize("refused", [HostMetrics.MISCONFIGURED, HostMetrics.OFF])
async def test_a_sweep_that_fails_leaves_every_channel_due_when_it_was(
    dsn: str, connection: Connection, refused: HostMetrics
) -> None:
    async with metrics(dsn, **CALM) as (told, host):
        channels = await fleet_of(told, host, 6)
        await sweep(told, connection, host.swept)
        due = "select min(probe_due_at), max(probe_due_at), now() from zapwatch_states"
        host.metrics = refused

        await sweep(told, connection, host.swept)

        first, last, now = (await connection.fetch(due))[0]
        assert first == last <= now + timedelta(minutes=1)
        assert set((await states(told)).values()) == {"open"}
        assert probes(channels) == len(channels)


async def test_a_gateway_of_a_few_channels_is_not_swept(dsn: str) -> None:
    async with metrics(dsn) as (told, host):
        channels = await fleet_of(told, host, 4)

        await asyncio.gather(*(told.asked(instance, 2) for instance in channels.values()))

        assert host.swept == []


async def test_a_wrong_key_is_found_though_metrics_say_open(dsn: str) -> None:
    async with metrics(dsn) as (told, host):
        await fleet_of(told, host, 6)
        stranger = host.add("loja-of-somebody-else")

        channel = await told.z.channel(stranger.name, api_url=host.url, api_key="a key that nobody gave")

        await told.z.until(lambda: told.z.stands(channel), lambda it: it[:2] == ("error", "unauthorized"), 60)
        assert "open" not in {event["state"] for event in await told.z.events(channel)}


async def test_a_loss_that_lasts_is_confirmed_without_a_probe(dsn: str, connection: Connection) -> None:
    async with metrics(dsn, **CALM) as (told, host):
        channels = await fleet_of(told, host, 6)
        lost, instance = next(iter(channels.items()))
        await lose(told, connection, lost, instance)
        await connection.execute(
            "update zapwatch_states set probe_due_at = now() + interval '1 minute' where channel_id = $1",
            lost,
        )
        probed, seen_at = len(instance.probed), await connection.fetchval(SEEN, lost)

        await sweep(told, connection, host.swept)

        assert await connection.fetchval(SEEN, lost) > seen_at
        assert len(instance.probed) == probed
        assert (await told.z.state(lost))["state"] == "disconnected"


async def test_a_channel_that_came_back_without_a_word_is_asked_at_once(
    dsn: str, connection: Connection
) -> None:
    async with metrics(dsn, **CALM) as (told, host):
        channels = await fleet_of(told, host, 6)
        lost, instance = next(iter(channels.items()))
        await lose(told, connection, lost, instance)
        await connection.execute(PUT_OFF, lost)
        instance.come_back()

        await sweep(told, connection, host.swept)

        await told.becomes(lost, "open")


async def test_a_list_that_says_connected_hides_no_loss(dsn: str) -> None:
    async with story(dsn, speed=SPEED) as told:
        host = await told.fleet.wapi()
        channels = await fleet_of(told, host, 8)
        lost, instance = next(iter(channels.items()))

        instance.fault = Fault.NOT_FOUND

        await told.z.until(lambda: told.z.stands(lost), lambda it: it[1] == "session_missing", 60)
        assert host.listed[1:], "the list was asked for, besides the import"


async def test_a_list_that_says_connected_spares_no_probe(dsn: str, connection: Connection) -> None:
    async with story(dsn, speed=SPEED, **CALM) as told:
        host = await told.fleet.wapi()
        await fleet_of(told, host, 6)
        rows = "select channel_id, fresh_at, probed_at from zapwatch_states order by channel_id"
        before = await connection.fetch(rows)

        await sweep(told, connection, host.listed)

        assert await connection.fetch(rows) == before


@pytest.mark.parametrize(("truth", "state"), [("open", "open"), ("close", "disconnected")])
async def test_a_list_that_says_disconnected_brings_a_probe_which_settles_it(
    dsn: str, connection: Connection, truth: str, state: str
) -> None:
    async with story(dsn, speed=SPEED, **CALM) as told:
        host = await told.fleet.wapi()
        channels = await fleet_of(told, host, 6)
        doubted, instance = next(iter(channels.items()))
        await connection.execute(PUT_OFF, doubted)
        instance.state, instance.shown = truth, "close"
        before = await connection.fetchval(SEEN, doubted)

        await sweep(told, connection, host.listed)

        await told.z.until(lambda: connection.fetchval(SEEN, doubted), lambda at: at > before, 60)
        assert (await told.z.state(doubted))["state"] == state
        assert len(instance.probed) > 1
        del channels[doubted]
        assert probes(channels) == len(channels)
