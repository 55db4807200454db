"""Channels lost for a moment are brought back by their gateways' own rules; the others are left alone."""

from datetime import timedelta
from functools import partial
from itertools import pairwise
from typing import Any

import httpx
import pytest

from db.connection.types import Connection
from receiver.sandbox import Fault, open_fleet
from tests.support.service import served, time
from tests.support.story import Story, compressed, story

SPEED = 20.0
"""How fast time runs: a lost session has 3 s for its recovery, and orders are a quarter of a second apart."""
LONG = 40
"""Seconds that a story may take for what it tells."""
AUTO_OFF: dict[str, Any] = {"metadata": {"auto_recovery": False, "heartbeat_threshold_minutes": 5 / SPEED}}


async def last_recovery(told: Story, channel: str) -> Any:
    """What the gateway was told last about a channel."""
    return (await told.z.get(f"/channels/{channel}"))["recovery"]["last"]


async def ended(told: Story, channel: str, outcome: str) -> Any:
    """The last recovery once it has this outcome."""
    return await told.z.until(
        lambda: last_recovery(told, channel),
        lambda last: last is not None and last["outcome"] == outcome,
        LONG,
    )


async def restart(told: Story, channel: str) -> httpx.Response:
    """Ask for a recovery by hand."""
    return await told.z.client.post(f"/channels/{channel}/restart", timeout=LONG)


def orders(instance: Any) -> list[str]:
    """What an instance was told to do."""
    return [ordered.what for ordered in instance.ordered]


async def stands_for(told: Story, channel: str, seconds: float) -> None:
    """Wait until the channel's state is so many compressed seconds old."""
    since = time((await told.z.state(channel))["since"])
    pool = told.z.app.pool
    age = "select extract(epoch from clock_timestamp() - $1)::float8"
    await told.z.until(lambda: pool.fetchval(age, since), lambda gone: gone > seconds / SPEED, LONG)


async def test_a_lost_w_api_session_is_restarted_and_nobody_is_told(dsn: str) -> None:
    async with story(dsn, SPEED) as told:
        host = await told.fleet.wapi()
        instance = host.add()
        channel = await told.watch(host, instance)

        instance.restarts_needed = 2
        instance.disconnect()

        last = await ended(told, channel, "recovered")
        await told.becomes(channel, "open")
        assert (last["action"], last["asked_by"], last["tries"]) == ("restart", "clock", 2)
        assert orders(instance) == ["restart"] * 2
        assert await told.all_incidents() == []
        events = await told.z.events(channel)
        recoveries = [event for event in events if event["name"] == "recovery"]
        assert [(e["source"], e["data"]["outcome"]) for e in recoveries] == [("deadline", "recovered")]
        assert {"disconnected", "open"} <= {event["state"] for event in events}
        metrics = (await told.z.client.get("/metrics")).text
        assert 'zapwatch_recoveries_total{outcome="recovered",provider="wapi"} 1.0' in metrics
        columns = "select auto_recovery_attempts, last_recovery_at is not null from notification_channels"
        row = await told.z.app.pool.fetchrow(columns)
        assert row is not None
        assert tuple(row) == (2, True)


async def test_a_w_api_session_that_three_restarts_do_not_bring_back_needs_a_scan(dsn: str) -> None:
    async with story(dsn, SPEED) as told:
        host = await told.fleet.wapi()
        instance = host.add()
        channel = await told.watch(host, instance)

        instance.disconnect()

        shown = await told.becomes(channel, "disconnected", "disconnected")
        assert (shown["reason"]["terminal"], shown["incident"]) == (False, None)
        last = await ended(told, channel, "failed")
        assert last["tries"] == 3
        assert orders(instance) == ["restart"] * 3
        gaps = [b.at - a.at for a, b in pairwise(instance.ordered)]
        assert min(gaps) > 0.95 * 5 / SPEED
        assert await told.z.stands(channel) == ("disconnected", "disconnected", True)
        assert (await told.z.incident(channel))["kind"] == "disconnected"


