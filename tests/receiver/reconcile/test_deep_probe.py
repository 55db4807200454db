"""Open but dead: a connection that its gateway calls open, betrayed by its records, proven by a look-up.

Whatever is spread over minutes is hurried in the database; a budget is over only where a test says so.
"""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any, TypeVar
from uuid import UUID

import pytest

from db.connection.types import Connection
from db.history.replay import replay
from receiver.sandbox import Fault, open_fleet
from statemachine.signals import Open, Resolve
from tests.support.service import served
from tests.support.story import SPEED, Story, compressed, story

Answer = TypeVar("Answer")
PATIENT: dict[str, Any] = {"probe_timeout": timedelta(seconds=3)}
"""Settings under which a busy machine takes no good answer for a late one."""
LOOK_AT = "update zapwatch_gateways set records_due_at = now() where base_url = $1"
HURRIED = (
    "update zapwatch_gateways set records_due_at = now()",
    "update zapwatch_suspicions set due_at = now() where due_at > now()",
)
BUDGET_OVER = "update zapwatch_suspicions set asked_at = asked_at - interval '10 minutes'"
DEAD = ("error", "open_but_dead", False)


async def hurry(told: Story) -> None:
    """Have looks and deep probes be due at once, as far as the budget allows."""
    for statement in HURRIED:
        await told.z.app.pool.execute(statement)


async def end_budget(told: Story) -> None:
    """Let ten minutes pass for every channel."""
    await told.z.app.pool.execute(BUDGET_OVER)


async def hurried(
    told: Story, ask: Callable[[], Awaitable[Answer]], is_so: Callable[[Answer], Any]
) -> Answer:
    """Return the answer once it is so, in a hurry."""

    async def asked() -> Answer:
        await hurry(told)
        return await ask()

    return await told.z.until(asked, is_so, within=40)


async def is_found_dead(told: Story, channel: str) -> None:
    """Wait until a channel is known to be open but dead."""
    await hurried(told, lambda: told.z.stands(channel), lambda stands: stands == DEAD)


async def is_looked_up(told: Story, instance: Any, times: int = 1) -> None:
    """Wait until an instance has had so many deep probes, and the last one's outcome is kept."""
    count = "select count(*) from zapwatch_suspicions where outcome is not null and sign is not null"

    async def looked_up() -> int:
        return len(instance.looked_up) if await told.z.app.pool.fetchval(count) else 0

    await hurried(told, looked_up, lambda found: found >= times)


async def records_are_read(told: Story, host: Any, times: int = 2) -> None:
    """Wait until the host was asked for its records so often; what came of all but the last is kept."""
    wanted = len(host.listed) + times

    await hurried(told, lambda: listed(host), lambda found: found >= wanted)


async def whole(told: Story, channel: str) -> Any:
    """Return all that an operator is shown of a channel."""
    return await told.z.get(f"/channels/{channel}")


@asynccontextmanager
async def watched(
    dsn: str, version: str = "2.3.6", **settings: Any
) -> AsyncIterator[tuple[Story, Any, Any, str]]:
    """Yield a story with one open channel, whose records say open, too: told, host, instance, channel."""
    async with story(dsn, **{**PATIENT, **settings}) as told:
        host = await told.fleet.evolution(version=version)
        instance = host.add("loja-01")
        yield told, host, instance, await told.watch(host, instance)


@pytest.mark.parametrize("version", ["2.2.3", "2.3.6"])
async def test_open_but_dead_is_found_and_told_with_what_helps(dsn: str, version: str) -> None:
    async with watched(dsn, version) as (told, _, instance, channel):
        instance.die_open(recorded="close")

        await is_found_dead(told, channel)
        incident = await told.z.incident(channel)

        assert incident["kind"] == "error"
        assert "Reinicie o processo do gateway" in (await told.z.state(channel))["reason"]["text"]
        assert (await whole(told, channel))["suspected_since"] is not None
        assert [e["name"] for e in await told.z.events(channel) if e["trigger"] == "deaf"] == ["deep_probe"]
        assert len(instance.looked_up) == 1


async def test_gateway_that_goes_on_saying_open_heals_nothing(dsn: str) -> None:
    async with watched(dsn) as (told, _, instance, channel):
        instance.die_open(recorded="close")
        await is_found_dead(told, channel)

        for _ in range(3):
            await told.z.client.post(f"/channels/{channel}/check")
        checked = (await told.z.client.post(f"/channels/{channel}/check")).json()

        assert (checked["outcome"], checked["state"]) == ("open", "error")
        assert await told.z.stands(channel) == DEAD


async def test_stale_records_of_a_good_channel_cost_one_deep_probe_and_no_incident(dsn: str) -> None:
    async with watched(dsn) as (told, host, instance, channel):
        instance.recorded = "close"

        await is_looked_up(told, instance)
        for _ in range(3):
            await end_budget(told)
            await records_are_read(told, host)

        assert len(instance.looked_up) == 1
        assert (await whole(told, channel))["suspected_since"] is None
        assert await told.z.stands(channel) == ("open", None, None)
        assert await told.all_incidents() == []


