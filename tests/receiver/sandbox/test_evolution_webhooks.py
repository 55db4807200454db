"""Evolution's webhooks: their bodies beside the samples, which version sends which, and in what order."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta

import pytest

from receiver.providers import PROVIDERS
from receiver.sandbox import Fleet, open_fleet
from receiver.sandbox.evolution.instance import Instance
from statemachine.model import Reason, Trigger
from tests.receiver.sandbox.inbox import Inbox
from tests.receiver.sandbox.shape import keys, sample
from tests.support.eventually import let_tasks_run

Act = Callable[[Instance], object]

CONNECTING = "connection.update", "connecting", 200
OPEN = "connection.update", "open", 200
STATUS = "status.instance", None, None
LOGOUT = "logout.instance", None, None
QR = "qrcode.updated", None, None
REFUSED = "connection.update", "refused", 428


def close(code: int) -> tuple[str, str, int]:
    """A close with this code."""
    return "connection.update", "close", code


def die_talking(channel: Instance) -> None:
    """Die and say open; what comes afterwards doesn't reach it."""
    channel.die_open()
    channel.message()


@asynccontextmanager
async def instance(
    inbox: Inbox, version: str, state: str, exposes_key: bool | None = None, speed: float = 1000
) -> AsyncIterator[tuple[Fleet, Instance]]:
    """Yield a fleet with one instance that tells the inbox."""
    async with open_fleet(speed=speed) as fleet:
        host = await fleet.evolution(version, exposes_key=exposes_key)
        channel = host.add("loja-01", state="close" if state == "qr" else state)
        channel.webhook = inbox.url
        yield fleet, channel


SHAPES: list[tuple[str, str, Act, str]] = [
    ("2.3.6", "close", lambda it: it.scan(), "connection_update_open_no_picture"),
    ("2.3.6", "close", lambda it: it.scan(), "connection_update_connecting"),
    ("2.3.6", "open", lambda it: it.drop(0), "connection_update_connecting_reconnect"),
    ("2.3.6", "open", lambda it: it.unlink(), "connection_update_close_401"),
    ("2.3.6", "open", lambda it: it.unlink(403), "connection_update_close_403"),
    ("2.3.6", "open", lambda it: it.unlink(), "status_instance"),
    ("2.3.6", "open", lambda it: it.unlink(), "logout_instance"),
    ("2.3.6", "open", lambda it: it.logout(), "status_instance_api_logout"),
    ("2.3.6", "close", lambda it: it.show_qr(1), "qrcode_updated"),
    ("2.3.6", "close", lambda it: it.show_qr(0), "qrcode_limit"),
    ("2.3.6", "close", lambda it: it.show_qr(0), "connection_update_refused"),
    ("2.3.6", "open", lambda it: it.show_qr(0), "connection_update_refused_known_number"),
    ("2.3.6", "open", lambda it: it.remove(), "instance_delete"),
    ("2.3.6", "open", lambda it: it.remove(), "remove_instance"),
    ("2.3.6", "open", lambda it: it.message(), "messages_upsert"),
    ("2.4.0-rc2", "open", lambda it: it.drop(0, code=408), "connection_update_close_408"),
    ("2.4.0-rc2", "open", lambda it: it.drop(0, code=408), "status_instance_408"),
    ("2.2.0", "close", lambda it: it.scan(), "connection_update_open_v2_2_0"),
    ("2.2.0", "open", lambda it: it.drop(0), "connection_update_close_428"),
    ("2.2.0", "open", lambda it: it.flap(1), "connection_update_close_440"),
    ("2.2.0", "close", lambda it: it.scan(), "connection_update_close_515"),
    ("1.8.2", "close", lambda it: it.scan(), "v1_connection_update_open"),
    ("1.8.2", "close", lambda it: it.scan(), "v1_connection_update_connecting"),
    ("1.8.2", "close", lambda it: it.scan(), "v1_connection_update_close_515"),
    ("1.8.2", "open", lambda it: it.unlink(), "v1_connection_update_close_401"),
    ("1.8.2", "open", lambda it: it.drop(0), "v1_connection_update_close_428"),
    ("1.8.2", "open", lambda it: it.drop(0, code=408), "v1_connection_update_close_408"),
    ("1.8.2", "open", lambda it: it.flap(1), "v1_connection_update_close_440"),
    ("1.8.2", "close", lambda it: it.show_qr(1), "v1_qrcode_updated"),
    ("1.8.2", "close", lambda it: it.show_qr(0), "v1_qrcode_limit"),
    ("1.8.2", "close", lambda it: it.show_qr(0), "v1_connection_update_refused"),
    ("1.8.7", "close", lambda it: it.scan(), "v1_8_7_connection_update_open"),
]


