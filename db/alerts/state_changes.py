"""Changes of channels that cause messages though they are no incidents, as rows; decides and sends nothing.

The writer of states only adds rows, so that it waits for no lock; routing folds and deletes them.
"""

from collections.abc import Collection, Mapping
from datetime import datetime
from typing import Final, NamedTuple
from uuid import UUID

from db.alerts.alerts import IncidentStatus, status_of
from db.connection.types import Connection
from db.queries import sql

SUPERSEDED: Final = "superseded"
"""Why a change is not sent: a newer one of its channel is."""


class DueStateChange(NamedTuple):
    """A change that is due for routing: of a state, or of the known end of a subscription."""

    id: int
    channel_id: UUID
    tenant_id: UUID
    event: str
    previous_state: str | None
    state: str | None
    reason: str | None
    since: datetime | None
    """When the state began."""
    version: int | None
    expires_at: datetime | None
    created_at: datetime
    status: IncidentStatus


async def due_changes(connection: Connection, now: datetime, limit: int) -> list[DueStateChange]:
    """Return changes that are due for routing, in the order in which they happened."""
    rows = await connection.fetch(sql.due_changes, now, limit)
    names = [name for name in DueStateChange._fields if name != "status"]
    return [DueStateChange(**{name: row[name] for name in names}, status=status_of(row)) for row in rows]


async def forget_changes(connection: Connection, ids: Collection[int]) -> None:
    """Delete changes that were routed."""
    await connection.execute(sql.forget_changes, list(ids))


async def put_off_changes(connection: Connection, until: Mapping[int, datetime]) -> None:
    """Put off the routing of changes; newer ones of the same channel wait for them."""
    await connection.execute(sql.put_off_changes, list(until), list(until.values()))


async def release_held_changes(connection: Connection, now: datetime) -> None:
    """Make changes due now that were held by a maintenance window that has ended early."""
    await connection.execute(sql.release_held_changes, now)


async def supersede_changes(
    connection: Connection, sent: Collection[tuple[UUID, UUID, str]], now: datetime
) -> None:
    """Withdraw earlier changes from messages; those under way may still arrive.

    `sent`: of each newer change its channel, its destination and its event.
    """
    columns = [list(column) for column in zip(*sent, strict=True)]
    older = [row["id"] for row in await connection.fetch(sql.find_older_changes, *columns)]
    if older:
        await connection.execute(sql.supersede_changes, older, now, SUPERSEDED)


async def drop_superseded(connection: Connection, message_id: UUID, now: datetime) -> None:
    """Withdraw changes that newer ones follow from a message whose try failed."""
    await connection.execute(sql.supersede_changes, [message_id], now, SUPERSEDED)