async def test_another_end_on_record_is_another_sign(dsn: str) -> None:
    async with watched(dsn) as (told, host, instance, _):
        instance.recorded = "close"
        await is_looked_up(told, instance)
        await records_are_read(told, host)
        await end_budget(told)

        instance.ended = 401, "{}", instance._now()

        await is_looked_up(told, instance, 2)


async def test_silence_alone_never_starts_a_deep_probe(dsn: str) -> None:
    async with watched(dsn) as (told, host, silent, channel):
        silent.die_open()
        suspected = host.add("loja-02")
        await told.watch(host, suspected)
        suspected.recorded = "close"

        await is_looked_up(told, suspected)
        await end_budget(told)
        await records_are_read(told, host)

        assert silent.looked_up == []
        assert await told.z.stands(channel) == ("open", None, None)


@pytest.mark.parametrize("recorded", ["open", "connecting"])
async def test_records_that_say_more_or_less_than_close_are_everyday(dsn: str, recorded: str) -> None:
    async with watched(dsn) as (told, host, instance, channel):
        instance.ended = 401, "{}", instance._now()
        instance.recorded = recorded

        await records_are_read(told, host, 3)

        assert instance.looked_up == []
        assert (await whole(told, channel))["suspected_since"] is None


async def test_two_replicas_probe_deeply_once_in_ten_minutes(dsn: str) -> None:
    settings = {**compressed(SPEED), **PATIENT}
    async with open_fleet(speed=SPEED) as fleet, served(dsn, **settings) as z, served(dsn, **settings):
        told = Story(z, fleet)
        host = await fleet.evolution()
        instance = host.add("loja-01")
        channel = await told.watch(host, instance)
        instance.die_open(recorded="close")

        await is_found_dead(told, channel)
        await records_are_read(told, await another_host(told), 4)

        assert len(instance.looked_up) == 1
        await end_budget(told)
        await is_looked_up(told, instance, 2)
        await records_are_read(told, await another_host(told), 4)
        assert len(instance.looked_up) == 2


async def another_host(told: Story) -> Any:
    """Return a host with one open channel."""
    host = await told.fleet.evolution()
    await told.watch(host, host.add("outra"))
    return host


async def test_one_key_of_the_host_reads_the_records_of_all_its_channels_at_once(dsn: str) -> None:
    async with story(dsn, **PATIENT) as told:
        host, other = await told.fleet.evolution(), await another_host(told)
        for number in range(5):
            await told.watch(host, host.add(f"loja-{number}", key=host.key))
        pool = told.z.app.pool
        await pool.execute("update zapwatch_gateways set records_due_at = 'infinity'")
        await is_listed(told, other)
        before = len(host.listed)

        await pool.execute(LOOK_AT, host.url)
        await told.z.until(lambda: listed(host), lambda found: found > before, within=40)
        await is_listed(told, other)

        assert len(host.listed) == before + 1


async def listed(host: Any) -> int:
    """Return how often a host was asked for its records."""
    return len(host.listed)


async def is_listed(told: Story, host: Any) -> None:
    """Wait until this host alone was asked twice more: what began before is over then."""
    wanted = len(host.listed) + 2

    async def looked_at() -> int:
        await told.z.app.pool.execute(LOOK_AT, host.url)
        return len(host.listed)

    await told.z.until(looked_at, lambda found: found >= wanted, within=40)


async def test_gateway_on_which_nothing_is_open_is_not_asked_for_records(dsn: str) -> None:
    async with story(dsn, **PATIENT) as told:
        host = await told.fleet.evolution()
        instance = host.add("loja-01", "close")
        instance.lose("close")
        await told.watch(host, instance, state="disconnected")

        await records_are_read(told, await another_host(told), 3)

        assert host.listed == []


async def test_gateway_whose_list_is_its_memory_is_not_asked_for_records(dsn: str) -> None:
    async with watched(dsn, "1.8.2") as (told, host, _, _):
        other = await another_host(told)

        await records_are_read(told, other, 3)

        assert host.listed == []


async def test_new_process_of_the_gateway_brings_the_channel_back(dsn: str) -> None:
    async with watched(dsn) as (told, host, instance, channel):
        instance.die_open(recorded="close")
        await is_found_dead(told, channel)
        await told.z.incident(channel)

        await host.restart()

        await told.becomes(channel, "open")
        assert await told.open_incidents() == {}
        (incident,) = await told.all_incidents()
        assert incident["details"]["resolved"] == "recovered"