@pytest.mark.parametrize(("version", "state", "act", "name"), SHAPES, ids=[case[3] for case in SHAPES])
async def test_body_has_the_keys_of_the_sample_in_its_order(
    inbox: Inbox, version: str, state: str, act: Act, name: str
) -> None:
    expected = sample(f"evolution/{name}.json")
    told = expected["data"] or {}
    async with instance(inbox, version, state) as (_, channel):
        act(channel)
        letters = await inbox.until(
            lambda letters: [
                letter
                for letter in letters
                if letter.said == (expected["event"], told.get("state"), told.get("statusReason"))
                and ("qrcode" in told) == ("qrcode" in (letter.document["data"] or {}))
            ]
        )

    found = [keys(letter.document) for letter in letters if letter.document["event"] == expected["event"]]
    assert keys(expected) in found


@pytest.mark.parametrize(
    ("version", "exposes_key", "name"),
    [
        ("2.3.6", True, "connection_update_open_apikey_exposed"),
        ("1.8.2", False, "v1_connection_update_open_key_hidden"),
    ],
)
async def test_key_is_shown_as_the_server_is_set(
    inbox: Inbox, version: str, exposes_key: bool, name: str
) -> None:
    async with instance(inbox, version, "close", exposes_key) as (_, channel):
        channel.scan()
        await channel.said()

    assert keys(sample(f"evolution/{name}.json")) == keys(inbox.letters[-1].document)
    assert inbox.letters[-1].document.get("apikey") == (channel.key if exposes_key else None)


SEQUENCES: list[tuple[str, str, Act, list[tuple[str, str | None, int | None]]]] = [
    ("2.3.6", "open", lambda it: it.drop(45), [CONNECTING, CONNECTING, CONNECTING, OPEN]),
    ("2.2.0", "open", lambda it: it.drop(20), [close(428), CONNECTING, close(408), CONNECTING, OPEN]),
    ("1.8.2", "open", lambda it: it.drop(0, code=403), [close(403), CONNECTING, OPEN]),
    ("2.4.0-rc2", "open", lambda it: it.drop(20, code=408), [STATUS, LOGOUT, close(408)]),
    ("2.4.0-rc2", "open", lambda it: it.drop(0), [CONNECTING, OPEN]),
    ("2.3.6", "open", lambda it: it.unlink(), [STATUS, LOGOUT, close(401)]),
    ("2.2.1", "open", lambda it: it.unlink(), [LOGOUT, close(401)]),
    ("2.2.0", "open", lambda it: it.unlink(), [close(401), LOGOUT]),
    ("1.8.2", "open", lambda it: it.unlink(), [close(401)]),
    ("2.3.6", "open", lambda it: it.logout(), [STATUS, LOGOUT, close(401)]),
    ("2.4.0-rc2", "open", lambda it: it.logout(), []),
    ("2.3.6", "close", lambda it: it.scan(), [CONNECTING, OPEN]),
    ("2.2.0", "close", lambda it: it.scan(), [close(515), CONNECTING, OPEN]),
    ("2.3.6", "open", lambda it: it.flap(2), [CONNECTING, OPEN, CONNECTING, OPEN]),
    ("2.3.6", "close", lambda it: it.show_qr(2), [CONNECTING, QR, QR, QR, REFUSED]),
    ("2.3.6", "close", lambda it: it.show_qr(7), [CONNECTING, *[QR] * 6, CONNECTING, QR, QR, REFUSED]),
    ("2.4.0-rc2", "close", lambda it: it.show_qr(7), [CONNECTING, *[QR] * 6, STATUS, LOGOUT, close(408)]),
    (
        "2.3.6",
        "open",
        lambda it: it.flood(4, 70, false_close=True),
        [*[CONNECTING] * 2, close(428), *[CONNECTING] * 2],
    ),
    ("2.3.6", "open", lambda it: it.lose(), []),
    ("2.3.6", "open", lambda it: it.vanish(), []),
    ("2.3.6", "open", die_talking, []),
]


