"""Tells all processes on the database what to forget, by NOTIFY; keeps nothing and promises nothing.

A notice is lost while nobody listens. So whoever listens forgets everything each time that it begins anew,
and what is remembered must end by itself besides.
"""

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Final, NoReturn
from uuid import UUID

from db.connections import Connection, Pool
from db.patience import TRANSIENT, persist
from db.queries import sql

CHANNEL: Final = "zapwatch_forget"
"""PostgreSQL's channel, not one of WhatsApp; a notice is the id of a channel or of a gateway."""
USED_EVERY: Final = timedelta(seconds=10)
"""How often the listening connection is used: only then is it known that a server is gone without a word."""

log = logging.getLogger(__name__)


async def notify(database: Connection | Pool, identity: UUID) -> None:
    """Have all processes forget a channel or a gateway. After COMMIT: docs/postgresql-facts.md#notify."""
    await database.execute(sql.notify, CHANNEL, str(identity))


async def listen(
    connect: Callable[[], Awaitable[Connection]],
    on_notice: Callable[[UUID], None],
    on_gap: Callable[[], None],
) -> None:
    """Pass on notices for ever; `on_gap` each time that some may have been missed."""
    await persist(lambda: _listen(connect, on_notice, on_gap))


async def _listen(
    connect: Callable[[], Awaitable[Connection]],
    on_notice: Callable[[UUID], None],
    on_gap: Callable[[], None],
) -> NoReturn:
    """Pass on notices until the connection is lost; raise that it is."""

    def pass_on(*notice: object) -> None:
        try:
            on_notice(UUID(str(notice[-1])))
        except ValueError:
            # Of a later version, perhaps.
            on_gap()

    connection = await connect()
    lost = asyncio.Event()
    connection.add_termination_listener(lambda _: lost.set())
    try:
        await connection.add_listener(CHANNEL, pass_on)
        # What changed before this moment was told to nobody here.
        on_gap()
        while True:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(lost.wait(), USED_EVERY.total_seconds())
            await connection.execute(sql.answer)
    except TRANSIENT as error:
        log.warning("notices of other processes are missed until there is a connection again: %r", error)
        raise
    finally:
        connection.terminate()
