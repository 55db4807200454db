"""The delivery log: the decision about each alert and destination, and each try to deliver its message.

Routing and dispatch write it; this module reads it, and writes test messages.
"""

from collections import defaultdict
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final, NamedTuple
from uuid import UUID

from db.alerts.destinations import UnknownDestination
from db.connection.tenant_scope import reading, writing
from db.connection.types import Pool, Record
from db.queries import sql

TESTED_EVERY: Final = timedelta(seconds=10)
"""Between two tests of one destination, by all replicas together: each sends a message."""


class Delivery(NamedTuple):
    """A decision with the tries of its message, newest first."""

    decision: Record
    attempts: list[Record]


@dataclass(frozen=True, slots=True, kw_only=True)
class TestResult:
    """A test message to a destination, and its result."""

    message_id: UUID
    destination_id: UUID
    tenant_id: UUID | None
    at: datetime
    took: timedelta
    ok: bool
    status: int | None
    answer: str


async def list_deliveries(
    pool: Pool,
    reader: UUID | None,
    incident_id: UUID | None,
    destination_id: UUID | None,
    before: int | None,
    limit: int,
) -> list[Delivery]:
    """Return at most `limit` decisions, newest first, from before this number."""
    async with reading(pool, reader) as connection:
        rows = await connection.fetch(sql.list_decisions, reader, incident_id, destination_id, before, limit)
        messages = list({row["message_id"] for row in rows if row["message_id"] is not None})
        attempts = await connection.fetch(sql.list_attempts, messages) if messages else []
    tries: defaultdict[UUID, list[Record]] = defaultdict(list)
    for attempt in attempts:
        tries[attempt["message_id"]].append(attempt)
    return [Delivery(row, tries.get(row["message_id"], [])) for row in rows]


async def begin_test(
    pool: Pool, tenant_id: UUID | None, destination_id: UUID, message_id: UUID, now: datetime
) -> timedelta | None:
    """Begin a test of a destination of this tenant; return None, or how long it is too early for one.

    Raises `UnknownDestination`.
    """
    async with writing(pool, tenant_id) as connection:
        # Its row is locked, so that of two concurrent tests one finds the other.
        if await connection.fetchrow(sql.lock_destination, destination_id, tenant_id) is None:
            raise UnknownDestination
        since = now - TESTED_EVERY
        last: datetime | None = await connection.fetchval(sql.read_tested, destination_id, since)
        if last is not None:
            return min(last + TESTED_EVERY - now, TESTED_EVERY)
        await connection.execute(sql.begin_test, message_id, destination_id, tenant_id, now)
    return None


async def end_test(pool: Pool, tested: TestResult) -> None:
    """Write the result of a test, as of any other message; nothing when the destination is deleted."""
    async with writing(pool, tested.tenant_id) as connection:
        await connection.execute(
            sql.end_test,
            tested.message_id,
            tested.destination_id,
            tested.at,
            round(tested.took.total_seconds() * 1000),
            tested.ok,
            tested.status,
            tested.answer,
        )
