"""Checks: probes of all channels, of a tenant's, of a gateway's or of one, on request.

A check is a row, so that any replica goes on with it. It only makes probes due; the reconciler makes them,
like all others.
"""

from datetime import datetime, timedelta
from typing import Final, NamedTuple
from uuid import UUID

from db.connection.types import Connection, Record
from db.queries import sql

PAGE: Final = 1000
"""Channels made due in one transaction."""
AGAIN: Final = timedelta(seconds=2)
"""When to look for channels that a pass has missed: they were locked, or an earlier probe was under way."""
LONGEST: Final = timedelta(minutes=15)
"""After this long a check ends with what it has: a gateway that hangs must not block the next one."""
KEPT: Final = timedelta(days=1)


class Check(NamedTuple):
    """A check and how far it is; `done` channels were probed since it began."""

    id: UUID
    channel_id: UUID | None
    total: int
    done: int
    started_at: datetime
    finished_at: datetime | None


async def start_check(
    connection: Connection,
    now: datetime,
    tenant_id: UUID | None,
    channel_id: UUID | None = None,
    gateway_id: UUID | None = None,
) -> Check:
    """Begin a check, or return the one of the same channels that runs."""
    scope = tenant_id, channel_id, gateway_id
    while True:
        row = await connection.fetchrow(sql.running_check, *scope)
        row = row or await connection.fetchrow(sql.start_check, *scope, now)
        if row is not None:
            return await _progress(connection, row)


async def read_check(connection: Connection, check_id: UUID, tenant_id: UUID | None) -> Check | None:
    """Return a check, or None when there is none or it is another tenant's."""
    row = await connection.fetchrow(sql.read_check, check_id, tenant_id)
    return None if row is None else await _progress(connection, row)


async def advance_check(connection: Connection, now: datetime) -> bool:
    """Have one running check go on, or end; return False when none is to."""
    async with connection.transaction():
        check = await connection.fetchrow(sql.lock_check, now)
        if check is None:
            return False
        scope = _scope(check)
        page = await connection.fetchrow(
            sql.make_page_due, now, check["started_at"], *scope, check["after"], PAGE
        )
        assert page is not None
        if page["channels"] == PAGE:
            await connection.execute(sql.continue_check, check["id"], page["last"], now)
            return True
        left = await connection.fetchval(sql.count_unprobed, check["started_at"], *scope)
        if left and now - check["started_at"] < LONGEST:
            await connection.execute(sql.continue_check, check["id"], None, now + AGAIN)
        else:
            await connection.execute(sql.finish_check, check["id"], now, left)
        return True


async def prune_checks(connection: Connection, now: datetime) -> None:
    """Forget checks that ended long ago."""
    await connection.execute(sql.prune_checks, now - KEPT)


async def _progress(connection: Connection, row: Record) -> Check:
    done = row["done"]
    if done is None:
        left = await connection.fetchval(sql.count_unprobed, row["started_at"], *_scope(row))
        done = max(row["total"] - left, 0)
    return Check(row["id"], row["channel_id"], row["total"], done, row["started_at"], row["finished_at"])


def _scope(row: Record) -> tuple[UUID | None, UUID | None, UUID | None]:
    return row["tenant_id"], row["channel_id"], row["gateway_id"]
