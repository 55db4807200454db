"""How a channel stands for whoever holds a link to bring it back; changes nothing."""

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
    """When the QR was made that its gateway shows and told us of; None: it told of none that still holds."""


async def find_reconnect_targets(
    pool: Pool, wanted: Sequence[ReconnectKey]
) -> dict[ReconnectKey, ReconnectTarget]:
    """Return those of the channels that there are, each with its own incident."""
    channels, incidents = zip(*wanted, strict=True)
    found: dict[ReconnectKey, ReconnectTarget] = {}
    for row in await pool.fetch(sql.read_stranded, channels, incidents):
        words = {"state": state_of(row["state"]), "reason": reason_of(row["reason"])}
        values = dict(row.items()) | words
        found[row["channel_id"], row["incident_id"]] = ReconnectTarget(**values)
    return found