async def test_a_session_that_nothing_tries_to_bring_back_counts_as_lost_after_a_minute(dsn: str) -> None:
    async with story(dsn, SPEED) as told:
        host = await told.fleet.wapi()
        instance = host.add()
        channel = await told.watch(host, instance)

        await told.z.app.pool.execute("drop table zapwatch_recoveries")
        instance.disconnect()

        shown = await told.becomes(channel, "disconnected", "disconnected")
        assert shown["reason"]["terminal"] is False
        terminal = await told.z.until(lambda: told.z.stands(channel), lambda stands: stands[2], LONG)
        assert terminal == ("disconnected", "disconnected", True)
        assert (await told.z.incident(channel))["kind"] == "disconnected"
        assert orders(instance) == []


async def test_a_w_api_session_without_a_phone_is_restarted(dsn: str) -> None:
    async with story(dsn, SPEED) as told:
        host = await told.fleet.wapi()
        instance = host.add()
        channel = await told.watch(host, instance)

        instance.restarts_needed = 1
        instance.lose_phone()

        last = await ended(told, channel, "recovered")
        assert (last["action"], orders(instance)) == ("restart", ["restart"])
        assert await told.all_incidents() == []


@pytest.mark.parametrize(("version", "order"), [("1.8.2", "PUT restart"), ("2.3.6", "POST restart")])
async def test_an_evolution_that_is_stuck_in_connecting_is_freed_by_its_versions_restart(
    dsn: str, version: str, order: str
) -> None:
    async with story(dsn, SPEED) as told:
        host = await told.fleet.evolution(version)
        instance = host.add("loja-01")
        channel = await told.watch(host, instance)

        instance.stick()

        await told.becomes(channel, "connecting")
        last = await ended(told, channel, "recovered")
        shown = await told.becomes(channel, "open")
        assert orders(instance) == [order]
        assert (last["action"], last["tries"]) == ("restart", 1)
        assert shown["incident"] is None
        assert await told.all_incidents() == []


async def test_a_fresh_connecting_is_left_to_the_gateway(dsn: str) -> None:
    async with story(dsn, SPEED) as told:
        host = await told.fleet.evolution()
        instance = host.add("loja-01")
        channel = await told.watch(host, instance)

        instance.stick()
        shown = await told.becomes(channel, "connecting")
        early = await restart(told, channel)
        await ended(told, channel, "recovered")

        assert early.status_code == 409
        assert "may open by itself" in early.json()["detail"]
        (event,) = [e for e in await told.z.events(channel) if e["name"] == "recovery"]
        assert (time(event["received_at"]) - time(shown["since"])).total_seconds() >= 60 / SPEED


async def test_a_dropped_evolution_is_connected(dsn: str) -> None:
    async with story(dsn, SPEED) as told:
        host = await told.fleet.evolution()
        instance = host.add("loja-01")
        channel = await told.watch(host, instance)

        instance.lose("close")

        last = await ended(told, channel, "recovered")
        await told.becomes(channel, "open")
        assert (last["action"], orders(instance)) == ("connect", ["connect"])
        assert await told.all_incidents() == []


async def test_an_error_inside_of_a_200_is_a_failed_restart(dsn: str) -> None:
    async with story(dsn, SPEED) as told:
        host = await told.fleet.evolution()
        instance = host.add("loja-01")
        soon: dict[str, Any] = {"metadata": {"heartbeat_threshold_minutes": 2 / SPEED}}
        channel = await told.watch(host, instance, **soon)

        instance.order_fault = Fault.ERROR_200
        instance.stick()

        last = await ended(told, channel, "failed")
        assert (last["tries"], orders(instance)) == (3, ["POST restart"] * 3)
        (event,) = [e for e in await told.z.events(channel) if e["name"] == "recovery"]
        assert event["data"]["problem"] == "an error inside of a 200"
        assert (await told.z.incident(channel))["kind"] == "connecting"
        assert orders(instance) == ["POST restart"] * 3


