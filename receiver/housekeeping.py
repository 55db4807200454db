"""Takes in channels that an application beside us registered, and forgets what was kept long enough."""

import asyncio
import logging
from datetime import UTC, datetime, timedelta
from typing import Final

from db.adopt import adopt
from db.connections import Pool
from db.intake import prune
from db.pool import TRANSIENT
from db.vault import Vault

EVERY: Final = timedelta(seconds=30)

log = logging.getLogger(__name__)


async def run(pool: Pool, vault: Vault) -> None:
    """Keep house for ever; while the database is away, wait for it."""
    while True:
        await asyncio.sleep(EVERY.total_seconds())
        try:
            async with pool.acquire() as connection:
                await adopt(connection, vault)
                await prune(connection, datetime.now(UTC))
        except TRANSIENT as error:
            log.warning("housekeeping waits for the database: %r", error)
