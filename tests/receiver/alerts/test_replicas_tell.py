"""Three services on one database tell people what one tells them: the same messages, each once."""

import re
from collections import Counter
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import timedelta
from ipaddress import ip_network
from itertools import cycle
from typing import Any
from uuid import UUID

import pytest

from db.connection.types import Connection
from tests.receiver.alerts.desk import let_pass
from tests.receiver.alerts.inbox import Inbox, open_inbox
from tests.receiver.alerts.post import Post, open_post, part
from tests.receiver.alerts.sink import Got
from tests.receiver.telemetry.test_metrics import value
from tests.support.service import Zapwatch, zapwatch

TENANTS = 6
CHANNELS = 20
"""Of each tenant."""
BRIEF = 4
"""Of those, how many are back while the second message waits."""
SEEN = 8
"""How many incidents of each tenant are acknowledged."""
WINDOW = timedelta(seconds=31)
REMINDED_AFTER = timedelta(minutes=10)
QUIET = """
select not exists (select from zapwatch_alerts where settled_at is null)
  and not exists (
    select from zapwatch_messages where settled_at is null and due_at <= now() + interval '2 seconds')
  and not exists (select from zapwatch_decisions where remind_at <= now())
"""
OPEN = "select whatsapp_heartbeat_open_incident($1, 'disconnected', null, '{\"reason\": \"logged_out\"}')"
MEMBER = (
    "insert into tenant_members (tenant_id, user_id, role, status) values ($1, $1, 'clinic_admin', 'active')"
)
RESOLVE = "select whatsapp_heartbeat_resolve_open_incidents($1)"


@dataclass
class Town:
    """Services, their tenants' channels by name, and where people are told."""

    replicas: Sequence[Zapwatch]
    connection: Connection
    inbox: Inbox
    post: Post
    channels: dict[str, UUID]

    async def call(self, statement: str, *names: str) -> None:
        """Call a public function for channels, in one transaction."""
        async with self.connection.transaction():
            for name in names:
                await self.connection.fetchval(statement, self.channels[name])

    async def rest(self, after: timedelta = timedelta(0)) -> None:
        """Let time pass, and wait until everybody is told who is to be told by then."""
        await let_pass(self.connection, after)
        await self.replicas[0].until(
            lambda: self.connection.fetchval(QUIET), lambda is_quiet: is_quiet, within=60
        )

    async def acknowledge(self, *names: str) -> None:
        """Acknowledge incidents, each at another service."""
        for z, name in zip(cycle(self.replicas), names, strict=False):
            [incident] = await z.incidents(str(self.channels[name]))
            assert (await z.client.post(f"/incidents/{incident['id']}/ack")).status_code == 200

    async def destination(self, kind: str, config: dict[str, Any], **more: Any) -> None:
        """Make a destination."""
        body = {"kind": kind, "config": config, **more}
        answer = await self.replicas[0].client.post("/destinations", json=body)
        assert answer.status_code == 201, answer.text

    async def settle(self, tenant: int) -> None:
        """Make a tenant with channels, one member and a destination of each kind of server."""
        z = self.replicas[0]
        answer = await z.client.post("/tenants", json={"name": f"T{tenant}", "locale": "en"})
        id = answer.json()["id"]
        mail = {"host": "127.0.0.1", "port": self.post.port, "tls": "none", "from": "z@watch.example"}
        url = self.inbox.url
        await self.destination(
            "webhook", {"url": f"{url}/webhook/{tenant}"}, tenant_id=id, reminder_minutes=10
        )
        await self.destination("slack", {"url": f"{url}/slack/{tenant}"}, tenant_id=id)
        await self.destination("email", {**mail, "to": [f"t{tenant}@clinic.example"]}, tenant_id=id)
        await self.connection.execute(MEMBER, UUID(id))
        for name in of(tenant, *range(CHANNELS)):
            self.channels[name] = UUID(await z.channel(name.replace(" ", "-"), tenant_id=id, name=name))


def named(*places: int) -> list[str]:
    """Return these channels of each tenant by name, tenant by tenant."""
    return [f"Loja {tenant:02}{place:02}" for tenant in range(TENANTS) for place in places]


