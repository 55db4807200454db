"""Candidates for deep probes, and their budget, as rows; calls no gateway and decides no state."""

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Final, NamedTuple
from uuid import UUID

from db.connection.types import Connection
from db.queries import sql
from db.reconcile.claims import ProbeTarget

BUDGET: Final = timedelta(minutes=10)
"""Within this time no channel gets two deep probes and no gateway's records are read twice."""
SPREAD: Final = timedelta(minutes=1)
"""How far the first deep probes of channels that become candidates together are spread."""
HARMLESS_FOR: Final = timedelta(days=1)
"""How long the sign of a channel that was found alive is ignored: the records were wrong."""
PER_GATEWAY: Final = 2
"""Deep probes of one gateway in a round of a replica: WhatsApp might notice many look-ups at once."""


class DueRecords(NamedTuple):
    """A gateway whose records are due to be read."""

    id: UUID
    provider: str
    base_url: str
    version: str


class DeepProbeCandidate(NamedTuple):
    """A channel that is due for a deep probe. `doubted_at`: since when deep probes get no answer."""

    target: ProbeTarget
    doubted_at: datetime | None


async def claim_records(
    connection: Connection, providers: Sequence[str], now: datetime, limit: int
) -> list[DueRecords]:
    """Return gateways whose records are due to be read; the next reading is put off."""
    rows = await connection.fetch(sql.claim_records, now, providers, BUDGET, limit)
    return [DueRecords(**row) for row in rows]


async def open_targets(connection: Connection, gateway_id: UUID) -> list[ProbeTarget]:
    """Return the channels of a gateway that are open and watched."""
    return [ProbeTarget(**row) for row in await connection.fetch(sql.open_targets, gateway_id)]


async def note_candidates(connection: Connection, signs: Mapping[UUID, str], now: datetime) -> None:
    """Make channels with a sign in the records candidates, unless they are, or were lately found alive."""
    signed = list(signs), list(signs.values())
    await connection.execute(sql.note_candidates, *signed, now, SPREAD, HARMLESS_FOR)


async def drop_candidates(connection: Connection, channel_ids: Collection[UUID]) -> None:
    """Drop channels whose sign is gone from the candidates."""
    await connection.execute(sql.drop_candidates, list(channel_ids))


async def claim_deep_probes(connection: Connection, now: datetime, limit: int) -> list[DeepProbeCandidate]:
    """Return channels that are due for a deep probe, each to one replica, never again within `BUDGET`."""
    rows = await connection.fetch(sql.claim_deep_probes, now, BUDGET, PER_GATEWAY, limit)
    return [
        DeepProbeCandidate(
            ProbeTarget(**{name: row[name] for name in ProbeTarget._fields}), row["doubted_at"]
        )
        for row in rows
    ]


async def settle_deep_probe(
    connection: Connection, channel_id: UUID, outcome: str, doubted_at: datetime | None
) -> None:
    """Keep a deep probe's outcome. `doubted_at`: since when deep probes get no answer."""
    await connection.execute(sql.settle_deep_probe, channel_id, outcome, doubted_at, BUDGET)
