"""Claims what is due, each for one replica at a time (SKIP LOCKED and a lease), and settles it."""

from datetime import datetime, timedelta
from typing import Final, NamedTuple
from uuid import UUID

from db.connections import Connection
from db.queries import sql

LEASE: Final = timedelta(seconds=10)
"""How long a claimed deadline is left to the replica that claimed it."""


class DueGateway(NamedTuple):
    """A gateway whose version is to be read."""

    id: UUID
    provider: str
    base_url: str


async def claim_deadlines(connection: Connection, now: datetime, limit: int) -> list[tuple[UUID, datetime]]:
    """Return channels whose deadline has come, with it; applying the deadline settles the claim."""
    rows = await connection.fetch(sql.claim_deadlines, now, now + LEASE, limit)
    return [(row["channel_id"], row["due_at"]) for row in rows]


async def claim_versions(
    connection: Connection, now: datetime, again_at: datetime, limit: int
) -> list[DueGateway]:
    """Return gateways whose version is to be read; unless it is settled the next try is at `again_at`."""
    rows = await connection.fetch(sql.claim_versions, now, again_at, limit)
    return [DueGateway(row["id"], row["provider"], row["base_url"]) for row in rows]


async def settle_version(
    connection: Connection, gateway_id: UUID, version: str | None, again_at: datetime | None
) -> None:
    """Keep a gateway's version and when to read it again; `again_at` None: never."""
    await connection.execute(sql.settle_version, gateway_id, version, again_at)
