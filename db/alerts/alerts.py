"""Alerts as rows: what is to be decided about them, and what was. Decides nothing, and sends nothing."""

from collections.abc import Collection, Iterable, Mapping
from datetime import datetime, timedelta
from typing import Final, NamedTuple
from uuid import UUID

from db.codec.rules import alerts_enabled
from db.connection.types import Connection, Record
from db.queries import sql

IN_APP: Final = "in_app"
"""The kind of the one destination that every tenant has."""


class IncidentStatus(NamedTuple):
    """How an incident and its channel stand."""

    is_over: bool
    alerts_enabled: bool
    paused: bool
    removed: bool
    quiet_until: datetime | None


class DueAlert(NamedTuple):
    """An alert that is to be decided."""

    id: int
    resolved: bool
    incident_id: UUID | None
    gateway_incident_id: UUID | None
    tenant_id: UUID | None
    created_at: datetime
    was_held: bool
    stand: IncidentStatus

    @property
    def subject_id(self) -> UUID:
        """The incident, a channel's or a gateway's."""
        subject = self.incident_id or self.gateway_incident_id
        assert subject is not None
        return subject


class DueReminder(NamedTuple):
    """An opening of which its destination is perhaps to be reminded."""

    id: int
    event: str
    incident_id: UUID | None
    gateway_incident_id: UUID | None
    tenant_id: UUID | None
    destination_id: UUID
    reminders: int
    outcome: str | None
    """What became of telling the opening."""
    acknowledged: bool
    stand: IncidentStatus


class AlertDestination(NamedTuple):
    """Where people are told; `config` is sealed."""

    id: UUID
    tenant_id: UUID | None
    kind: str
    config: bytes
    events: Collection[str]
    reminder_minutes: int | None
    disabled: bool


class NotifiedOpening(NamedTuple):
    """An opening that a destination was told of, and what became of the message; None: it is to leave."""

    decision_id: int
    message_id: UUID
    outcome: str | None


class Decision(NamedTuple):
    """What was decided about an alert, a reminder or a change, for one destination or (None) for all."""

    alert_id: int | None
    incident_id: UUID | None
    gateway_incident_id: UUID | None
    tenant_id: UUID | None
    destination_id: UUID | None
    event: str
    is_sent: bool
    why: str
    message_id: UUID | None
    remind_at: datetime | None = None
    channel_id: UUID | None = None
    """Whose change it is; None: it is about an incident."""
    details: str | None = None
    """What is told of a change, as JSON."""


class OutgoingMessage(NamedTuple):
    """A message that is to leave."""

    id: UUID
    destination_id: UUID
    tenant_id: UUID | None
    purpose: str
    due_at: datetime


QueueKey = tuple[UUID, str]
"""A destination and a purpose, whose messages follow one another."""


async def take_turn(connection: Connection) -> bool:
    """Return whether we may decide, alone over all replicas until the transaction ends."""
    return await connection.fetchval(sql.take_routing_turn) is True


async def due_alerts(connection: Connection, now: datetime, limit: int) -> list[DueAlert]:
    """Return alerts that are to be decided, in the order in which they were written."""
    rows = await connection.fetch(sql.due_alerts, now, limit)
    alerts = [
        DueAlert(**{name: row[name] for name in DueAlert._fields if name != "stand"}, stand=stand_of(row))
        for row in rows
    ]
    return sorted(alerts)


async def due_reminders(connection: Connection, now: datetime, limit: int) -> list[DueReminder]:
    """Return openings of which destinations are perhaps to be reminded."""
    rows = await connection.fetch(sql.due_reminders, now, limit)
    return [
        DueReminder(
            **{name: row[name] for name in DueReminder._fields if name != "stand"}, stand=stand_of(row)
        )
        for row in rows
    ]


def stand_of(row: Record) -> IncidentStatus:
    """Return how an incident and its channel stand, of a row that has it."""
    is_told = alerts_enabled(row["metadata"], row["defaults"])
    return IncidentStatus(row["is_over"], is_told, row["paused"], row["removed"], row["quiet_until"])


