"""A destination of the tests, and what a test reads and writes of telling people."""

import asyncio
from collections.abc import AsyncIterator, Collection, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any, Final
from uuid import UUID, uuid4

import orjson

from db.connection.pool import open_pool
from db.connection.types import Connection, Pool
from db.reconcile.claims import settle_subscription
from db.vault import Vault
from receiver.alerts.dispatch import Dispatcher
from receiver.alerts.message import DeliveryResult, Message, Notifier
from receiver.alerts.notifiers import NOTIFIERS
from receiver.alerts.notifiers.in_app import InApp
from receiver.alerts.routing import Routing
from receiver.outbound.egress import Egress, EgressPolicy
from tests.support.service import KEY

TIMES: Final = {
    "zapwatch_messages": ("due_at", "leaves_at", "created_at", "claimed_until", "settled_at"),
    "zapwatch_alerts": ("due_at", "created_at", "settled_at"),
    "zapwatch_decisions": ("at", "remind_at"),
    "zapwatch_destinations": ("failing_since",),
    "zapwatch_maintenance": ("starts_at", "ends_at"),
    "zapwatch_changes": ("due_at", "created_at"),
}
"""What is to be earlier for time to have passed."""


@dataclass
class Sink:
    """A notifier that keeps what it is told, and answers what the destination's configuration says."""

    kind: str = "sink"
    is_grouped: bool = False
    credentials: Mapping[str, Collection[str]] = field(default_factory=dict)
    told: list[tuple[str, Message]] = field(default_factory=list)
    """Which destination, by its name, and what."""
    answers: dict[str, list[DeliveryResult]] = field(default_factory=dict)
    """What a destination answers next; nothing: it is fine."""
    hanging: set[str] = field(default_factory=set)

    def check(self, config: Mapping[str, object]) -> Mapping[str, object]:
        return config

    def shown(self, config: Mapping[str, object]) -> Mapping[str, object]:
        return config

    async def send(
        self, config: Mapping[str, object], message: Message, outgoing: EgressPolicy
    ) -> DeliveryResult:
        name = str(config["name"])
        self.told.append((name, message))
        if name in self.hanging:
            await asyncio.Event().wait()
        answers = self.answers.get(name)
        return answers.pop(0) if answers else DeliveryResult(True, status=200, answer="thanks")

    def events(self, name: str) -> list[str]:
        """Return what a destination was told, in order."""
        return [item.event.value for told, message in self.told if told == name for item in message.items]


