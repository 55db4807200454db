"""Tenants: whose channels are watched, in which language, and with which defaults."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from db.connections import Connection
from db.documents import dump, load, merge_patch
from db.queries import sql


class UnknownTenant(Exception):
    """There is no such tenant."""


@dataclass(frozen=True, slots=True)
class Tenant:
    """A tenant's own settings; `defaults` holds those of its channels."""

    name: str
    locale: str
    time_zone: str
    defaults: Mapping[str, Any]


async def create_tenant(connection: Connection, tenant: Tenant) -> UUID:
    """Return the id of a new tenant."""
    tenant_id: UUID = await connection.fetchval(sql.insert_tenant, *_columns(tenant))
    return tenant_id


async def change_tenant(connection: Connection, tenant_id: UUID, patch: Mapping[str, Any]) -> None:
    """Merge a patch (RFC 7396) into a tenant; changed defaults make its channels due. `UnknownTenant`."""
    async with connection.transaction():
        row = await connection.fetchrow(sql.lock_tenant, tenant_id)
        if row is None:
            raise UnknownTenant
        before = Tenant(row["name"], row["locale"], row["time_zone"], load(row["defaults"]))
        after = Tenant(
            patch.get("name", before.name),
            patch.get("locale", before.locale),
            patch.get("time_zone", before.time_zone),
            merge_patch(before.defaults, patch.get("defaults", {})),
        )
        await connection.execute(sql.update_tenant, tenant_id, *_columns(after))
        if after.defaults != before.defaults:
            await connection.execute(sql.make_tenant_due, tenant_id)


def _columns(tenant: Tenant) -> tuple[str, str, str, str]:
    return tenant.name, tenant.locale, tenant.time_zone, dump(tenant.defaults)
