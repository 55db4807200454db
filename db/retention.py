"""Forgets old events. THE ONLY deleter of events, and of none before a snapshot has taken it in.

A snapshot is a copy of what `apply` made of a channel, taken now and then. When it is old enough, the events
before it are forgotten, and a replay begins with it. Nothing is replayed to get there: that takes as long as
applying did. Touches no state and no incident, so `apply` waits for nothing here.
"""

from datetime import datetime, timedelta
from typing import Final, NamedTuple

from db.connections import Connection
from db.queries import sql

CHANNELS: Final = 100
"""Channels looked at in one transaction."""
EVENTS: Final = 2000
"""Events forgotten in one transaction, which should take some hundredths of a second."""
SHARE: Final = 10
"""Snapshots of a channel in the days that events are kept: more take more disk, fewer keep events longer."""
LOOK_EVERY: Final = timedelta(days=1)
"""When to look at a channel again at the latest, so that a change of the setting is heeded soon."""


class Forgotten(NamedTuple):
    """What one transaction amounted to."""

    channels: int
    """How many were due and looked at."""
    events: int
    """How many were forgotten."""
    more: bool
    """Whether more may be due."""


async def forget(
    connection: Connection, now: datetime, keep: timedelta, channels: int = CHANNELS, events: int = EVENTS
) -> Forgotten:
    """Look at some channels that are due: take snapshots, and forget events that are older than `keep`.

    Any number of replicas may do it at once; a channel that another has is passed over, and so is an event
    that somebody else has. A channel's newest event always stays: others like it are counted on its row.
    """
    pause = keep / SHARE
    async with connection.transaction():
        rows = await connection.fetch(sql.claim_retention, now, now + min(pause, LOOK_EVERY), channels)
        if not rows:
            return Forgotten(0, 0, False)
        ids = sorted(row["channel_id"] for row in rows)
        await connection.execute(sql.take_snapshots, ids, now, now - pause)
        await connection.execute(sql.drop_snapshots, ids, now - keep)
        forgotten: int = await connection.fetchval(sql.forget_events, ids, events)
        if forgotten == events:
            await connection.execute(sql.put_retention_forward, ids, now)
    return Forgotten(len(ids), forgotten, len(ids) == channels or forgotten == events)
