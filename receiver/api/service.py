"""Whether the service lives, is ready, and how it does; open to all, so nothing here names a channel."""

import asyncio
import logging
from datetime import timedelta
from typing import Final

import asyncpg
from starlette.responses import Response

from db.connection.retry import TRANSIENT
from db.connection.types import Connection
from db.migrate import MigrationError, pending
from db.reconcile.failing_loops import read_failing_loops
from receiver.api.endpoint import Json, PublicOperation
from receiver.app import App
from receiver.http.problems import Unavailable

log = logging.getLogger(__name__)

READY_TIMEOUT: Final = timedelta(seconds=3)
"""How long the database may take to answer; more than a silent host of several holds up connecting."""


async def alive(_app: App) -> Response:
    """Answer: this process serves."""
    return Json({"status": "alive"})


async def ready(app: App) -> Response:
    """Answer whether the database can be reached and is migrated, and which background loops fail.

    A service is degraded while a loop fails in any process on its database: it is ready all the same.
    """
    try:
        async with asyncio.timeout(READY_TIMEOUT.total_seconds()):
            async with app.pool.acquire() as connection:
                missing = await pending(connection)
                failing = [] if missing else await _failing_loops(connection)
    except TRANSIENT:
        raise Unavailable("The database can't be reached.") from None
    except (MigrationError, asyncpg.PostgresError):
        raise Unavailable("The database's migrations can't be read.") from None
    if missing:
        raise Unavailable(f"The database lacks {len(missing)} migrations.")
    names = sorted({*failing, *app.loops.failing})
    return Json({"status": "degraded" if names else "ready", "failing_loops": names})


async def _failing_loops(connection: Connection) -> list[str]:
    """Return the loops that fail in any process; those of this one are known without the database."""
    try:
        return [one.loop for one in await read_failing_loops(connection)]
    except asyncpg.PostgresError:
        log.exception("the failing loops of other processes can't be read")
        return []


async def metrics(app: App) -> Response:
    """Return the metrics in Prometheus' text format."""
    text = await app.metrics.expose(app.pool)
    return Response(text, media_type="text/plain; version=0.0.4; charset=utf-8")


operations: Final = [
    PublicOperation("/healthz", alive),
    PublicOperation("/readyz", ready),
    PublicOperation("/metrics", metrics),
]
