"""Has old events and messages forgotten, round after round, at a pace that leaves the database to others."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Final

from db.alerts.alerts import prune_messages
from db.connection.types import Connection, Pool
from db.history.retention import CHANNELS, forget, take_snapshots
from receiver.jobs.loop import Loop

EVERY: Final = timedelta(seconds=30)
"""Pause between looks for channels that are due for a snapshot."""
PASSES: Final = 20
"""Passes over the old events while an event is kept. Each checks again those that can't be deleted yet."""


async def keep_snapshots(pool: Pool, keep: timedelta) -> None:
    """Take the snapshots that are due."""
    due = CHANNELS
    while due == CHANNELS:
        async with _paced(pool) as connection:
            due = await take_snapshots(connection, datetime.now(UTC), keep)


async def forget_old(pool: Pool, keep: timedelta) -> None:
    """Forget old events, page by page from the oldest on."""
    last: int | None = 0
    while last is not None:
        async with _paced(pool) as connection:
            _, last = await forget(connection, last, datetime.now(UTC), keep)


@asynccontextmanager
async def _paced(pool: Pool) -> AsyncIterator[Connection]:
    """Yield a connection for one piece of work, and rest afterwards for as long as it took."""
    loop = asyncio.get_running_loop()
    async with pool.acquire() as connection:
        started = loop.time()
        yield connection
    await asyncio.sleep(loop.time() - started)


def loop(pool: Pool, keep: timedelta) -> Loop:
    """Return the loop that forgets."""
    pass_at = time.monotonic()

    async def pass_if_due() -> bool:
        nonlocal pass_at
        await keep_snapshots(pool, keep)
        async with _paced(pool) as connection:
            await prune_messages(connection, datetime.now(UTC), keep)
        if time.monotonic() >= pass_at:
            await forget_old(pool, keep)
            pass_at = time.monotonic() + (keep / PASSES).total_seconds()
        return False

    return Loop("retention", pass_if_due, EVERY)
