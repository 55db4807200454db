"""Takes in channels that an application beside us registered, and forgets what was kept long enough."""

import asyncio
import logging
from datetime import UTC, datetime, timedelta
from typing import Final

import asyncpg

from db.adopt import adopt
from db.changes import release_held_changes
from db.checks import prune_checks
from db.connections import Connection, Pool
from db.intake import prune
from db.qr import forget_qrs
from db.recoveries import prune_recoveries
from db.telling import release_held
from db.vault import Vault
from receiver.rounds import go_round

EVERY: Final = timedelta(seconds=30)

log = logging.getLogger(__name__)


async def keep(connection: Connection, vault: Vault) -> None:
    """Do all of it once; nothing here is worth the service's life, least of all a row of somebody else's."""
    try:
        await adopt(connection, vault)
        await prune(connection, datetime.now(UTC))
        await prune_checks(connection, datetime.now(UTC))
        await forget_qrs(connection, datetime.now(UTC))
        await prune_recoveries(connection, datetime.now(UTC))
        await release_held(connection, datetime.now(UTC))
        await release_held_changes(connection, datetime.now(UTC))
    except asyncpg.PostgresError:
        log.exception("housekeeping did not finish")


async def run(pool: Pool, vault: Vault) -> None:
    """Keep house for ever; a start has just done so."""

    async def keep_house() -> bool:
        async with pool.acquire() as connection:
            await keep(connection, vault)
        return False

    await asyncio.sleep(EVERY.total_seconds())
    await go_round("housekeeping", keep_house, EVERY)
