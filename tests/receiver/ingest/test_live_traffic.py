"""Live traffic as proof of life: it counts by when it was sent, by the learnt clock, not by when it came."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import pytest

from db.connection.types import Connection
from receiver.sandbox import Fault
from statemachine.model import State
from tests.factories import Evolution
from tests.support.service import Zapwatch, time, zapwatch
from tests.support.story import Story, story

NEVER = timedelta(hours=1)
UNHURRIED: dict[str, Any] = {"stale_after": NEVER}
"""Settings under which an open channel isn't asked about again by itself."""
LATE = timedelta(seconds=90)
TRAFFIC = ["presence", "receipt", "message"]


def traffic(evolution: Evolution, kind: str, age: timedelta = timedelta(0)) -> dict[str, Any]:
    """Return a webhook of live traffic that was emitted so long ago, by a clock that is hours behind."""
    evolution.ahead = -age
    match kind:
        case "presence":
            return evolution.event("presence.update", {"id": "5521988880000@s.whatsapp.net", "presences": {}})
        case "receipt":
            return evolution.event("messages.update", {"keyId": "3EB0", "fromMe": True, "status": "READ"})
        case _:
            # Sent moments ago, as far as its own stamp tells: only the envelope is late.
            return evolution.message()


async def learnt(z: Zapwatch, channel: str, evolution: Evolution) -> None:
    """Have the gateway's clock learnt from an event, and what was known of its tokens read anew."""
    learnt = (
        "select clock ? 'offset' from zapwatch_channels c join zapwatch_gateways g on g.id = c.gateway_id"
    )

    async def is_learnt() -> bool:
        await z.hear(channel, evolution.update("open"))
        return bool(await z.app.pool.fetchval(f"{learnt} where channel_id = $1", UUID(channel)))

    # While the gateway's row is busy, its clock isn't written.
    await z.until(is_learnt, bool)
    z.app.tokens.forget(UUID(channel))


async def last_event_at(z: Zapwatch, channel: str) -> datetime:
    """Return when a channel was last heard of, once all that was noted is written."""
    await z.app.live_traffic.flush()
    return time((await z.state(channel))["last_event_at"])


@pytest.mark.parametrize("kind", TRAFFIC)
async def test_late_traffic_does_not_freshen_an_open_channel(dsn: str, kind: str) -> None:
    async with zapwatch(dsn) as z:
        channel, evolution = await z.channel(), Evolution()
        await learnt(z, channel, evolution)
        before = await last_event_at(z, channel)

        await z.hear(channel, traffic(evolution, kind, LATE))
        after_late = await last_event_at(z, channel)
        await z.hear(channel, traffic(evolution, kind))
        after_fresh = await last_event_at(z, channel)

        assert after_late == before
        assert after_fresh > before
        assert (await z.state(channel))["state"] == "open"


@pytest.mark.parametrize("kind", TRAFFIC)
async def test_traffic_of_the_last_minute_is_fresh(dsn: str, kind: str) -> None:
    async with zapwatch(dsn) as z:
        channel, evolution = await z.channel(), Evolution()
        await learnt(z, channel, evolution)
        before = await last_event_at(z, channel)

        await z.hear(channel, traffic(evolution, kind, timedelta(seconds=45)))

        assert await last_event_at(z, channel) > before


async def test_traffic_counts_from_its_arrival_until_the_clock_is_learnt(dsn: str) -> None:
    """The gateway's clock is three hours behind, and nothing has told so yet."""
    async with zapwatch(dsn) as z:
        channel = await z.channel()

        await z.hear(channel, traffic(Evolution(), "presence"))

        assert (await z.state(channel))["last_event_at"] is not None


@dataclass
class Failing:
    """A channel in error, whose gateway knows no such path, though its traffic may come."""

    told: Story
    channel: str
    evolution: Evolution

    async def hear(self, kind: str, age: timedelta = timedelta(0)) -> None:
        """Hear of traffic that was emitted so long ago; it is applied when this returns."""
        await self.told.z.hear(self.channel, traffic(self.evolution, kind, age))

    async def opened(self) -> list[str]:
        """Return the states that traffic has led to; the next probes find it in error again."""
        return [
            event["state"] for event in await self.told.z.events(self.channel) if event["name"] == "alive"
        ]


@asynccontextmanager
async def failing(dsn: str) -> AsyncIterator[Failing]:
    """Yield such a channel; its gateway's clock is learnt."""
    async with story(dsn, **UNHURRIED) as told:
        host = await told.fleet.evolution()
        instance = host.add("loja-01")
        channel, evolution = await told.watch(host, instance), Evolution()
        await learnt(told.z, channel, evolution)
        instance.fault = Fault.ROUTE_NOT_FOUND
        await told.z.client.post(f"/channels/{channel}/check")
        await told.becomes(channel, "error", "unreachable")
        yield Failing(told, channel, evolution)


@pytest.mark.parametrize("kind", TRAFFIC)
async def test_fresh_traffic_opens_a_channel_in_error(dsn: str, kind: str) -> None:
    async with failing(dsn) as it:
        await it.hear(kind)

        assert await it.opened() == ["open"]


@pytest.mark.parametrize("kind", TRAFFIC)
async def test_late_traffic_opens_no_channel_in_error(dsn: str, kind: str) -> None:
    async with failing(dsn) as it:
        await it.hear(kind, LATE)

        assert await it.opened() == []
        assert (await it.told.z.state(it.channel))["state"] == "error"


@pytest.mark.parametrize("kind", TRAFFIC)
async def test_traffic_from_before_the_last_failed_probe_opens_nothing(dsn: str, kind: str) -> None:
    async with failing(dsn) as it:
        await it.hear(kind, timedelta(seconds=30))

        assert await it.opened() == []
        assert (await it.told.z.state(it.channel))["state"] == "error"
        await it.hear(kind)
        assert await it.opened() == ["open"]


async def test_late_traffic_opens_nothing_either_where_the_error_is_not_known_yet(dsn: str) -> None:
    """Of an open channel traffic is only noted; by the time that it is written the channel is in error."""
    async with failing(dsn) as it:
        it.told.z.app.writer.remember({UUID(it.channel): State.OPEN})

        await it.hear("presence", timedelta(seconds=30))
        await it.told.z.app.live_traffic.flush()

        assert await it.opened() == []
        assert (await it.told.z.state(it.channel))["state"] == "error"


async def test_channel_whose_row_is_refused_costs_no_other_its_traffic(dsn: str, admin: Connection) -> None:
    async with zapwatch(dsn, **UNHURRIED) as z:
        names = ["a", "b", "c"]
        channels = [await z.channel(name) for name in names]
        for name, channel in zip(names, channels, strict=True):
            await learnt(z, channel, Evolution(name))
        before = [await last_event_at(z, channel) for channel in channels]
        await admin.execute(
            "alter table zapwatch_states add constraint no "
            f"check (channel_id <> '{channels[0]}' or last_event_at <= now() - interval '1 hour') not valid"
        )

        for name, channel in zip(names, channels, strict=True):
            await z.hear(channel, Evolution(name).message())
        await z.app.live_traffic.flush()

        after = [await last_event_at(z, channel) for channel in channels]
        assert [then < now for then, now in zip(before, after, strict=True)] == [False, True, True]