async def test_silence_of_the_gateway_is_no_reason_for_an_order(dsn: str) -> None:
    async with story(dsn, SPEED) as told:
        host = await told.fleet.evolution()
        hanging, refusing = host.add("loja-01"), host.add("loja-02")
        channel, stuck = await told.watch(host, hanging), await told.watch(host, refusing)
        for number in range(3, 9):  # others answer, so that it isn't the whole gateway's trouble
            await told.watch(host, host.add(f"loja-{number:02}"))

        hanging.fault = Fault.HANG
        refusing.stick()
        await told.becomes(stuck, "connecting")
        refusing.fault = Fault.HANG

        for silent in (channel, stuck):
            await told.z.until(partial(told.z.stands, silent), lambda stands: stands[0] == "error", LONG)
        await stands_for(told, channel, 70)
        assert orders(hanging) == orders(refusing) == []
        answer = await restart(told, channel)
        assert answer.status_code == 409
        assert "doesn't answer" in answer.json()["detail"]
        assert orders(hanging) == []


async def test_a_lost_session_that_only_a_scan_brings_back_is_given_no_order(dsn: str) -> None:
    async with story(dsn, SPEED) as told:
        evolution, wapi = await told.fleet.evolution(), await told.fleet.wapi()
        unlinked, vanished = evolution.add("loja-01"), wapi.add()
        channels = [await told.watch(evolution, unlinked), await told.watch(wapi, vanished)]

        unlinked.unlink()
        vanished.vanish()

        for channel in channels:
            await told.z.incident(channel)
            await stands_for(told, channel, 70)
            answer = await restart(told, channel)
            assert answer.status_code == 409
            assert "only a new scan" in answer.json()["detail"]
            assert answer.headers["Content-Type"] == "application/problem+json"
        unlinked.show_qr()
        await told.becomes(channels[0], "qr_pending")
        assert (await restart(told, channels[0])).status_code == 409
        assert orders(unlinked) == orders(vanished) == []


async def test_a_channel_without_auto_recovery_is_only_restarted_by_hand(dsn: str) -> None:
    async with story(dsn, SPEED) as told:
        evolution, wapi = await told.fleet.evolution(), await told.fleet.wapi()
        stuck, lost = evolution.add("loja-01"), wapi.add()
        channel, terminal = (
            await told.watch(evolution, stuck, **AUTO_OFF),
            await told.watch(wapi, lost, **AUTO_OFF),
        )

        stuck.stick()
        lost.disconnect()

        await told.z.until(lambda: told.z.stands(terminal), lambda stands: stands[2])
        await told.becomes(channel, "connecting")
        await stands_for(told, channel, 75)
        assert orders(stuck) == orders(lost) == []
        answer = await restart(told, channel)
        assert answer.status_code == 200, answer.text
        assert answer.json() | {"probe": None} == {
            "action": "restart",
            "outcome": "recovered",
            "problem": None,
            "tries": 1,
            "probe": None,
            "state": "open",
        }
        assert answer.json()["probe"]["outcome"] == "open"
        assert (await last_recovery(told, channel))["asked_by"] == "operator"
        assert orders(stuck) == ["POST restart"]


