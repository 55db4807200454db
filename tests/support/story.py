"""A fleet of gateways and the service that watches it, in compressed time, asked over HTTP."""

from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from receiver.sandbox import Fleet, open_fleet
from tests.support.eventually import eventually
from tests.support.service import Zapwatch, served

SPEED = 200.0
"""How many of the sandbox's seconds are one here."""
PROVIDERS = {"EvolutionHost": "evolution_api", "WapiHost": "wapi", "TwilioHost": "twilio"}


def compressed(speed: float) -> dict[str, Any]:
    """Return the default settings in compressed time, but for the wait for an answer."""
    return {
        "stale_after": timedelta(seconds=120) / speed,
        "retry_after": timedelta(seconds=10) / speed,
        "terminal_grace": timedelta(seconds=15) / speed,
        "recovery_speed": speed,
        "verdict_within": timedelta(seconds=60) / speed,
        "away_for": timedelta(seconds=10) / speed,
        "gateway_flaps_within": timedelta(minutes=30) / speed,
        "gateway_stable_for": timedelta(minutes=10) / speed,
        "gateway_settle": timedelta(seconds=60) / speed,
        "breaker_max": timedelta(seconds=60) / speed,
        "probe_timeout": timedelta(seconds=1),  # a busy machine may need this much for what takes no time
    }


@dataclass
class Story:
    """The service, the fleet, and the channels that the one knows of the other."""

    z: Zapwatch
    fleet: Fleet

    async def watch(self, host: Any, instance: Any, state: str | None = "open", **more: Any) -> str:
        """Register a channel with its webhook and return its id once its first probe has told its state."""
        channel = await self.z.channel(
            instance.name,
            PROVIDERS[type(host).__name__],
            api_url=host.url,
            api_key=more.pop("api_key", instance.key),
            **{"metadata": {"heartbeat_threshold_minutes": 5 / self.fleet.speed}, **more},
        )
        instance.webhook = self.z.hooks[channel]
        if state is not None:
            await self.becomes(channel, state)
        return channel

    async def watch_all(self, host: Any, instances: Iterable[Any], **more: Any) -> list[str]:
        """Register channels and return their ids once the first probe of each has told that it is open."""
        channels = [await self.watch(host, instance, state=None, **more) for instance in instances]
        for channel in channels:
            await self.becomes(channel, "open")
        return channels

    async def becomes(self, channel: str, state: str, reason: str | None = None) -> Any:
        """Return the state object once the channel is in this state, for this reason if one is given."""
        return await self.z.until(
            lambda: self.z.state(channel),
            lambda shown: shown["state"] == state and reason in (None, (shown["reason"] or {}).get("code")),
        )

    async def open_incidents(self) -> dict[str, dict[str, Any]]:
        """Return the open incidents by channel."""
        return {i["channel_id"]: i for i in await self.all_incidents() if i["resolved_at"] is None}

    async def all_incidents(self) -> list[dict[str, Any]]:
        """Return every incident of a channel that there was."""
        items: list[dict[str, Any]] = []
        page = await self.z.get("/incidents", subject="channel", limit="500")
        items += page["items"]
        while page["next"] is not None:
            page = await self.z.get("/incidents", subject="channel", limit="500", cursor=page["next"])
            items += page["items"]
        return items

    async def asked(self, instance: Any, more: int = 1) -> None:
        """Wait until the gateway was asked about an instance so often, and the answers were kept."""
        wanted = len(instance.probed) + more
        await eventually(lambda: len(instance.probed) >= wanted)
        await self.z.app.writer.drain()


@asynccontextmanager
async def story(
    dsn: str, speed: float = SPEED, doubled: float = 0.0, reordered: float = 0.0, **settings: Any
) -> AsyncIterator[Story]:
    """Yield a served service and an empty fleet beside it."""
    async with (
        open_fleet(speed=speed, doubled=doubled, reordered=reordered) as fleet,
        served(dsn, **{**compressed(speed), **settings}) as z,
    ):
        yield Story(z, fleet)
