"""Alerts as rows: those due for a decision, and the decisions. Decides nothing, and sends nothing."""

from collections.abc import Collection, Iterable, Mapping
from datetime import datetime, timedelta
from typing import Final, NamedTuple
from uuid import UUID

from db.codec.rules import alerts_enabled
from db.connection.types import Connection, Record
from db.queries import sql

IN_APP: Final = "in_app"
"""The kind of the one destination that every tenant has."""

CHANGES_KEPT: Final = timedelta(days=1)
"""How long changes of open incidents are kept after they were decided."""


class IncidentStatus(NamedTuple):
    """The status of an incident and its channel, as far as decisions depend on it."""

    is_over: bool
    alerts_enabled: bool
    paused: bool
    removed: bool
    quiet_until: datetime | None


class GatewayCause(NamedTuple):
    """The incident of a gateway that an alert is about, or that caused the alert's incident."""

    id: UUID
    cause: str
    is_over: bool
    is_untried: bool
    """Whether the gateway was not tried lately, so that it may have come back unseen."""
    perhaps_offline: bool
    """Whether our own line may be the fault."""


class DueAlert(NamedTuple):
    """An alert that is to be decided: of an incident that opened, changed or was resolved."""

    id: int
    kind: str
    incident_id: UUID | None
    gateway_incident_id: UUID | None
    tenant_id: UUID | None
    created_at: datetime
    was_held: bool
    is_due: bool
    status: IncidentStatus
    gateway: GatewayCause | None = None
    has_cause: bool = False
    """Whether the channel's incident is caused by `gateway`."""
    was_caused: bool = False
    """Whether the change took away the cause of the channel's incident."""
    is_terminal: bool = False
    """Whether only a scan reconnects the channel."""
    has_own_key: bool = False
    """Whether its tenant gave the channel a key of its own."""
    settles_until: datetime | None = None
    """Until when the gateway's channels are expected back after its incident; None: it has settled."""
    is_gateway_in_doubt: bool = False
    """Whether other channels there are in trouble, too, and a gateway's incident may follow."""
    sent_to: Collection[UUID] = ()
    """Destinations that it was sent to already, whatever became of that, if it is held."""

    @property
    def subject_id(self) -> UUID:
        """The incident, a channel's or a gateway's."""
        subject = self.incident_id or self.gateway_incident_id
        assert subject is not None
        return subject

    @property
    def caused_by(self) -> GatewayCause | None:
        """The gateway's incident that caused the channel's."""
        return self.gateway if self.has_cause and self.incident_id is not None else None


class GroupEnd(NamedTuple):
    """The message that stands for a tenant's incidents with one cause, and whose end is due."""

    id: int
    gateway_incident_id: UUID
    tenant_id: UUID
    destination_id: UUID
    message_id: UUID
    outcome: str | None


class Link(NamedTuple):
    """The message that stands for all incidents that a gateway's incident caused, at one destination."""

    gateway_incident_id: UUID
    destination_id: UUID
    message_id: UUID
    is_end: bool


class DueReminder(NamedTuple):
    """A decision about an opening whose reminder is due."""

    id: int
    event: str
    incident_id: UUID | None
    gateway_incident_id: UUID | None
    tenant_id: UUID | None
    destination_id: UUID
    reminders: int
    outcome: str | None
    """The outcome of the opening's message."""
    acknowledged: bool
    status: IncidentStatus


class AlertDestination(NamedTuple):
    """A destination as routing reads it; `config` is sealed."""

    id: UUID
    tenant_id: UUID | None
    kind: str
    config: bytes
    events: Collection[str]
    reminder_minutes: int | None
    disabled: bool


class NotifiedOpening(NamedTuple):
    """An opening that was sent to a destination, and its message's outcome; None: not yet settled."""

    decision_id: int
    message_id: UUID
    outcome: str | None
    was_tried: bool = True
    """Whether the message was tried, so that what it says is fixed."""


class Decision(NamedTuple):
    """A decision about an alert, a reminder or a change, for one destination or (None) for all."""

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
    """The channel of a change; None: the decision is about an incident."""
    details: str | None = None
    """The facts of a change, as JSON."""
    end_awaited: bool = False
    """Whether the end of all incidents that the message stands for is to be decided."""


