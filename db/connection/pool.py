"""Opens connections and pools, all with the same limits; runs no statement of its own."""

import asyncio
from collections.abc import Mapping
from contextlib import suppress
from datetime import timedelta
from typing import TYPE_CHECKING, Final

import asyncpg

from db.connection.primary import Options, connect_to_primary
from db.connection.session import Session
from db.connection.types import Connection, Pool

if TYPE_CHECKING:
    from asyncpg.pool import PoolAcquireContext, PoolConnectionProxy

COMMAND_TIMEOUT: Final = timedelta(seconds=5)
"""Longest wait for one statement; a connection that timed out is terminated, never used again."""
ACQUIRE_TIMEOUT: Final = timedelta(seconds=5)
"""Longest wait for a connection of the pool, a new one included, and for cleaning one that is given back."""
LOCK_TIMEOUT: Final = timedelta(milliseconds=200)
"""Longest wait of the writer for a lock that it can't skip. Below PostgreSQL's deadlock_timeout (1 s):
another application locks `notification_channels` before our trigger touches `zapwatch_states`, the
writer the other way round, and of the two the writer has to yield.
docs/postgresql-facts.md#deadlocks"""
BY_KEY: Final = {
    "plan_cache_mode": "force_generic_plan",
    "enable_seqscan": "off",
}
"""Plans of the writer: some hundreds of rows by their keys, whatever statistics say of tables that grow by
the second, and planned once."""
CONNECT_TIMEOUT: Final = timedelta(seconds=5)
CLOSE_TIMEOUT: Final = timedelta(seconds=1)
"""How long a pool may take to close its connections; then they are terminated."""
ABANDONED_FOR: Final = timedelta(milliseconds=500)
"""How soon a server ends a statement whose connection is gone: one that waits for a lock would stay."""
POOL_SIZE: Final = 10


def _options(
    name: str, command_timeout: timedelta | None, settings: Mapping[str, str] | None = None
) -> Options:
    return {
        "connection_class": Session,
        "command_timeout": None if command_timeout is None else command_timeout.total_seconds(),
        "server_settings": {
            "application_name": name,
            "timezone": "UTC",
            "search_path": "public",
            "client_connection_check_interval": _milliseconds(ABANDONED_FOR),
            **(settings or {}),
        },
    }


def _milliseconds(duration: timedelta) -> str:
    return str(int(duration.total_seconds() * 1000))


async def connect(
    dsn: str,
    name: str = "zapwatch",
    command_timeout: timedelta | None = COMMAND_TIMEOUT,
    settings: Mapping[str, str] | None = None,
) -> Connection:
    """Return one connection of its own, for a task that keeps it; `settings` are PostgreSQL's."""
    options = _options(name, command_timeout, settings)
    return await connect_to_primary(dsn, timeout=CONNECT_TIMEOUT.total_seconds(), **options)


async def connect_writer(dsn: str) -> Connection:
    """Return the writer's connection, on which waiting for a lock fails after `LOCK_TIMEOUT`."""
    settings = {"lock_timeout": _milliseconds(LOCK_TIMEOUT), **BY_KEY}
    return await connect(dsn, "zapwatch writer", settings=settings)


async def open_pool(
    dsn: str,
    name: str = "zapwatch",
    *,
    size: int = POOL_SIZE,
    acquire_timeout: timedelta = ACQUIRE_TIMEOUT,
) -> Pool:
    """Return a pool; it connects as needed, so the database may come up later."""

    async def connect_one(dsn: str | None = dsn, **_defaults: object) -> Session:
        assert dsn is not None
        return await connect_to_primary(dsn, timeout=CONNECT_TIMEOUT.total_seconds(), **options)

    options = _options(name, COMMAND_TIMEOUT)
    pool = _BoundedPool(
        dsn,
        min_size=0,
        max_size=size,
        max_queries=50_000,
        max_inactive_connection_lifetime=300,
        loop=None,
        connect=connect_one,
        connection_class=Session,
        record_class=asyncpg.Record,
    )
    pool.acquire_timeout = acquire_timeout.total_seconds()
    return await pool


if TYPE_CHECKING:
    _Base = asyncpg.Pool[asyncpg.Record]
else:
    _Base = asyncpg.Pool


class _BoundedPool(_Base):
    """asyncpg's pool, with time limits for acquiring and releasing connections, and for closing."""

    acquire_timeout = ACQUIRE_TIMEOUT.total_seconds()

    def acquire(self, *, timeout: float | None = None) -> "PoolAcquireContext[asyncpg.Record]":
        # asyncpg applies the same limit to the release.
        return super().acquire(timeout=timeout or self.acquire_timeout)

    async def release(
        self, connection: "PoolConnectionProxy[asyncpg.Record]", *, timeout: float | None = None
    ) -> None:
        # A connection that can't be cleaned is terminated: that must not hide the result of its caller.
        with suppress(Exception):
            await super().release(connection, timeout=timeout)

    async def close(self) -> None:
        # Cut short, asyncpg terminates what is left.
        with suppress(TimeoutError):
            async with asyncio.timeout(CLOSE_TIMEOUT.total_seconds()):
                await super().close()