async def test_channel_without_webhooks_comes_back_by_the_next_deep_probe(dsn: str) -> None:
    async with watched(dsn) as (told, host, instance, channel):
        instance.webhook = None
        instance.die_open(recorded="close")
        await is_found_dead(told, channel)
        instance.come_back()
        instance.recorded = "open"
        await told.asked(instance, 2)
        await records_are_read(told, await another_host(told))
        assert await told.z.stands(channel) == DEAD

        await end_budget(told)

        await hurried(told, lambda: told.z.stands(channel), lambda stands: stands[0] == "open")
        assert len(instance.looked_up) == 2
        await records_are_read(told, host)
        assert (await whole(told, channel))["suspected_since"] is None


async def test_live_traffic_brings_the_channel_back(dsn: str) -> None:
    async with watched(dsn, stale_after=timedelta(hours=1)) as (told, _, instance, channel):
        instance.die_open(recorded="close")
        await is_found_dead(told, channel)

        instance.is_mute = False
        instance.message()

        await told.becomes(channel, "open")


@pytest.mark.parametrize("fault", [Fault.HANG, Fault.EMPTY_400])
async def test_deep_probe_that_brings_nothing_back_is_confirmed_once(dsn: str, fault: Fault) -> None:
    async with watched(dsn, probe_timeout=timedelta(seconds=2)) as (told, _, instance, channel):
        instance.lookup_fault = fault
        instance.recorded = "close"
        await is_looked_up(told, instance)
        assert await told.z.stands(channel) == ("open", None, None)
        suspected = await whole(told, channel)

        await end_budget(told)
        await is_found_dead(told, channel)

        assert len(instance.looked_up) == 2
        assert suspected["suspected_since"] is not None
        found = await told.z.state(channel)
        assert suspected["suspected_since"] <= found["first_unhealthy_at"]


async def test_life_between_two_deep_probes_that_bring_nothing_back_parts_them(dsn: str) -> None:
    async with watched(dsn, stale_after=timedelta(hours=1)) as (told, host, instance, channel):
        instance.lookup_fault = Fault.EMPTY_400
        instance.recorded = "close"
        await is_looked_up(told, instance)

        instance.webhook = told.z.hooks[channel]
        instance.connect()
        await instance.said()
        instance.recorded = "close"
        await end_budget(told)
        await is_looked_up(told, instance, 2)
        await records_are_read(told, host)

        assert await told.z.stands(channel) == ("open", None, None)


@pytest.mark.parametrize(
    "fault",
    [Fault.UNAVAILABLE, Fault.UNAUTHORIZED, Fault.NOT_FOUND, Fault.HTML_200, Fault.SERVER_ERROR, Fault.RESET],
)
async def test_trouble_of_the_gateway_says_nothing_about_the_channel(dsn: str, fault: Fault) -> None:
    async with watched(dsn) as (told, host, instance, channel):
        instance.lookup_fault = fault
        instance.recorded = "close"

        await is_looked_up(told, instance)
        await end_budget(told)
        await is_looked_up(told, instance, 2)
        await records_are_read(told, host)

        assert await told.z.stands(channel) == ("open", None, None)
        assert (await whole(told, channel))["suspected_since"] is not None


async def test_channel_that_its_gateway_no_longer_calls_open_is_not_probed_deeply(dsn: str) -> None:
    async with watched(dsn, stale_after=timedelta(hours=1)) as (told, _, instance, channel):
        instance.lose("close")
        instance.recorded = "close"

        await hurried(told, lambda: told.z.stands(channel), lambda stands: stands[0] == "disconnected")

        assert instance.looked_up == []


async def test_replay_of_being_found_dead_and_coming_back_gives_the_same(
    dsn: str, connection: Connection
) -> None:
    async with watched(dsn) as (told, _, instance, channel):
        instance.die_open(recorded="close")
        await is_found_dead(told, channel)
        await told.z.incident(channel)
        await told.asked(instance, 2)
        dead, _ = await replay(connection, UUID(channel))
        assert (dead.state.shown, dead.status.reason, False) == DEAD
        instance.webhook = None
        instance.come_back()
        await end_budget(told)
        await hurried(told, lambda: told.z.stands(channel), lambda stands: stands[0] == "open")

        replayed, effects = await replay(connection, UUID(channel))

        assert replayed.state.shown == "open"
        assert [type(effect) for effect in effects] == [Open, Resolve]
        (incident,) = await told.all_incidents()
        opened = next(effect.incident for effect in effects if isinstance(effect, Open))
        assert opened.started_at.isoformat() == incident["started_at"].replace("Z", "+00:00")


async def test_deep_probes_are_counted_by_what_they_showed(dsn: str) -> None:
    async with watched(dsn) as (told, _, instance, channel):
        instance.die_open(recorded="close")
        await is_found_dead(told, channel)

        exposed = (await told.z.client.get("/metrics")).text

        assert 'zapwatch_deep_probes_total{outcome="dead",provider="evolution_api"} 1.0' in exposed