class OutgoingMessage(NamedTuple):
    """A message to send."""

    id: UUID
    destination_id: UUID
    tenant_id: UUID | None
    purpose: str
    due_at: datetime


QueueKey = tuple[UUID, str]
"""A destination and a purpose: the messages of one key are sent one after the other."""


async def lock_routing(connection: Connection) -> bool:
    """Lock routing for one replica until the transaction ends; return whether that succeeded."""
    return await connection.fetchval(sql.lock_routing) is True


async def due_alerts(
    connection: Connection, now: datetime, limit: int, stale_after: timedelta
) -> list[DueAlert]:
    """Return alerts that are due, locked until the end of the transaction, the oldest `limit` in their order.

    Of an incident's changes only the newest. `stale_after`: how long what is known of a gateway is news.
    """
    await connection.execute(sql.merge_changes, now)
    rows = await connection.fetch(sql.lock_due_alerts, now, limit)
    return await _read_alerts(connection, now, stale_after, rows)


async def pending_openings(
    connection: Connection, now: datetime, stale_after: timedelta, gateway_incidents: Collection[UUID]
) -> list[DueAlert]:
    """Return the openings of gateways' incidents that are not due yet, locked until the transaction's end."""
    if not gateway_incidents:
        return []
    rows = await connection.fetch(sql.lock_pending_openings, now, list(gateway_incidents))
    return await _read_alerts(connection, now, stale_after, rows)


async def _read_alerts(
    connection: Connection, now: datetime, stale_after: timedelta, locked: Collection[Record]
) -> list[DueAlert]:
    if not locked:
        return []
    rows = await connection.fetch(sql.read_alerts, now, stale_after, [row["id"] for row in locked])
    names = [name for name in DueAlert._fields if name not in ("status", "gateway")]
    return [
        DueAlert(**{name: row[name] for name in names}, status=status_of(row), gateway=_gateway_of(row))
        for row in rows
    ]


def _gateway_of(row: Record) -> GatewayCause | None:
    if row["cause_id"] is None:
        return None
    return GatewayCause(
        row["cause_id"], row["cause"], row["cause_is_over"], row["cause_is_untried"], row["perhaps_offline"]
    )


async def due_group_ends(
    connection: Connection, now: datetime, settle: timedelta, limit: int
) -> list[GroupEnd]:
    """Return grouped messages whose end is due, `settle` after the gateway's incident at the latest."""
    return [GroupEnd(**row) for row in await connection.fetch(sql.due_group_ends, now, settle, limit)]


async def end_groups(connection: Connection, decision_ids: Collection[int]) -> None:
    """Note that the ends of grouped messages are decided."""
    await connection.execute(sql.end_groups, list(decision_ids))


async def link_caused(connection: Connection, links: Collection[Link]) -> None:
    """Link decisions about incidents with a cause to the messages that stand for them."""
    await connection.execute(sql.link_caused, *_columns(links, len(Link._fields)))


async def link_named(connection: Connection, alert_ids: Collection[int]) -> None:
    """Link decisions about channels that are named as not back to the message of the end, if there is one."""
    await connection.execute(sql.link_named, list(alert_ids))


async def read_offline_openings(connection: Connection, since: datetime) -> dict[UUID, tuple[UUID, UUID]]:
    """Return by destination which gateway's incident was told as perhaps our own outage, in which message.

    Of incidents that are open, or were resolved after `since`.
    """
    rows = await connection.fetch(sql.read_offline_openings, since)
    return {row["destination_id"]: (row["gateway_incident_id"], row["message_id"]) for row in rows}


async def due_reminders(connection: Connection, now: datetime, limit: int) -> list[DueReminder]:
    """Return openings whose reminders are due."""
    rows = await connection.fetch(sql.due_reminders, now, limit)
    return [
        DueReminder(
            **{name: row[name] for name in DueReminder._fields if name != "status"}, status=status_of(row)
        )
        for row in rows
    ]


def status_of(row: Record) -> IncidentStatus:
    """Return the status of an incident and its channel from a row of `due_alerts` or the like."""
    enabled = alerts_enabled(row["metadata"], row["defaults"])
    return IncidentStatus(row["is_over"], enabled, row["paused"], row["removed"], row["quiet_until"])


