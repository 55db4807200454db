"""Applies the files of `db/migrations` in the order of their names; it does not read their contents.

They go forward only, and each only adds: a service of the version before works on the database meanwhile.
So a database may also be ahead: migrations that this version does not know are left alone, and a rolling
deployment, or a step back to the version before, needs no care.
"""

import asyncio
import hashlib
import logging
from dataclasses import dataclass
from datetime import timedelta
from importlib.abc import Traversable
from importlib.resources import files
from typing import Final

import asyncpg

from db.connection.types import Connection
from db.queries import sql

__all__ = ["MIGRATIONS", "MigrationError", "migrate", "pending"]

MIGRATIONS: Final = files("db").joinpath("migrations")
LOCK_TIMEOUT: Final = timedelta(seconds=3)  # an ALTER that waits blocks every later reader of its table
PAUSE: Final = timedelta(seconds=1)  # in which those get through before it tries again
TRIES: Final = 10

log = logging.getLogger(__name__)


class MigrationError(Exception):
    """A migration can't be applied; the message names it and the cause."""


@dataclass(frozen=True, slots=True)
class _Migration:
    name: str
    text: str

    @property
    def checksum(self) -> str:
        return hashlib.sha256(self.text.encode()).hexdigest()


async def migrate(
    connection: Connection, folder: Traversable = MIGRATIONS, *, lock_timeout: timedelta = LOCK_TIMEOUT
) -> list[str]:
    """Apply what is pending, each file in a transaction, and return the names applied, in order.

    Any number of callers may run at once: an advisory lock lets one at a time through. A table that others
    hold is tried for ten times, `lock_timeout` each. Raises MigrationError, also when an applied file was
    changed since; the files before the failing one stay applied.
    """
    names = await pending(connection, folder)
    return [
        migration.name
        for migration in _read(folder)
        if migration.name in names and await _persist(connection, migration, lock_timeout)
    ]


async def pending(connection: Connection, folder: Traversable = MIGRATIONS) -> list[str]:
    """Return the names of the files still to be applied, in order; write nothing.

    Raises MigrationError when an applied file was changed since. Applied migrations that the folder lacks
    are a newer version's and no error.
    """
    applied = await _applied(connection)
    migrations = _read(folder)
    for migration in migrations:
        if applied.get(migration.name, migration.checksum) != migration.checksum:
            raise MigrationError(
                f"{migration.name} was changed after it had been applied to this database. Restore it, "
                "and put the change into a new file."
            )
    return [migration.name for migration in migrations if migration.name not in applied]


def _read(folder: Traversable) -> list[_Migration]:
    entries = sorted(folder.iterdir(), key=lambda entry: entry.name)
    return [_Migration(e.name, e.read_text(encoding="utf-8")) for e in entries if e.name.endswith(".sql")]


async def _applied(connection: Connection) -> dict[str, str]:
    if not await connection.fetchval(sql.migrations_table_exists):
        return {}
    return {row["name"]: row["checksum"] for row in await connection.fetch(sql.applied_migrations)}


async def _persist(connection: Connection, migration: _Migration, lock_timeout: timedelta) -> bool:
    """Apply the migration, trying again while others hold its locks; return whether it was still pending."""
    for tries_left in reversed(range(TRIES)):
        try:
            return await _apply(connection, migration, lock_timeout)
        except (asyncpg.LockNotAvailableError, asyncpg.DeadlockDetectedError) as error:
            if not tries_left:
                raise MigrationError(
                    f"{migration.name}: another session holds a table for too long ({error}). Look for an "
                    "old xact_start in pg_stat_activity. Nothing of this file is applied."
                ) from error
            log.warning("%s waits for another session's lock, %d tries left", migration.name, tries_left)
        except asyncpg.PostgresError as error:
            raise MigrationError(f"{migration.name}: {error}") from error
        await asyncio.sleep(min(PAUSE, lock_timeout).total_seconds())
    raise AssertionError("unreachable")


async def _apply(connection: Connection, migration: _Migration, lock_timeout: timedelta) -> bool:
    async with connection.transaction():
        await connection.execute(sql.lock_migrations)
        await connection.fetch(sql.limit_migration, str(int(lock_timeout.total_seconds() * 1000)))
        if not await connection.fetchval(sql.migrations_table_exists):
            await connection.execute(sql.create_migrations_table)
            await connection.execute(sql.close_migrations_table)
        if migration.name in await _applied(connection):
            return False
        await connection.execute(migration.text)
        await connection.execute(sql.record_migration, migration.name, migration.checksum)
        return True
