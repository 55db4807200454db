"""Commits what concurrent requests submit, a batch a transaction. Decides nothing: `apply` does.

A batch is begun as soon as there is one, so that its size grows with the load and without load nothing waits.
Two may be under way: while PostgreSQL works on one, Python works on the other.
"""

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Sequence
from datetime import timedelta
from typing import Final
from uuid import UUID

from db.codec.rules import IsRecoverable
from db.connection.retry import LOCKED, TRANSIENT, pauses
from db.connection.types import Connection
from db.ingest.apply import Applied, Locked, Words, apply, code_of
from db.ingest.entry import Entry
from db.ingest.queue import COMMIT_TIMEOUT, Queue, Submission
from statemachine.model import Rules, State

CONCURRENT_BATCHES: Final = 2
"""Batches that are under way together."""
STATES_KEPT: Final = 200_000

log = logging.getLogger(__name__)


class Writer:
    """Group commit over connections of its own; `submit` from anywhere, `run` in one task."""

    def __init__(
        self,
        connect: Callable[[], Awaitable[Connection]],
        installation: Rules,
        on_commit: Callable[[Applied, int, float], None] = lambda applied, entries, seconds: None,
        timeout: timedelta = COMMIT_TIMEOUT,
        words: Words = code_of,
        recoverable: IsRecoverable | None = None,
    ) -> None:
        self._connect = connect
        self._words = words
        self._installation = installation
        self._recoverable = recoverable
        self._on_commit = on_commit
        self._timeout = timeout.total_seconds()
        self._queue = Queue(timeout)
        self._states: OrderedDict[UUID, State] = OrderedDict()

    @property
    def depth(self) -> int:
        """Entries that wait for their transaction."""
        return self._queue.depth

    def state_of(self, channel_id: UUID) -> State | None:
        """Return the state that this process last saw a channel in; None when it doesn't know."""
        return self._states.get(channel_id)

    def remember(self, states: dict[UUID, State]) -> None:
        """Keep these committed states for `state_of`."""
        for channel_id, state in states.items():
            self._states[channel_id] = state
            self._states.move_to_end(channel_id)
        while len(self._states) > STATES_KEPT:
            self._states.popitem(last=False)

    def submit(self, entries: Sequence[Entry], timeout: float | None = None) -> "asyncio.Future[None]":
        """Return a future that is done once the entries are committed, or fails with `NotCommitted`.

        `timeout`: seconds that the sender has left, if less than usual. Raises `NotCommitted` at once when
        the queue is full.
        """
        return self._queue.put(entries, timeout)

    async def submit_each(self, entries: Sequence[Entry]) -> None:
        """Submit entries that may fail apart; raise the `NotCommitted` of one only when the rest is done."""

        async def submitted(entry: Entry) -> None:
            await self.submit([entry])

        outcomes = await asyncio.gather(*(submitted(entry) for entry in entries), return_exceptions=True)
        for outcome in outcomes:
            if isinstance(outcome, BaseException):
                raise outcome

    async def run(self) -> None:
        """Commit batch after batch, for ever."""
        try:
            async with asyncio.TaskGroup() as tasks:
                for _ in range(CONCURRENT_BATCHES):
                    tasks.create_task(self._commit_batches())
        finally:
            self._queue.close()

    async def drain(self) -> None:
        """Return when nothing waits any more, or `run` has ended."""
        await self._queue.drained()

    async def _commit_batches(self) -> None:
        session = _WriterSession(self._connect)
        try:
            while True:
                batch = await self._queue.take()
                try:
                    await self._commit(session, batch)
                finally:
                    self._queue.finished(batch)
        finally:
            session.drop()

    async def _commit(self, session: "_WriterSession", batch: Sequence[Submission]) -> None:
        """Commit a batch, trying again until its senders' timeouts; one by one when data or a lock fails."""
        wait = pauses()
        while batch := [submission for submission in batch if not submission.done.done()]:
            try:
                await self._apply(session, batch)
            except Locked as locked:
                self._queue.hold(locked.channel_ids)
                batch = self._queue.put_back_held(batch)
            except LOCKED:
                if len(batch) == 1:
                    self._queue.hold({entry.channel_id for entry in batch[0].entries})
                await self._commit_apart(session, batch)
                return
            except TRANSIENT as error:
                log.warning("a batch of %d was not committed, trying again: %r", len(batch), error)
                session.drop()
                await asyncio.sleep(next(wait))
            except Exception as error:
                if len(batch) == 1:
                    log.exception("a submission of %d entries failed", len(batch[0].entries))
                    batch[0].fail(f"it could not be stored: {type(error).__name__}")
                    return
                await self._commit_apart(session, batch)
                return

    async def _commit_apart(self, session: "_WriterSession", batch: Sequence[Submission]) -> None:
        for submission in batch:
            await self._commit(session, self._queue.put_back_held([submission]))

    async def _apply(self, session: "_WriterSession", batch: Sequence[Submission]) -> None:
        loop = asyncio.get_running_loop()
        started = loop.time()
        entries = [entry for submission in batch for entry in submission.entries]
        async with asyncio.timeout(self._timeout):
            applied = await apply(
                await session.open(), entries, self._installation, self._words, self._recoverable
            )
        for submission in batch:
            if not submission.done.done():
                submission.done.set_result(None)
        self.remember(applied.states)
        self._on_commit(applied, len(entries), loop.time() - started)


class _WriterSession:
    """The connection of one of the tasks of `run`, made anew when it is lost."""

    def __init__(self, connect: Callable[[], Awaitable[Connection]]) -> None:
        self._connect = connect
        self._connection: Connection | None = None

    async def open(self) -> Connection:
        if self._connection is None or self._connection.is_closed():
            self._connection = await self._connect()
        return self._connection

    def drop(self) -> None:
        if self._connection is not None:
            self._connection.terminate()
            self._connection = None
