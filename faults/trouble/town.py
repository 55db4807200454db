"""A service, scripted hosts, tenants and their channels, and the destinations that are told."""

import asyncio
import os
import tempfile
from collections import Counter
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Final

from faults.postgres import Postgres, postgres
from faults.service import Service, free_port, serving
from faults.trouble import fast
from faults.trouble.sink import Sink, Told, open_sink
from receiver.sandbox import Fleet, open_fleet

AT_ONCE: Final = 8
"""Channels that are registered at the same time."""
OPERATORS: Final = "operators"


@dataclass(frozen=True, slots=True)
class Channel:
    """A channel, and its instance at its gateway."""

    id: str
    name: str
    tenant: str
    instance: Any = field(repr=False)


@dataclass
class Town:
    """Everything of one scenario. Seconds that scenarios name are the service's, `real` ones the clock's."""

    speed: float
    dsn: str
    folder: Path
    fleet: Fleet
    sink: Sink
    ports: Sequence[int]
    services: list[Service] = field(default_factory=list)
    tenants: dict[str, str] = field(default_factory=dict)
    """Their ids by name."""
    _stacks: dict[int, AsyncExitStack] = field(default_factory=dict)

    def real(self, seconds: float) -> float:
        """Return how long that takes here."""
        return seconds / self.speed

    async def rest(self, seconds: float) -> None:
        """Let time pass: nothing can be awaited where nothing must happen."""
        await asyncio.sleep(self.real(seconds))

    # The service

    @property
    def service(self) -> Service:
        """A service that lives."""
        return next(it for it in self.services if it.process.returncode is None)

    async def start(self, place: int = 0, **settings: str) -> None:
        """Start a service on the place's port."""
        stack = AsyncExitStack()
        service = await stack.enter_async_context(
            serving(
                self.dsn,
                self.folder,
                port=self.ports[place],
                module=(fast.MODULE, str(self.speed)),
                **(fast.variables(self.speed) | settings),
            )
        )
        self._stacks[place] = stack
        self.services.append(service)

    async def kill(self, place: int = 0) -> None:
        """Kill it (-9)."""
        [service] = [it for it in self.services if it.port == self.ports[place]]
        service.process.kill()
        await service.process.wait()
        self.services.remove(service)
        await self._stacks.pop(place).aclose()

    async def close(self) -> None:
        """End all services."""
        for stack in self._stacks.values():
            await stack.aclose()

    # What is there

    async def post(self, path: str, body: Mapping[str, Any], token: str | None = None) -> Any:
        """Return what a POST that succeeds answers."""
        headers = {} if token is None else {"Authorization": f"Bearer {token}"}
        answer = await self.service.api.post(path, json=body, headers=headers)
        if answer.is_error:
            raise RuntimeError(f"{path}: {answer.status_code} {answer.text}")
        return answer.json()

    async def tenant(self, name: str, minutes: float, **defaults: Any) -> str:
        """Make a tenant whose channels have this threshold; a person and a program of its are told."""
        wishes = {"heartbeat_threshold_minutes": minutes / self.speed, **defaults}
        made = await self.post("/tenants", {"name": name, "locale": "en", "defaults": wishes})
        self.tenants[name] = made["id"]
        await self.told(name, made["id"])
        return str(made["id"])

    async def told(self, name: str, tenant: str | None = None) -> None:
        """Make destinations of a person and of a program, the operators' or a tenant's."""
        for kind in ("slack", "webhook"):
            body: dict[str, Any] = {"kind": kind, "config": {"url": f"{self.sink.url}/{slug(name)}/{kind}"}}
            events = {"events": [*OPENED, *([] if tenant else GATEWAY)]} if kind == "webhook" else {}
            body |= {"tenant_id": tenant, "name": name}
            try:
                await self.post("/destinations", body | events)
            except RuntimeError:
                await self.post("/destinations", body)

    async def watch(self, host: Any, names: Iterable[str], tenant: str, **more: Any) -> list[Channel]:
        """Register open instances of a host, with their webhooks; return them once all are known as open."""
        channels = await self.register(host, names, tenant, **more)
        wanted = {channel.id for channel in channels}

        async def waiting() -> int:
            states = await self.states()
            return sum(states[it][0] != "open" for it in wanted)

        await self._until(waiting, "channels never became open")
        return channels

    async def register(
        self, host: Any, names: Iterable[str], tenant: str, token: str | None = None, **more: Any
    ) -> list[Channel]:
        """Register instances of a host, with their webhooks."""
        places = asyncio.Semaphore(AT_ONCE)

        async def one(name: str) -> Channel:
            instance = host.channels.get(slug(name)) or host.add(slug(name))
            body = {
                "provider": "evolution_api",
                "instance": slug(name),
                "name": name,
                "api_url": host.url,
                "api_key": instance.key,
                **({} if token else {"tenant_id": self.tenants[tenant]}),
                **more,
            }
            async with places:
                made = await self.post("/channels", body, token)
            instance.webhook = made["webhook_url"]
            return Channel(made["id"], name, tenant, instance)

        return await asyncio.gather(*map(one, names))

    async def _until(self, ask: Any, failure: str, within: float = 60.0) -> None:
        loop = asyncio.get_running_loop()
        end = loop.time() + within
        while left := await ask():
            if loop.time() > end:
                raise RuntimeError(f"{failure}: {left}")
            await asyncio.sleep(0.1)  # the service tells nobody

    # What is shown

    async def states(self) -> dict[str, tuple[str, str | None]]:
        """Return the state and the reason of every channel."""
        shown = await self.service.items("/channels")
        return {it["channel_id"]: (it["state"], (it["reason"] or {}).get("code")) for it in shown}

    async def counts(self, channels: Iterable[Channel]) -> Counter[tuple[str, str | None]]:
        """Return how many of these channels are in which state, for which reason."""
        states = await self.states()
        return Counter(states[channel.id] for channel in channels)

    async def incidents(self, channels: Iterable[Channel] | None = None) -> list[dict[str, Any]]:
        """Return the incidents that channels had, or these had, the oldest first."""
        wanted = None if channels is None else {channel.id for channel in channels}
        items = await self.service.items("/incidents", subject="channel")
        items = [it for it in items if wanted is None or it["channel_id"] in wanted]
        return sorted(items, key=lambda it: str(it["opened_at"]))

    async def gateway_incidents(self) -> list[dict[str, Any]]:
        """Return the incidents of gateways, the oldest first."""
        items = await self.service.items("/incidents", subject="gateway")
        return sorted(items, key=lambda it: str(it["opened_at"]))

    async def gateway(self, host: Any) -> dict[str, Any]:
        """Return the gateway of a host."""
        return next(it for it in await self.service.items("/gateways") if it["base_url"] == host.url)

    def people(self, name: str = OPERATORS) -> list[Told]:
        """Return what the people of a tenant, or the operators, read."""
        return self.sink.told(f"{slug(name)}/slack")

    def programs(self, name: str = OPERATORS, type: str | None = None) -> list[Told]:
        """Return what the program of a tenant, or of the operators, was told."""
        return self.sink.told(f"{slug(name)}/webhook", type)

    def orders(self, host: Any) -> int:
        """Return how many orders a host was given."""
        return sum(len(instance.ordered) for instance in host.channels.values())


