"""From messages to what became of them: claims what is due, has it sent, settles it.

Decides nothing of whom to tell. A destination has few messages on their way at a time, and one while it can't
be reached, so that one that hangs delays no other.
"""

import asyncio
import logging
import random
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Final
from uuid import UUID

import asyncpg
import orjson

from db.connections import Pool, Record
from db.documents import load
from db.messages import (
    PER_DESTINATION,
    Attempt,
    Claimed,
    Ending,
    claim_messages,
    read_news,
    release_messages,
    settle,
)
from db.patience import TRANSIENT, persist
from db.vault import Vault, VaultError
from receiver.alerts.notice import Event, Item, Message, Notifier, Sent
from receiver.claimed import to_the_end
from receiver.jobs.loop import Loop
from receiver.outgoing import Outgoing
from receiver.texts import DEFAULT_LOCALE
from statemachine.model import Reason, State

SCHEDULE: Final = tuple(
    timedelta(seconds=seconds) for seconds in (2, 5, 15, 30, 60, 300, 1800, 7200, 18000, 36000)
)
"""How long after each failure a message is tried again; after the last it is given up."""
JITTER: Final = 0.1
"""Share by which those times vary, so that what failed together doesn't come back together."""
LONGEST_WAIT: Final = timedelta(days=1)
"""How long a destination may have a message wait at most, and how old one may be when it is tried again."""
SEND_WITHIN: Final = timedelta(seconds=10)
"""How long one try may take."""
SETTLE_WITHIN: Final = timedelta(seconds=20)
"""How long its outcome may wait for the database; then somebody else tries again."""
LEASE: Final = SEND_WITHIN + SETTLE_WITHIN + timedelta(seconds=5)
AT_ONCE: Final = 200
"""Messages that one process has on their way at a time."""
EVERY: Final = timedelta(seconds=0.25)
"""Pause between rounds when nothing ends meanwhile."""
BREATH: Final = timedelta(seconds=0.01)
"""Pause after something has ended, so that one claim fills the places of several."""
FAREWELL: Final = timedelta(seconds=2)
"""How long, when the service ends, what is on its way may take to be settled."""
ANSWER: Final = 500
"""Characters of a destination's answer that are kept."""
TIME_ZONE: Final = "America/Sao_Paulo"
"""Of operators, who have no tenant's."""
SCANS: Final = {
    Reason.LOGGED_OUT,
    Reason.LOGGED_OUT_BY_API,
    Reason.QR_LIMIT,
    Reason.SCAN_NEEDED,
    Reason.SESSION_MISSING,
    Reason.QR_SHOWN,
}
"""Reasons for which a scan brings a channel back, in whatever state it is."""
EVENTS: Final = frozenset(Event)
REASONS: Final = {reason.value: reason for reason in Reason}

Link = Callable[[UUID, UUID, datetime], str]
"""Makes the link by which a channel comes back, of channel, incident and the time it is made."""

log = logging.getLogger(__name__)


