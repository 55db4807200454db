"""What happens to channels, told by gateways that misbehave and seen by an operator over HTTP."""

from datetime import timedelta
from typing import Any

from receiver.sandbox import Fault
from tests.support.story import Story, story

UNHURRIED: dict[str, Any] = {"stale_after": timedelta(hours=1), "retry_after": timedelta(hours=1)}
"""Settings under which a channel is only probed when something puts it in doubt."""


async def nothing_happened(told: Story, *channels: str) -> None:
    """The channels are open and no incident was ever opened."""
    for channel in channels:
        assert (await told.z.state(channel))["state"] == "open"
    assert await told.all_incidents() == []


async def test_an_evolution_channel_that_vanishes_without_a_word_is_found(dsn: str) -> None:
    async with story(dsn) as told:
        host = await told.fleet.evolution()
        kept = await told.watch(host, host.add("loja-01"))
        lost_instance = host.add("loja-02")
        lost = await told.watch(host, lost_instance)

        lost_instance.vanish()

        shown = await told.becomes(lost, "disconnected", "session_missing")
        assert shown["reason"]["terminal"] is True
        assert shown["reason"]["status"] == 404
        assert (await told.z.incident(lost))["kind"] == "disconnected"
        assert list(await told.open_incidents()) == [lost]
        assert (await told.z.state(kept))["state"] == "open"


async def test_a_w_api_channel_that_vanishes_without_a_word_is_found(dsn: str) -> None:
    async with story(dsn) as told:
        host = await told.fleet.wapi()
        instances = [host.add() for _ in range(4)]
        channels = await told.watch_all(host, instances)

        instances[1].vanish()

        shown = await told.becomes(channels[1], "disconnected", "session_missing")
        assert shown["reason"]["terminal"] is True
        await told.z.incident(channels[1])
        assert list(await told.open_incidents()) == [channels[1]]


async def test_most_of_a_w_api_gateways_channels_can_be_lost(dsn: str) -> None:
    async with story(dsn) as told:
        host = await told.fleet.wapi()
        instances = [host.add() for _ in range(5)]
        channels = await told.watch_all(host, instances)

        for instance in instances[1:]:
            instance.vanish()

        for channel in channels[1:]:
            await told.becomes(channel, "disconnected", "session_missing")
        assert (await told.z.state(channels[0]))["state"] == "open"


async def test_a_404_for_every_w_api_channel_is_the_gateways_fault(dsn: str) -> None:
    async with story(dsn) as told:
        host = await told.fleet.wapi()
        channels = await told.watch_all(host, [host.add() for _ in range(4)])

        host.fault = Fault.HTML_NOT_FOUND

        for channel in channels:
            shown = await told.becomes(channel, "error")
            assert shown["reason"]["code"] == "unreachable"
        host.fault = None
        for channel in channels:
            await told.becomes(channel, "open")
        assert not any(
            "session_missing" in str(incident["details"]) for incident in await told.all_incidents()
        )


async def test_two_w_api_channels_that_both_answer_404_are_both_lost(dsn: str) -> None:
    async with story(dsn) as told:
        host = await told.fleet.wapi()
        instances = [host.add() for _ in range(2)]
        channels = await told.watch_all(host, instances)

        for instance in instances:
            instance.vanish()

        for channel in channels:
            await told.becomes(channel, "disconnected", "session_missing")


async def test_one_404_is_no_loss(dsn: str) -> None:
    async with story(dsn) as told:
        host = await told.fleet.evolution()
        instance = host.add("loja-01")
        channel = await told.watch(host, instance)

        instance.fault = Fault.NOT_FOUND
        await told.asked(instance)
        instance.fault = None
        await told.asked(instance, 2)

        await nothing_happened(told, channel)


async def test_pages_instead_of_answers_are_an_error_and_no_loss(dsn: str) -> None:
    async with story(dsn) as told:
        host = await told.fleet.evolution()
        instances = [host.add(f"loja-{n}") for n in range(3)]
        channels = await told.watch_all(host, instances)

        host.fault = Fault.HTML_NOT_FOUND

        for channel in channels:
            shown = await told.becomes(channel, "error", "unreachable")
            assert shown["reason"]["terminal"] is False
        assert {i["kind"] for i in (await told.open_incidents()).values()} <= {"error"}
        host.fault = None
        for channel in channels:
            await told.becomes(channel, "open")


