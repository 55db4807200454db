"""Retries, copies and disorder, seen by a receiver."""

import asyncio
from random import Random

import pytest

from receiver.sandbox import Fleet, open_fleet
from receiver.sandbox.delivery import IN_FLIGHT, Retry
from receiver.sandbox.evolution.instance import Instance
from receiver.sandbox.evolution.version import Version
from tests.receiver.sandbox.inbox import Inbox
from tests.support.eventually import eventually


async def add(fleet: Fleet, inbox: Inbox, version: str = "2.3.6") -> Instance:
    """Return an instance that tells the inbox."""
    channel = (await fleet.evolution(version)).add("loja-01")
    channel.webhook = inbox.url
    return channel


def test_delays_grow_to_a_ceiling_and_vary_by_a_fifth() -> None:
    retry = Version("2.3.6").retry
    nominal = [5, 10, 20, 40, 80, 160, 300, 300, 300]

    for seed in range(50):
        random = Random(seed)
        delays = [retry.delay(failures, random) for failures in range(1, 10)]
        for delay, expected in zip(delays, nominal, strict=True):
            assert max(5, expected * 0.8) <= delay <= expected * 1.2


@pytest.mark.parametrize(
    ("version", "attempts", "delays"),
    [("1.8.2", 1, None), ("2.2.0", 1, None), ("2.2.1", 10, [30.0] * 9), ("2.3.0", 10, None)],
)
def test_version_tries_as_often_as_it_does(version: str, attempts: int, delays: list[float] | None) -> None:
    retry = Version(version).retry

    assert retry.attempts == attempts
    if delays is not None:
        assert [retry.delay(failures, Random(1)) for failures in range(1, 10)] == delays


async def test_event_is_sent_again_on_schedule_until_the_receiver_recovers(inbox: Inbox) -> None:
    inbox.statuses = [500, 503, 429]
    async with open_fleet(speed=50) as fleet:
        channel = await add(fleet, inbox)
        channel.presence()
        await channel.said()

        assert (fleet.attempts, fleet.delivered, fleet.dropped) == (4, 1, 0)
        assert fleet.answers == {500: 1, 503: 1, 429: 1, 204: 1}
    times = [one.at for one in inbox.letters]
    for before, after, nominal in zip(times, times[1:], (5, 10, 20), strict=False):
        assert nominal * 0.8 / 50 <= after - before <= nominal * 1.2 / 50 + 0.5
    assert len({one.body for one in inbox.letters}) == 1


@pytest.mark.parametrize("status", [400, 401, 403, 404, 422])
async def test_final_status_drops_the_event(inbox: Inbox, status: int) -> None:
    inbox.statuses = [status]
    async with open_fleet(speed=1000) as fleet:
        channel = await add(fleet, inbox)
        channel.presence()
        await channel.said()

        assert (fleet.attempts, fleet.delivered, fleet.dropped) == (1, 0, 1)


async def test_event_is_given_up_after_ten_attempts(inbox: Inbox) -> None:
    inbox.statuses = [500] * 20
    async with open_fleet(speed=3000) as fleet, asyncio.timeout(20):
        channel = await add(fleet, inbox)
        channel.presence()
        await channel.said()

        assert (fleet.attempts, fleet.delivered, fleet.dropped) == (10, 0, 1)


async def test_slow_receiver_gets_the_event_again(inbox: Inbox) -> None:
    async with open_fleet(speed=100) as fleet, asyncio.timeout(20):
        channel = await add(fleet, inbox)
        inbox.hangs = True
        channel.presence()
        await inbox.until(lambda letters: len(letters) == 2)
        inbox.hangs = False
        await channel.said()

        assert fleet.delivered == 1
    assert len({one.body for one in inbox.letters}) == 1


async def test_unreachable_receiver_is_tried_again(inbox: Inbox) -> None:
    async with open_fleet(speed=50) as fleet, asyncio.timeout(20):
        channel = await add(fleet, inbox)
        inbox.server.refuse()
        channel.presence()
        await eventually(lambda: fleet.attempts >= 2)
        inbox.server.listen()
        await inbox.server.serve()
        await channel.said()

        assert fleet.delivered == 1


async def test_copy_is_identical_to_the_byte(inbox: Inbox) -> None:
    async with open_fleet(speed=100, doubled=1.0) as fleet:
        channel = await add(fleet, inbox)
        channel.presence()
        await channel.said()

        assert fleet.delivered == 2
    first, second = inbox.letters
    assert first.body == second.body
    assert first.headers == second.headers
    assert len(channel.sent) == 1


async def test_reordered_event_is_overtaken_by_a_later_one(inbox: Inbox) -> None:
    async with open_fleet(speed=10, reordered=0.3) as fleet:
        channel = await add(fleet, inbox)
        for _ in range(20):
            channel.presence()
            await fleet.pause(0.1)
        await channel.said()

    stamps = [one.document["date_time"] for one in inbox.letters]
    overtaken = sum(1 for place, stamp in enumerate(stamps) if stamp < max(stamps[:place], default=""))
    assert len(set(stamps)) == 20
    assert overtaken >= 3


async def test_last_event_is_not_held_back_for_ever(inbox: Inbox) -> None:
    async with open_fleet(speed=100, reordered=1.0) as fleet, asyncio.timeout(10):
        channel = await add(fleet, inbox)
        channel.presence()
        await channel.said()

        assert fleet.delivered == 1


async def test_flood_on_a_receiver_that_hangs_stays_bounded(inbox: Inbox) -> None:
    inbox.hangs = True
    async with open_fleet() as fleet:
        channel = await add(fleet, inbox)
        for _ in range(300):
            channel.presence()
        await inbox.until(lambda letters: len(letters) == IN_FLIGHT)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.3):
                await inbox.until(lambda letters: len(letters) > IN_FLIGHT)

    assert len(inbox.letters) == IN_FLIGHT
    assert len(channel.sent) == 300


async def test_killed_server_forgets_its_retries(inbox: Inbox) -> None:
    inbox.statuses = [500]
    async with open_fleet() as fleet, asyncio.timeout(10):
        host = await fleet.evolution()
        channel = host.add("loja-01")
        channel.webhook = inbox.url
        channel.presence()
        await inbox.until(len)
        host.restart()

        assert fleet.dropped == 1


async def test_same_seed_makes_the_same_delays() -> None:
    retry = Retry(attempts=10, jitter=0.2)
    async with open_fleet(seed=7) as one, open_fleet(seed=7) as same, open_fleet(seed=8) as other:
        delays = [
            [retry.delay(failures, fleet.random) for failures in range(1, 9)] for fleet in (one, same, other)
        ]

    assert delays[0] == delays[1] != delays[2]
