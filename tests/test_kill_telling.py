"""Whoever is told when the service is killed between sending and noting that is told at most once more."""

import asyncio
from asyncio.subprocess import Process
from base64 import urlsafe_b64encode
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx
import pytest
from standardwebhooks import Webhook

from db.connection.types import Connection
from tests.conftest import connected
from tests.factories import Evolution
from tests.receiver.alerts.inbox import Inbox, answering, open_inbox
from tests.support.eventually import eventually
from tests.support.service import KEY
from tests.support.soak import sized
from tests.test_kill import free_port, serving

TIMES = sized(1, 3)
"""How often the service is killed in each test."""
SETTINGS = {
    "ZAPWATCH_SECRET_KEYS": urlsafe_b64encode(KEY).decode(),
    "ZAPWATCH_OUTGOING_ALLOW": "127.0.0.0/8",
    "ZAPWATCH_TERMINAL_GRACE_SECONDS": "0.1",
}
numbers = count(1)

pytestmark = pytest.mark.soak


@dataclass
class Life:
    """The service from a start to its death."""

    process: Process
    client: httpx.AsyncClient

    async def make(self, path: str, **body: Any) -> Any:
        """Make something, and return what was answered."""
        answer = await self.client.post(path, json=body)
        assert answer.status_code == 201, answer.text
        return answer.json()

    async def lose_a_channel(self, tenant: str) -> str:
        """Have a channel of this tenant lose its session, and return its id."""
        name = f"loja-{next(numbers)}"
        made = await self.make("/channels", provider="evolution_api", instance=name, tenant_id=tenant)
        told = Evolution(name)
        for body in (told.update("open"), told.update("close", 401)):
            assert (await self.client.post(made["webhook_url"], json=body)).status_code == 204
        return str(made["id"])

    async def die(self) -> None:
        """Be killed, as by kill -9."""
        self.process.kill()
        await self.process.wait()

    async def get(self, path: str, **params: str) -> list[Any]:
        """Return the items of a list."""
        answer = await self.client.get(path, params=params)
        assert answer.status_code == 200, answer.text
        return list(answer.json()["items"])

    async def told(self, channel: str) -> tuple[Any, Any]:
        """Return a channel's incident and the one message that was sent of it, once that is settled."""
        [incident] = await self.get(f"/channels/{channel}/incidents")

        async def sent() -> Any:
            log = await self.get("/deliveries", incident_id=incident["id"])
            [sending] = [it for it in log if it["decision"] == "send"]
            return sending

        settled = await eventually(sent, lambda it: it["outcome"] is not None, within=60)
        [incident] = await self.get(f"/channels/{channel}/incidents")
        return incident, settled


@asynccontextmanager
async def living(dsn: str, folder: Path, port: int) -> AsyncIterator[Life]:
    """Yield the service as a process of its own, on this database."""
    async with serving(folder, port, ZAPWATCH_DATABASE_URL=dsn, **SETTINGS) as (process, client):
        yield Life(process, client)


@asynccontextmanager
async def barred(dsn: str, table: str) -> AsyncIterator[Callable[[], Awaitable[None]]]:
    """Let nobody write to a table; yield what waits until somebody wants to."""
    async with connected(dsn) as connection, connection.transaction():
        await connection.execute(f"lock table {table} in share mode")

        async def wanted() -> None:
            asks = (
                "select count(*) from pg_stat_activity where pg_backend_pid() = any (pg_blocking_pids(pid))"
            )
            await eventually(lambda: connection.fetchval(asks))

        yield wanted


async def let_leases_end(connection: Connection) -> None:
    """Have the half minute be over for which the dead still hold what they were sending."""
    held = "update zapwatch_messages set claimed_until = now() where claimed_until is not null"
    assert await connection.execute(held) == "UPDATE 1"


async def assert_told_twice(inbox: Inbox, secret: str, life: Life, channel: str) -> None:
    """The newest incident was told in the end, and what came twice can be known by its id."""
    incident, sent = await life.told(channel)
    first, again = inbox.got
    inbox.got.clear()
    for got in (first, again):
        assert Webhook(secret).verify(got.body, dict(got.headers))["data"]["incident_id"] == incident["id"]
    assert first.headers["webhook-id"] == again.headers["webhook-id"] == sent["message"]["id"]
    assert first.body == again.body
    assert (sent["outcome"], sent["message"]["tries"], len(sent["attempts"])) == ("delivered", 2, 1)
    assert incident["notification_count"] == 1
    assert incident["notified_at"] is not None


async def hear_of_a_webhook(life: Life, inbox: Inbox) -> tuple[str, str]:
    """Make a tenant that is told by a webhook; return its id and the secret."""
    tenant = (await life.make("/tenants", name="Loja"))["id"]
    made = await life.make("/destinations", kind="webhook", tenant_id=tenant, config={"url": inbox.url})
    return tenant, made["secret"]


@pytest.mark.parametrize("is_answered", [False, True])
async def test_a_webhook_comes_once_more_when_the_service_dies_before_it_has_settled(
    dsn: str, connection: Connection, tmp_path: Path, is_answered: bool
) -> None:
    port, tenant, secret, channel = free_port(), "", "", ""
    async with open_inbox() as inbox:
        for _ in range(TIMES):
            async with living(dsn, tmp_path, port) as life:
                if channel:
                    await assert_told_twice(inbox, secret, life, channel)
                else:
                    tenant, secret = await hear_of_a_webhook(life, inbox)
                if is_answered:
                    async with barred(dsn, "zapwatch_attempts") as wanted:
                        inbox.manners = [answering(204, b"")]
                        channel = await life.lose_a_channel(tenant)
                        await wanted()
                        await life.die()
                else:

                    async def die_first(*_: object, life: Life = life) -> None:
                        await life.die()

                    inbox.manners = [die_first]
                    channel = await life.lose_a_channel(tenant)
                    await asyncio.wait_for(life.process.wait(), 30)
                assert len(inbox.got) == 1
            await let_leases_end(connection)
        async with living(dsn, tmp_path, port) as life:
            await assert_told_twice(inbox, secret, life, channel)


@pytest.mark.parametrize("is_written", [False, True])
async def test_nothing_is_shown_twice_in_the_application_wherever_the_service_dies(
    dsn: str, connection: Connection, tmp_path: Path, is_written: bool
) -> None:
    shown = "select count(*) from notifications where tenant_id = $1"
    table = "zapwatch_attempts" if is_written else "notifications"
    port = free_port()
    for _ in range(TIMES):
        tenant = await add_tenant_of_one(connection)
        async with living(dsn, tmp_path, port) as life, barred(dsn, table) as wanted:
            channel = await life.lose_a_channel(str(tenant))
            await wanted()
            assert await connection.fetchval(shown, tenant) == is_written
            await life.die()
        await let_leases_end(connection)
        async with living(dsn, tmp_path, port) as life:
            incident, sent = await life.told(channel)
            notifications = await life.get("/notifications", tenant_id=str(tenant))

        assert (sent["outcome"], sent["message"]["tries"]) == ("delivered", 2)
        assert incident["notification_count"] == 1
        assert [it["payload"]["incident_id"] for it in notifications] == [incident["id"]]


async def add_tenant_of_one(connection: Connection) -> UUID:
    """Add a tenant with one administrator, and return its id."""
    tenant: UUID = await connection.fetchval("insert into tenants (name) values ('Loja') returning id")
    await connection.execute(
        "insert into tenant_members (tenant_id, user_id, role, status) "
        "values ($1, $1, 'clinic_admin', 'active')",
        tenant,
    )
    return tenant
