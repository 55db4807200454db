"""Has old events forgotten, round after round, at a pace that leaves the database to others."""

import asyncio
import logging
from datetime import UTC, datetime, timedelta
from typing import Final

import asyncpg

from db.connections import Pool
from db.patience import TRANSIENT
from db.retention import forget

EVERY: Final = timedelta(seconds=30)
"""Pause when no channel is due any more."""

log = logging.getLogger(__name__)


async def forget_due(pool: Pool, keep: timedelta) -> bool:
    """Forget old events of some channels that are due, and say whether more may be."""
    async with pool.acquire() as connection:
        return (await forget(connection, datetime.now(UTC), keep)).more


async def run(pool: Pool, keep: timedelta) -> None:
    """Forget for ever, half of the time at most; while the database is away, wait for it."""
    loop = asyncio.get_running_loop()
    while True:
        started = loop.time()
        try:
            more = await forget_due(pool, keep)
        except TRANSIENT as error:
            log.warning("forgetting waits for the database: %r", error)
            more = False
        except asyncpg.PostgresError as error:
            # Its own words may hold what is in a row.
            log.error("old events were not forgotten: %s", type(error).__name__)
            more = False
        await asyncio.sleep(loop.time() - started if more else EVERY.total_seconds())