async def read_destinations(connection: Connection, tenant_ids: Iterable[UUID]) -> list[AlertDestination]:
    """Return the destinations of these tenants, and the operators' own."""
    rows = await connection.fetch(sql.read_destinations, list(tenant_ids))
    return [AlertDestination(**row) for row in rows]


async def add_in_app(connection: Connection, sealed: Collection[tuple[UUID, UUID, bytes]]) -> None:
    """Add `in_app` destinations: of each its id, its tenant and its sealed configuration."""
    await connection.execute(sql.add_in_app_destinations, *_columns(sealed, 3))


async def tenants_with_members(connection: Connection, tenant_ids: Iterable[UUID]) -> dict[UUID, bool]:
    """Return the tenants that have active members, each with whether one of them is an administrator."""
    rows = await connection.fetch(sql.tenants_with_members, list(tenant_ids))
    return {row["tenant_id"]: row["admins"] for row in rows}


async def lock_waiting(
    connection: Connection, destination_ids: Collection[UUID], now: datetime
) -> dict[QueueKey, UUID]:
    """Return messages that may still take further alerts, locked until the end of the transaction."""
    rows = await connection.fetch(sql.lock_waiting_messages, list(destination_ids), now)
    return {(row["destination_id"], row["purpose"]): row["id"] for row in rows}


async def read_newest_due(
    connection: Connection, destination_ids: Collection[UUID], since: datetime
) -> dict[QueueKey, datetime]:
    """Return when the newest messages were first due, where that was after `since`."""
    rows = await connection.fetch(sql.read_newest_due, list(destination_ids), since)
    return {(row["destination_id"], row["purpose"]): row["leaves_at"] for row in rows}


async def read_openings(
    connection: Connection, subject_ids: Collection[UUID]
) -> dict[tuple[UUID, UUID], NotifiedOpening]:
    """Return the openings of incidents that were sent, by incident and destination."""
    rows = await connection.fetch(sql.read_openings, list(subject_ids))
    return {
        (row["subject_id"], row["destination_id"]): NotifiedOpening(
            row["id"], row["message_id"], row["outcome"], row["was_tried"]
        )
        for row in rows
    }


async def keep_decisions(
    connection: Connection,
    now: datetime,
    messages: Collection[OutgoingMessage],
    decided: Collection[Decision],
) -> None:
    """Write decisions, and the messages to send."""
    await connection.execute(sql.add_messages, *_columns(messages, len(OutgoingMessage._fields)))
    await connection.execute(sql.add_decisions, now, *_columns(decided, len(Decision._fields)))


async def withdraw_openings(connection: Connection, reasons: Mapping[int, str], now: datetime) -> None:
    """Withdraw openings from messages that have not been sent; `reasons` by decision."""
    await connection.execute(sql.withdraw_openings, list(reasons), list(reasons.values()), now)


async def settle_alerts(connection: Connection, alert_ids: Collection[int], now: datetime) -> None:
    """Settle alerts whose decision is final."""
    await connection.execute(sql.settle_alerts, list(alert_ids), now)


async def put_off_alerts(connection: Connection, until: Mapping[int, datetime]) -> None:
    """Put off the decisions about alerts."""
    await connection.execute(sql.put_off_alerts, list(until), list(until.values()))


async def put_off_reminders(
    connection: Connection, again: Collection[tuple[int, datetime | None, int]]
) -> None:
    """Set of openings when the next reminder is due (None: never) and how many were sent."""
    await connection.execute(sql.put_off_reminders, *_columns(again, 3))


async def release_held(connection: Connection, now: datetime) -> None:
    """Make alerts due now that were held by a maintenance window that has ended early."""
    await connection.execute(sql.release_held_alerts, now)


async def prune_messages(connection: Connection, now: datetime, keep: timedelta) -> None:
    """Delete old changes, and messages and decisions older than `keep` but openings of what is open."""
    await connection.execute(sql.prune_changes, now - CHANGES_KEPT)
    await connection.execute(sql.prune_messages, now - keep)
    await connection.execute(sql.prune_decisions, now - keep)


def _columns(rows: Collection[tuple[object, ...]], width: int) -> list[list[object]]:
    """Return rows as `width` columns, also when there is no row."""
    return [[row[column] for row in rows] for column in range(width)]
