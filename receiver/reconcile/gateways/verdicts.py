"""Gives the channels of silent gateways the verdict on these, as a signal of the writer. Makes no verdict.

What is to be given is in rows: after a kill in the middle another process, or the next one, goes on.
"""

import asyncio
import logging
from datetime import UTC, datetime, timedelta
from typing import Final

from db.connection.retry import TRANSIENT
from db.connection.types import Pool
from db.ingest.entry import Entry, Source
from db.ingest.queue import COMMIT_TIMEOUT, NotCommitted
from db.ingest.writer import Writer
from db.reconcile.gateways.verdicts import DueVerdict, claim_verdicts, end_verdicts, sweep_verdicts
from receiver.jobs.leased_tasks import to_the_end
from receiver.jobs.loop import Loop
from statemachine.gateway import Cause
from statemachine.model import Reason
from statemachine.signals import GatewaySilence

EVERY: Final = timedelta(seconds=0.25)
SWEPT_EVERY: Final = timedelta(seconds=2)
"""How often channels are looked for that fell silent, or were registered, after their gateway did."""
AT_ONCE: Final = 500
LEASE: Final = 2 * COMMIT_TIMEOUT
REASONS: Final = {
    Cause.UNREACHABLE: Reason.GATEWAY_UNREACHABLE,
    Cause.UNAVAILABLE: Reason.GATEWAY_UNAVAILABLE,
}

log = logging.getLogger(__name__)


class GatewayVerdicts:
    """Gives verdicts in one process; `loop` runs in one task."""

    def __init__(self, pool: Pool, writer: Writer, stale_after: timedelta) -> None:
        """`stale_after`: how long a channel that still speaks keeps its state after its newest webhook."""
        self._pool, self._writer, self._stale_after = pool, writer, stale_after
        self._swept_at = datetime.min.replace(tzinfo=UTC)

    def loop(self) -> Loop:
        """Return the loop that gives verdicts."""
        return Loop("gateway_verdicts", self._round, EVERY)

    async def _round(self) -> bool:
        return await to_the_end(self.give_due()) >= AT_ONCE

    async def give_due(self) -> int:
        """Give the verdicts that are due, and return how many were claimed."""
        now = datetime.now(UTC)
        until = now + LEASE
        async with self._pool.acquire() as connection:
            if now - self._swept_at >= min(SWEPT_EVERY, self._stale_after / 2):
                await sweep_verdicts(connection, now, self._stale_after)
                self._swept_at = now
            due = await claim_verdicts(connection, now, until, AT_ONCE)
        given = await asyncio.gather(*(self._give(one, now) for one in due))
        done = [one for one, is_given in zip(due, given, strict=True) if is_given]
        try:
            async with self._pool.acquire() as connection:
                await end_verdicts(connection, done, until)
        except TRANSIENT as error:
            log.warning("%d verdicts are given again: %r", len(done), error)
        return len(due)

    async def _give(self, due: DueVerdict, now: datetime) -> bool:
        """Give a channel its gateway's verdict; False: it could not be stored, and is given again later."""
        reason = REASONS.get(due.cause)
        if due.since is None or reason is None:
            return True
        signal = GatewaySilence(now, due.since, reason)
        try:
            await self._writer.submit([Entry(due.channel_id, Source.PROBE, "gateway_silence", now, signal)])
        except NotCommitted as error:
            log.warning("the gateway's verdict on channel %s is delayed: %s", due.channel_id, error)
            return False
        return True
