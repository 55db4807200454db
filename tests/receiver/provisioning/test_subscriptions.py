"""Until when channels are paid for: W-API tells, and what has expired is lost for that reason."""

from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from db.connection.types import Connection
from receiver.sandbox import Fault
from tests.receiver.alerts.sink import Got, open_sink
from tests.support.service import time
from tests.support.story import Story, story
from tests.support.told import LOOPBACK, Programs, tenant


def expire(instance: Any, after: timedelta) -> datetime:
    """Have an instance be paid for so much longer, and return until when."""
    at = datetime.now(UTC).replace(microsecond=0) + after
    instance.expires = int(at.timestamp() * 1000)
    return at


async def paid_until(told: Story, channel: str) -> datetime:
    """Return until when a channel is shown as paid for, once it is."""
    shown = await told.z.until(
        lambda: told.z.get(f"/channels/{channel}"), lambda shown: shown["subscription"]
    )
    return time(shown["subscription"]["expires_at"])


async def test_subscription_of_a_channel_is_kept_and_shown(dsn: str) -> None:
    async with story(dsn) as told:
        host = await told.fleet.wapi()
        instance = host.add()
        instance.payment_status = "OVERDUE"
        at = expire(instance, timedelta(days=2))

        channel = await told.watch(host, instance)

        assert await paid_until(told, channel) == at
        assert (await told.z.get(f"/channels/{channel}"))["subscription"]["payment_status"] == "OVERDUE"


async def test_loss_after_the_end_of_the_subscription_is_for_that_reason(dsn: str) -> None:
    async with story(dsn) as told:
        host = await told.fleet.wapi()
        channels = {}
        for name, after in (("over", -timedelta(hours=1)), ("paid", timedelta(days=30))):
            instance = host.add()
            expire(instance, after)
            channels[name] = await told.watch(host, instance), instance
        for channel, _ in channels.values():
            await paid_until(told, channel)

        for _, instance in channels.values():
            instance.vanish()

        await told.becomes(channels["over"][0], "disconnected", "expired")
        await told.becomes(channels["paid"][0], "disconnected", "session_missing")
        incident = await told.z.incident(channels["over"][0])
        assert incident["kind"] == "disconnected"


async def test_channel_that_is_open_after_its_end_is_open(dsn: str) -> None:
    async with story(dsn) as told:
        host = await told.fleet.wapi()
        instance = host.add()
        expire(instance, -timedelta(days=1))
        channel = await told.watch(host, instance)
        await paid_until(told, channel)

        await told.asked(instance, 2)

        assert (await told.z.state(channel))["state"] == "open"


async def test_gateway_that_tells_no_subscription_is_not_asked_for_one(dsn: str) -> None:
    async with story(dsn) as told:
        host = await told.fleet.evolution()
        instance = host.add("loja-01")
        channel = await told.watch(host, instance)
        await told.asked(instance, 2)

        assert (await told.z.get(f"/channels/{channel}"))["subscription"] is None


async def test_gateway_that_answers_nothing_of_use_leaves_what_was_kept(dsn: str) -> None:
    async with story(dsn) as told:
        host = await told.fleet.wapi()
        instance = host.add()
        at = expire(instance, timedelta(days=5))
        channel = await told.watch(host, instance)
        assert await paid_until(told, channel) == at
        host.fault = Fault.HTML_200
        async with told.z.app.pool.acquire() as connection:
            await connection.execute("update zapwatch_channels set subscription_due_at = now()")

            await told.z.until(
                lambda: connection.fetchval("select subscription_due_at > now() from zapwatch_channels"), bool
            )

        assert await paid_until(told, channel) == at


@pytest.mark.parametrize(
    ("locale", "zone", "words", "until"),
    [
        (
            "pt-BR",
            "America/Sao_Paulo",
            "A assinatura da unidade Loja Centro no gateway vence em 7 dias",
            "GMT-03:00",
        ),
        ("en", "UTC", "The gateway's subscription for Loja Centro ends in 7 days", "GMT"),
        (
            "es",
            "Asia/Tokyo",
            "La suscripción de la unidad Loja Centro en el gateway vence en 7 días",
            "GMT+09:00",
        ),
    ],
)
async def test_people_read_when_a_subscription_ends(
    dsn: str, locale: str, zone: str, words: str, until: str
) -> None:
    async with open_sink() as sink, story(dsn, **LOOPBACK) as told:
        ours = await tenant(told.z, locale=locale, time_zone=zone)
        body = {"kind": "slack", "tenant_id": ours, "config": {"url": sink.url}}
        assert (await told.z.client.post("/destinations", json=body)).status_code == 201
        programs = Programs(told.z, sink)
        await programs.add("unasked", ours)
        host = await told.fleet.wapi()
        instance = host.add()
        at = expire(instance, timedelta(days=6, hours=20))

        await told.watch(host, instance, tenant_id=ours, name="Loja Centro")

        async def read() -> list[Got]:
            return [got for got in sink.got if got.path == "/"]

        [got] = await told.z.until(read, bool)
        assert got.json["text"] == words
        shown = got.json["blocks"][0]["text"]["text"]
        assert until in shown
        assert str(at.astimezone(ZoneInfo(zone)).day) in shown
        assert programs.told("unasked") == []


async def test_programs_that_wish_it_are_warned_as_each_day_comes_and_anew_when_it_was_renewed(
    dsn: str, connection: Connection
) -> None:
    async with open_sink() as sink, story(dsn, **LOOPBACK) as told:
        ours = await tenant(told.z)
        programs = Programs(told.z, sink)
        await programs.add("wishing", ours, "channel.expiring")
        await programs.add("theirs", await tenant(told.z, "Outra"), "channel.expiring")
        host = await told.fleet.wapi()
        instance = host.add()
        at = expire(instance, timedelta(days=3, seconds=8))

        channel = await told.watch(host, instance, tenant_id=ours)
        first = (await programs.until("wishing", 1))[0]
        assert datetime.now(UTC) < at - timedelta(days=3)
        await programs.until("wishing", 2)
        assert datetime.now(UTC) >= at - timedelta(days=3)
        again = expire(instance, timedelta(days=2))
        await connection.execute("update zapwatch_channels set subscription_due_at = now()")
        both = await programs.until("wishing", 3)

        assert first["type"] == "channel.expiring"
        assert (first["data"]["channel_id"], first["data"]["incident_id"]) == (channel, None)
        ends = [time(one["data"]["expires_at"]) for one in both]
        assert ends == [at, at, again]
        assert programs.told("theirs") == []


async def test_subscription_that_is_paid_for_long_warns_nobody(dsn: str, connection: Connection) -> None:
    async with open_sink() as sink, story(dsn, **LOOPBACK) as told:
        programs = Programs(told.z, sink)
        await programs.add("wishing", None, "channel.expiring")
        host = await told.fleet.wapi()
        instance = host.add()
        expire(instance, timedelta(days=8))

        await paid_until(told, await told.watch(host, instance))

        due_at = await connection.fetchval("select subscription_due_at from zapwatch_channels")
        assert timedelta(hours=23) < due_at - datetime.now(UTC) <= timedelta(days=1)
        assert await connection.fetchval("select count(*) from zapwatch_decisions") == 0
        assert programs.told("wishing") == []