@dataclass
class Desk:
    """One replica of what tells people, driven by hand, and the rows behind it."""

    connection: Connection
    pool: Pool
    routing: Routing
    dispatcher: Dispatcher
    sink: Sink
    letters: Sink

    async def tenant(self, **more: str) -> UUID:
        """Make a tenant."""
        values = {"name": "Loja", **more}
        names = ", ".join(values)
        marks = ", ".join(f"${n}" for n in range(1, len(values) + 1))
        id: UUID = await self.connection.fetchval(
            f"insert into tenants ({names}) values ({marks}) returning id", *values.values()
        )
        return id

    async def member(self, tenant: UUID, role: str = "clinic_admin", status: str = "active") -> UUID:
        """Add a member and return who it is."""
        user = uuid4()
        insert = "insert into tenant_members (tenant_id, user_id, role, status) values ($1, $2, $3, $4)"
        await self.connection.execute(insert, tenant, user, role, status)
        return user

    async def channel(self, tenant: UUID, name: str = "Centro", metadata: str = "{}") -> UUID:
        """Register a channel."""
        id: UUID = await self.connection.fetchval(
            "insert into notification_channels (tenant_id, provider, metadata) "
            "values ($1, 'wapi', $2) returning id",
            tenant,
            metadata,
        )
        await self.connection.execute(
            "insert into zapwatch_channels (channel_id, tenant_id, provider, instance, name) "
            "values ($1, $2, 'wapi', 'loja-01', $3)",
            id,
            tenant,
            name,
        )
        await self.connection.execute(
            "insert into zapwatch_states (channel_id, tenant_id) values ($1, $2)", id, tenant
        )
        return id

    async def destination(
        self,
        tenant: UUID | None,
        name: str,
        kind: str = "sink",
        config: Mapping[str, object] | None = None,
        **columns: Any,
    ) -> UUID:
        """Add a destination; without a configuration the sink knows it by its name."""
        id = uuid4()
        if config is None:
            config = {"recipients": name} if kind == "in_app" else {"name": name}
        sealed = Vault([KEY]).seal(orjson.dumps(config), f"destination:{id}")
        values = {"id": id, "tenant_id": tenant, "kind": kind, "name": name, "config": sealed, **columns}
        names, marks = ", ".join(values), ", ".join(f"${n}" for n in range(1, len(values) + 1))
        await self.connection.execute(
            f"insert into zapwatch_destinations ({names}) values ({marks})", *values.values()
        )
        return id

    async def open(self, channel: UUID, kind: str = "disconnected", reason: str = "logged_out") -> UUID:
        """Open an incident."""
        id: UUID = await self.connection.fetchval(
            "select whatsapp_heartbeat_open_incident($1, $2, null, jsonb_build_object('reason', $3::text))",
            channel,
            kind,
            reason,
        )
        return id

    async def resolve(self, channel: UUID) -> None:
        """End the channel's incident."""
        await self.connection.fetchval("select whatsapp_heartbeat_resolve_open_incidents($1)", channel)

    async def moves(self, channel: UUID, *states: str, version: int = 1) -> None:
        """Have a channel go from one of these states to the next, as who writes its state notes it."""
        for place, (before, state) in enumerate(pairwise(states)):
            await self.connection.execute(
                "insert into zapwatch_changes "
                "(channel_id, tenant_id, event, previous_state, state, since, version) "
                "select channel_id, tenant_id, 'channel.state_changed', $2, $3, now(), $4 "
                "from zapwatch_channels where channel_id = $1",
                channel,
                before,
                state,
                version + place,
            )

    async def expires(self, channel: UUID, at: datetime) -> None:
        """Have it be told now that a channel is paid for until then."""
        async with self.pool.acquire() as connection:
            now = datetime.now(UTC)
            await settle_subscription(connection, channel, at, "PAID", now + timedelta(days=1), now)

    async def route(self) -> None:
        """Decide about all that is due."""
        while await self.routing.route_due():
            pass

    async def dispatch(self) -> None:
        """Send all that is due, and wait until it is settled."""
        while sending := await self.dispatcher.send_due():
            await asyncio.wait(sending)

    async def tell(self) -> None:
        """Decide and send all that is due."""
        await self.route()
        await self.dispatch()

    async def later(self, by: timedelta) -> None:
        """Let so much time pass, as far as rows know."""
        await let_pass(self.connection, by)

    async def whys(self, **where: UUID) -> list[str]:
        """Return why it was decided so, in order."""
        rows = await self.connection.fetch("select * from zapwatch_decisions order by id")
        return [row["why"] for row in rows if all(row[name] == value for name, value in where.items())]


async def let_pass(connection: Connection, by: timedelta) -> None:
    """Let so much time pass, as far as rows know."""
    for table, columns in TIMES.items():
        moved = ", ".join(f"{column} = {column} - $1::interval" for column in columns)
        await connection.execute(f"update {table} set {moved}", by)


@asynccontextmanager
async def open_desk(dsn: str, connection: Connection, **options: Any) -> AsyncIterator[Desk]:
    """Yield a replica with a sink, one for letters (grouped), and the notifier inside the application."""
    async with await open_pool(dsn) as pool:
        sink = options.pop("sink", None) or Sink()
        letters = options.pop("letters", None) or Sink("letters", is_grouped=True)
        notifiers: dict[str, Notifier] = {
            "sink": sink,
            "letters": letters,
            "in_app": InApp(pool),
            **NOTIFIERS,
        }
        vault, anywhere = Vault([KEY]), EgressPolicy(allow=None)
        gather = options.pop("gather", timedelta(0))
        routing = Routing(pool, vault, notifiers, gather=gather)
        yield Desk(
            connection,
            pool,
            routing,
            Dispatcher(pool, vault, notifiers, Egress(anywhere, anywhere), **options),
            sink,
            letters,
        )
