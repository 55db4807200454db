"""The delivery log: what was decided about each alert and destination, and each try to deliver it.

Routing and dispatch write it; here it is read, and what was sent to try a destination is noted.
"""

from collections import defaultdict
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import NamedTuple
from uuid import UUID

from db.connections import Pool, Record
from db.queries import sql
from db.reads import reading
from db.scope import writing


class Delivery(NamedTuple):
    """A decision with the tries of its message, newest first."""

    decision: Record
    attempts: list[Record]


@dataclass(frozen=True, slots=True, kw_only=True)
class Tested:
    """A message that was sent to try a destination, and what came of it."""

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


async def note_tested(pool: Pool, tested: Tested) -> None:
    """Keep what came of trying a destination, as of any other message; not of one deleted meanwhile."""
    async with writing(pool, tested.tenant_id) as connection:
        await connection.execute(
            sql.insert_tested,
            tested.message_id,
            tested.destination_id,
            tested.tenant_id,
            tested.at,
            round(tested.took.total_seconds() * 1000),
            tested.ok,
            tested.status,
            tested.answer,
        )
