"""The demo's operator: registers the channels, and prints what the service's API returns of them.

What is said comes from the API alone: the scripts of the fleet are not its business.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Final, NotRequired, TypedDict

import httpx

from receiver.demo.scene import DemoChannel
from receiver.settings import Settings

ASKED_EVERY: Final = 0.5
"""Seconds between two reads of the incidents."""

Say = Callable[[str], None]


class Created(TypedDict):
    """What the API answers to a tenant or a channel that was made, as far as it is read here."""

    id: str
    webhook_url: NotRequired[str]
    """Of a channel."""


class ListedIncident(TypedDict):
    """An incident as the API lists it, as far as it is read here."""

    id: str
    channel_id: str
    kind: str
    details: dict[str, object]
    resolved_at: str | None
    duration_seconds: int | None


class DemoOperator:
    """Where the operator sits; made by `open_operator`."""

    def __init__(self, client: httpx.AsyncClient, say: Say) -> None:
        self._client = client
        self._say = say
        self._names: dict[str, str] = {}

    async def register(self, parts: Sequence[DemoChannel], threshold: timedelta) -> dict[str, str]:
        """Register tenants and channels, have the gateways send their webhooks, and return names by id."""
        defaults = {"heartbeat_threshold_minutes": threshold / timedelta(minutes=1)}
        tenants: dict[str, str] = {}
        for part in parts:
            if part.tenant not in tenants:
                made = await self._post("/tenants", name=part.tenant, defaults=defaults)
                tenants[part.tenant] = made["id"]
            made = await self._post(
                "/channels",
                provider=part.provider,
                instance=part.channel.name,
                api_url=part.url,
                api_key=part.channel.key,
                name=part.name,
                tenant_id=tenants[part.tenant],
            )
            part.channel.webhook = made["webhook_url"]
            self._names[made["id"]] = part.name
        return self._names

    async def narrate(self) -> None:
        """Say when an incident opens and when it resolves, for ever."""
        loop = asyncio.get_running_loop()
        began = loop.time()
        opened: set[str] = set()
        resolved: set[str] = set()
        while True:
            for incident in reversed(await self._incidents()):
                at, name = _clock(loop.time() - began), self._names[incident["channel_id"]]
                if incident["id"] not in opened:
                    opened.add(incident["id"])
                    self._say(f"{at}  {name:<16} INCIDENT: {incident['kind']} ({_why(incident)})")
                if incident["resolved_at"] is not None and incident["id"] not in resolved:
                    resolved.add(incident["id"])
                    self._say(f"{at}  {name:<16} resolved after {incident['duration_seconds']} s")
            await asyncio.sleep(ASKED_EVERY)

    async def _incidents(self) -> list[ListedIncident]:
        answer = await self._client.get("/incidents", params={"subject": "channel", "limit": "500"})
        answer.raise_for_status()
        items: list[ListedIncident] = answer.json()["items"]
        return items

    async def _post(self, path: str, **body: object) -> Created:
        answer = await self._client.post(path, json=body)
        answer.raise_for_status()
        made: Created = answer.json()
        return made


@asynccontextmanager
async def open_operator(settings: Settings, say: Say) -> AsyncIterator[DemoOperator]:
    """Yield an operator of the service that these settings describe."""
    headers = {"Authorization": f"Bearer {settings.operator_token}"}
    async with httpx.AsyncClient(base_url=settings.base_url, headers=headers, trust_env=False) as client:
        yield DemoOperator(client, say)


def _clock(seconds: float) -> str:
    return f"{int(seconds) // 60:02}:{int(seconds) % 60:02}"


def _why(incident: ListedIncident) -> str:
    details = incident["details"]
    return "flapping" if details.get("flapping") else str(details.get("reason") or "?")
