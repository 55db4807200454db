"""Until when channels are paid for: W-API tells, and what has expired is lost for that reason."""

from datetime import UTC, datetime, timedelta
from typing import Any

from receiver.sandbox import Fault
from tests.receiver.service import time
from tests.receiver.story import Story, story


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
        async with told.z.app.state.pool.acquire() as connection:
            await connection.execute("update zapwatch_channels set subscription_due_at = now()")

            await told.z.until(
                lambda: connection.fetchval("select subscription_due_at > now() from zapwatch_channels"), bool
            )

        assert await paid_until(told, channel) == at
