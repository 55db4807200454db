"""The whole service on a database of its own, asked as gateways and operators ask it."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, fields
from datetime import datetime, timedelta
from typing import Any, TypeVar

import httpx
import orjson

from receiver.app import App
from receiver.jobs.loop import LoopTiming
from receiver.service.composition import http_app
from receiver.service.lifecycle import running
from receiver.settings import Settings
from receiver.timings import Timings
from tests.support.eventually import eventually
from tests.support.serving import address, listening, serving

KEY = bytes(range(32))
OPERATOR = "an-operator-of-the-tests"
QUICK: dict[str, Any] = {
    "terminal_grace": timedelta(seconds=0.3),
    "verdict_within": timedelta(0),
    "loops": LoopTiming(speed=5),
}
"""Settings and timings under which a test need not wait."""
SOON = 0.01
"""A threshold in minutes that is over in 0.6 s."""

Answer = TypeVar("Answer")


@dataclass
class Zapwatch:
    """A running service and a channel's way into it."""

    app: App
    client: httpx.AsyncClient
    hooks: dict[str, str] = field(default_factory=dict)

    async def channel(self, instance: str = "loja-01", provider: str = "evolution_api", **more: Any) -> str:
        """Register a channel and return its id."""
        body = {"provider": provider, "instance": instance, **more}
        answer = await self.client.post("/channels", json=body)
        assert answer.status_code == 201, answer.text
        self.hooks[answer.json()["id"]] = answer.json()["webhook_url"]
        return str(answer.json()["id"])

    async def post(self, hook: str, body: object, suffix: str = "") -> int:
        """Post to a channel's (or a whole) webhook address; bytes go as they are. Return the status."""
        content = body if isinstance(body, bytes) else orjson.dumps(body)
        headers = {"Content-Type": "application/json", "User-Agent": "axios/1.12.2"}
        url = self.hooks.get(hook, hook) + suffix
        return (await self.client.post(url, content=content, headers=headers)).status_code

    async def hear(self, hook: str, *bodies: object) -> None:
        """Post webhooks one after the other, each of which must be committed."""
        for body in bodies:
            assert await self.post(hook, body) == 204

    async def get(self, path: str, **params: str) -> Any:
        """Return what an operator gets."""
        answer = await self.client.get(path, params=params)
        assert answer.status_code == 200, answer.text
        return answer.json()

    async def state(self, channel: str) -> Any:
        """Return the state object."""
        return await self.get(f"/channels/{channel}/state")

    async def stands(self, channel: str) -> tuple[str, str | None, bool | None]:
        """Return a channel's state, its reason's code and whether that is terminal."""
        shown = await self.state(channel)
        reason = shown["reason"] or {}
        return shown["state"], reason.get("code"), reason.get("terminal")

    async def events(self, channel: str) -> list[dict[str, Any]]:
        """Return a channel's events, oldest first."""
        return list(reversed((await self.get(f"/channels/{channel}/events", limit="500"))["items"]))

    async def incidents(self, channel: str) -> list[dict[str, Any]]:
        """Return a channel's incidents, newest first."""
        return list((await self.get(f"/channels/{channel}/incidents"))["items"])

    async def incident(self, channel: str) -> Any:
        """Return the channel's open incident once there is one."""
        return (await self.until(lambda: self.state(channel), lambda shown: shown["incident"]))["incident"]

    async def until(
        self, ask: Callable[[], Awaitable[Answer]], is_so: Callable[[Answer], Any], within: float = 30
    ) -> Answer:
        """Ask until the answer is so, and return it; fail after so many seconds."""
        return await eventually(ask, is_so, within)


@asynccontextmanager
async def zapwatch(dsn: str, **settings: Any) -> AsyncIterator[Zapwatch]:
    """Yield a running service with these settings and timings."""
    chosen = {**QUICK, "public_url": "http://zapwatch", **settings}
    async with running(*_configured(dsn, chosen)) as (app, _), _asking(app) as z:
        yield z


@asynccontextmanager
async def served(dsn: str, **settings: Any) -> AsyncIterator[Zapwatch]:
    """Yield a running service that gateways reach, on a port of its own."""
    with listening() as listener:
        chosen = {**QUICK, "public_url": address(listener), **settings}
        async with (
            running(*_configured(dsn, chosen)) as (app, _),
            serving(http_app(app), listener),
            _asking(app) as z,
        ):
            yield z


def _configured(dsn: str, chosen: dict[str, Any]) -> tuple[Settings, Timings]:
    timed = {field.name for field in fields(Timings)}
    timings = Timings(**{name: value for name, value in chosen.items() if name in timed})
    others = {name: value for name, value in chosen.items() if name not in timed}
    settings = Settings(database_url=dsn, secret_keys=(KEY,), operator_token=OPERATOR, **others)
    return settings, timings


@asynccontextmanager
async def _asking(app: App) -> AsyncIterator[Zapwatch]:
    headers = {"Authorization": f"Bearer {OPERATOR}"}
    transport = httpx.ASGITransport(http_app(app))
    async with httpx.AsyncClient(transport=transport, base_url="http://zapwatch", headers=headers) as client:
        yield Zapwatch(app, client)


def time(text: str) -> datetime:
    """Return the time in an answer."""
    return datetime.fromisoformat(text)
