"""Notifies all processes on the database which cache entries to drop, by NOTIFY; guarantees no delivery.

A notice is lost for a process that is not listening. So a process drops its whole cache each time that it
begins to listen, and cache entries must expire besides.
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Final
from uuid import UUID

from db.connection.types import Connection, Pool
from db.queries import sql

CHANNEL: Final = "zapwatch_forget"
"""PostgreSQL's channel, not one of WhatsApp; a notice is the id of a channel or of a gateway."""
USED_EVERY: Final = timedelta(seconds=10)
"""How often the listening connection is used: only then a server that vanished silently is noticed."""


async def notify(database: Connection | Pool, identity: UUID) -> None:
    """Notify all processes of a changed channel or gateway. After COMMIT: docs/postgresql-facts.md#notify."""
    await database.execute(sql.notify, CHANNEL, str(identity))


class Notices:
    """The notices that one process receives, on a connection of its own."""

    def __init__(
        self,
        connect: Callable[[], Awaitable[Connection]],
        on_notice: Callable[[UUID], None],
        on_gap: Callable[[], None],
    ) -> None:
        """`on_gap` is called each time that notices may have been missed."""
        self._connect = connect
        self._on_notice = on_notice
        self._on_gap = on_gap
        self._connection: Connection | None = None
        self._lost = asyncio.Event()

    async def listen(self) -> bool:
        """Pass on notices for `USED_EVERY`, and return True: the next call is due at once.

        It goes on with the same connection. Raises what asyncpg raises when that is lost; then the next call
        makes a new one.
        """
        try:
            if self._connection is None:
                await self._begin()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._lost.wait(), USED_EVERY.total_seconds())
            assert self._connection is not None
            await self._connection.execute(sql.answer)
        except BaseException:
            self._drop()
            raise
        return True

    async def close(self) -> None:
        """End the connection."""
        self._drop()

    async def _begin(self) -> None:
        self._lost.clear()
        self._connection = connection = await self._connect()
        connection.add_termination_listener(lambda _: self._lost.set())
        await connection.add_listener(CHANNEL, self._handle_notice)
        # Notices of changes before this moment did not arrive here.
        self._on_gap()

    def _drop(self) -> None:
        if self._connection is not None:
            self._connection.terminate()
            self._connection = None

    def _handle_notice(self, *notice: object) -> None:
        try:
            identity = UUID(str(notice[-1]))
        except ValueError:
            # Of a later version, perhaps.
            self._on_gap()
        else:
            self._on_notice(identity)