async def read_destinations(connection: Connection, tenant_ids: Iterable[UUID]) -> list[AlertDestination]:
    """Return the destinations of these tenants, and the operators' own."""
    rows = await connection.fetch(sql.read_destinations, list(tenant_ids))
    return [AlertDestination(**row) for row in rows]


async def add_in_app(connection: Connection, sealed: Collection[tuple[UUID, UUID, bytes]]) -> None:
    """Make destinations inside the application: of each its id, its tenant and its sealed configuration."""
    await connection.execute(sql.add_in_app_destinations, *_columns(sealed, 3))


async def recipients(connection: Connection, tenant_ids: Iterable[UUID]) -> dict[UUID, bool]:
    """Return the tenants that have active members, each with whether one of them is an administrator."""
    rows = await connection.fetch(sql.count_recipients, list(tenant_ids))
    return {row["tenant_id"]: row["admins"] for row in rows}


async def lock_waiting(
    connection: Connection, destination_ids: Collection[UUID], now: datetime
) -> dict[QueueKey, UUID]:
    """Return messages that wait for others to join them, held until the end of the transaction."""
    rows = await connection.fetch(sql.lock_waiting_messages, list(destination_ids), now)
    return {(row["destination_id"], row["purpose"]): row["id"] for row in rows}


async def read_newest_due(
    connection: Connection, destination_ids: Collection[UUID], since: datetime
) -> dict[QueueKey, datetime]:
    """Return when the newest messages were to leave, where that was after `since`."""
    rows = await connection.fetch(sql.read_newest_due, list(destination_ids), since)
    return {(row["destination_id"], row["purpose"]): row["leaves_at"] for row in rows}


async def read_openings(
    connection: Connection, subject_ids: Collection[UUID]
) -> dict[tuple[UUID, UUID], NotifiedOpening]:
    """Return what destinations were told of the beginnings of incidents, by incident and destination."""
    rows = await connection.fetch(sql.read_openings, list(subject_ids))
    return {
        (row["subject_id"], row["destination_id"]): NotifiedOpening(
            row["id"], row["message_id"], row["outcome"]
        )
        for row in rows
    }


async def keep_decisions(
    connection: Connection,
    now: datetime,
    messages: Collection[OutgoingMessage],
    decided: Collection[Decision],
) -> None:
    """Keep what was decided, and the messages that are to leave."""
    await connection.execute(sql.add_messages, *_columns(messages, len(OutgoingMessage._fields)))
    await connection.execute(sql.add_decisions, now, *_columns(decided, len(Decision._fields)))


async def take_back(connection: Connection, decision_ids: Collection[int], why: str, now: datetime) -> None:
    """Take openings out of messages that have not left."""
    await connection.execute(sql.take_back_openings, list(decision_ids), why, now)


async def settle_alerts(connection: Connection, alert_ids: Collection[int], now: datetime) -> None:
    """End alerts about which it was decided for good."""
    await connection.execute(sql.settle_alerts, list(alert_ids), now)


async def put_off_alerts(connection: Connection, until: Mapping[int, datetime]) -> None:
    """Have alerts decided later."""
    await connection.execute(sql.put_off_alerts, list(until), list(until.values()))


async def put_off_reminders(
    connection: Connection, again: Collection[tuple[int, datetime | None, int]]
) -> None:
    """Say of openings when to remind next (None: never) and how often it was done."""
    await connection.execute(sql.put_off_reminders, *_columns(again, 3))


async def release_held(connection: Connection, now: datetime) -> None:
    """Have alerts decided now that maintenance held back which has ended early."""
    await connection.execute(sql.release_held_alerts, now)


async def prune_messages(connection: Connection, now: datetime, keep: timedelta) -> None:
    """Forget what was told, tried and decided longer ago, but for incidents that are open."""
    await connection.execute(sql.prune_messages, now - keep)
    await connection.execute(sql.prune_decisions, now - keep)


def _columns(rows: Collection[tuple[object, ...]], width: int) -> list[list[object]]:
    """Return rows as columns, of which there are as many when there is no row."""
    return [[row[column] for row in rows] for column in range(width)]
