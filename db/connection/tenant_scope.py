"""Connections of one tenant: row security narrowed to it for a whole transaction; knows no table."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from uuid import UUID

from db.connection.types import Connection, Pool
from db.queries import sql


@asynccontextmanager
async def writing(pool: Pool, tenant_id: UUID | None) -> AsyncIterator[Connection]:
    """Yield a connection in a transaction that sees and writes one tenant's rows only, or (None) all."""
    async with pool.acquire() as connection, connection.transaction():
        if tenant_id is not None:
            await connection.execute(sql.scope_tenant, str(tenant_id))
        yield connection


@asynccontextmanager
async def reading(pool: Pool, tenant_id: UUID | None) -> AsyncIterator[Connection]:
    """Yield a connection that sees one tenant's rows only, or (None) all."""
    async with pool.acquire() as connection:
        if tenant_id is None:
            yield connection
            return
        async with connection.transaction(readonly=True):
            await connection.execute(sql.scope_tenant, str(tenant_id))
            yield connection
