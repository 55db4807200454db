"""Rows for the API, the command line and the pages; reads only.

A reader of one tenant runs in a transaction with row security narrowed to it, and every statement names the
tenant besides, so that a mistake in one of both discloses nothing.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias
from uuid import UUID

from db.codec.channel import state_of
from db.connection.tenant_scope import reading
from db.connection.types import Pool, Record
from db.queries import sql
from statemachine.model import State


class ChannelRow(NamedTuple):
    """A channel's row of `show_channels` with its gateway's of `read_gateway_facts`, if it has one."""

    row: Record
    gateway: Record | None

    @property
    def api_url(self) -> str:
        """The gateway's address; empty: none is known."""
        return "" if self.gateway is None else self.gateway["base_url"]

    @property
    def configured(self) -> bool:
        """Whether the channel has all that a probe needs."""
        if self.gateway is None:
            return False
        keyed = self.row["keyed"] or self.gateway["keyed"]
        return bool(self.api_url) and keyed and self.row["instance"] is not None


ChannelKey: TypeAlias = tuple[UUID | None, UUID]
"""The reader's tenant (None: all) and the channel's id."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ChannelFilter:
    """Which channels to list; None: no such filter.

    `states` are some of the states that users see. `down`: watched, connected before, and neither open nor
    unknown.
    """

    states: Sequence[str] | None = None
    with_incident: bool = False
    down: bool = False
    never_connected: bool = False
    tenant_id: UUID | None = None
    gateway_id: UUID | None = None
    q: str | None = None


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
            wanted.states,
            wanted.with_incident,
            wanted.q,
            wanted.down,
            wanted.never_connected,
            after,
            limit,
        )
        rows = await connection.fetch(sql.show_channels, [row["channel_id"] for row in ids], tenant_id)
    return await _with_gateways(pool, rows)


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


async def _with_gateways(pool: Pool, rows: Sequence[Record]) -> list[ChannelRow]:
    ids = list({row["gateway_id"] for row in rows if row["gateway_id"] is not None})
    # Outside the reader's scope: row security hides gateways from tenants, not these facts.
    facts = {row["id"]: row for row in await pool.fetch(sql.read_gateway_facts, ids)} if ids else {}
    return [ChannelRow(row, facts.get(row["gateway_id"])) for row in rows]
