"""A PostgreSQL of the harness's own, which may be killed and started again at the same address."""

import os
import signal
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Final

from db.connection.pool import connect
from db.connection.types import Connection
from db.embedded.server import Embedded, run_embedded

CONNECTIONS: Final = 120
"""Enough for six workers, the operator and the harness."""


class Postgres:
    """One server on one folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._running = AsyncExitStack()
        self._server: Embedded | None = None
        self.dsn = ""

    @property
    def pid(self) -> int:
        """The server's first process."""
        assert self._server is not None
        return self._server.pid

    async def start(self) -> None:
        """Start it, and return when it serves; recovery takes as long as it takes."""
        self._server = await self._running.enter_async_context(
            run_embedded(self._folder, connections=CONNECTIONS)
        )
        assert self.dsn in ("", self._server.dsn), "whoever uses it would not find it again"
        self.dsn = self._server.dsn

    async def stop(self, how: signal.Signals) -> None:
        """End it by a signal to its first process: SIGKILL, SIGQUIT (immediate) or SIGINT (fast)."""
        assert self._server is not None
        os.kill(self._server.pid, how)
        await self._server.died()
        await self.close()

    async def close(self) -> None:
        """End it in order, if it still runs."""
        await self._running.aclose()

    @asynccontextmanager
    async def connected(self) -> AsyncIterator[Connection]:
        """Yield a connection to look at what is stored."""
        connection = await connect(self.dsn, "faults", command_timeout=None)
        try:
            yield connection
        finally:
            await connection.close()


@asynccontextmanager
async def postgres(folder: Path) -> AsyncIterator[Postgres]:
    """Yield a running server; it is ended afterwards."""
    server = Postgres(folder / "database")
    await server.start()
    try:
        yield server
    finally:
        await server.close()
