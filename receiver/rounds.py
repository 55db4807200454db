"""Work that comes round again and again beside the service's own: no failure of the database ends it."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Final, NoReturn

import asyncpg

from db.patience import TRANSIENT

REFUSED_PAUSE: Final = timedelta(seconds=10)
"""Pause after a statement that the database refuses, as it will again until somebody mends something."""

log = logging.getLogger(__name__)


async def go_round(name: str, work: Callable[[], Awaitable[bool]], every: timedelta) -> NoReturn:
    """Do the work for ever: at once again when it says that more is due, else after a pause.

    Nothing that is done so is worth the service's life. So a database that is away is waited for, and what it
    refuses is logged and tried again; `name` says in the log whose work it is.
    """
    while True:
        pause = every
        try:
            if await work():
                continue
        except TRANSIENT as error:
            log.warning("%s wait for the database: %r", name, error)
        except asyncpg.PostgresError as error:
            # Its own words may hold what is in a row.
            log.error("the database refuses what is done for %s: %s", name, type(error).__name__)
            pause = max(every, REFUSED_PAUSE)
        await asyncio.sleep(pause.total_seconds())
