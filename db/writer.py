"""Commits what concurrent requests submit, a batch a transaction. Decides nothing: `apply` does.

A batch is flushed as soon as the last one is done; what arrives meanwhile is the next one, so that
the batch grows with the load and waits for nobody when there is none.
"""

import asyncio
import logging
from collections import OrderedDict, deque
from collections.abc import Awaitable, Callable, Collection, Sequence
from datetime import timedelta
from typing import Final, NamedTuple
from uuid import UUID

from db.apply import Applied, Locked, apply
from db.connections import Connection
from db.entry import Entry
from db.patience import LOCKED, TRANSIENT, pauses
from statemachine.model import Rules, State

PATIENCE: Final = timedelta(seconds=5)
"""How long a submission waits for its COMMIT before its sender is told to come again."""
BATCH: Final = 500
"""Entries in one transaction; a tuning knob without meaning."""
HIGH_WATER: Final = 20_000
"""Entries waiting, above which new ones are refused at once, until `LOW_WATER` is reached."""
LOW_WATER: Final = 10_000
EXPIRED_WITHIN: Final = timedelta(seconds=0.2)
"""How much longer than its patience a submission may wait."""
HOLD: Final = timedelta(milliseconds=50)
"""How long a channel that somebody else keeps locked is left alone, so that others need not wait for it."""
STATES_KEPT: Final = 200_000

log = logging.getLogger(__name__)


class Unavailable(Exception):
    """Not committed in time, as far as is known; the sender should send it again."""


class Submission(NamedTuple):
    """Entries that are committed together, and who waits for them."""

    entries: Sequence[Entry]
    done: asyncio.Future[None]
    expires_at: float
    """By the loop's clock."""


