"""What gateways really do, step by step, over HTTP: the sequences of docs/provider-facts.md."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from itertools import permutations
from typing import Any

import pytest

from tests.factories import Evolution
from tests.support.service import SOON, time, zapwatch

AT_ONCE = {"heartbeat_threshold_minutes": SOON}


async def test_first_pairing_opens_no_incident(dsn: str) -> None:
    async with zapwatch(dsn) as z:
        instance = Evolution()
        channel = await z.channel(metadata={"heartbeat_threshold_minutes": 0})

        assert await z.stands(channel) == ("unknown", None, None)
        await z.hear(channel, instance.event("instance.create", {"instanceName": "loja-01"}))
        await z.hear(channel, instance.update("connecting"))
        assert await z.stands(channel) == ("connecting", "connecting", False)
        await z.hear(channel, instance.qr(), instance.update("connecting"), instance.qr())
        assert await z.stands(channel) == ("qr_pending", "qr_shown", False)
        await z.hear(channel, instance.update("close", 515), instance.update("connecting"))
        assert await z.stands(channel) == ("qr_pending", "qr_shown", False)
        await z.hear(channel, instance.update("open"))

        assert await z.stands(channel) == ("open", None, None)
        assert await z.incidents(channel) == []


async def test_flood_of_a_network_loss_is_one_row_and_the_return_ends_it(dsn: str) -> None:
    async with zapwatch(dsn) as z:
        instance = Evolution()
        channel = await z.channel()
        await z.hear(channel, instance.update("open"))

        await z.hear(channel, *(instance.update("connecting") for _ in range(500)))

        assert await z.stands(channel) == ("connecting", "connecting", False)
        flood = (await z.events(channel))[1:]
        assert [(row["trigger"], row["count"], row["deliveries"]) for row in flood] == [
            ("connecting", 500, 1)
        ]
        assert flood[0]["at"] < flood[0]["last_at"]
        await z.hear(channel, instance.update("open"))
        assert await z.stands(channel) == ("open", None, None)
        assert await z.incidents(channel) == []


async def test_connecting_for_ever_is_an_incident_at_the_threshold_and_not_before(dsn: str) -> None:
    async with zapwatch(dsn) as z:
        instance = Evolution()
        channel = await z.channel(metadata=AT_ONCE)
        await z.hear(channel, instance.update("open"), instance.update("connecting"))
        assert (await z.state(channel))["incident"] is None

        opened = await z.incident(channel)

        assert opened["kind"] == "connecting"
        (incident,) = await z.incidents(channel)
        late = time(incident["opened_at"]) - time(incident["started_at"])
        assert timedelta(minutes=SOON) <= late < timedelta(minutes=SOON, seconds=5)
        await z.hear(channel, instance.update("connecting"))
        assert len(await z.incidents(channel)) == 1
        await z.hear(channel, instance.update("open"))
        (incident,) = await z.incidents(channel)
        assert incident["resolved_at"] is not None
        assert (await z.state(channel))["incident"] is None


@pytest.mark.parametrize("order", list(permutations(range(3))))
async def test_phone_unlink_is_terminal_in_each_order_of_its_events(dsn: str, order: tuple[int, ...]) -> None:
    async with zapwatch(dsn) as z:
        instance = Evolution()
        channel = await z.channel()
        await z.hear(channel, instance.update("open"))
        events = [instance.closed(), instance.logout(), instance.update("close", 401)]

        for number in order:
            await z.hear(channel, events[number])
            assert await z.stands(channel) == ("disconnected", "logged_out", True)

        assert (await z.state(channel))["reason"]["status"] == 401
        assert (await z.incident(channel))["kind"] == "disconnected"
        assert len(await z.incidents(channel)) == 1


async def test_api_logout_is_told_from_an_unlink_on_the_phone(dsn: str) -> None:
    async with zapwatch(dsn) as z:
        instance = Evolution()
        channel = await z.channel()
        await z.hear(channel, instance.update("open"))

        events = [
            instance.closed(message="Log out instance: loja-01"),
            instance.logout(),
            instance.update("close", 401),
        ]
        await z.hear(channel, *events)

        assert await z.stands(channel) == ("disconnected", "logged_out_by_api", True)
        assert (await z.incident(channel))["kind"] == "disconnected"


async def test_boot_of_a_logged_out_instance_stays_terminal_until_its_qr(dsn: str) -> None:
    async with zapwatch(dsn) as z:
        instance = Evolution()
        channel = await z.channel()
        await z.hear(channel, instance.update("open"), instance.update("close", 401))
        first = await z.incident(channel)

        await z.hear(channel, instance.update("connecting"))
        assert await z.stands(channel) == ("disconnected", "logged_out", True)
        await z.hear(channel, instance.qr())

        assert await z.stands(channel) == ("qr_pending", "scan_needed", True)
        changed = (await z.state(channel))["incident"]
        assert (changed["id"], changed["kind"]) == (first["id"], "qr_pending")
        assert changed["started_at"] == first["started_at"]


async def test_qr_limit_on_a_new_channel_is_terminal_and_no_incident(dsn: str) -> None:
    async with zapwatch(dsn, terminal_grace=timedelta(0)) as z:
        instance = Evolution()
        channel = await z.channel(metadata={"heartbeat_threshold_minutes": 0})
        await z.hear(channel, instance.update("connecting"), instance.qr(), instance.qr_limit())
        assert await z.stands(channel) == ("disconnected", "qr_limit", True)

        await z.hear(channel, instance.update("refused", 428))

        assert await z.stands(channel) == ("disconnected", "qr_limit", True)
        assert await z.incidents(channel) == []


async def test_spurious_401_after_515_opens_no_incident_within_the_grace(dsn: str) -> None:
    async with zapwatch(dsn, terminal_grace=timedelta(seconds=15)) as z:
        instance = Evolution()
        channel = await z.channel()
        await z.hear(channel, instance.update("open"), instance.update("close", 515))
        assert await z.stands(channel) == ("connecting", "restart_required", False)
        await z.hear(channel, instance.update("close", 401))
        assert await z.stands(channel) == ("disconnected", "logged_out", True)

        await z.hear(channel, instance.update("open"))

        assert await z.stands(channel) == ("open", None, None)
        assert await z.incidents(channel) == []


async def test_duel_of_two_sockets_is_one_flapping_incident(dsn: str) -> None:
    async with zapwatch(dsn, away_for=timedelta(seconds=0.1)) as z:
        instance = Evolution()
        channel = await z.channel()
        await z.hear(channel, instance.update("open"))
        for _ in range(19):
            await z.hear(channel, instance.update("close", 440), instance.update("connecting"))
            await z.hear(channel, instance.update("open"))
        assert await z.incidents(channel) == []

        await z.hear(channel, instance.update("close", 440), instance.update("connecting"))
        await z.hear(channel, instance.update("open"))

        (incident,) = await z.until(lambda: z.incidents(channel), lambda incidents: incidents)
        assert incident["details"]["flapping"] is True
        assert (incident["details"]["reason"], incident["details"]["departures"]) == ("flapping", 20)
        assert incident["resolved_at"] is None
        assert (await z.state(channel))["state"] == "open"


async def test_late_event_moves_nothing_and_asks_for_a_probe(dsn: str, silent_gateway: str) -> None:
    async with zapwatch(dsn) as z:
        instance = Evolution()
        channel = await z.channel(api_url=silent_gateway, api_key="k")
        late = instance.update("connecting")
        await z.hear(channel, instance.update("open"))
        before = await z.state(channel)

        await z.hear(channel, late)

        after = await z.state(channel)
        assert (after["state"], after["since"]) == ("open", before["since"])
        assert time(after["next_check_at"]) <= datetime.now(UTC) < time(before["next_check_at"])


async def test_doubled_event_is_counted_on_its_row_and_changes_nothing(dsn: str) -> None:
    async with zapwatch(dsn) as z:
        instance = Evolution()
        channel = await z.channel()
        dropped, opened = instance.update("close", 428), instance.update("open")
        await z.hear(channel, instance.update("open"), dropped, opened)
        before = await z.state(channel)

        await z.hear(channel, dropped, dropped, opened)

        after = await z.state(channel)
        assert (after["state"], after["since"]) == (before["state"], before["since"])
        counted = [(row["trigger"], row["count"], row["deliveries"]) for row in await z.events(channel)]
        assert counted == [("opened", 1, 1), ("dropped", 1, 3), ("opened", 1, 2)]


@pytest.mark.parametrize("back", [timedelta(hours=1), timedelta(hours=3)], ids=str)
async def test_clock_set_back_by_a_time_zone_is_learnt_from_two_events(dsn: str, back: timedelta) -> None:
    async with zapwatch(dsn) as z:
        instance = Evolution()
        channel = await z.channel()
        await z.hear(channel, instance.update("connecting"), instance.update("open"))

        instance.ahead = -back
        await z.hear(channel, instance.closed(), instance.logout(), instance.update("close", 401))

        assert await z.stands(channel) == ("disconnected", "logged_out", True)
        await z.hear(channel, instance.qr(), instance.update("open"))
        assert await z.stands(channel) == ("open", None, None)


async def test_late_event_and_its_copy_teach_no_clock(dsn: str) -> None:
    """Events that change nothing share a row, so that a copy of one isn't recognised."""
    async with zapwatch(dsn) as z:
        instance = Evolution()
        channel = await z.channel()
        await z.hear(channel, instance.update("open"), instance.update("connecting"))

        instance.ahead = timedelta(minutes=-15)
        late = instance.update("connecting")
        await z.hear(channel, late, late)
        instance.ahead = timedelta(minutes=-14)
        await z.hear(channel, instance.update("open"))

        assert await z.stands(channel) == ("connecting", "connecting", False)