async def test_by_hand_it_is_tried_three_times_and_then_refused_for_half_an_hour(dsn: str) -> None:
    async with story(dsn, SPEED) as told:
        host = await told.fleet.evolution()
        instance = host.add("loja-01")
        channel = await told.watch(host, instance, **AUTO_OFF)
        instance.order_fault = Fault.SERVER_ERROR
        instance.stick()
        await told.becomes(channel, "connecting")
        await stands_for(told, channel, 65)

        answers: list[httpx.Response] = []
        while len(answers) < 3:
            answer = await restart(told, channel)
            if answer.status_code != 429:  # its gap may not be over
                answers.append(answer)
        refused = await restart(told, channel)

        assert [answer.status_code for answer in answers] == [200] * 3
        assert [answer.json()["tries"] for answer in answers] == [1, 2, 3]
        assert {answer.json()["problem"] for answer in answers} == {"HTTP 500"}
        assert {answer.json()["outcome"] for answer in answers} == {"failed"}
        assert refused.status_code == 429
        assert 0 < int(refused.headers["Retry-After"]) <= 30 * 60 / SPEED
        assert refused.headers["Content-Type"] == "application/problem+json"
        assert orders(instance) == ["POST restart"] * 3


async def test_by_hand_what_can_not_help_is_refused_with_the_reason(dsn: str) -> None:
    async with story(dsn, SPEED) as told:
        evolution, twilio = await told.fleet.evolution(), await told.fleet.twilio()
        instance, sender = evolution.add("loja-01"), twilio.add()
        healthy, told_nothing = await told.watch(evolution, instance), await told.watch(twilio, sender)
        unconfigured = await told.z.channel("loja-02", "evolution_api")
        paused = await told.watch(evolution, evolution.add("loja-03"))
        await told.z.client.post(f"/channels/{paused}/pause")

        said = {
            channel: await restart(told, channel) for channel in (healthy, told_nothing, unconfigured, paused)
        }

        assert {answer.status_code for answer in said.values()} == {409}
        assert [answer.json()["detail"] for answer in said.values()] == [
            "It is open.",
            "Its gateway can't be told to restart it.",
            "It has no address or no key.",
            "It is paused or inactive.",
        ]
        assert (await restart(told, "00000000-0000-4000-8000-000000000000")).status_code == 404
        assert (await told.z.get(f"/channels/{healthy}"))["recovery"] == {
            "remedies": ["connect", "restart"],
            "last": None,
        }
        assert (await told.z.get(f"/channels/{told_nothing}"))["recovery"]["remedies"] == []
        assert orders(instance) == []


async def test_a_session_lost_again_within_half_an_hour_is_not_restarted_again(dsn: str) -> None:
    async with story(dsn, SPEED) as told:
        host = await told.fleet.wapi()
        instance = host.add()
        channel = await told.watch(host, instance)
        instance.restarts_needed = 1
        instance.disconnect()
        await ended(told, channel, "recovered")
        await told.becomes(channel, "open")

        instance.restarts_needed = 1
        instance.disconnect()

        await told.z.until(lambda: told.z.stands(channel), lambda stands: stands[2], LONG)
        await told.z.incident(channel)
        assert orders(instance) == ["restart"]


async def test_a_host_that_is_back_with_all_its_channels_stuck_restarts_ten_a_minute(dsn: str) -> None:
    async with story(dsn, SPEED) as told:
        host = await told.fleet.evolution()
        instances = [host.add(f"loja-{n:02}") for n in range(25)]
        channels = [await told.watch(host, instance, None) for instance in instances]
        for channel in channels:
            await told.becomes(channel, "open")

        for instance in instances:
            instance.stick()

        for channel in channels:
            await told.z.until(partial(told.z.stands, channel), lambda stands: stands[0] == "open", 60)
        assert all(orders(instance) == ["POST restart"] for instance in instances)
        tries = await told.z.app.pool.fetch(
            "select t.at from zapwatch_recoveries cross join unnest(tried_at) as t (at) order by 1"
        )
        times = [row["at"].timestamp() for row in tries]
        assert len(times) == 25
        assert all(later - earlier > 60 / SPEED for earlier, later in zip(times, times[10:], strict=False))


