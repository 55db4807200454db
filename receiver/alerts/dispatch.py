"""Dispatches messages: claims those that are due, has notifiers send them, and settles the results.

Chooses no destinations. Few messages of one destination are under way at a time, and one while it can't be
reached, so that a destination that hangs delays no other.
"""

import asyncio
import logging
import random
from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Final
from uuid import UUID

import asyncpg
import orjson
from pydantic import ValidationError

from db.alerts.messages import (
    PER_DESTINATION,
    Attempt,
    ClaimedMessage,
    MessageSettlement,
    claim_messages,
    keep_facts,
    read_groups,
    read_message_items,
    release_messages,
    settle,
    void_empty,
)
from db.connection.retry import TRANSIENT, passes, persist
from db.connection.types import Connection, Pool
from db.vault import Vault, VaultError
from receiver.alerts.facts import MakeLink, freeze, message_of
from receiver.alerts.message import DeliveryResult, Notifier
from receiver.jobs.leased_tasks import to_the_end
from receiver.jobs.loop import ItemFailed, Loop
from receiver.outbound.egress import Egress

SCHEDULE: Final = tuple(
    timedelta(seconds=seconds) for seconds in (2, 5, 15, 30, 60, 300, 1800, 7200, 18000, 36000)
)
"""How long after each failure a message is tried again; after the last it is given up."""
JITTER: Final = 0.1
"""Share by which those times vary, so that what failed together doesn't come back together."""
LONGEST_WAIT: Final = timedelta(days=1)
"""The longest delay that a destination may request, and the greatest age of a message that is tried again."""
SEND_WITHIN: Final = timedelta(seconds=10)
"""How long one try may take."""
SETTLE_WITHIN: Final = timedelta(seconds=20)
"""How long its outcome may wait for the database; then another process tries again."""
LEASE: Final = SEND_WITHIN + SETTLE_WITHIN + timedelta(seconds=5)
AT_ONCE: Final = 200
"""Messages that one process has on their way at a time."""
EVERY: Final = timedelta(seconds=0.25)
"""Pause between rounds when nothing ends meanwhile."""
BREATH: Final = timedelta(seconds=0.01)
"""Pause after a message is settled, so that one claim fills several concurrency slots."""
FAREWELL: Final = timedelta(seconds=2)
"""How long messages under way may take to be settled when the service ends."""
ANSWER: Final = 500
"""Characters of a destination's answer that are kept."""
NAMES: Final = 20
"""Channels that a message for many has by name."""

log = logging.getLogger(__name__)


