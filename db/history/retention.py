"""Forgets old events. THE ONLY deleter of events, and of none before a snapshot has taken it in.

A snapshot is a copy of what `apply` made of a channel, taken now and then. When it is old enough, a replay
begins with it, and the events before it are forgotten. Nothing is replayed to get there: that takes as long
as applying did. Touches no state and no incident, so `apply` waits for nothing here.
"""

from datetime import datetime, timedelta
from typing import Final, NamedTuple

from db.connection.types import Connection
from db.queries import sql

CHANNELS: Final = 100
"""Channels looked at in one transaction."""
EVENTS: Final = 1000
"""Events looked at in one transaction, which should take some hundredths of a second."""
SHARE: Final = 10
"""Snapshots of a channel in the days that events are kept: more take more disk, fewer keep events longer."""
LOOK_EVERY: Final = timedelta(days=1)
"""When to look at a channel again at the latest, so that a change of the setting is heeded soon."""


class Page(NamedTuple):
    """What became of a page of events."""

    events: int
    """How many were forgotten."""
    last: int | None
    """After which event the next page begins; None: what follows is young."""


async def take_snapshots(
    connection: Connection, now: datetime, keep: timedelta, channels: int = CHANNELS
) -> int:
    """Take snapshots of some channels that are due, drop those that are too old; return how many were due.

    Any number of replicas may do it at once: a channel that another has is passed over.
    """
    pause = keep / SHARE
    async with connection.transaction():
        rows = await connection.fetch(sql.claim_snapshots, now, now + min(pause, LOOK_EVERY), channels)
        if rows:
            ids = sorted(row["channel_id"] for row in rows)
            await connection.execute(sql.take_snapshots, ids, now, now - pause)
            await connection.execute(sql.drop_snapshots, ids, now - keep)
    return len(rows)


async def forget(
    connection: Connection, after: int, now: datetime, keep: timedelta, events: int = EVENTS
) -> Page:
    """Forget what is older than `keep` on one page of events, those after an id.

    In the order in which they are stored, because to forget channel by channel would write every block of
    the table many times. Any number of replicas may do it at once: an event that another has is passed over.
    A channel's newest event stays: others like it are counted on its row.
    """
    row = await connection.fetchrow(sql.forget_events, after, now - keep, events)
    assert row is not None
    return Page(row["events"], row["last"])
