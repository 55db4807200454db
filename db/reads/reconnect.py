"""Channels and incidents of reconnect links; reads only."""

from collections.abc import Sequence
from datetime import datetime
from typing import NamedTuple, TypeAlias
from uuid import UUID

from db.codec.channel import reason_of, state_of
from db.connection.types import Pool
from db.queries import sql
from statemachine.model import Reason, State

ReconnectKey: TypeAlias = tuple[UUID, UUID]
"""The channel's id, and that of the incident that its link was made for."""


class ReconnectTarget(NamedTuple):
    """A channel and the incident that a link was made for."""

    channel_id: UUID
    incident_id: UUID
    tenant_id: UUID | None
    name: str | None
    tenant: str | None
    locale: str | None
    time_zone: str | None
    provider: str
    state: State
    reason: Reason | None
    paused: bool
    started_at: datetime
    resolved_at: datetime | None
    shown_at: datetime | None
    """When the QR was issued that its gateway shows; None: no webhook brought one that is still valid."""


async def find_reconnect_targets(
    pool: Pool, wanted: Sequence[ReconnectKey]
) -> dict[ReconnectKey, ReconnectTarget]:
    """Return those of the channels that there are, each with its own incident."""
    channels, incidents = zip(*wanted, strict=True)
    found: dict[ReconnectKey, ReconnectTarget] = {}
    for row in await pool.fetch(sql.read_reconnect_targets, channels, incidents):
        known = {"state": state_of(row["state"]), "reason": reason_of(row["reason"])}
        values = dict(row.items()) | known
        found[row["channel_id"], row["incident_id"]] = ReconnectTarget(**values)
    return found
