"""Work under way on claimed channels, and giving back what is not done when a process ends."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Collection, Coroutine
from typing import Final, TypeVar

from db.connection.retry import TRANSIENT
from db.connection.types import Connection, Pool
from db.ingest.writer import Writer
from db.reconcile.claims import Claim

Result = TypeVar("Result")

log = logging.getLogger(__name__)


class LeasedTasks:
    """The tasks of one loop that work on claims; `release` gives claims back."""

    def __init__(
        self,
        pool: Pool,
        writer: Writer,
        release: Callable[[Connection, Collection[Claim]], Awaitable[None]],
    ) -> None:
        self._pool: Final = pool
        self._writer: Final = writer
        self._release: Final = release
        self._under_way: dict[asyncio.Task[None], Claim] = {}

    def __len__(self) -> int:
        return len(self._under_way)

    def begin(self, claim: Claim, work: Coroutine[object, None, None]) -> "asyncio.Task[None]":
        """Return the task that does the work, which ends the claim."""
        task = asyncio.create_task(work)
        self._under_way[task] = claim
        task.add_done_callback(self._under_way.pop)
        return task

    async def give_back(self) -> None:
        """Cut short what is under way, and end its claims: another replica need not wait for their lease."""
        left = dict(self._under_way)
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)
        if not left:
            return
        # It may be applying one of them, and has its row as long.
        await self._writer.drain()
        try:
            async with self._pool.acquire() as connection:
                await self._release(connection, left.values())
        except TRANSIENT as error:
            log.warning("%d channels stay claimed: %r", len(left), error)


async def to_the_end(work: Coroutine[object, None, Result]) -> Result:
    """Return what the work returns; a cancellation waits for it, so that no claim loses its task."""
    task = asyncio.create_task(work)
    try:
        return await asyncio.shield(task)
    finally:
        await asyncio.wait([task])
