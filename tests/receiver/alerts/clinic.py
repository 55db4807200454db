"""A tenant with a channel on a gateway, and receivers on loopback where its people are told."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from ipaddress import ip_network
from typing import Any, Final
from uuid import UUID

from db.connection.types import Connection
from tests.receiver.alerts.inbox import Inbox, open_inbox
from tests.receiver.alerts.post import Post, open_post
from tests.support.story import Story, story

BOT: Final = "123456789:AAs3cretAAs3cretAAs3cretAAs3cretAAs"
UNHURRIED: Final[Mapping[str, Any]] = {
    "stale_after": timedelta(hours=1),
    "retry_after": timedelta(seconds=1),
    "probe_timeout": timedelta(seconds=20),
    "terminal_grace": timedelta(seconds=0.1),
    "outgoing_allow": (ip_network("127.0.0.0/8"),),
}
"""Settings under which only what happens is noticed, at once, and tenants are told on loopback."""


@dataclass
class Clinic:
    """The tenant and its channel; its inbox and its mail server get what they are made destinations of."""

    told: Story
    id: str
    instance: Any
    channel: str
    inbox: Inbox
    post: Post

    async def destination(self, kind: str, inbox: Inbox | None = None, **more: Any) -> Any:
        """Have it be told by this kind, too, in its own inbox or another; return what was answered."""
        body = {"kind": kind, "config": self.config(kind, inbox or self.inbox), "tenant_id": self.id, **more}
        answer = await self.told.z.client.post("/destinations", json=body)
        assert answer.status_code == 201, answer.text
        return answer.json()

    def config(self, kind: str, inbox: Inbox) -> dict[str, Any]:
        """Return what a destination of this kind needs."""
        if kind == "telegram":
            return {"token": BOT, "chat_id": "7", "api_url": inbox.url}
        if kind == "email":
            server = {"host": "127.0.0.1", "port": self.post.port, "tls": "none"}
            return {**server, "from": "z@watch.example", "to": ["ana@clinic.example"]}
        return {"url": f"{inbox.url}/{kind}"}

    async def lose(self) -> str:
        """Have the channel be unlinked on the phone; return its incident once there is one."""
        self.instance.unlink()
        return str((await self.told.z.incident(self.channel))["id"])

    async def sent(self, **where: str) -> list[Any]:
        """Return what was sent of it, or is to be, the oldest first."""
        items = (await self.told.z.get("/deliveries", limit="500", **where))["items"]
        return [it for it in reversed(items) if it["tenant_id"] == self.id and it["decision"] == "send"]

    async def delivered(self, event: str, count: int) -> None:
        """Wait until so many have been told of an event, and nobody else is to be."""

        async def outcomes() -> list[str | None]:
            return [it["outcome"] for it in await self.sent() if it["event"] == event]

        await self.told.z.until(outcomes, lambda all_: all_ == ["delivered"] * count)

    async def tried(self, destination: Any, times: int) -> list[Any]:
        """Return the tries of the one message to a destination, the oldest first, once there are so many."""

        async def tries() -> list[Any]:
            [sent] = await self.sent(destination_id=destination["id"])
            return list(reversed(sent["attempts"]))

        return await self.told.z.until(tries, lambda attempts: len(attempts) >= times)

    async def notifications(self) -> list[Any]:
        """Return what its application shows its one administrator, the oldest first."""
        return list(reversed((await self.told.z.get("/notifications", tenant_id=self.id))["items"]))


@asynccontextmanager
async def open_town(dsn: str) -> AsyncIterator[Story]:
    """Yield a service and gateways, for clinics to be opened."""
    async with story(dsn, **UNHURRIED) as told:
        yield told


@asynccontextmanager
async def open_clinic(told: Story, connection: Connection, locale: str) -> AsyncIterator[Clinic]:
    """Yield a clinic with one administrator, whose people read this language."""
    answer = await told.z.client.post("/tenants", json={"name": "Clínica", "locale": locale})
    tenant = answer.json()["id"]
    await connection.execute(
        "insert into tenant_members (tenant_id, user_id, role, status) "
        "values ($1, $1, 'clinic_admin', 'active')",
        UUID(tenant),
    )
    host = await told.fleet.evolution()
    instance = host.add("praca")
    channel = await told.watch(host, instance, name="Praça", tenant_id=tenant)
    async with open_inbox() as inbox, open_post() as post:
        yield Clinic(told, tenant, instance, channel, inbox, post)
