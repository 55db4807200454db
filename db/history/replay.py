"""Replays a channel's stored events through the machine; writes nothing."""

from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any, Final, TypedDict
from uuid import UUID

import orjson

from db.codec.channel import REASONS, TRIGGERS, channel_of, rules_of_json, when
from db.connection.types import Connection, Record
from db.ingest.entry import GATEWAY_SILENCE, LEFT_TOGETHER, RECOVERY, Source
from db.queries import sql
from statemachine.model import Channel, Reason, Trigger
from statemachine.signals import (
    Alive,
    Configured,
    Deadline,
    Effect,
    GatewaySilence,
    Heard,
    IncidentOpened,
    IncidentResolved,
    LeftTogether,
    RecoveryEnded,
    Signal,
    Verdict,
)
from statemachine.step import fold

TIMES: Final = (
    "since", "first_unhealthy_at", "last_event_at", "emitted_at", "fresh_at", "probed_at", "due_at",
    "probe_due_at", "incident_started_at", "incident_opened_at",
)  # fmt: skip
"""What is a time in a snapshot."""


class EventData(TypedDict, total=False):
    """What events hold in `data` for their replay, as `db/ingest/batch.py` and SQL functions write it."""

    rules: dict[str, object]
    again_at: str
    failed: bool
    ordered: bool
    opened: bool
    kind: str
    last_state: str | None
    offset: float
    epoch: int
    dated_at: str
    since: str
    until: str
    session_lost: bool


async def replay(connection: Connection, channel_id: UUID) -> tuple[Channel, list[Effect]]:
    """Return the channel as its stored events alone make it, and every effect on the way.

    Once there is a snapshot it begins with the oldest, and the effects are those since then. When the next
    probe, deadline or recovery is due isn't replayed, nor is live traffic, which is not stored.
    """
    async with connection.transaction(isolation="repeatable_read", readonly=True):
        snapshot = await connection.fetchrow(sql.read_snapshot, channel_id)
        # With the snapshot's own event again: more like it may have been counted on its row since.
        event_id, document = (0, None) if snapshot is None else snapshot
        rows = await connection.fetch(sql.read_events, channel_id, event_id)
    begin = Channel() if document is None else channel_in(document)
    channels, effects = fold(
        {channel_id: begin}, [(channel_id, signal) for row in rows for signal in signals_of(row)]
    )
    return channels[channel_id], [effect for _, effect in effects]


def channel_in(snapshot: str) -> Channel:
    """Return the channel that a snapshot holds."""
    # Any as in a record of the driver's: `ChannelRecord` names the types.
    row: dict[str, Any] = {"recovery_due_at": None, "emitted_at": None, **orjson.loads(snapshot)}
    return channel_of(row | {name: when(row[name]) for name in TIMES}, row["memory"])


def signals_of(row: Record) -> Iterator[Signal]:
    """Yield the signals of a row; of one that counts several, the first and the last."""
    data: EventData = orjson.loads(row["data"] or "{}")
    received_at = row["received_at"]
    if "rules" in data:
        yield Configured(received_at, rules_of_json(data["rules"]))
    match row["source"], row["name"]:
        case ((Source.DEADLINE | Source.OPERATOR), name) if name == RECOVERY:
            again_at = datetime.fromisoformat(data["again_at"])
            failed, ordered = data.get("failed", False), data.get("ordered", False)
            yield RecoveryEnded(received_at, again_at, failed, ordered)
        case Source.DEADLINE, _:
            yield Deadline(received_at, certain=data.get("opened", False))
        case Source.PROBE, name if name == GATEWAY_SILENCE:
            since = datetime.fromisoformat(data["dated_at"])
            yield GatewaySilence(received_at, since, Reason(row["reason"]))
        case Source.PROBE, name if name == LEFT_TOGETHER:
            since, until = datetime.fromisoformat(data["since"]), datetime.fromisoformat(data["until"])
            yield LeftTogether(received_at, since, until)
        case Source.PROBE, _:
            yield _verdict(row, data, received_at, row["at"])
            if row["count"] > 1:
                yield _verdict(row, data, row["last_received_at"], row["last_at"])
        case Source.OPERATOR, "incident_opened":
            yield IncidentOpened(received_at, data["kind"], data.get("last_state"))
        case Source.OPERATOR, "incident_resolved":
            yield IncidentResolved(received_at)
        case Source.WEBHOOK, "alive" if row["trigger"] == Trigger.OPENED:
            yield Alive(received_at, row["at"])
        case Source.WEBHOOK, _:
            yield _heard(row, data, received_at, row["at"])
            if row["count"] > 1:
                yield _heard(row, data, row["last_received_at"], row["last_at"])


def _heard(row: Record, data: EventData, received_at: datetime, at: datetime) -> Heard:
    return Heard(
        received_at=received_at,
        at=at,
        emitted_at=at - timedelta(seconds=data.get("offset", 0)),
        trigger=TRIGGERS.get(row["trigger"]),
        reason=REASONS.get(row["reason"]),
        status=row["status"],
        epoch=data.get("epoch", 0),
    )


def _verdict(row: Record, data: EventData, received_at: datetime, began_at: datetime) -> Verdict:
    return Verdict(
        received_at=received_at,
        dated_at=datetime.fromisoformat(data["dated_at"]),
        began_at=began_at,
        trigger=TRIGGERS[row["trigger"]],
        reason=REASONS.get(row["reason"]),
        status=row["status"],
        session_lost=data.get("session_lost", False),
    )
