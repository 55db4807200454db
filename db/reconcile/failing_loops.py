"""Which background loops fail in any process on the database: rows, so that commands and replicas know."""

from datetime import datetime, timedelta
from typing import Final, NamedTuple
from uuid import UUID

from db.connection.types import Connection, Pool
from db.queries import sql

SEEN_WITHIN: Final = timedelta(minutes=5)
"""A loop that is failing is noted again at least this often; an older row is of a process that was killed."""
KEPT: Final = timedelta(days=1)


class FailingLoop(NamedTuple):
    """A background loop of one process that has had no good round since `failing_since`."""

    loop: str
    host: str
    failing_since: datetime
    error: str
    """The type of the last error."""


async def note_failing_loop(
    pool: Pool, process: UUID, host: str, loop: str, failing_since: datetime, error: str
) -> None:
    """Note that a loop is failing; to be repeated while it is."""
    await pool.execute(sql.note_failing_loop, process, host, loop, failing_since, error)


async def withdraw_failing_loop(pool: Pool, process: UUID, loop: str) -> None:
    """Note that a loop is failing no longer."""
    await pool.execute(sql.withdraw_failing_loop, process, loop)


async def read_failing_loops(connection: Connection) -> list[FailingLoop]:
    """Return the loops that are failing in any process, the longest first."""
    return [FailingLoop(**row) for row in await connection.fetch(sql.read_failing_loops, SEEN_WITHIN)]


async def forget_failing_loops(connection: Connection, now: datetime) -> None:
    """Forget what processes that were killed have left."""
    await connection.execute(sql.forget_failing_loops, now - KEPT)
