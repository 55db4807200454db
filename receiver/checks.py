"""Has the checks that operators asked for go on, page by page; probes nothing itself."""

import asyncio
import logging
from datetime import UTC, datetime, timedelta
from typing import Final

from db.checks import advance_check
from db.connections import Pool
from db.patience import TRANSIENT

EVERY: Final = timedelta(seconds=0.25)

log = logging.getLogger(__name__)


async def advance_checks(pool: Pool) -> None:
    """Have every check that is to go on do so, until none is."""
    async with pool.acquire() as connection:
        while await advance_check(connection, datetime.now(UTC)):
            pass


async def run(pool: Pool) -> None:
    """Go on for ever; while the database is away, wait for it."""
    while True:
        try:
            await advance_checks(pool)
        except TRANSIENT as error:
            log.warning("checks wait for the database: %r", error)
        await asyncio.sleep(EVERY.total_seconds())