class Dispatcher:
    """The deliveries of one process; `loop` in one task."""

    def __init__(
        self,
        pool: Pool,
        vault: Vault,
        notifiers: Mapping[str, Notifier],
        operators: Outgoing,
        tenants: Outgoing,
        link: Link | None = None,
        on_attempt: Callable[[str, str], None] = lambda kind, outcome: None,
        schedule: Sequence[timedelta] = SCHEDULE,
        send_within: timedelta = SEND_WITHIN,
    ) -> None:
        """`operators`, `tenants`: the ways that are open, by whose destination it is.

        `on_attempt` is told the kind of destination and `delivered`, `retried`, `failed` or `given_up`.
        """
        self._pool = pool
        self._vault = vault
        self._notifiers = notifiers
        self._operators, self._tenants = operators, tenants
        self._link = link
        self._on_attempt = on_attempt
        self._schedule = schedule
        self._send_within = send_within
        self._under_way: dict[asyncio.Task[None], Claimed] = {}

    @property
    def in_flight(self) -> int:
        """How many messages are on their way."""
        return len(self._under_way)

    async def send_due(self) -> Sequence[asyncio.Task[None]]:
        """Begin to send what is due; return what was begun, to be awaited or not."""
        free = AT_ONCE - len(self._under_way)
        if free <= 0:
            return []
        async with self._pool.acquire() as connection, connection.transaction():
            claims = await claim_messages(connection, datetime.now(UTC), LEASE, free, PER_DESTINATION)
            news = await read_news(connection, [claim.id for claim in claims]) if claims else {}
        return [self._begin(claim, news[claim.id]) for claim in claims]

    def loop(self) -> Loop:
        """Return the loop that sends."""
        return Loop("messages", self._round, EVERY, self._give_back)

    async def _round(self) -> bool:
        await to_the_end(self.send_due())
        if not self._under_way:
            return False
        await asyncio.wait(
            list(self._under_way), timeout=EVERY.total_seconds(), return_when=asyncio.FIRST_COMPLETED
        )
        await asyncio.sleep(BREATH.total_seconds())
        return True

    def _begin(self, claim: Claimed, news: Sequence[Record]) -> asyncio.Task[None]:
        task = asyncio.create_task(self._deliver(claim, news))
        self._under_way[task] = claim
        task.add_done_callback(self._under_way.pop)
        return task

    async def _deliver(self, claim: Claimed, news: Sequence[Record]) -> None:
        began, loop = datetime.now(UTC), asyncio.get_running_loop()
        started = loop.time()
        sent = await self._send(claim, news)
        took = timedelta(seconds=loop.time() - started)
        attempt = Attempt(began, took, sent.ok, sent.status, _clean(sent.answer))
        ending = self._end(claim, sent, began + took)
        try:
            disabled = await self._settle(claim, attempt, ending)
        except TRANSIENT as error:
            log.warning("what became of message %s is not kept: %s", claim.id, type(error).__name__)
            return
        except asyncpg.PostgresError:
            log.exception("the database refuses what became of message %s", claim.id)
            return
        outcome = ending.outcome or "retried"
        log.info(
            "message %s to %s %s, try %d: %s",
            claim.id,
            claim.kind,
            claim.destination_id,
            claim.tries,
            outcome,
        )
        self._on_attempt(claim.kind, outcome)
        if disabled is not None:
            log.error("destination %s is switched off: %s", claim.destination_id, disabled)

    async def _send(self, claim: Claimed, news: Sequence[Record]) -> Sent:
        """Have a message sent once; whatever goes wrong is a value."""
        notifier = self._notifiers.get(claim.kind)
        if notifier is None:
            return Sent(False, answer="this version has no notifier of its kind")
        if any(row["event"] not in EVENTS for row in news):
            return Sent(False, answer="this version does not know what it is to tell")
        try:
            config = orjson.loads(self._vault.open(claim.config, f"destination:{claim.destination_id}"))
            message = self._message(claim, news)
            outgoing = self._operators if claim.tenant_id is None else self._tenants
            async with asyncio.timeout(self._send_within.total_seconds()):
                return await notifier.send(config, message, outgoing)
        except TimeoutError:
            return Sent(False, answer=f"no answer within {self._send_within.total_seconds():g} s")
        except (VaultError, orjson.JSONDecodeError):
            return Sent(False, answer="its configuration can't be opened")
        except Exception as error:
            # One notifier's fault must not end all telling.
            log.exception("the notifier %s failed", claim.kind)
            return Sent(False, answer=f"the notifier failed: {type(error).__name__}")

    def _message(self, claim: Claimed, news: Sequence[Record]) -> Message:
        return Message(
            id=claim.id,
            at=claim.created_at,
            locale=claim.locale or DEFAULT_LOCALE,
            time_zone=claim.time_zone or TIME_ZONE,
            items=tuple(self._item(row, claim.created_at) for row in news),
            is_test=claim.purpose == "test",
            is_reminder=claim.purpose == "reminder",
            tenant_id=claim.tenant_id,
        )

    def _item(self, row: Record, at: datetime) -> Item:
        event = Event(row["event"])
        reason = _reason(row)
        is_over = event in (Event.INCIDENT_RESOLVED, Event.GATEWAY_RESOLVED)
        needs_scan = event is Event.INCIDENT_OPENED and (
            row["state"] in (State.UNPAIRED.value, State.QR_PENDING.value) or reason in SCANS
        )
        channel_id, link = row["channel_id"], None
        if needs_scan and self._link is not None:
            link = self._link(channel_id, row["subject_id"], at)
        return Item(
            event=event,
            incident_id=row["subject_id"],
            name=row["name"],
            kind=row["kind"],
            reason=reason,
            started_at=row["started_at"] or at,
            resolved_at=row["resolved_at"] if is_over else None,
            channel_id=channel_id,
            tenant_id=row["tenant_id"],
            link=link,
            affected=row["affected"],
            provider=row["provider"],
            needs_scan=needs_scan,
            state=row["changed_to"],
            previous_state=row["changed_from"],
            sequence=row["sequence"],
            expires_at=row["expires_at"],
        )

    def _end(self, claim: Claimed, sent: Sent, now: datetime) -> Ending:
        """Return what becomes of a message after a try."""
        if sent.ok:
            return Ending("delivered")
        if sent.permanent or sent.status == 410:
            return Ending("failed", is_gone=sent.status == 410)
        if claim.tries > len(self._schedule):
            return Ending("given_up")
        wait = self._schedule[claim.tries - 1] * random.uniform(1, 1 + JITTER)
        due_at = now + max(wait, min(sent.retry_after or wait, LONGEST_WAIT))
        return Ending("given_up") if due_at - claim.created_at > LONGEST_WAIT else Ending(None, due_at)

    async def _settle(self, claim: Claimed, attempt: Attempt, ending: Ending) -> str | None:
        async def keep() -> str | None:
            async with self._pool.acquire() as connection:
                return await settle(connection, claim, attempt, ending)

        async with asyncio.timeout(SETTLE_WITHIN.total_seconds()):
            return await persist(keep)

    async def _give_back(self) -> None:
        """Let what is on its way arrive, for a moment, and end the claims of the rest."""
        if self._under_way:
            await asyncio.wait(list(self._under_way), timeout=FAREWELL.total_seconds())
        left = dict(self._under_way)
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)
        if not left:
            return
        try:
            async with self._pool.acquire() as connection:
                await release_messages(connection, left.values())
        except TRANSIENT as error:
            log.warning("%d messages stay claimed: %r", len(left), error)


def _reason(row: Record) -> Reason | None:
    details = load(row["details"])
    word = details.get("reason") if isinstance(details, dict) else None
    return REASONS.get(word) if isinstance(word, str) else None


def _clean(answer: str) -> str:
    """Return an answer in one line, without what a terminal or a column would choke on."""
    return " ".join("".join(c if c.isprintable() else " " for c in answer).split())[:ANSWER]