async def test_channels_that_hang_are_an_error_until_they_answer(dsn: str) -> None:
    async with story(dsn) as told:
        host = await told.fleet.evolution()
        soon: dict[str, Any] = {"metadata": {"heartbeat_threshold_minutes": 0.01}}
        instances = [host.add(f"loja-{n}") for n in range(4)]
        healthy, *channels = await told.watch_all(host, instances, **soon)

        for instance in instances[1:]:
            instance.fault = Fault.HANG

        for channel in channels:
            await told.becomes(channel, "error", "unreachable")
            await told.z.incident(channel)
        assert (await told.z.state(healthy))["state"] == "open"
        for instance in instances[1:]:
            instance.fault = None
        for channel in channels:
            await told.becomes(channel, "open")
        assert await told.open_incidents() == {}


async def test_a_status_that_hangs_does_not_cover_a_w_api_disconnect(dsn: str) -> None:
    async with story(dsn) as told:
        host = await told.fleet.wapi()
        instance = host.add()
        channel = await told.watch(host, instance)
        await told.watch(host, host.add())

        instance.fault = Fault.HANG
        instance.disconnect()
        await told.becomes(channel, "disconnected", "disconnected")
        await told.asked(instance, 4)

        assert await told.z.stands(channel) == ("disconnected", "disconnected", False)
        assert (await told.z.incident(channel))["kind"] == "disconnected"


async def test_a_w_api_status_without_a_byte_is_an_error(dsn: str) -> None:
    async with story(dsn) as told:
        host = await told.fleet.wapi()
        instance = host.add()
        channel = await told.watch(host, instance)

        instance.fault = Fault.HANG

        await told.becomes(channel, "error", "unreachable")
        instance.message()
        await told.becomes(channel, "open")


async def test_a_confirmed_w_api_disconnect_needs_a_scan(dsn: str) -> None:
    async with story(dsn) as told:
        host = await told.fleet.wapi()
        instance = host.add()
        channel = await told.watch(host, instance)

        instance.disconnect()

        shown = await told.becomes(channel, "disconnected", "disconnected")
        while not shown["reason"]["terminal"]:
            shown = await told.becomes(channel, "disconnected", "disconnected")
        assert (await told.z.incident(channel))["kind"] == "disconnected"


async def test_a_false_w_api_disconnect_is_taken_back_by_the_probe(dsn: str) -> None:
    async with story(dsn, **UNHURRIED) as told:
        host = await told.fleet.wapi()
        instance = host.add()
        channel = await told.watch(host, instance)

        instance.false_disconnect()
        await instance.said()

        await told.becomes(channel, "open")
        assert await told.all_incidents() == []
        assert "dropped" in {event["trigger"] for event in await told.z.events(channel)}


async def test_a_boot_window_without_state_is_nothing(dsn: str) -> None:
    async with story(dsn) as told:
        host = await told.fleet.evolution()
        instance = host.add("loja-01")
        channel = await told.watch(host, instance)

        instance.fault = Fault.NO_STATE
        await told.asked(instance, 2)
        instance.fault = None
        await told.asked(instance, 2)

        await nothing_happened(told, channel)


async def test_an_instance_that_is_never_loaded_is_an_error(dsn: str) -> None:
    async with story(dsn) as told:
        host = await told.fleet.evolution()
        instance = host.add("loja-01")
        channel = await told.watch(host, instance)

        instance.fault = Fault.NO_STATE

        shown = await told.becomes(channel, "error", "not_loaded")
        assert shown["reason"]["terminal"] is False


async def test_a_wrong_key_is_named(dsn: str) -> None:
    async with story(dsn) as told:
        host = await told.fleet.evolution()
        instance = host.add("loja-01")
        channel = await told.watch(host, instance)

        instance.fault = Fault.UNAUTHORIZED

        shown = await told.becomes(channel, "error", "unauthorized")
        assert shown["reason"]["status"] == 401
        assert (await told.z.incident(channel))["kind"] == "error"


