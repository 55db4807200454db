"""Incidents of channels and gateways, listed and shown; reads only."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from db.connection.tenant_scope import reading
from db.connection.types import Pool, Record
from db.queries import sql


@dataclass(frozen=True, slots=True, kw_only=True)
class IncidentFilter:
    """Which incidents to list; None: no such filter. Times are those of `started_at`, `until` excluded.

    `subject` is `channel` or `gateway`. Gateways' incidents have no tenant, channel or state: these filters
    select channels' alone. Readers of one tenant see no gateway's.
    """

    subject: str | None = None
    open: bool | None = None
    tenant_id: UUID | None = None
    channel_id: UUID | None = None
    gateway_id: UUID | None = None
    kind: str | None = None
    since: datetime | None = None
    until: datetime | None = None

    @property
    def of_channels(self) -> bool:
        """Whether incidents of channels fit."""
        return self.subject in (None, "channel")

    @property
    def of_gateways(self) -> bool:
        """Whether incidents of gateways fit."""
        chosen = self.tenant_id is not None or self.channel_id is not None or self.kind is not None
        return self.subject in (None, "gateway") and not chosen


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
            wanted.of_channels,
            wanted.of_gateways and tenant_id is None,
        )


async def read_incident(pool: Pool, tenant_id: UUID | None, incident_id: UUID) -> Record | None:
    """Return an incident, or None when there is none or it is another tenant's."""
    async with reading(pool, tenant_id) as connection:
        return await connection.fetchrow(sql.show_incident, incident_id, tenant_id)
