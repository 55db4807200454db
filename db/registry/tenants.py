"""Tenants: the owners of channels, with their language, time zone and the defaults of their channels."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from db.connection.json_columns import dump, load, merge_patch
from db.connection.types import Connection
from db.queries import sql

Patch = Mapping[str, Any]
"""Changed fields of a tenant. Any: the API has checked each value by its field's own type."""


class UnknownTenant(Exception):
    """There is no such tenant."""


@dataclass(frozen=True, slots=True)
class Tenant:
    """A tenant's own settings; `defaults` holds those of its channels."""

    name: str
    locale: str
    time_zone: str
    defaults: Mapping[str, object]


async def create_tenant(connection: Connection, tenant: Tenant) -> UUID:
    """Return the id of a new tenant."""
    tenant_id: UUID = await connection.fetchval(sql.insert_tenant, *_columns(tenant))
    return tenant_id


async def change_tenant(connection: Connection, tenant_id: UUID, patch: Patch) -> None:
    """Merge a patch (RFC 7396) into a tenant; changed defaults make its channels due. `UnknownTenant`."""
    async with connection.transaction():
        row = await connection.fetchrow(sql.lock_tenant, tenant_id)
        if row is None:
            raise UnknownTenant
        defaults = load(row["defaults"])
        after = Tenant(
            patch.get("name", row["name"]),
            patch.get("locale", row["locale"]),
            patch.get("time_zone", row["time_zone"]),
            merge_patch(defaults, patch.get("defaults", {})),
        )
        await connection.execute(sql.update_tenant, tenant_id, *_columns(after))
        if after.defaults != defaults:
            await connection.execute(sql.make_tenant_due, tenant_id)


def _columns(tenant: Tenant) -> tuple[str, str, str, str]:
    return tenant.name, tenant.locale, tenant.time_zone, dump(tenant.defaults)


async def tenant_exists(connection: Connection, tenant_id: UUID) -> bool:
    """Return whether there is such a tenant."""
    return bool(await connection.fetchval(sql.tenant_exists, tenant_id))


async def tenant_for(connection: Connection, tenant_id: UUID | None) -> UUID:
    """Return the tenant, or without one the tenant `default`, made if need be; raise `UnknownTenant`."""
    if tenant_id is not None:
        if not await tenant_exists(connection, tenant_id):
            raise UnknownTenant
        return tenant_id
    found: UUID | None = await connection.fetchval(sql.find_default_tenant)
    if found is not None:
        return found
    await connection.execute(sql.lock_default_tenant)
    found = await connection.fetchval(sql.find_default_tenant)
    return found or await create_tenant(connection, Tenant("default", "pt-BR", "America/Sao_Paulo", {}))
