"""Changes of channels that are to be told though they are no incidents, as rows; decides and sends nothing.

Who writes a state only ever adds rows, so that it waits for nobody; routing folds them and takes them away.
"""

from collections.abc import Collection, Mapping
from datetime import datetime
from typing import Final, NamedTuple
from uuid import UUID

from db.alerts.alerts import IncidentStatus, stand_of
from db.connection.types import Connection
from db.queries import sql

SUPERSEDED: Final = "superseded"
"""Why a change is told no more: a newer one of its channel is."""


class DueStateChange(NamedTuple):
    """A change that is to be routed; of a state, or of what is known of a subscription's end."""

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
    stand: IncidentStatus


async def due_changes(connection: Connection, now: datetime, limit: int) -> list[DueStateChange]:
    """Return changes that are to be routed, in the order in which they came about."""
    rows = await connection.fetch(sql.due_changes, now, limit)
    names = [name for name in DueStateChange._fields if name != "stand"]
    return [DueStateChange(**{name: row[name] for name in names}, stand=stand_of(row)) for row in rows]


async def forget_changes(connection: Connection, ids: Collection[int]) -> None:
    """Forget changes that were routed."""
    await connection.execute(sql.forget_changes, list(ids))


async def put_off_changes(connection: Connection, until: Mapping[int, datetime]) -> None:
    """Have changes routed later; newer ones of the same channel wait for them."""
    await connection.execute(sql.put_off_changes, list(until), list(until.values()))


async def release_held_changes(connection: Connection, now: datetime) -> None:
    """Have changes routed now that maintenance held back which has ended early."""
    await connection.execute(sql.release_held_changes, now)


async def supersede_changes(
    connection: Connection, told: Collection[tuple[UUID, UUID, str]], now: datetime
) -> None:
    """Have earlier changes not leave any more; what is on its way may arrive all the same.

    `told`: of each change its channel, its destination and its event.
    """
    columns = [list(column) for column in zip(*told, strict=True)]
    older = [row["id"] for row in await connection.fetch(sql.find_older_changes, *columns)]
    if older:
        await connection.execute(sql.supersede_changes, older, now, SUPERSEDED)


async def drop_superseded(connection: Connection, message_id: UUID, now: datetime) -> None:
    """Have a message that did not get through not leave again with changes that newer ones follow."""
    await connection.execute(sql.supersede_changes, [message_id], now, SUPERSEDED)