@pytest.mark.parametrize(
    ("version", "state", "act", "expected"),
    SEQUENCES,
    ids=[f"{case[0]}-{n}" for n, case in enumerate(SEQUENCES)],
)
async def test_version_sends_what_it_sends(
    inbox: Inbox, version: str, state: str, act: Act, expected: list[tuple[str, str | None, int | None]]
) -> None:
    async with instance(inbox, version, state) as (_, channel), asyncio.timeout(10):
        task = act(channel)
        if isinstance(task, asyncio.Task):
            await task
        await channel.said()

    assert inbox.said == expected


async def test_every_webhook_is_read_as_what_it_is(inbox: Inbox) -> None:
    async with instance(inbox, "2.3.6", "open") as (_, channel):
        for act in (channel.connect, channel.unlink, channel.scan, channel.logout, channel.remove):
            await act()
            await channel.said()
        channel.message()
        channel.presence()
        channel.receipt()
        await channel.said()

    now = datetime.now(UTC)
    reports = [PROVIDERS["evolution_api"].parse(one.body, "2.3.6", now) for one in inbox.letters]
    told = {(one.said.trigger, one.said.reason) for one in reports if one.said is not None}
    assert told == {
        (Trigger.CONNECTING, Reason.CONNECTING),
        (Trigger.OPENED, None),
        (Trigger.UNPAIRED, Reason.LOGGED_OUT),
        (Trigger.UNPAIRED, Reason.LOGGED_OUT_BY_API),
        (Trigger.UNPAIRED, Reason.INSTANCE_REMOVED),
    }
    assert [one.name for one in reports if one.alive] == [
        "messages.upsert",
        "presence.update",
        "messages.update",
    ]
    assert {one.instance for one in reports} == {"loja-01"}


async def test_unlinking_says_three_things_at_once_on_separate_requests(inbox: Inbox) -> None:
    orders = set()
    async with instance(inbox, "2.3.6", "open", speed=1) as (_, channel):
        for _ in range(10):
            inbox.letters.clear()
            channel.unlink()
            await channel.said()
            orders.add(tuple(one.said for one in inbox.letters))
            assert max(one.at for one in inbox.letters) - min(one.at for one in inbox.letters) < 1
            assert inbox.said == [STATUS, LOGOUT, close(401)]

    assert len(orders) > 1


async def test_stamps_are_wall_clock_with_the_hosts_offset_and_differ(inbox: Inbox) -> None:
    async with open_fleet(speed=1000) as fleet:
        host = await fleet.evolution(utc_offset=timedelta(hours=5, minutes=30))
        channel = host.add("loja-01")
        channel.webhook = inbox.url
        await channel.flood(50, pace=70)
        await channel.said()

    stamps = [datetime.fromisoformat(one.document["date_time"]) for one in inbox.letters]
    assert len(set(stamps)) == 50
    for stamp in stamps:
        assert abs(stamp - timedelta(hours=5, minutes=30) - datetime.now(UTC)) < timedelta(seconds=10)


async def test_late_event_carries_its_old_stamp(inbox: Inbox) -> None:
    async with instance(inbox, "2.3.6", "open") as (_, channel):
        channel.say_late(timedelta(minutes=20))
        await channel.said()

    stamp = datetime.fromisoformat(inbox.letters[0].document["date_time"])
    assert abs(datetime.now(UTC) - timedelta(hours=3, minutes=20) - stamp) < timedelta(seconds=5)
    assert channel.state == "open"


