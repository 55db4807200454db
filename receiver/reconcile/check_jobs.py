"""Advances the checks that operators requested, page by page; makes no probe itself."""

from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Final

from db.connection.types import Pool
from db.reconcile.check_jobs import advance_check
from receiver.jobs.loop import Loop

EVERY: Final = timedelta(seconds=0.25)


async def advance_a_check(pool: Pool) -> bool:
    """Advance one check that is due; return whether there was one."""
    async with pool.acquire() as connection:
        return await advance_check(connection, datetime.now(UTC))


def loop(pool: Pool) -> Loop:
    """Return the loop that advances checks."""
    return Loop("check_jobs", partial(advance_a_check, pool), EVERY)