@pytest.mark.parametrize(
    "back", [timedelta(seconds=10), timedelta(minutes=10), timedelta(minutes=20)], ids=str
)
async def test_clock_set_back_a_little_asks_for_a_probe_at_once(
    dsn: str, silent_gateway: str, back: timedelta
) -> None:
    async with zapwatch(dsn) as z:
        instance = Evolution()
        channel = await z.channel(api_url=silent_gateway, api_key="k")
        await z.hear(channel, instance.update("connecting"), instance.update("open"))

        instance.ahead = -back
        await z.hear(channel, instance.closed(), instance.logout(), instance.update("close", 401))

        shown = await z.state(channel)
        assert shown["state"] == "open"
        assert time(shown["next_check_at"]) <= datetime.now(UTC)
        instance.ahead = timedelta(seconds=1)
        await z.hear(channel, instance.update("close", 401))
        assert await z.stands(channel) == ("disconnected", "logged_out", True)


SHIFTS = [
    timedelta(seconds=10),
    timedelta(minutes=10),
    timedelta(minutes=20),
    timedelta(hours=1),
    timedelta(hours=3),
]


@pytest.mark.parametrize("forward", SHIFTS, ids=str)
async def test_clock_set_forward_delays_nothing(dsn: str, forward: timedelta) -> None:
    async with zapwatch(dsn) as z:
        instance = Evolution()
        channel = await z.channel()
        await z.hear(channel, instance.update("connecting"), instance.update("open"))

        instance.ahead = forward
        await z.hear(channel, instance.update("connecting"))

        assert await z.stands(channel) == ("connecting", "connecting", False)
        await z.hear(channel, instance.update("open"))
        assert await z.stands(channel) == ("open", None, None)
        await z.hear(channel, instance.closed())
        assert await z.stands(channel) == ("disconnected", "logged_out", True)


