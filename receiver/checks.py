"""Has the checks that operators asked for go on, page by page; probes nothing itself."""

from datetime import UTC, datetime, timedelta
from typing import Final

from db.checks import advance_check
from db.connections import Pool
from receiver.rounds import go_round

EVERY: Final = timedelta(seconds=0.25)


async def advance_a_check(pool: Pool) -> bool:
    """Have one check that is to go on do so; return whether there was one."""
    async with pool.acquire() as connection:
        return await advance_check(connection, datetime.now(UTC))


async def run(pool: Pool) -> None:
    """Go on for ever."""
    await go_round("checks", lambda: advance_a_check(pool), EVERY)
