"""Opens connections and pools, and says which failures pass by themselves; runs no statement of its own."""

from collections.abc import Mapping
from datetime import timedelta
from typing import Any, Final

import asyncpg

from db.connections import Connection, Pool

COMMAND_TIMEOUT: Final = timedelta(seconds=5)
"""Longest wait for one statement; a connection that timed out is terminated, never used again."""
LOCK_TIMEOUT: Final = timedelta(milliseconds=200)
"""Longest wait of the writer for a lock that it can't skip. Below PostgreSQL's deadlock_timeout (1 s): an
application beside us locks `notification_channels` before our trigger touches `zapwatch_states`, the writer
the other way round, and of the two it is the writer that must give way."""
BY_KEY: Final = {
    "plan_cache_mode": "force_generic_plan",
    "enable_seqscan": "off",
}
"""Plans of the writer: some hundreds of rows by their keys, whatever statistics say of tables that grow by
the second, and planned once."""
CONNECT_TIMEOUT: Final = timedelta(seconds=5)
POOL_SIZE: Final = 10

LOCKED: Final = (asyncpg.LockNotAvailableError, asyncpg.DeadlockDetectedError)
"""Somebody else has a row; whoever needs it must wait, others need not."""

TRANSIENT: Final = (
    *LOCKED,
    OSError,
    TimeoutError,
    asyncpg.PostgresConnectionError,
    asyncpg.AdminShutdownError,
    asyncpg.CrashShutdownError,
    asyncpg.CannotConnectNowError,
    asyncpg.InsufficientResourcesError,
    asyncpg.ReadOnlySQLTransactionError,
    asyncpg.TargetServerAttributeNotMatched,
    asyncpg.SerializationError,
    asyncpg.QueryCanceledError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
)
"""Failures after which the same idempotent transaction is tried again, on a new connection."""


def _options(name: str, command_timeout: timedelta | None) -> dict[str, Any]:
    return {
        "timeout": CONNECT_TIMEOUT.total_seconds(),
        "command_timeout": None if command_timeout is None else command_timeout.total_seconds(),
        "server_settings": {"application_name": name, "timezone": "UTC", "search_path": "public"},
    }


async def connect(
    dsn: str,
    name: str = "zapwatch",
    command_timeout: timedelta | None = COMMAND_TIMEOUT,
    settings: Mapping[str, str] | None = None,
) -> Connection:
    """Return one connection of its own, for a task that keeps it; `settings` are PostgreSQL's."""
    options = _options(name, command_timeout)
    options["server_settings"] |= settings or {}
    connection: Connection = await asyncpg.connect(dsn, **options)
    return connection


async def connect_writer(dsn: str) -> Connection:
    """Return the writer's connection, which would rather begin anew than wait long for a lock."""
    settings = {"lock_timeout": str(int(LOCK_TIMEOUT.total_seconds() * 1000)), **BY_KEY}
    return await connect(dsn, "zapwatch writer", settings=settings)


async def open_pool(dsn: str, name: str = "zapwatch") -> Pool:
    """Return a pool; it connects as needed, so the database may come up later."""
    return await asyncpg.create_pool(dsn, min_size=0, max_size=POOL_SIZE, **_options(name, COMMAND_TIMEOUT))
