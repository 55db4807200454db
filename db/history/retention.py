"""Deletes old events. THE ONLY deleter of events, and only of those that a snapshot includes.

A snapshot is a copy of a channel's row, taken from time to time. When it is old enough, a replay begins with
it, and the events before it are deleted. A snapshot is not made by replay: that takes as long as applying
did. Locks no state and no incident, so `apply` waits for nothing here.
"""

from datetime import datetime, timedelta
from typing import Final, NamedTuple

from db.connection.types import Connection
from db.queries import sql

CHANNELS: Final = 100
"""Channels in one transaction."""
EVENTS: Final = 1000
"""Events in one transaction, which should take some hundredths of a second."""
SHARE: Final = 10
"""Snapshots of a channel in the days that events are kept: more take more disk, fewer keep events longer."""
LOOK_EVERY: Final = timedelta(days=1)
"""A channel is due again after this long at the latest, so that a change of the setting takes effect soon."""


class Page(NamedTuple):
    """The result of one page of events."""

    events: int
    """How many were deleted."""
    last: int | None
    """The id after which the next page begins; None: the following events are younger than `keep`."""


async def take_snapshots(
    connection: Connection, now: datetime, keep: timedelta, channels: int = CHANNELS
) -> int:
    """Take snapshots of some channels that are due, drop those that are too old; return how many were due.

    Any number of replicas may do it at once: a channel that another has locked is skipped.
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
    """Delete the events older than `keep` on one page, those after an id.

    In the order in which they are stored, because to forget channel by channel would write every block of
    the table many times. Any number of replicas may do it at once: a locked event is skipped.
    A channel's newest event stays: others like it are counted on its row.
    """
    row = await connection.fetchrow(sql.forget_events, after, now - keep, events)
    assert row is not None
    return Page(row["events"], row["last"])
