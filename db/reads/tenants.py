"""Tenants, listed; reads only."""

from uuid import UUID

from db.connection.tenant_scope import reading
from db.connection.types import Pool, Record
from db.queries import sql


async def list_tenants(pool: Pool, tenant_id: UUID | None, after: UUID | None, limit: int) -> list[Record]:
    """Return at most `limit` tenants in the order of their ids; a tenant sees itself."""
    async with reading(pool, tenant_id) as connection:
        return await connection.fetch(sql.list_tenants, tenant_id, after, limit)
