"""Bulk probes as rows: which gateways are due for one, and the channels that it covers. Calls no gateway."""

from collections.abc import Sequence
from datetime import datetime
from typing import NamedTuple
from uuid import UUID

from db.codec.channel import state_of
from db.connection.types import Connection
from db.queries import sql
from db.reconcile.claims import PER_GATEWAY, Claim
from statemachine.model import State


class DueBulkProbe(NamedTuple):
    """A gateway whose bulk probe is due."""

    id: UUID
    provider: str
    base_url: str
    api_key: bytes | None
    """Sealed."""
    supports_bulk: bool | None
    """Whether one call is known to report all its channels; None: it was never tried."""


class BulkProbeTarget(NamedTuple):
    """A channel that a bulk probe may report, as it was before that began."""

    channel_id: UUID
    version: int
    state: State
    probe_due_at: datetime
    instance: str | None


async def claim_bulk_probes(
    connection: Connection,
    providers: Sequence[str],
    now: datetime,
    again_at: datetime,
    soon: datetime,
    fewest: int,
    limit: int,
) -> tuple[list[DueBulkProbe], int]:
    """Return gateways to bulk-probe, and how many were due; the next bulk probe of each is at `again_at`.

    One where fewer than `fewest` channels have a probe due by `soon` is not worth a call.
    """
    rows = await connection.fetch(sql.claim_bulk_probes, providers, now, again_at, soon, fewest, limit)
    fields = DueBulkProbe._fields
    return [DueBulkProbe(*(row[name] for name in fields)) for row in rows if row["worthwhile"]], len(rows)


async def settle_bulk_probe(
    connection: Connection, gateway_id: UUID, supports_bulk: bool, again_at: datetime
) -> None:
    """Keep whether one call reports all channels of a gateway, and when to make the next one."""
    await connection.execute(sql.settle_bulk_probe, gateway_id, supports_bulk, again_at)


async def bulk_probe_channels(connection: Connection, gateway_id: UUID) -> list[BulkProbeTarget]:
    """Return the channels of a gateway that a bulk probe may report.

    Not those in unknown or error: for them it matters whether their own key and path are right, and a bulk
    probe uses neither.
    """
    rows = await connection.fetch(sql.bulk_probe_channels, gateway_id)
    return [
        BulkProbeTarget(
            row["channel_id"], row["version"], state_of(row["state"]), row["probe_due_at"], row["instance"]
        )
        for row in rows
    ]


async def hold_concurrency_slots(
    connection: Connection, gateway_id: UUID, now: datetime, until: datetime
) -> list[Claim]:
    """Claim so many due channels of a gateway that none is probed by itself meanwhile, and return the claims.

    Twice as many as it has concurrency slots: probes under way free theirs. Where nothing is due nothing is
    held, so that a channel with a probe streak never waits for a bulk probe.
    """
    rows = await connection.fetch(sql.hold_concurrency_slots, gateway_id, now, until, 2 * PER_GATEWAY)
    return [Claim(row["channel_id"], until) for row in rows]


async def hasten_probes(connection: Connection, channels: Sequence[BulkProbeTarget], now: datetime) -> None:
    """Make probes of channels due now, except of those that are being probed or have changed since."""
    ids, versions = [it.channel_id for it in channels], [it.version for it in channels]
    await connection.execute(sql.hasten_probes, ids, versions, now)
