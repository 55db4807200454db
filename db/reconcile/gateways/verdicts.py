"""Verdicts of silent gateways that are due to their channels, each claimed for one replica."""

from collections.abc import Collection
from datetime import datetime, timedelta
from typing import Final, NamedTuple
from uuid import UUID

from db.connection.types import Connection
from db.queries import sql
from db.reconcile.gateways.causes import attribute_causes, drop_causes_of_moved
from statemachine.gateway import Cause

BESIDE: Final = timedelta(minutes=2)
"""How long after a gateway's incident opened a channel's may turn out to have opened unnoticed beside it."""
MOVED_WITHIN: Final = timedelta(minutes=10)
"""How long after a gateway's incident channels are looked for that were moved away from it."""


class DueVerdict(NamedTuple):
    """A verdict that a channel is to be given; `since` None: its gateway is silent no more."""

    gateway_incident_id: UUID
    channel_id: UUID
    cause: Cause
    since: datetime | None


async def sweep_verdicts(connection: Connection, now: datetime, stale_after: timedelta) -> None:
    """Make verdicts due that were not when the gateway fell silent, and bring causes up to date."""
    await connection.execute(sql.sweep_verdicts, now, stale_after)
    await connection.execute(sql.forget_moved_verdicts)
    await connection.execute(sql.note_webhooks)
    for row in await connection.fetch(sql.silent_incidents, now - BESIDE):
        await attribute_causes(connection, row["id"])
    await drop_causes_of_moved(connection, now - MOVED_WITHIN)


async def claim_verdicts(
    connection: Connection, now: datetime, until: datetime, limit: int
) -> list[DueVerdict]:
    """Return verdicts that are due, each claimed for one replica until then."""
    rows = await connection.fetch(sql.claim_verdicts, now, until, limit)
    return [
        DueVerdict(row["gateway_incident_id"], row["channel_id"], Cause(row["cause"]), row["since"])
        for row in rows
    ]


async def end_verdicts(connection: Connection, verdicts: Collection[DueVerdict], until: datetime) -> None:
    """End the claims of verdicts that are given, or overtaken."""
    if verdicts:
        incidents, channels = zip(
            *((one.gateway_incident_id, one.channel_id) for one in verdicts), strict=True
        )
        await connection.execute(sql.end_verdicts, list(incidents), list(channels), until)