async def test_headers_are_axios_own_then_the_instances(inbox: Inbox) -> None:
    async with instance(inbox, "2.3.6", "open") as (_, channel):
        channel.headers = {"X-Watch-Token": "t"}
        channel.presence()
        await channel.said()

    headers = inbox.letters[0].headers
    length = str(len(inbox.letters[0].body))
    assert headers.pop("host")
    assert headers == {
        "content-type": "application/json",
        "content-length": length,
        "user-agent": "axios/1.12.2",
        "accept": "application/json, text/plain, */*",
        "accept-encoding": "gzip, compress, deflate, br",
        "connection": "keep-alive",
        "x-watch-token": "t",
    }


async def test_newest_version_names_itself_in_headers(inbox: Inbox) -> None:
    async with instance(inbox, "2.4.0-rc2", "open") as (_, channel):
        channel.presence()
        await channel.said()

    headers = inbox.letters[0].headers
    assert headers["user-agent"] == "EvolutionAPI-Webhook/2.3.7"
    assert headers["x-instance-name"] == "loja-01"
    assert headers["x-event-type"] == "presence.update"


async def test_global_webhook_lacks_headers_and_what_unlinking_says_beside_the_close(inbox: Inbox) -> None:
    async with open_fleet(speed=1000) as fleet:
        host = await fleet.evolution("2.3.6", exposes_key=True)
        host.webhook = inbox.url
        channel = host.add("loja-01")
        channel.headers = {"X-Watch-Token": "t"}
        channel.unlink()
        await fleet.said()

    assert [one.said for one in inbox.letters] == [close(401)]
    assert "x-watch-token" not in inbox.letters[0].headers
    assert inbox.letters[0].document["apikey"] == host.key
    assert inbox.letters[0].document["destination"] == f"{inbox.url}/connection-update"


async def test_global_copy_follows_the_local_one(inbox: Inbox) -> None:
    async with open_fleet(speed=1000) as fleet:
        host = await fleet.evolution("2.3.6")
        host.webhook = f"{inbox.url}/global"
        channel = host.add("loja-01")
        channel.webhook = f"{inbox.url}/local"
        inbox.statuses = [500]
        channel.presence()
        await fleet.said()

    assert [one.path for one in inbox.letters] == ["/hook/local", "/hook/local", "/hook/global"]


async def test_subscription_and_by_events_shape_what_is_sent(inbox: Inbox) -> None:
    async with instance(inbox, "2.3.6", "open") as (_, channel):
        channel.events = ["STATUS_INSTANCE"]
        channel.by_events = True
        channel.unlink()
        await channel.said()

    assert [one.path for one in inbox.letters] == ["/hook/status-instance"]
    assert [one.event for one in channel.sent] == ["status.instance"]


async def test_without_an_address_nothing_is_sent() -> None:
    async with open_fleet() as fleet:
        channel = (await fleet.evolution()).add("loja-01")
        channel.unlink()
        await fleet.said()

        assert (fleet.attempts, channel.sent) == (0, [])
        assert channel.state == "close"


async def test_outage_flips_memory_and_ends_open(inbox: Inbox) -> None:
    async with instance(inbox, "2.3.6", "open") as (_, channel):
        seen = set()
        task = channel.drop(20, pace=2)
        while not task.done():
            seen.add(channel.state)
            await let_tasks_run()
        await channel.said()

    assert seen >= {"close", "connecting"}
    assert channel.state == "open"
    assert inbox.said == [*[CONNECTING] * 41, OPEN]


async def test_outage_for_ever_ends_when_it_connects(inbox: Inbox) -> None:
    async with instance(inbox, "2.3.6", "open") as (_, channel):
        outage = channel.drop(None)
        await inbox.until(lambda letters: len(letters) > 5)
        assert not outage.done()

        await channel.connect()
        assert channel.state == "open"
        assert outage.cancelled()
