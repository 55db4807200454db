"""Claims channels whose deadline has come and submits it as a signal. Makes no verdict."""

import asyncio
import logging
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Final

from db.connection.types import Pool
from db.ingest.entry import Entry, Source
from db.ingest.queue import NotCommitted
from db.ingest.writer import Writer
from db.reconcile.claims import LEASE, Claim, DueDeadline, claim_deadlines, release_deadlines
from receiver.jobs.leased_tasks import LeasedTasks, to_the_end
from receiver.jobs.loop import Loop
from statemachine.signals import Deadline

EVERY: Final = timedelta(seconds=0.25)
"""Pause between rounds; incidents open this much late at most, while the database keeps up."""
AT_ONCE: Final = 500

log = logging.getLogger(__name__)


class Deadlines:
    """Submits deadlines in one process; `loop` runs in one task."""

    def __init__(self, pool: Pool, writer: Writer, on_lag: Callable[[float], None]) -> None:
        self._pool = pool
        self._writer = writer
        self._on_lag = on_lag
        self._tasks = LeasedTasks(pool, writer, release_deadlines)

    async def fire_due(self) -> int:
        """Submit the deadlines that have come, oldest first, and return how many.

        Doesn't wait for slow ones: a channel whose row stays locked delays no other. The lease keeps it
        from being claimed again meanwhile.
        """
        now = datetime.now(UTC)
        async with self._pool.acquire() as connection:
            due = await claim_deadlines(connection, now, AT_ONCE)
        self._on_lag(max(((now - one.due_at).total_seconds() for one in due), default=0.0))
        submitted = [
            self._tasks.begin(Claim(one.channel_id, now + LEASE), self._submit(one, now)) for one in due
        ]
        if submitted:
            await asyncio.wait(submitted, timeout=EVERY.total_seconds())
        return len(due)

    def loop(self) -> Loop:
        """Return the loop that fires deadlines, without which the service is of no use."""
        return Loop("deadlines", self._round, EVERY, self._tasks.give_back, critical=True)

    async def _round(self) -> bool:
        return await to_the_end(self.fire_due()) >= AT_ONCE

    async def _submit(self, due: DueDeadline, now: datetime) -> None:
        deadline = Deadline(now, queued=due.queued)
        try:
            await self._writer.submit([Entry(due.channel_id, Source.DEADLINE, "deadline", now, deadline)])
        except NotCommitted as error:
            log.warning("the deadline of channel %s is delayed: %s", due.channel_id, error)
