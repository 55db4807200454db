"""Has the checks that operators asked for go on, page by page; probes nothing itself."""

from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Final

from db.connection.types import Pool
from db.reconcile.check_jobs import advance_check
from receiver.jobs.loop import Loop

EVERY: Final = timedelta(seconds=0.25)


async def advance_a_check(pool: Pool) -> bool:
    """Have one check that is to go on do so; return whether there was one."""
    async with pool.acquire() as connection:
        return await advance_check(connection, datetime.now(UTC))


def loop(pool: Pool) -> Loop:
    """Return the loop that has checks go on."""
    return Loop("check_jobs", partial(advance_a_check, pool), EVERY)
