"""Maintenance windows, in which alerts of a channel, a gateway, a tenant or all are held; decides nothing.

A window applies to the narrowest of channel, gateway and tenant that it names: a channel's window carries the
channel's tenant besides, so that row security shows it to that tenant.
"""

from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from db.connection.tenant_scope import reading, writing
from db.connection.types import Connection, Pool, Record
from db.queries import sql


class UnknownWindow(Exception):
    """There is no such window, or not for this tenant."""


class UnknownSubject(Exception):
    """The window's subject doesn't exist, or not for this tenant; carries the name of the field."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MaintenanceSpec:
    """A window to write; no start: it starts now, no subject: it applies to everything."""

    ends_at: datetime
    starts_at: datetime | None = None
    tenant_id: UUID | None = None
    channel_id: UUID | None = None
    gateway_id: UUID | None = None
    why: str | None = None


async def list_windows(
    pool: Pool,
    reader: UUID | None,
    tenant_id: UUID | None,
    before: tuple[datetime, UUID] | None,
    limit: int,
) -> list[Record]:
    """Return at most `limit` windows, the latest to begin first, from before this start and id."""
    if reader is not None and tenant_id not in (None, reader):
        return []
    async with reading(pool, reader) as connection:
        return await connection.fetch(
            sql.list_maintenance, tenant_id or reader, *(before or (None, None)), limit
        )


async def read_window(pool: Pool, reader: UUID | None, window_id: UUID) -> Record:
    """Return a window, or raise `UnknownWindow`."""
    async with reading(pool, reader) as connection:
        row = await connection.fetchrow(sql.show_maintenance, window_id, reader)
    if row is None:
        raise UnknownWindow
    return row


async def create_window(pool: Pool, reader: UUID | None, new: MaintenanceSpec) -> UUID:
    """Return the id of a new window; raise `UnknownSubject`."""
    async with writing(pool, reader) as connection:
        await _expect_subject(connection, reader, new)
        window_id: UUID = await connection.fetchval(
            sql.insert_maintenance,
            new.tenant_id,
            new.channel_id,
            new.gateway_id,
            new.starts_at,
            new.ends_at,
            new.why,
        )
    return window_id


async def end_window(pool: Pool, reader: UUID | None, window_id: UUID) -> None:
    """End a window now, or delete one that has not begun; routing releases its alerts. `UnknownWindow`."""
    async with writing(pool, reader) as connection:
        if await connection.fetchrow(sql.show_maintenance, window_id, reader) is None:
            raise UnknownWindow
        await connection.execute(sql.cancel_maintenance, window_id)
        await connection.execute(sql.end_maintenance, window_id)


async def _expect_subject(connection: Connection, reader: UUID | None, new: MaintenanceSpec) -> None:
    if new.channel_id and not await connection.fetchval(sql.channel_visible, new.channel_id, reader):
        raise UnknownSubject("channel_id")
    if new.gateway_id and not await connection.fetchval(sql.gateway_exists, new.gateway_id):
        raise UnknownSubject("gateway_id")
    if new.tenant_id and not await connection.fetchval(sql.tenant_exists, new.tenant_id):
        raise UnknownSubject("tenant_id")
