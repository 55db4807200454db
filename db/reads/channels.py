"""Rows for the API, the command line and the dashboard; reads only.

A reader of one tenant runs in a transaction with row security narrowed to it, and every statement names the
tenant besides: one of both may be forgotten.
"""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final, NamedTuple, TypeAlias
from uuid import UUID

from db.codec.channel import state_of
from db.connection.types import Connection, Pool, Record
from db.queries import sql
from statemachine.model import State

COUNT_TIMEOUT: Final = timedelta(seconds=15)
"""Longest wait for a count of all channels: a million take 2 s on a database that has nothing else to do."""


class ChannelRow(NamedTuple):
    """A channel's row of `show_channels` with what its gateway adds."""

    row: Record
    api_url: str
    configured: bool


ChannelKey: TypeAlias = tuple[UUID | None, UUID]
"""The reader's tenant (None: all) and the channel's id."""


class GatewayRow(NamedTuple):
    """A gateway's row with how many of its channels are in which state."""

    row: Record
    channels: dict[str, int]


class ChannelCount(NamedTuple):
    """How many channels of a provider are in a state, as the world is shown it, and their open incidents."""

    provider: str
    state: str
    channels: int
    incidents: int


class OldestDue(NamedTuple):
    """Since when the longest due are due; None: none is. A probe is due until its answer is kept."""

    probe: datetime | None
    deadline: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ChannelFilter:
    """Which channels to list; None lets all through. `state` is a word shown to the world."""

    state: str | None = None
    with_incident: bool = False
    tenant_id: UUID | None = None
    gateway_id: UUID | None = None
    q: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class IncidentFilter:
    """Which incidents to list; None lets all through. Times are those of `started_at`, `until` excluded."""

    open: bool | None = None
    tenant_id: UUID | None = None
    channel_id: UUID | None = None
    gateway_id: UUID | None = None
    kind: str | None = None
    since: datetime | None = None
    until: datetime | None = None


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


async def list_channels(
    pool: Pool, tenant_id: UUID | None, wanted: ChannelFilter, after: UUID | None, limit: int
) -> list[ChannelRow]:
    """Return at most `limit` channels in the order of their ids, from after this id on."""
    if tenant_id is not None and wanted.tenant_id not in (None, tenant_id):
        return []
    async with reading(pool, tenant_id) as connection:
        ids = await connection.fetch(
            sql.list_channel_ids,
            wanted.tenant_id or tenant_id,
            wanted.gateway_id,
            wanted.state,
            wanted.with_incident,
            wanted.q,
            after,
            limit,
        )
        rows = await connection.fetch(sql.show_channels, [row["channel_id"] for row in ids], tenant_id)
    return await _with_gateways(pool, rows)


async def read_channel(pool: Pool, tenant_id: UUID | None, channel_id: UUID) -> ChannelRow | None:
    """Return a channel, or None when there is none, it is deleted or another tenant's."""
    found = await find_channels(pool, [(tenant_id, channel_id)])
    return found.get((tenant_id, channel_id))


async def find_channels(pool: Pool, wanted: Sequence[ChannelKey]) -> dict[ChannelKey, ChannelRow]:
    """Return those of the channels that there are, each as the reader of its key may see it."""
    found: dict[ChannelKey, ChannelRow] = {}
    for tenant_id in {tenant_id for tenant_id, _ in wanted}:
        ids = [channel_id for reader, channel_id in wanted if reader == tenant_id]
        async with reading(pool, tenant_id) as connection:
            rows = await connection.fetch(sql.show_channels, ids, tenant_id)
        for channel in await _with_gateways(pool, rows):
            found[tenant_id, channel.row["channel_id"]] = channel
    return found


async def read_states(pool: Pool, channel_ids: Sequence[UUID]) -> dict[UUID, State]:
    """Return the states of channels."""
    rows = await pool.fetch(sql.read_states, channel_ids)
    return {row["channel_id"]: state_of(row["state"]) for row in rows}


