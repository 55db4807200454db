"""Opens connections and pools, and says which failures pass by themselves; runs no statement of its own."""

from datetime import timedelta
from typing import Any, Final

import asyncpg

from db.connections import Connection, Pool

COMMAND_TIMEOUT: Final = timedelta(seconds=5)
"""Longest wait for one statement; a connection that timed out is terminated, never used again."""
CONNECT_TIMEOUT: Final = timedelta(seconds=5)
POOL_SIZE: Final = 10

TRANSIENT: Final = (
    OSError,
    TimeoutError,
    asyncpg.PostgresConnectionError,
    asyncpg.AdminShutdownError,
    asyncpg.CrashShutdownError,
    asyncpg.CannotConnectNowError,
    asyncpg.TooManyConnectionsError,
    asyncpg.ReadOnlySQLTransactionError,
    asyncpg.TargetServerAttributeNotMatched,
    asyncpg.DeadlockDetectedError,
    asyncpg.SerializationError,
    asyncpg.LockNotAvailableError,
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
    dsn: str, name: str = "zapwatch", command_timeout: timedelta | None = COMMAND_TIMEOUT
) -> Connection:
    """Return one connection of its own, for a task that keeps it."""
    connection: Connection = await asyncpg.connect(dsn, **_options(name, command_timeout))
    return connection


async def open_pool(dsn: str, name: str = "zapwatch") -> Pool:
    """Return a pool; it connects as needed, so the database may come up later."""
    return await asyncpg.create_pool(dsn, min_size=0, max_size=POOL_SIZE, **_options(name, COMMAND_TIMEOUT))