class Dispatcher:
    """Delivers messages in one process; `loop` runs in one task."""

    def __init__(
        self,
        pool: Pool,
        vault: Vault,
        notifiers: Mapping[str, Notifier],
        egress: Egress,
        link: MakeLink | None = None,
        on_attempt: Callable[[str, str], None] = lambda kind, outcome: None,
        schedule: Sequence[timedelta] = SCHEDULE,
        send_within: timedelta = SEND_WITHIN,
    ) -> None:
        """`on_attempt` gets the kind of destination and `delivered`, `retried`, `failed` or `given_up`."""
        self._pool = pool
        self._vault = vault
        self._notifiers = notifiers
        self._egress = egress
        self._link = link
        self._on_attempt = on_attempt
        self._schedule = schedule
        self._send_within = send_within
        self._under_way: dict[asyncio.Task[None], ClaimedMessage] = {}
        self._at_once = AT_ONCE
        self._unsettled: asyncpg.PostgresError | None = None
        """Why a result was not written; reported by the next round."""

    @property
    def in_flight(self) -> int:
        """How many messages are under way."""
        return len(self._under_way)

    async def send_due(self) -> Sequence[asyncio.Task[None]]:
        """Begin to send due messages; return their tasks, to be awaited or not."""
        free = min(self._at_once, AT_ONCE - len(self._under_way))
        if free <= 0:
            return []
        now = datetime.now(UTC)
        async with self._pool.acquire() as connection, connection.transaction():
            claims = await claim_messages(connection, now, LEASE, free, PER_DESTINATION)
            facts = await _facts_of(connection, claims, now)
        self._at_once = min(2 * self._at_once, AT_ONCE)
        return [self._begin(claim, facts[claim.id]) for claim in claims if claim.id in facts]

    def loop(self) -> Loop:
        """Return the loop that sends."""
        return Loop("messages", self._round, EVERY, self._give_back)

    async def _round(self) -> bool | None:
        try:
            await to_the_end(self.send_due())
        except Exception as error:
            if passes(error):
                raise
            # One of many may cause the error: one at a time finds it, and the others don't wait for it.
            if self._at_once == 1 and await to_the_end(self._leave_one()):
                raise ItemFailed from error
            self._at_once = 1
            raise
        if self._unsettled is not None:
            refused, self._unsettled = self._unsettled, None
            raise ItemFailed from refused
        if not self._under_way:
            return None
        await asyncio.wait(
            list(self._under_way), timeout=EVERY.total_seconds(), return_when=asyncio.FIRST_COMPLETED
        )
        await asyncio.sleep(BREATH.total_seconds())
        return True

    async def _leave_one(self) -> bool:
        """Claim one message and leave it to the end of its lease; return whether there was one."""
        async with self._pool.acquire() as connection, connection.transaction():
            claims = await claim_messages(connection, datetime.now(UTC), LEASE, 1, PER_DESTINATION)
        for claim in claims:
            log.error("message %s can't be read and is delayed", claim.id)
        return bool(claims)

    def _begin(self, claim: ClaimedMessage, facts: str) -> asyncio.Task[None]:
        task = asyncio.create_task(self._deliver(claim, facts))
        self._under_way[task] = claim
        task.add_done_callback(self._under_way.pop)
        return task

    async def _deliver(self, claim: ClaimedMessage, facts: str) -> None:
        began, loop = datetime.now(UTC), asyncio.get_running_loop()
        started = loop.time()
        sent = await self._send(claim, facts)
        took = timedelta(seconds=loop.time() - started)
        attempt = Attempt(began, took, sent.ok, sent.status, _clean(sent.answer), sent.was_sent)
        ending = self._end(claim, sent, began + took)
        try:
            disabled = await self._settle(claim, attempt, ending)
        except TRANSIENT as error:
            log.warning("the result of message %s was not committed: %s", claim.id, type(error).__name__)
            return
        except asyncpg.PostgresError as error:
            log.exception("the database refuses the result of message %s", claim.id)
            self._unsettled = error
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

    async def _send(self, claim: ClaimedMessage, facts: str) -> DeliveryResult:
        """Have a message sent once; errors are returned, not raised."""
        notifier = self._notifiers.get(claim.kind)
        if notifier is None:
            return DeliveryResult(False, answer="this version has no notifier of its kind", was_sent=False)
        try:
            message = message_of(claim, facts, self._link, datetime.now(UTC))
        except ValidationError:
            return DeliveryResult(
                False, answer="this version does not know what it is to tell", was_sent=False
            )
        try:
            config = orjson.loads(self._vault.open(claim.config, f"destination:{claim.destination_id}"))
            outgoing = self._egress.of(claim.tenant_id)
            async with asyncio.timeout(self._send_within.total_seconds()):
                return await notifier.send(config, message, outgoing)
        except TimeoutError:
            return DeliveryResult(False, answer=f"no answer within {self._send_within.total_seconds():g} s")
        except (VaultError, orjson.JSONDecodeError):
            return DeliveryResult(False, answer="its configuration can't be opened", was_sent=False)
        except Exception as error:
            # One notifier's fault must not end all deliveries.
            log.exception("the notifier %s failed", claim.kind)
            return DeliveryResult(False, answer=f"the notifier failed: {type(error).__name__}")

    def _end(self, claim: ClaimedMessage, sent: DeliveryResult, now: datetime) -> MessageSettlement:
        """Return the settlement of a message after a try."""
        if sent.ok:
            return MessageSettlement("delivered")
        if sent.permanent or sent.status == 410:
            return MessageSettlement("failed", is_gone=sent.status == 410)
        if claim.tries > len(self._schedule):
            return MessageSettlement("given_up")
        wait = self._schedule[claim.tries - 1] * random.uniform(1, 1 + JITTER)
        due_at = now + max(wait, min(sent.retry_after or wait, LONGEST_WAIT))
        return (
            MessageSettlement("given_up")
            if due_at - claim.created_at > LONGEST_WAIT
            else MessageSettlement(None, due_at)
        )

    async def _settle(self, claim: ClaimedMessage, attempt: Attempt, ending: MessageSettlement) -> str | None:
        async def keep() -> str | None:
            async with self._pool.acquire() as connection:
                return await settle(connection, claim, attempt, ending)

        async with asyncio.timeout(SETTLE_WITHIN.total_seconds()):
            return await persist(keep)

    async def _give_back(self) -> None:
        """Wait `FAREWELL` for messages under way, and release the claims of the rest."""
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


async def _facts_of(
    connection: Connection, claims: Collection[ClaimedMessage], now: datetime
) -> dict[UUID, str]:
    """Return the facts of claimed messages, frozen at their first try; void messages without alerts."""
    facts = {claim.id: claim.facts for claim in claims if claim.facts is not None}
    new = [claim for claim in claims if claim.facts is None]
    if new:
        alerts = await read_message_items(connection, [claim.id for claim in new])
        ids = [
            row["decision_id"]
            for rows in alerts.values()
            for row in rows
            if row["gateway_details"] is not None
        ]
        groups = await read_groups(connection, ids, now, NAMES)
        frozen = {claim.id: freeze(claim, alerts[claim.id], groups, now) for claim in new}
        made = {id: text for id, text in frozen.items() if text is not None}
        await keep_facts(connection, made)
        await void_empty(connection, [id for id, text in frozen.items() if text is None], now)
        facts |= made
    return facts


def _clean(answer: str) -> str:
    """Return an answer in one line, without what a terminal or a column would choke on."""
    return " ".join("".join(c if c.isprintable() else " " for c in answer).split())[:ANSWER]
