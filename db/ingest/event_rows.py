"""Rows of `zapwatch_events` while a batch is folded: the row of an entry, and counting like ones on it."""

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Final

import orjson

from db.codec.channel_record import ChannelRecord
from db.ingest.entry import Entry
from statemachine.clock import Clock
from statemachine.model import Reason, Trigger

LONG_AGO: Final = datetime.min.replace(tzinfo=UTC)
"""Before any event: every other time is later."""


@dataclass(slots=True)
class EventRow:
    """A row of `zapwatch_events` before it is written."""

    source: str
    name: str
    trigger: str | None
    reason: str | None
    status: int | None
    at: datetime | None
    last_at: datetime | None
    received_at: datetime
    last_received_at: datetime
    state: str
    key: bytes | None = None
    data: dict[str, object] = field(default_factory=dict)
    count: int = 1
    deliveries: int = 1
    id: int | None = None
    """Set when the row is stored already and only its count grows."""

    def is_like(self, other: "EventRow") -> bool:
        return (self.source, self.name, self.trigger, self.reason, self.status) == (
            other.source,
            other.name,
            other.trigger,
            other.reason,
            other.status,
        )

    def count_on(self, other: "EventRow") -> None:
        self.count += other.count
        self.last_received_at = max(self.last_received_at, other.last_received_at)
        if other.last_at is not None:
            self.last_at = other.last_at if self.last_at is None else max(self.last_at, other.last_at)


def event_of(
    entry: Entry,
    trigger: Trigger | None = None,
    reason: Reason | None = None,
    status: int | None = None,
    at: datetime | None = None,
) -> EventRow:
    """Return the row that an entry becomes."""
    now = entry.received_at
    return EventRow(entry.source, entry.name, trigger, reason, status, at, at, now, now, "")


def clock_data(clock: Clock) -> dict[str, object]:
    """Return what a replay needs of the gateway's clock."""
    offset = (clock.offset or timedelta(0)).total_seconds()
    return {name: value for name, value in (("offset", offset), ("epoch", clock.epoch)) if value}


def newest_of(row: ChannelRecord) -> EventRow | None:
    """Return a channel's newest stored event, on which others like it are counted."""
    if row["event_id"] is None:
        return None
    return EventRow(
        row["event_source"],
        row["event_name"],
        row["event_trigger"],
        row["event_reason"],
        row["event_status"],
        None,
        None,
        LONG_AGO,
        LONG_AGO,
        "",
        count=0,
        id=row["event_id"],
    )


def json_of(data: dict[str, object]) -> str | None:
    """Return an event's data as JSON, empty fields left out; None when there is nothing."""
    kept = {name: value for name, value in data.items() if value is not None}
    return orjson.dumps(kept).decode() if kept else None
