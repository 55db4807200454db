"""Claims what is due, each for one replica at a time (SKIP LOCKED and a lease), and settles it."""

from collections.abc import Collection, Iterable, Sequence
from datetime import datetime, timedelta
from typing import Final, NamedTuple
from uuid import UUID

from db.connection.types import Connection
from db.queries import sql

LEASE: Final = timedelta(seconds=10)
"""How long a claimed deadline is left to the replica that claimed it."""
PER_GATEWAY: Final = 20
"""Concurrency slots: channels of one gateway that are probed at the same time, by all replicas together."""

WARNED_BEFORE: Final = (7, 3, 1)
"""How many days before the end of a subscription a warning is sent."""


class ProbeTarget(NamedTuple):
    """A channel to be probed: its address and keys, and its version when it was read."""

    channel_id: UUID
    version: int
    due_at: datetime
    gateway_id: UUID | None
    provider: str
    base_url: str
    instance: str | None
    channel_key: bytes | None
    """Sealed, as is `gateway_key`, which serves channels without one of their own."""
    gateway_key: bytes | None
    expires_at: datetime | None = None
    """The end of its subscription, as the gateway reported it."""

    @property
    def configured(self) -> bool:
        """Whether there are an address, an instance and a key to probe it with."""
        keyed = self.channel_key is not None or self.gateway_key is not None
        return bool(self.base_url and self.instance) and keyed


class DueGateway(NamedTuple):
    """A gateway whose version is to be read."""

    id: UUID
    provider: str
    base_url: str


class DueDeadline(NamedTuple):
    """A channel whose deadline has come. `queued`: it is being probed, or waits for a concurrency slot."""

    channel_id: UUID
    due_at: datetime
    queued: bool


class Claim(NamedTuple):
    """A claim on a channel until its lease ends; no two claims of a channel end at the same time."""

    channel_id: UUID
    until: datetime


async def claim_deadlines(connection: Connection, now: datetime, limit: int) -> list[DueDeadline]:
    """Return channels whose deadline has come; applying the deadline settles the claim."""
    rows = await connection.fetch(sql.claim_deadlines, now, now + LEASE, limit, PER_GATEWAY)
    return [DueDeadline(row["channel_id"], row["due_at"], row["queued"] is True) for row in rows]


async def release_deadlines(connection: Connection, claims: Collection[Claim]) -> None:
    """Give back deadlines that were not applied: another replica need not wait for the lease's end."""
    await connection.execute(sql.release_deadlines, *zip(*claims, strict=True))


async def release_probes(connection: Connection, claims: Collection[Claim]) -> None:
    """Give back probes that were not answered: another replica need not wait for the lease's end."""
    await connection.execute(sql.release_probes, *zip(*claims, strict=True))


async def claim_probes(
    connection: Connection,
    now: datetime,
    lease: timedelta,
    per_gateway: int,
    limit: int,
    aside: Iterable[UUID] = (),
) -> tuple[list[ProbeTarget], set[UUID]]:
    """Return channels that are due to be probed, of each gateway the longest due first, and the locked ones.

    No gateway has more than `per_gateway` claims at a time, of all replicas: claimed channels keep their
    concurrency slots, and so do locked ones, which another replica may be claiming. Those of `aside` are
    left out. The answer ends a claim, or else the lease does.
    """
    rows = await connection.fetch(sql.claim_probes, now, now + lease, per_gateway, limit, list(aside))
    locked = {row["channel_id"] for row in rows if row["version"] is None}
    return [ProbeTarget(**row) for row in rows if row["version"] is not None], locked


async def put_off_probes(connection: Connection, channel_ids: Iterable[UUID], until: datetime) -> None:
    """Put off the probes of channels, and end their claims."""
    await connection.execute(sql.put_off_probes, list(channel_ids), until)


async def probe_target(
    connection: Connection, channel_id: UUID, tenant_id: UUID | None
) -> tuple[ProbeTarget, bool] | None:
    """Return a channel's target, and whether it is paused; None: no such channel of this tenant."""
    row = await connection.fetchrow(sql.probe_target, channel_id, tenant_id)
    if row is None:
        return None
    fields = dict(row)
    paused = fields.pop("paused")
    return ProbeTarget(**fields), paused


async def control_targets(
    connection: Connection, gateway_id: UUID, channel_id: UUID, limit: int
) -> list[ProbeTarget]:
    """Return other channels of the gateway, open ones first."""
    rows = await connection.fetch(sql.control_targets, gateway_id, channel_id, limit)
    return [ProbeTarget(**row) for row in rows]


async def claim_subscriptions(
    connection: Connection, providers: Sequence[str], now: datetime, again_at: datetime, limit: int
) -> list[ProbeTarget]:
    """Return channels of these providers whose subscription is to be read; the next try is at `again_at`."""
    rows = await connection.fetch(sql.claim_subscriptions, providers, now, again_at, limit)
    return [ProbeTarget(**row) for row in rows]


async def settle_subscription(
    connection: Connection,
    channel_id: UUID,
    expires_at: datetime | None,
    payment_status: str | None,
    again_at: datetime,
    now: datetime,
) -> None:
    """Keep a subscription's end, the gateway's payment status, and when to read it again.

    Where the end is within `WARNED_BEFORE` a warning is noted: of each end once for each number of days.
    """
    await connection.execute(
        sql.settle_subscription,
        channel_id,
        expires_at,
        payment_status,
        again_at,
        now,
        list(WARNED_BEFORE),
    )


async def claim_versions(
    connection: Connection, providers: Sequence[str], now: datetime, again_at: datetime, limit: int
) -> list[DueGateway]:
    """Return gateways of these providers whose version is to be read.

    Unless it is settled the next try is at `again_at`.
    """
    rows = await connection.fetch(sql.claim_versions, now, again_at, limit, providers)
    return [DueGateway(row["id"], row["provider"], row["base_url"]) for row in rows]


async def settle_version(
    connection: Connection, gateway_id: UUID, version: str | None, again_at: datetime | None
) -> bool:
    """Keep a gateway's version and when to read it again; return whether it is another one than before.

    `again_at` None: never. False, too, when the gateway is gone.
    """
    return await connection.fetchval(sql.settle_version, gateway_id, version, again_at) is True
