"""`python -m faults.doomed POINT NTH`: the service, which kills itself at a point of its NTH batch.

The product knows nothing of it: the writer's `apply` is wrapped before the service starts.

- `before`: every statement has run, COMMIT has not been sent.
- `during`: COMMIT has been sent, and nobody knows what became of it.
- `after`: it is committed, and nobody has been answered.
"""

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from itertools import count
from typing import Any, Final, Literal, cast, get_args

import db.ingest.writer
from db.codec.rules import IsRecoverable
from db.connection.types import Connection
from db.ingest.apply import Applied, Words, apply, code_of
from db.ingest.entry import Entry
from receiver.service.server import serve
from receiver.settings import load_settings
from statemachine.model import Rules

Point = Literal["before", "during", "after"]
POINTS: Final[tuple[Point, ...]] = get_args(Point)


def _die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


class _Doomed:
    """A connection whose transaction is the last thing that happens."""

    def __init__(self, connection: Connection, point: Point) -> None:
        self._connection = connection
        self._point = point

    def __getattr__(self, name: str) -> Any:
        return getattr(self._connection, name)

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[None]:
        async with self._connection.transaction():
            yield
            if self._point == "before":
                _die()
            if self._point == "during":
                asyncio.get_running_loop().call_soon(_die)
        _die()


def doom(point: Point, nth: int) -> None:
    """Have this process end at that point of its NTH batch."""
    batches = count(1)

    async def fatal(
        connection: Connection,
        entries: Sequence[Entry],
        installation: Rules,
        words: Words = code_of,
        recoverable: IsRecoverable | None = None,
    ) -> Applied:
        doomed = next(batches) >= nth
        chosen = cast(Connection, _Doomed(connection, point)) if doomed else connection
        return await apply(chosen, entries, installation, words, recoverable)

    db.ingest.writer.apply = fatal  # type: ignore[attr-defined]


if __name__ == "__main__":
    doom(cast(Point, sys.argv[1]), int(sys.argv[2]))
    sys.exit(serve(load_settings(os.environ)))