def wapi(event: str, **more: object) -> dict[str, Any]:
    """A webhook of W-API's."""
    return {"event": event, "instanceId": "LITE-ABC123-XYZ789", **more}


def moment(seconds: int = 0) -> dict[str, int]:
    """Return W-API's time, so many seconds from now."""
    return {"moment": int(datetime.now(UTC).timestamp()) + seconds}


def no_moment(seconds: int = 0) -> dict[str, int]:
    """Return nothing: some plans send no time."""
    return {}


@pytest.mark.parametrize("moment", [moment, no_moment])
async def test_wapi_connect_ack_disconnect(
    dsn: str, silent_gateway: str, moment: Callable[..., dict[str, int]]
) -> None:
    async with zapwatch(dsn) as z:
        wired = {"api_url": silent_gateway, "api_key": "k", "metadata": AT_ONCE}
        channel = await z.channel("LITE-ABC123-XYZ789", "wapi", **wired)
        phone = {"connectedPhone": "5511900000001"}
        await z.hear(channel, wapi("webhookConnected", connected=True, **phone, **moment()))
        assert await z.stands(channel) == ("open", None, None)

        await z.hear(channel, wapi("webhookStatus", status="DELIVERY", **phone, **moment()))
        assert await z.stands(channel) == ("open", None, None)
        await z.hear(channel, wapi("webhookDisconnected", disconnected=True, **moment()))

        shown = await z.state(channel)
        assert await z.stands(channel) == ("disconnected", "disconnected", False)
        assert time(shown["next_check_at"]) <= datetime.now(UTC)
        await z.hear(channel, wapi("webhookStatus", status="READ", **phone, **moment()))
        assert await z.stands(channel) == ("disconnected", "disconnected", False)
        assert (await z.incident(channel))["kind"] == "disconnected"
        await z.hear(channel, wapi("webhookConnected", connected=True, **phone, **moment(1)))
        assert await z.stands(channel) == ("open", None, None)


async def test_wapi_connected_without_a_phone_is_incomplete(dsn: str) -> None:
    async with zapwatch(dsn) as z:
        channel = await z.channel("LITE-ABC123-XYZ789", "wapi", api_key="k")

        await z.hear(channel, wapi("webhookConnected", connected=True))

        assert await z.stands(channel) == ("connecting", "incomplete_session", False)


async def test_wapi_disconnect_within_the_second_of_a_connect_without_moment_is_newer(dsn: str) -> None:
    async with zapwatch(dsn) as z:
        channel = await z.channel("LITE-ABC123-XYZ789", "wapi", api_key="k")
        connected = wapi("webhookConnected", connected=True, connectedPhone="5511900000001")
        await z.hear(channel, {**connected, **moment()}, connected)

        await z.hear(channel, wapi("webhookDisconnected", disconnected=True, **moment()))

        assert (await z.stands(channel))[0] == "disconnected"
