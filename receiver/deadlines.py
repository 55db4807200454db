"""Tells channels what time it is: claims those whose deadline has come and submits it. Judges nothing."""

import asyncio
import logging
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Final

from db.claims import claim_deadlines
from db.connections import Pool
from db.entry import Entry, Source
from db.pool import TRANSIENT
from db.writer import Unavailable, Writer
from statemachine.signals import Deadline

EVERY: Final = timedelta(seconds=1)
"""Pause between rounds; incidents open this much late at most, while the database keeps up."""
AT_ONCE: Final = 500

log = logging.getLogger(__name__)


async def fire_deadlines(pool: Pool, writer: Writer, on_lag: Callable[[float], None]) -> int:
    """Submit the deadlines that have come, oldest first; return how many."""
    now = datetime.now(UTC)
    async with pool.acquire() as connection:
        due = await claim_deadlines(connection, now, AT_ONCE)
    on_lag(max(((now - due_at).total_seconds() for _, due_at in due), default=0.0))
    await writer.submit_each(
        [Entry(channel_id, Source.DEADLINE, "deadline", now, Deadline(now)) for channel_id, _ in due]
    )
    return len(due)


async def run(pool: Pool, writer: Writer, on_lag: Callable[[float], None]) -> None:
    """Fire deadlines for ever; those that can't be stored now are tried again."""
    while True:
        try:
            fired = await fire_deadlines(pool, writer, on_lag)
        except (*TRANSIENT, Unavailable) as error:
            log.warning("some deadlines wait: %r", error)
            fired = 0
        if fired < AT_ONCE:
            await asyncio.sleep(EVERY.total_seconds())
