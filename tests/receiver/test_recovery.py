"""Channels lost for a moment are brought back by their gateways' own rules; the others are left alone."""

from typing import Any

from tests.receiver.story import Story, story

SPEED = 10.0
"""How fast time runs: a lost session has 6 s for its recovery, and orders are half a second apart."""


async def last_recovery(told: Story, channel: str) -> Any:
    """What the gateway was told last about a channel."""
    return (await told.z.get(f"/channels/{channel}"))["recovery"]["last"]


async def recovered(told: Story, channel: str, outcome: str = "recovered") -> Any:
    """The last recovery once it has this outcome."""
    return await told.z.until(
        lambda: last_recovery(told, channel), lambda last: last is not None and last["outcome"] == outcome, 40
    )


def orders(instance: Any) -> list[str]:
    """What an instance was told to do."""
    return [ordered.what for ordered in instance.ordered]


async def test_a_lost_w_api_session_is_restarted_and_nobody_is_told(dsn: str) -> None:
    async with story(dsn, SPEED) as told:
        host = await told.fleet.wapi()
        instance = host.add()
        channel = await told.watch(host, instance)

        instance.restarts_needed = 1
        instance.disconnect()

        last = await recovered(told, channel)
        await told.becomes(channel, "open")
        assert (last["action"], last["asked_by"], last["tries"]) == ("restart", "clock", 1)
        assert orders(instance) == ["restart"]
        assert await told.all_incidents() == []
        events = await told.z.events(channel)
        assert [(e["source"], e["data"]["outcome"]) for e in events if e["name"] == "recovery"] == [
            ("deadline", "recovered")
        ]
        states = [event["state"] for event in events]
        assert "disconnected" in states
        assert not any((event["data"] or {}).get("opened") for event in events)


async def test_a_w_api_session_that_three_restarts_do_not_bring_back_needs_a_scan(dsn: str) -> None:
    async with story(dsn, SPEED) as told:
        host = await told.fleet.wapi()
        instance = host.add()
        channel = await told.watch(host, instance)

        instance.disconnect()

        last = await recovered(told, channel, "failed")
        assert last["tries"] == 3
        assert orders(instance) == ["restart"] * 3
        shown = await told.becomes(channel, "disconnected", "disconnected")
        assert shown["reason"]["terminal"] is True
        assert (await told.z.incident(channel))["kind"] == "disconnected"
