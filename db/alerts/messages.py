"""Messages as rows: claimed with a lease, and settled after each try. Sends nothing itself.

The claim is committed before the message is sent, so a message is sent twice only if the sending process died
before it settled the message.
"""

from collections.abc import Collection, Iterable, Mapping
from datetime import datetime, timedelta
from typing import Final, NamedTuple
from uuid import UUID

from db.alerts.state_changes import drop_superseded
from db.connection.types import Connection, Record
from db.ingest.apply import note_notified
from db.queries import sql
from db.reconcile.gateway_health import note_gateway_notified

PER_DESTINATION: Final = 5
"""Concurrency slots: messages to one destination under way at a time, by all replicas together."""
STEP: Final = timedelta(seconds=0.25)
"""How much later than an opening that is still under way the message of its end is due again."""
FAILS_FOR: Final = timedelta(days=5)
"""How long a destination may fail before it is disabled."""


class ClaimedMessage(NamedTuple):
    """A message that this process sends until the lease ends; `config` is sealed."""

    id: UUID
    destination_id: UUID
    tenant_id: UUID | None
    purpose: str
    created_at: datetime
    tries: int
    """Which try this is, from 1 on."""
    kind: str
    config: bytes
    locale: str | None
    time_zone: str | None
    facts: str | None
    """Its frozen facts, as JSON; None: it was not tried yet, or by an earlier version."""
    until: datetime


class Attempt(NamedTuple):
    """One try to deliver a message."""

    at: datetime
    took: timedelta
    is_ok: bool
    status: int | None
    answer: str
    was_sent: bool = True
    """False: the destination was not asked, for a reason of ours."""


class MessageSettlement(NamedTuple):
    """The result of a try for its message; without an outcome it is tried again at `due_at`."""

    outcome: str | None
    due_at: datetime | None = None
    is_gone: bool = False
    """The destination reports that it exists no more."""


async def claim_messages(
    connection: Connection, now: datetime, lease: timedelta, limit: int, per_destination: int
) -> list[ClaimedMessage]:
    """Return due messages, claimed; no destination has more than `per_destination` claims at a time."""
    until = now + lease
    rows = await connection.fetch(sql.claim_messages, now, until, per_destination, limit, STEP)
    return [ClaimedMessage(**row, until=until) for row in rows]


async def release_messages(connection: Connection, claims: Iterable[ClaimedMessage]) -> None:
    """Release claims of messages that were not settled: another replica need not wait for the lease."""
    held = list(claims)
    ids, untils = [claim.id for claim in held], [claim.until for claim in held]
    await connection.execute(sql.release_messages, ids, untils)


async def read_message_items(
    connection: Connection, message_ids: Collection[UUID]
) -> dict[UUID, list[Record]]:
    """Return the items of each of these messages: the alerts, reminders and changes that it reports."""
    items: dict[UUID, list[Record]] = {id: [] for id in message_ids}
    for row in await connection.fetch(sql.read_message_items, list(message_ids)):
        items[row["message_id"]].append(row)
    return items


async def read_groups(
    connection: Connection, decision_ids: Collection[int], now: datetime, names: int
) -> dict[int, Record]:
    """Return of decisions about gateways' incidents what became of the channels, `names` of them by name."""
    if not decision_ids:
        return {}
    rows = await connection.fetch(sql.read_groups, list(decision_ids), now, names)
    return {row["decision_id"]: row for row in rows}


async def keep_facts(connection: Connection, facts: Mapping[UUID, str]) -> None:
    """Keep the facts of claimed messages, as JSON, from their first try on."""
    if facts:
        await connection.execute(sql.keep_facts, list(facts), list(facts.values()))


async def void_empty(connection: Connection, message_ids: Collection[UUID], now: datetime) -> None:
    """Settle claimed messages without items as void: their subjects were deleted."""
    if message_ids:
        await connection.execute(sql.void_empty, list(message_ids), now)


async def settle(
    connection: Connection, claim: ClaimedMessage, attempt: Attempt, settlement: MessageSettlement
) -> str | None:
    """Write a try and its settlement; return why its destination was disabled by it, or None.

    The destination's row is locked before the message's in every transaction.
    """
    async with connection.transaction():
        failing_since = await _note_reached(connection, claim, attempt)
        answer = attempt.answer or None
        took_ms = round(attempt.took.total_seconds() * 1000)
        await connection.execute(
            sql.add_attempt, claim.id, attempt.at, took_ms, attempt.is_ok, attempt.status, answer
        )
        now = attempt.at + attempt.took
        if settlement.outcome is None:
            await connection.execute(sql.put_off_message, claim.id, settlement.due_at, claim.until)
            await drop_superseded(connection, claim.id, now)
        else:
            ended = await connection.fetchval(
                sql.settle_message, claim.id, now, settlement.outcome, claim.until
            )
            if ended is not None and attempt.is_ok:
                opened = await connection.fetch(sql.message_openings, claim.id)
                await note_notified(connection, [row["incident_id"] for row in opened], now)
                await note_gateway_notified(connection, claim.id, now)
        why = _why_disabled(settlement, failing_since, now)
        return why if why is not None and await _disable(connection, claim, why, now) else None


async def _note_reached(connection: Connection, claim: ClaimedMessage, attempt: Attempt) -> datetime | None:
    """Note whether the destination was reached; return since when it fails."""
    if not attempt.was_sent:
        return None
    if attempt.is_ok:
        await connection.execute(sql.note_reached, claim.destination_id)
        return None
    since: datetime | None = await connection.fetchval(sql.note_unreached, claim.destination_id, attempt.at)
    return since


def _why_disabled(settlement: MessageSettlement, failing_since: datetime | None, now: datetime) -> str | None:
    if settlement.is_gone:
        return "gone"
    return "failing" if failing_since is not None and now - failing_since >= FAILS_FOR else None


async def _disable(connection: Connection, claim: ClaimedMessage, why: str, now: datetime) -> bool:
    """Disable a destination and add messages about that to others; return whether it was enabled before."""
    row = await connection.fetchrow(sql.disable_destination, claim.destination_id, now, why)
    if row is None:
        return False
    await connection.execute(sql.void_messages, claim.destination_id, now)
    await connection.execute(sql.add_disabled_messages, claim.destination_id, row["tenant_id"], now)
    return True


async def notify_members(
    connection: Connection,
    tenant_id: UUID,
    ids: Collection[tuple[UUID, UUID]],
    kind: str,
    ref_id: UUID | None,
    payload: str,
) -> None:
    """Write notifications to members; `ids`: of each the notification's id and the member's."""
    if ids:
        columns = zip(*ids, strict=True)
        await connection.execute(sql.add_notifications, *columns, tenant_id, kind, ref_id, payload)


async def find_members(connection: Connection, tenant_id: UUID, everybody: bool) -> list[UUID]:
    """Return the ids of a tenant's active members: its administrators, or all."""
    rows = await connection.fetch(sql.find_members, tenant_id, everybody)
    return [row["user_id"] for row in rows]
