"""Compares what gateways were told was kept with what is stored; asks PostgreSQL, not the service."""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from db.connection.types import Connection
from faults.gateway import Event, Instance

STORED = """
select channel_id, at, last_at, count, deliveries from zapwatch_events
where source = 'webhook' and channel_id = any ($1::uuid[])
"""


@dataclass(frozen=True, slots=True)
class Audit:
    """What became of acknowledged events."""

    acknowledged: int
    lost: int
    shared: int
    """How many of them are counted on the row of another, as events are that change nothing."""
    redelivered: int
    """How often an event that was stored already was recognised."""
    twice: int
    """Rows of one channel with the same stamp: an event stored as two."""


async def audit(connection: Connection, acknowledged: Iterable[Event]) -> Audit:
    """Look for each acknowledged event: its own row, or a place on a row that counts several."""
    kept: dict[UUID, set[datetime]] = defaultdict(set)
    for event in acknowledged:
        kept[event.channel].add(event.at)
    rows = defaultdict(list)
    for row in await connection.fetch(STORED, list(kept)):
        rows[row["channel_id"]].append(row)
    lost = shared = twice = redelivered = 0
    for channel, times in kept.items():
        own = rows[channel]
        named = {row["at"] for row in own} | {row["last_at"] for row in own}
        places = sum(row["count"] for row in own) - len(named)
        missing = len(times - named)
        lost += max(0, missing - places)
        shared += min(missing, places)
        twice += len(own) - len({row["at"] for row in own})
        redelivered += sum(row["deliveries"] - 1 for row in own)
    return Audit(sum(map(len, kept.values())), lost, shared, redelivered, twice)


def wrong_states(instances: Iterable[Instance], states: Mapping[UUID, str]) -> int:
    """Count channels whose state isn't the one that their last event by its stamp names.

    That is the whole of the law where only open and connecting were told; it is not the machine's own code.
    """
    last = {it.channel: max(it.said, key=lambda event: event.at).state for it in instances if it.said}
    return sum(states[channel] != state for channel, state in last.items())