OPENED: Final = ("incident.opened", "incident.resolved", "incident.changed")
GATEWAY: Final = ("gateway.opened", "gateway.resolved")


def slug(name: str) -> str:
    """Return a name as instances and addresses have it."""
    return name.lower().replace(" ", "-")


def seconds(text: str) -> float:
    """Return the seconds since the epoch of a time in an answer."""
    return datetime.fromisoformat(text).timestamp()


@asynccontextmanager
async def open_town(dsn: str, folder: Path, speed: float, replicas: int = 1) -> AsyncIterator[Town]:
    """Yield an empty town whose services run; operators are told."""
    async with open_fleet(speed=speed) as fleet, open_sink() as sink:
        town = Town(speed, dsn, folder, fleet, sink, [free_port() for _ in range(replicas)])
        try:
            for place in range(replicas):
                await town.start(place)
            await town.told(OPERATORS)
            yield town
        finally:
            await town.close()


@asynccontextmanager
async def open_row(folder: Path, speed: float, replicas: int = 1) -> AsyncIterator[tuple[Town, Postgres]]:
    """Yield an empty town on a PostgreSQL of its own, for one line of the table."""
    own = Path(tempfile.mkdtemp(dir=folder))
    os.chmod(own, 0o755)  # as root PostgreSQL runs as another account
    async with postgres(own) as server, open_town(server.dsn, folder, speed, replicas) as town:
        yield town, server
