"""Takes in channels that an application beside us registered, and forgets what was kept long enough."""

import logging
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Final

import asyncpg

from db.alerts.alerts import release_held
from db.alerts.state_changes import release_held_changes
from db.connection.retry import passes
from db.connection.types import Connection, Pool
from db.ingest.quarantine import prune
from db.reconcile.check_jobs import prune_checks
from db.reconcile.failing_loops import forget_failing_loops
from db.reconcile.qr import forget_qrs
from db.reconcile.recoveries import prune_recoveries
from db.registry.adopt import adopt
from db.vault import Vault
from receiver.jobs.loop import Loop

EVERY: Final = timedelta(seconds=30)

FORGETTING: Final[tuple[Callable[[Connection, datetime], Awaitable[None]], ...]] = (
    prune,
    prune_checks,
    forget_qrs,
    prune_recoveries,
    release_held,
    release_held_changes,
    forget_failing_loops,
)

log = logging.getLogger(__name__)


async def keep(connection: Connection, vault: Vault) -> None:
    """Do all of it once; a step that fails keeps no other from being done.

    Raises what fails as one group in the end, and at once what passes by itself.
    """

    async def take_in(connection: Connection, _now: datetime) -> None:
        await adopt(connection, vault)

    errors: list[Exception] = []
    for step in (take_in, *FORGETTING):
        try:
            await step(connection, datetime.now(UTC))
        except Exception as error:
            if passes(error):
                raise
            errors.append(error)
    if errors:
        raise ExceptionGroup("housekeeping did not finish", errors)


async def keep_at_start(connection: Connection, vault: Vault) -> None:
    """Do all of it before the service starts; no row of another application may prevent the start."""
    try:
        await keep(connection, vault)
    except (ExceptionGroup, asyncpg.PostgresError):
        log.exception("housekeeping did not finish")


def loop(pool: Pool, vault: Vault) -> Loop:
    """Return the loop that keeps house; a start has just done so."""

    async def keep_house() -> bool:
        async with pool.acquire() as connection:
            await keep(connection, vault)
        return False

    return Loop("housekeeping", keep_house, EVERY, waits_first=True)
