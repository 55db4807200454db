"""Tells channels what time it is: claims those whose deadline has come and submits it. Judges nothing."""

import asyncio
import logging
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Final

from db.claims import Due, claim_deadlines
from db.connections import Pool
from db.entry import Entry, Source
from db.patience import TRANSIENT
from db.writer import Unavailable, Writer
from statemachine.signals import Deadline

EVERY: Final = timedelta(seconds=0.25)
"""Pause between rounds; incidents open this much late at most, while the database keeps up."""
AT_ONCE: Final = 500

log = logging.getLogger(__name__)


async def fire_deadlines(pool: Pool, writer: Writer, on_lag: Callable[[float], None]) -> int:
    """Submit the deadlines that have come, oldest first, and return how many.

    Doesn't wait for the slow ones: a channel that somebody keeps locked delays no other. Their lease
    keeps them from being claimed again meanwhile.
    """
    now = datetime.now(UTC)
    async with pool.acquire() as connection:
        due = await claim_deadlines(connection, now, AT_ONCE)
    on_lag(max(((now - due_at).total_seconds() for _, due_at, _ in due), default=0.0))
    submitted = [asyncio.create_task(_submit(writer, one, now)) for one in due]
    if submitted:
        await asyncio.wait(submitted, timeout=EVERY.total_seconds())
    return len(due)


async def _submit(writer: Writer, due: Due, now: datetime) -> None:
    deadline = Deadline(now, queued=due.queued)
    try:
        await writer.submit([Entry(due.channel_id, Source.DEADLINE, "deadline", now, deadline)])
    except Unavailable as error:
        log.warning("the deadline of channel %s waits: %s", due.channel_id, error)


async def run(pool: Pool, writer: Writer, on_lag: Callable[[float], None]) -> None:
    """Fire deadlines for ever; while the database is away, wait for it."""
    while True:
        try:
            fired = await fire_deadlines(pool, writer, on_lag)
        except TRANSIENT as error:
            log.warning("deadlines wait for the database: %r", error)
            fired = 0
        if fired < AT_ONCE:
            await asyncio.sleep(EVERY.total_seconds())