class Writer:
    """Group commit over one connection of its own; `submit` from anywhere, `run` in one task."""

    def __init__(
        self,
        connect: Callable[[], Awaitable[Connection]],
        installation: Rules,
        on_commit: Callable[[Applied, int, float], None] = lambda applied, entries, seconds: None,
        patience: timedelta = PATIENCE,
    ) -> None:
        self._connect = connect
        self._installation = installation
        self._on_commit = on_commit
        self._patience = patience.total_seconds()
        self._connection: Connection | None = None
        self._waiting: deque[Submission] = deque()
        self._size = 0
        self._refusing = False
        self._wake = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self._states: OrderedDict[UUID, State] = OrderedDict()
        self._held: dict[UUID, float] = {}
        self._batch: Sequence[Submission] = ()
        self._expiring: asyncio.TimerHandle | None = None

    @property
    def depth(self) -> int:
        """Entries that wait for their transaction."""
        return self._size

    def state_of(self, channel_id: UUID) -> State | None:
        """Return the state that this process last saw a channel in; None when it doesn't know."""
        return self._states.get(channel_id)

    def submit(self, entries: Sequence[Entry], patience: float | None = None) -> "asyncio.Future[None]":
        """Return what is done when the entries are committed, or raises `Unavailable` when it takes too long.

        `patience`: seconds that the sender has left, if less than usual. Raises `Unavailable` at once when
        too much waits already.
        """
        self._refusing = self._size >= (LOW_WATER if self._refusing else HIGH_WATER)
        if self._refusing:
            raise Unavailable("too many events are waiting for the database")
        loop = asyncio.get_running_loop()
        expires_at = loop.time() + (self._patience if patience is None else min(patience, self._patience))
        submission = Submission(entries, loop.create_future(), expires_at)
        self._enqueue(submission)
        return submission.done

    async def submit_each(self, entries: Sequence[Entry]) -> None:
        """Submit entries that may fail apart; raise the `Unavailable` of one only when the rest is done."""

        async def submitted(entry: Entry) -> None:
            await self.submit([entry])

        outcomes = await asyncio.gather(*(submitted(entry) for entry in entries), return_exceptions=True)
        for outcome in outcomes:
            if isinstance(outcome, BaseException):
                raise outcome

    async def run(self) -> None:
        """Commit batch after batch, for ever."""
        try:
            while True:
                await self._wake.wait()
                self._batch = batch = self._take()
                if batch:
                    await self._commit(batch)
                    self._batch = ()
                elif self._waiting:
                    await asyncio.sleep(HOLD.total_seconds() / 5)
                if not self._waiting:
                    self._wake.clear()
                    self._idle.set()
        finally:
            self._drop_connection()
            self._idle.set()

    async def drain(self) -> None:
        """Return when nothing waits any more, or nobody commits it any more."""
        await self._idle.wait()

    def _expire(self) -> None:
        """Tell those who waited too long; one timer for all, for one each costs as much as the commit."""
        loop = asyncio.get_running_loop()
        now, left = loop.time(), False
        for submission in (*self._batch, *self._waiting):
            if submission.done.done():
                continue
            if submission.expires_at <= now:
                _fail(submission, "the database did not commit in time")
            else:
                left = True
        again = EXPIRED_WITHIN.total_seconds()
        self._expiring = loop.call_later(again, self._expire) if left else None

    def _enqueue(self, submission: Submission) -> None:
        if self._expiring is None:
            again = EXPIRED_WITHIN.total_seconds()
            self._expiring = asyncio.get_running_loop().call_later(again, self._expire)
        self._waiting.append(submission)
        self._size += len(submission.entries)
        self._wake.set()
        self._idle.clear()

    def _take(self) -> list[Submission]:
        """Return the next batch: what waits, in its order, but for channels that are held."""
        batch: list[Submission] = []
        size = 0
        for _ in range(len(self._waiting)):
            submission = self._waiting.popleft()
            if self._is_held(submission):
                self._waiting.append(submission)
            elif batch and size + len(submission.entries) > BATCH:
                self._waiting.appendleft(submission)
                break
            else:
                size += len(submission.entries)
                batch.append(submission)
        self._size -= size
        return batch

    def _is_held(self, submission: Submission) -> bool:
        if not self._held or submission.done.done():
            return False
        now = asyncio.get_running_loop().time()
        return any(self._held.get(entry.channel_id, 0) > now for entry in submission.entries)

    def _hold(self, batch: Sequence[Submission], channel_ids: Collection[UUID]) -> list[Submission]:
        """Leave channels alone for a moment, put their submissions back, and return the others."""
        now = asyncio.get_running_loop().time()
        self._held = {channel_id: until for channel_id, until in self._held.items() if until > now}
        self._held |= dict.fromkeys(channel_ids, now + HOLD.total_seconds())
        others = [submission for submission in batch if not self._is_held(submission)]
        for submission in batch:
            if self._is_held(submission):
                self._enqueue(submission)
        return others

    async def _commit(self, batch: Sequence[Submission]) -> None:
        """Commit a batch, as often as it takes while somebody waits; one by one when data or a lock fails."""
        wait = pauses()
        while batch := [submission for submission in batch if not submission.done.done()]:
            try:
                await self._apply(batch)
            except Locked as locked:
                batch = self._hold(batch, locked.channel_ids)
            except LOCKED:
                if len(batch) > 1:
                    await self._commit_apart(batch)
                else:
                    self._hold(batch, {entry.channel_id for entry in batch[0].entries})
                return
            except TRANSIENT as error:
                log.warning("a batch of %d was not committed, trying again: %r", len(batch), error)
                self._drop_connection()
                await asyncio.sleep(next(wait))
            except Exception as error:
                if len(batch) == 1:
                    log.exception("a submission of %d entries failed", len(batch[0].entries))
                    _fail(batch[0], f"it could not be stored: {type(error).__name__}")
                    return
                await self._commit_apart(batch)
                return

    async def _commit_apart(self, batch: Sequence[Submission]) -> None:
        for submission in batch:
            if self._is_held(submission):
                self._enqueue(submission)
            else:
                await self._commit([submission])

    async def _apply(self, batch: Sequence[Submission]) -> None:
        loop = asyncio.get_running_loop()
        started = loop.time()
        entries = [entry for submission in batch for entry in submission.entries]
        async with asyncio.timeout(self._patience):
            if self._connection is None or self._connection.is_closed():
                self._connection = await self._connect()
            applied = await apply(self._connection, entries, self._installation)
        for submission in batch:
            if not submission.done.done():
                submission.done.set_result(None)
        self.remember(applied.states)
        self._on_commit(applied, len(entries), loop.time() - started)

    def remember(self, states: dict[UUID, State]) -> None:
        """Have `state_of` know these, which were committed."""
        for channel_id, state in states.items():
            self._states[channel_id] = state
            self._states.move_to_end(channel_id)
        while len(self._states) > STATES_KEPT:
            self._states.popitem(last=False)

    def _drop_connection(self) -> None:
        if self._connection is not None:
            self._connection.terminate()
            self._connection = None


def _fail(submission: Submission, why: str) -> None:
    if not submission.done.done():
        submission.done.set_exception(Unavailable(why))
        submission.done.exception()  # its sender may have gone away
