"""Causes: the details of channels' incidents that name the incident of a gateway which explains them."""

from collections.abc import Collection, Sequence
from datetime import datetime
from typing import NamedTuple
from uuid import UUID

from db.connection.types import Connection
from db.queries import sql


class Explicable(NamedTuple):
    """An incident of a channel that its gateway's may explain; state and reason as they are stored."""

    channel_id: UUID
    opened_at: datetime
    state: str | None
    reason: str | None


async def causes_of(
    connection: Connection, incidents: Sequence[Explicable], now: datetime
) -> dict[int, dict[str, str]]:
    """Return what goes into the details of those incidents that a gateway's causes, by their indices."""
    if not incidents:
        return {}
    rows = await connection.fetch(sql.causes_of, *map(list, zip(*incidents, strict=True)), now)
    return {row["place"] - 1: {"cause": "gateway", "gateway_incident_id": str(row["id"])} for row in rows}


async def attribute_causes(connection: Connection, gateway_incident_id: UUID) -> None:
    """Note a gateway's incident as the cause of its channels' that opened shortly before, or unnoticed."""
    await connection.execute(sql.attribute_causes, gateway_incident_id)


async def drop_causes(connection: Connection, gateway_ids: Collection[UUID]) -> None:
    """Take the cause from the open incidents of these gateways' channels."""
    if gateway_ids:
        await connection.execute(sql.drop_causes, list(gateway_ids))


async def drop_causes_of_moved(connection: Connection, since: datetime) -> None:
    """Take the cause from incidents of channels that left a gateway in trouble, or lately so."""
    await connection.execute(sql.drop_causes_of_moved, since)
