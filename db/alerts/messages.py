"""Messages as rows: claimed with a lease, sent by somebody else, settled. Sends nothing itself.

The claim is committed before anything leaves, so a message leaves once more than it need only if whoever sent
it died before it could say so.
"""

from collections.abc import Collection, Iterable, Mapping
from datetime import datetime, timedelta
from typing import Final, NamedTuple
from uuid import UUID

from db.alerts.state_changes import drop_superseded
from db.connection.types import Connection, Record
from db.ingest.apply import note_notified
from db.queries import sql

PER_DESTINATION: Final = 5
"""Messages to one destination on their way at a time, by all replicas together."""
STEP: Final = timedelta(seconds=0.25)
"""How much later than the opening of an incident its end is looked at, where that is still on its way."""
FAILS_FOR: Final = timedelta(days=5)
"""How long a destination may not be reached before it is switched off."""


class ClaimedMessage(NamedTuple):
    """A message that is ours to send until the lease ends; `config` is sealed."""

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
    """What it says, as JSON; None: it was not tried yet, or by an earlier version."""
    until: datetime


class Attempt(NamedTuple):
    """One try to deliver a message."""

    at: datetime
    took: timedelta
    is_ok: bool
    status: int | None
    answer: str


class MessageSettlement(NamedTuple):
    """What becomes of a message after a try; without an outcome it is tried again at `due_at`."""

    outcome: str | None
    due_at: datetime | None = None
    is_gone: bool = False
    """The destination says that it exists no more."""


async def claim_messages(
    connection: Connection, now: datetime, lease: timedelta, limit: int, per_destination: int
) -> list[ClaimedMessage]:
    """Return messages that are due and now ours; no destination has more than `per_destination` at a time."""
    until = now + lease
    rows = await connection.fetch(sql.claim_messages, now, until, per_destination, limit, STEP)
    return [ClaimedMessage(**row, until=until) for row in rows]


async def release_messages(connection: Connection, claims: Iterable[ClaimedMessage]) -> None:
    """Give messages back that were not settled: another replica need not wait for the lease's end."""
    held = list(claims)
    ids, untils = [claim.id for claim in held], [claim.until for claim in held]
    await connection.execute(sql.release_messages, ids, untils)


async def read_news(connection: Connection, message_ids: Collection[UUID]) -> dict[UUID, list[Record]]:
    """Return what each of these messages is about."""
    news: dict[UUID, list[Record]] = {id: [] for id in message_ids}
    for row in await connection.fetch(sql.read_news, list(message_ids)):
        news[row["message_id"]].append(row)
    return news


async def keep_facts(connection: Connection, facts: Mapping[UUID, str]) -> None:
    """Keep what messages that are ours say, as JSON, from their first try on."""
    if facts:
        await connection.execute(sql.keep_facts, list(facts), list(facts.values()))


async def void_empty(connection: Connection, message_ids: Collection[UUID], now: datetime) -> None:
    """End messages that are ours and say nothing: what they were about was deleted."""
    if message_ids:
        await connection.execute(sql.void_empty, list(message_ids), now)


async def settle(
    connection: Connection, claim: ClaimedMessage, attempt: Attempt, ending: MessageSettlement
) -> str | None:
    """Keep a try and what follows from it; return why its destination is switched off by it, or None.

    The destination's row comes before the message's in every transaction.
    """
    async with connection.transaction():
        failing_since = await _note_reached(connection, claim, attempt)
        answer = attempt.answer or None
        took_ms = round(attempt.took.total_seconds() * 1000)
        await connection.execute(
            sql.add_attempt, claim.id, attempt.at, took_ms, attempt.is_ok, attempt.status, answer
        )
        now = attempt.at + attempt.took
        if ending.outcome is None:
            await connection.execute(sql.put_off_message, claim.id, ending.due_at, claim.until)
            await drop_superseded(connection, claim.id, now)
        else:
            ended = await connection.fetchval(sql.settle_message, claim.id, now, ending.outcome, claim.until)
            if ended is not None and attempt.is_ok:
                opened = await connection.fetch(sql.message_openings, claim.id)
                await note_notified(connection, [row["incident_id"] for row in opened], now)
        why = _why_disabled(ending, failing_since, now)
        return why if why is not None and await _disable(connection, claim, why, now) else None


async def _note_reached(connection: Connection, claim: ClaimedMessage, attempt: Attempt) -> datetime | None:
    """Note whether the destination was reached; return since when it is not."""
    if attempt.is_ok:
        await connection.execute(sql.note_got_through, claim.destination_id)
        return None
    since: datetime | None = await connection.fetchval(sql.note_not_through, claim.destination_id, attempt.at)
    return since


def _why_disabled(ending: MessageSettlement, failing_since: datetime | None, now: datetime) -> str | None:
    if ending.is_gone:
        return "gone"
    return "failing" if failing_since is not None and now - failing_since >= FAILS_FOR else None


async def _disable(connection: Connection, claim: ClaimedMessage, why: str, now: datetime) -> bool:
    """Switch a destination off and tell its owner by another way; return whether it was us who did."""
    row = await connection.fetchrow(sql.disable_destination, claim.destination_id, now, why)
    if row is None:
        return False
    await connection.execute(sql.void_messages, claim.destination_id, now)
    await connection.execute(sql.tell_of_disabled, claim.destination_id, row["tenant_id"], now)
    return True


async def notify_members(
    connection: Connection,
    tenant_id: UUID,
    ids: Collection[tuple[UUID, UUID]],
    kind: str,
    ref_id: UUID | None,
    payload: str,
) -> None:
    """Show members something in their application: of each the notification's id and theirs."""
    if ids:
        columns = zip(*ids, strict=True)
        await connection.execute(sql.add_notifications, *columns, tenant_id, kind, ref_id, payload)


async def find_recipients(connection: Connection, tenant_id: UUID, everybody: bool) -> list[UUID]:
    """Return the active members of a tenant who are opened: its administrators, or all."""
    rows = await connection.fetch(sql.find_recipients, tenant_id, everybody)
    return [row["user_id"] for row in rows]