async def list_events(
    pool: Pool, tenant_id: UUID | None, channel_id: UUID, before: int | None, limit: int
) -> list[Record] | None:
    """Return at most `limit` events of a channel, newest first, from before this id; None: no such one."""
    async with reading(pool, tenant_id) as connection:
        if not await connection.fetchval(sql.channel_visible, channel_id, tenant_id):
            return None
        return await connection.fetch(sql.list_events, channel_id, tenant_id, before, limit)


async def list_channel_incidents(
    pool: Pool,
    tenant_id: UUID | None,
    channel_id: UUID,
    within: timedelta,
    before: tuple[datetime, UUID] | None,
    limit: int,
) -> list[Record] | None:
    """Return a channel's incidents that are open or began within this time; None: no such channel."""
    async with reading(pool, tenant_id) as connection:
        if not await connection.fetchval(sql.channel_visible, channel_id, tenant_id):
            return None
        page = before or (None, None)
        return await connection.fetch(sql.list_channel_incidents, channel_id, tenant_id, within, *page, limit)


async def list_incidents(
    pool: Pool,
    tenant_id: UUID | None,
    wanted: IncidentFilter,
    before: tuple[datetime, UUID] | None,
    limit: int,
) -> list[Record]:
    """Return at most `limit` incidents, newest first, from before this start and id."""
    if tenant_id is not None and wanted.tenant_id not in (None, tenant_id):
        return []
    async with reading(pool, tenant_id) as connection:
        return await connection.fetch(
            sql.list_incidents,
            wanted.tenant_id or tenant_id,
            wanted.channel_id,
            wanted.gateway_id,
            wanted.kind,
            wanted.open,
            wanted.since,
            wanted.until,
            *(before or (None, None)),
            limit,
        )


async def read_incident(pool: Pool, tenant_id: UUID | None, incident_id: UUID) -> Record | None:
    """Return an incident, or None when there is none or it is another tenant's."""
    async with reading(pool, tenant_id) as connection:
        return await connection.fetchrow(sql.show_incident, incident_id, tenant_id)


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


async def list_tenants(pool: Pool, tenant_id: UUID | None, after: UUID | None, limit: int) -> list[Record]:
    """Return at most `limit` tenants in the order of their ids; a tenant sees itself."""
    async with reading(pool, tenant_id) as connection:
        return await connection.fetch(sql.list_tenants, tenant_id, after, limit)


async def count_channels(connection: Connection) -> list[ChannelCount]:
    """Return how many channels there are, and with how many open incidents; reads every channel."""
    rows = await connection.fetch(sql.count_channels, timeout=COUNT_TIMEOUT.total_seconds())
    return [ChannelCount(**row) for row in rows]


async def read_oldest_due(connection: Connection, now: datetime) -> OldestDue:
    """Return since when the longest due probe and deadline are due; cheap however many channels there are."""
    row = await connection.fetchrow(sql.oldest_due, now)
    assert row is not None
    return OldestDue(**row)


async def _with_gateways(pool: Pool, rows: Sequence[Record]) -> list[ChannelRow]:
    ids = list({row["gateway_id"] for row in rows if row["gateway_id"] is not None})
    # Outside the reader's scope: row security hides gateways from tenants, not these facts.
    facts = {row["id"]: row for row in await pool.fetch(sql.read_gateway_facts, ids)} if ids else {}
    return [_with_gateway(row, facts.get(row["gateway_id"])) for row in rows]


def _with_gateway(row: Record, gateway: Record | None) -> ChannelRow:
    if gateway is None:
        return ChannelRow(row, "", configured=False)
    keyed = row["keyed"] or gateway["keyed"]
    configured = bool(gateway["base_url"]) and keyed and row["instance"] is not None
    return ChannelRow(row, gateway["base_url"], configured)


async def _with_channels(connection: Connection, rows: Sequence[Record]) -> list[GatewayRow]:
    found = {row["id"]: GatewayRow(row, {}) for row in rows}
    if found:
        for count in await connection.fetch(sql.count_gateway_channels, list(found)):
            found[count["gateway_id"]].channels[count["state"]] = count["channels"]
    return list(found.values())