async def test_in_a_mass_loss_one_is_restarted_first_and_what_opens_by_itself_is_not_recovered(
    dsn: str,
) -> None:
    async with story(dsn, SPEED) as told:
        host = await told.fleet.evolution()
        instances = [host.add(f"loja-{n:02}") for n in range(8)]
        channels = dict(zip(await told.watch_all(host, instances), instances, strict=True))

        for instance in instances:
            instance.order_fault = Fault.SERVER_ERROR
            instance.stick()
        ordered = await told.z.until(
            lambda: told.z.app.pool.fetch(
                "select channel_id::text from zapwatch_recoveries where outcome = 'failed'"
            ),
            lambda rows: rows,
            LONG,
        )
        first = ordered[0]["channel_id"]
        others = [channel for channel in channels if channel != first]
        assert orders(channels[first]) == ["POST restart"] * 3
        assert [orders(channels[channel]) for channel in others] == [[]] * 7
        alone, *rest = others
        channels[alone].come_back()
        await told.becomes(alone, "open")
        for instance in instances:
            instance.order_fault = None
        channels[first].come_back()

        for channel in rest:
            assert (await ended(told, channel, "recovered"))["tries"] == 1
        assert await last_recovery(told, alone) is None
        assert [e for e in await told.z.events(alone) if e["name"] == "recovery"] == []
        row = "select auto_recovery_attempts from notification_channels where id = $1::text::uuid"
        assert await told.z.app.pool.fetchval(row, alone) == 0


async def test_a_silent_gateway_gets_no_order_and_no_budget_is_spent(dsn: str) -> None:
    async with story(dsn, SPEED) as told:
        host = await told.fleet.evolution()
        instances = [host.add(f"loja-{n:02}") for n in range(3)]
        stuck, *_ = await told.watch_all(host, instances)
        instances[0].stick()
        await told.becomes(stuck, "connecting")
        host.fault = Fault.HANG
        await told.becomes(stuck, "error", "gateway_unreachable")

        answer = await restart(told, stuck)

        assert answer.status_code == 409
        assert "whole gateway" in answer.json()["detail"]
        assert [orders(instance) for instance in instances] == [[]] * 3
        tried = "select count(*) from zapwatch_recoveries where last_tried_at is not null"
        assert await told.z.app.pool.fetchval(tried) == 0


async def test_a_w_api_disconnect_without_recovery_opens_its_incident_after_its_grace(dsn: str) -> None:
    speed = 5
    off: dict[str, Any] = {"metadata": {"auto_recovery": False, "heartbeat_threshold_minutes": 60 / speed}}
    async with story(dsn, speed) as told:
        host = await told.fleet.wapi()
        instance = host.add()
        channel = await told.watch(host, instance, **off)

        instance.disconnect()

        await told.z.incident(channel)
        (opened,) = await told.all_incidents()
        after = time(opened["opened_at"]) - time(opened["started_at"])
        assert 15 / speed <= after.total_seconds() < 40 / speed
        assert orders(instance) == []


async def test_what_a_service_leaves_undone_another_goes_on_with_at_once(
    dsn: str, connection: Connection
) -> None:
    tries = "select cardinality(tried_at) from zapwatch_recoveries where ended_at is null"
    async with open_fleet(speed=SPEED) as fleet:
        host = await fleet.wapi()
        instance = host.add()
        unhurried = {**compressed(SPEED), "probe_timeout": timedelta(seconds=8), "recovery_speed": 1.0}
        async with served(dsn, **unhurried) as z:
            first = Story(z, fleet)
            channel = await first.watch(host, instance)
            instance.order_fault = Fault.HANG
            instance.disconnect()
            await z.until(lambda: connection.fetchval(tries), lambda given: given == 1, LONG)
        assert await connection.fetchval("select claimed_until from zapwatch_recoveries") is None

        instance.order_fault, instance.restarts_needed = None, 1
        async with served(dsn, **unhurried) as z:
            last = await ended(Story(z, fleet), channel, "recovered")

        assert last["tries"] == 2
        assert orders(instance) == ["restart"] * 2
