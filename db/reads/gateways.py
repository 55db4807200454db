"""Gateways with their channels, counted by state; reads only."""

from collections.abc import Sequence
from typing import NamedTuple
from uuid import UUID

from db.connection.tenant_scope import reading
from db.connection.types import Connection, Pool, Record
from db.queries import sql


class GatewayRow(NamedTuple):
    """A gateway's row with how many of its channels are in which state, and were never connected."""

    row: Record
    channels: dict[str, int]
    never_connected: int = 0


async def list_gateways(
    pool: Pool, tenant_id: UUID | None, after: UUID | None, limit: int
) -> list[GatewayRow]:
    """Return at most `limit` gateways in the order of their ids; a tenant sees none."""
    async with reading(pool, tenant_id) as connection:
        return await _with_channels(connection, await connection.fetch(sql.list_gateways, after, limit))


async def read_gateway(pool: Pool, tenant_id: UUID | None, gateway_id: UUID) -> GatewayRow | None:
    """Return a gateway; None when there is none, and to a tenant."""
    async with reading(pool, tenant_id) as connection:
        found = await _with_channels(connection, await connection.fetch(sql.show_gateway, gateway_id))
    return found[0] if found else None


async def _with_channels(connection: Connection, rows: Sequence[Record]) -> list[GatewayRow]:
    found = {row["id"]: GatewayRow(row, {}) for row in rows}
    if found:
        for count in await connection.fetch(sql.count_gateway_channels, list(found)):
            gateway = found[count["gateway_id"]]
            gateway.channels[count["state"]] = count["channels"]
            never_connected = gateway.never_connected + count["never_connected"]
            found[count["gateway_id"]] = gateway._replace(never_connected=never_connected)
    return list(found.values())
