"""Counts over all channels, for metrics; reads only."""

from datetime import datetime, timedelta
from typing import Final, NamedTuple

from db.connection.types import Connection
from db.queries import sql

COUNT_TIMEOUT: Final = timedelta(seconds=15)
"""Longest wait for a count of all channels: a million take 2 s on a database that has nothing else to do."""


class ChannelCount(NamedTuple):
    """How many channels of a provider are in a state, as users see it, and how many have open incidents."""

    provider: str
    state: str
    channels: int
    incidents: int


class OldestDue(NamedTuple):
    """Since when the longest due are due; None: none is. A probe is due until its answer is kept."""

    probe: datetime | None
    deadline: datetime | None


async def count_channels(connection: Connection) -> list[ChannelCount]:
    """Return how many channels there are, and with how many open incidents; reads every channel."""
    rows = await connection.fetch(sql.count_channels, timeout=COUNT_TIMEOUT.total_seconds())
    return [ChannelCount(**row) for row in rows]


async def read_oldest_due(connection: Connection, now: datetime) -> OldestDue:
    """Return since when the longest due probe and deadline are due; cheap however many channels there are."""
    row = await connection.fetchrow(sql.oldest_due, now)
    assert row is not None
    return OldestDue(**row)