async def test_a_late_close_moves_nothing_and_has_the_gateway_asked_at_once(dsn: str) -> None:
    async with story(dsn, **UNHURRIED) as told:
        host = await told.fleet.evolution(version="2.2.0")
        instance = host.add("loja-01")
        channel = await told.watch(host, instance)
        instance.connect()
        await instance.said()
        asked = len(instance.probed)

        instance.say_late(30, "close", 428)
        await told.asked(instance, asked + 1 - len(instance.probed))

        await nothing_happened(told, channel)
        assert "disconnected" not in {event["state"] for event in await told.z.events(channel)}


async def test_a_probe_settles_what_a_late_webhook_puts_in_doubt(dsn: str) -> None:
    async with story(dsn, **UNHURRIED) as told:
        host = await told.fleet.evolution(version="2.2.0")
        instance = host.add("loja-01")
        channel = await told.watch(host, instance)
        instance.say_late(0, "close", 428)
        await told.becomes(channel, "disconnected", "connection_closed")

        # It is open again, but of all its webhooks only one of before comes through.
        instance.say_late(10, "open")

        await told.becomes(channel, "open")
        assert await told.all_incidents() == []


async def test_a_false_close_of_a_probe_in_a_flood_is_no_disconnect(dsn: str) -> None:
    # Slow enough that between two false answers a webhook is taken.
    async with story(dsn, speed=50) as told:
        host = await told.fleet.evolution()
        instance = host.add("loja-01")
        channel = await told.watch(host, instance)

        instance.fault = Fault.FLIPPING
        instance.flood(1000, pace=2)
        await told.asked(instance, 2)
        states = {event["state"] for event in await told.z.events(channel)}
        instance.fault = None
        instance.connect()
        await instance.said()

        await told.becomes(channel, "open")
        assert states == {"open", "connecting"}


async def test_a_false_close_webhook_in_a_flood_is_no_incident(dsn: str) -> None:
    async with story(dsn) as told:
        host = await told.fleet.evolution()
        instance = host.add("loja-01")
        channel = await told.watch(host, instance)

        await instance.flood(60, pace=20, false_close=True)
        instance.connect()
        await instance.said()

        await told.becomes(channel, "open")
        assert await told.all_incidents() == []
        assert {event["reason"] for event in await told.z.events(channel)} >= {
            "connection_closed",
            "connecting",
        }


async def test_a_qr_that_nobody_scans_asks_for_a_scan(dsn: str) -> None:
    async with story(dsn) as told:
        host = await told.fleet.evolution()
        instance = host.add("loja-01")
        channel = await told.watch(host, instance)

        instance.unlink()
        await told.becomes(channel, "disconnected", "logged_out")
        instance.show_qr(times=3)

        await told.becomes(channel, "qr_pending", "scan_needed")
        assert (await told.z.incident(channel))["kind"] in ("qr_pending", "disconnected")
        await told.becomes(channel, "disconnected", "qr_limit")
        (incident,) = await told.all_incidents()
        assert incident["kind"] == "disconnected"
        assert incident["details"]["reason"] == "qr_limit"


async def test_a_twilio_sender_is_watched_by_probes_alone(dsn: str) -> None:
    async with story(dsn) as told:
        host = await told.fleet.twilio()
        sender = host.add()
        channel = await told.watch(host, sender)

        sender.become("OFFLINE")

        await told.becomes(channel, "disconnected", "disconnected")
        assert (await told.z.incident(channel))["kind"] == "disconnected"
        (incident,) = await told.all_incidents()
        assert incident["details"]["offline_reasons"][0]["code"].isdigit()
        sender.become("ONLINE")
        await told.becomes(channel, "open")
        assert await told.open_incidents() == {}


async def test_an_evolution_v1_channel_is_watched_like_one_of_v2(dsn: str) -> None:
    async with story(dsn) as told:
        host = await told.fleet.evolution(version="1.8.2")
        instance = host.add("loja-01")
        channel = await told.watch(host, instance)

        instance.unlink()

        await told.becomes(channel, "disconnected", "logged_out")
        await told.z.incident(channel)