def of(tenant: int, *places: int) -> list[str]:
    """Return these channels of one tenant by name."""
    return [f"Loja {tenant:02}{place:02}" for place in places]


def names_in(text: str) -> list[str]:
    """Return which channels a text tells of, in order."""
    return list(dict.fromkeys(re.findall(r"Loja \d{4}", text)))


def news_of(got: Sequence[Got]) -> Counter[tuple[str, str]]:
    """Return how often a program was told what of which channel."""
    return Counter((it.json["type"], it.json["data"]["name"]) for it in got)


async def sent_by(z: Zapwatch) -> float:
    """Return how many webhooks a service has delivered."""
    text = (await z.client.get("/metrics")).text
    return value(text, "zapwatch_message_tries_total", kind="webhook", outcome="delivered") or 0


async def live(town: Town) -> None:
    """Have all lose their connection, some come back at once, some be seen to, and all be back in the end."""
    late = range(CHANNELS - BRIEF, CHANNELS)
    await town.call(OPEN, *named(*range(CHANNELS)))
    await town.rest()
    await town.call(RESOLVE, *named(*late))
    await town.rest()
    await town.acknowledge(*named(*range(SEEN)))
    await town.rest(WINDOW)
    await town.rest(REMINDED_AFTER)
    await town.call(RESOLVE, *named(*range(CHANNELS - BRIEF)))
    await town.rest()
    await town.rest(WINDOW)


@pytest.mark.parametrize("count", [1, 3])
async def test_three_replicas_tell_what_one_tells(dsn: str, connection: Connection, count: int) -> None:
    async with AsyncExitStack() as stack:
        inbox = await stack.enter_async_context(open_inbox())
        post = await stack.enter_async_context(open_post())
        loopback = (ip_network("127.0.0.0/8"),)
        replicas = [
            await stack.enter_async_context(zapwatch(dsn, outgoing_allow=loopback)) for _ in range(count)
        ]
        town = Town(replicas, connection, inbox, post, {})
        for kind in ("webhook", "slack"):
            await town.destination(kind, {"url": f"{inbox.url}/{kind}/operators"})
        for tenant in range(TENANTS):
            await town.settle(tenant)

        await live(town)

        sent = [await sent_by(z) for z in replicas]
    told = {path: [got for got in inbox.got if got.path == path] for path in {it.path for it in inbox.got}}
    lasting, brief = range(CHANNELS - BRIEF), range(CHANNELS - BRIEF, CHANNELS)
    for tenant in range(TENANTS):
        wished = [
            ("incident.opened", name) for name in of(tenant, *lasting, *brief, *range(SEEN, CHANNELS - BRIEF))
        ]
        over = [("incident.resolved", name) for name in of(tenant, *lasting, *brief)]
        assert news_of(told[f"/webhook/{tenant}"]) == Counter(wished + over)
        messages = [of(tenant, *range(CHANNELS)), of(tenant, *brief), of(tenant, *lasting)]
        assert [names_in(got.body.decode()) for got in told[f"/slack/{tenant}"]] == messages
        mails = [mail for mail in post.got if mail["To"] == f"t{tenant}@clinic.example"]
        assert [names_in(part(mail, "plain")) for mail in mails] == messages
    all_news = [(event, name) for name in town.channels for event in ("incident.opened", "incident.resolved")]
    assert news_of(told["/webhook/operators"]) == Counter(all_news)
    assert [got.json["text"] for got in told["/slack/operators"]] == [
        f"{TENANTS * CHANNELS} aparelhos foram desvinculados",
        f"{TENANTS * BRIEF} canais voltaram a se conectar",
        f"{TENANTS * len(lasting)} canais voltaram a se conectar",
    ]
    ids = [got.headers["webhook-id"] for got in inbox.got if "webhook-id" in got.headers]
    ids += [mail["Message-ID"] for mail in post.got]
    assert len(ids) == len(set(ids))
    shown = "select tenant_id, count(*) from notifications group by tenant_id"
    assert [row["count"] for row in await connection.fetch(shown)] == [3] * TENANTS
    assert min(sent) > 0
    assert sum(sent) == sum(len(got) for path, got in told.items() if path.startswith("/webhook/"))
