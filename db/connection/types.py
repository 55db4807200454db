"""Type aliases for connections, pools and records; opens nothing."""

from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    import asyncpg
    from asyncpg.pool import PoolConnectionProxy

    Connection: TypeAlias = asyncpg.Connection[asyncpg.Record] | PoolConnectionProxy[asyncpg.Record]
    Pool: TypeAlias = asyncpg.Pool[asyncpg.Record]
    Record: TypeAlias = asyncpg.Record
else:
    # The stubs make these generic, the classes are not.
    from asyncpg import Connection, Pool, Record

__all__ = ["Connection", "Pool", "Record"]
