"""The queue of submissions for the writer: in order for each channel, bounded, each with a timeout.

Runs no statement. A channel is in one batch at a time, so that several batches may be under way.
"""

import asyncio
from collections import deque
from collections.abc import Collection, Sequence
from datetime import timedelta
from itertools import count
from typing import Final, NamedTuple
from uuid import UUID

from db.ingest.entry import Entry

COMMIT_TIMEOUT: Final = timedelta(seconds=5)
"""How long a submission waits for its COMMIT before it fails, so that its sender sends it again."""
BATCH: Final = 500
"""Entries in one transaction; for tuning only."""
SECOND_BATCH_FROM: Final = 64
"""Entries for which another batch is begun while one is under way; fewer wait, and cost less together."""
HIGH_WATER: Final = 20_000
"""Entries waiting, above which new ones are refused at once, until `LOW_WATER` is reached."""
LOW_WATER: Final = 10_000
EXPIRED_WITHIN: Final = timedelta(seconds=0.2)
"""How much longer than its timeout a submission may wait: the interval of the expiry timer."""
HOLD: Final = timedelta(milliseconds=50)
"""How long a channel that another session has locked is left out of batches, so that others don't wait."""


class NotCommitted(Exception):
    """Not committed in time, as far as is known; the sender should send it again."""


class Submission(NamedTuple):
    """Entries that are committed together, and the future that reports it."""

    entries: Sequence[Entry]
    done: "asyncio.Future[None]"
    expires_at: float
    """By the loop's clock."""
    arrival: int
    """Its number in the order of arrival."""

    def fail(self, why: str) -> None:
        """Raise `NotCommitted` in the sender, unless it has its answer already."""
        if not self.done.done():
            self.done.set_exception(NotCommitted(why))
            self.done.exception()  # marked as retrieved: the sender may have been cancelled


class Queue:
    """Submissions that wait for the writer, and the batches that it is committing."""

    def __init__(self, timeout: timedelta = COMMIT_TIMEOUT) -> None:
        self.depth = 0
        """Entries that wait."""
        self._timeout = timeout.total_seconds()
        self._waiting: deque[Submission] = deque()
        self._arrivals = count()
        self._blocked_entries = 0
        """Entries that the last batch left waiting: their channels were busy or held."""
        self._refusing = False
        self._under_way: list[Sequence[Submission]] = []
        self._busy: set[UUID] = set()
        self._held: dict[UUID, float] = {}
        self._ready = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self._expiring: asyncio.TimerHandle | None = None

    def put(self, entries: Sequence[Entry], timeout: float | None = None) -> "asyncio.Future[None]":
        """Return a future that is done once the entries are committed, or fails with `NotCommitted`.

        `timeout`: seconds that the sender has left, if less than usual. Raises `NotCommitted` at once when
        the queue is full.
        """
        self._refusing = self.depth >= (LOW_WATER if self._refusing else HIGH_WATER)
        if self._refusing:
            raise NotCommitted("too many events are waiting for the database")
        loop = asyncio.get_running_loop()
        expires_at = loop.time() + (self._timeout if timeout is None else min(timeout, self._timeout))
        submission = Submission(entries, loop.create_future(), expires_at, next(self._arrivals))
        self._waiting.append(submission)
        self.depth += len(entries)
        self._idle.clear()
        if self._expiring is None:
            self._expiring = loop.call_later(EXPIRED_WITHIN.total_seconds(), self._expire)
        if self.depth - self._blocked_entries >= (SECOND_BATCH_FROM if self._under_way else 1):
            self._ready.set()
        return submission.done

    async def take(self) -> Sequence[Submission]:
        """Return the next batch once there is one; its channels are in no other until it is `finished`."""
        while not (batch := self._next_batch()):
            self._ready.clear()
            await self._ready.wait()
        self._under_way.append(batch)
        self._busy.update(entry.channel_id for submission in batch for entry in submission.entries)
        return batch

    def finished(self, batch: Sequence[Submission]) -> None:
        """Release the channels of a batch that was taken."""
        self._under_way.remove(batch)
        self._busy.difference_update(entry.channel_id for submission in batch for entry in submission.entries)
        self._retry()

    def hold(self, channel_ids: Collection[UUID]) -> None:
        """Leave channels out of batches for `HOLD`."""
        loop, hold = asyncio.get_running_loop(), HOLD.total_seconds()
        self._held |= dict.fromkeys(channel_ids, loop.time() + hold)
        loop.call_later(1.1 * hold, self._retry)  # a timer may be early by a moment

    def put_back_held(self, batch: Sequence[Submission]) -> list[Submission]:
        """Put submissions to held channels back in their order; return the others."""
        held = self._held_now()
        others: list[Submission] = []
        again: list[Submission] = []
        for submission in batch:
            (again if _names_any(submission, held) else others).append(submission)
        if again:
            self._waiting = deque(sorted((*again, *self._waiting), key=lambda submission: submission.arrival))
            self.depth += sum(len(submission.entries) for submission in again)
        return others

    async def drained(self) -> None:
        """Return when nothing waits and no batch is under way any more, or the queue is closed."""
        await self._idle.wait()

    def close(self) -> None:
        """Release `drained`: no more batches are taken."""
        self._idle.set()

    def _next_batch(self) -> list[Submission]:
        """Take what may be committed now, in order of arrival; empty when there is nothing."""
        if self._under_way and self.depth < SECOND_BATCH_FROM:
            return []
        blocked = self._busy | self._held_now()
        batch: list[Submission] = []
        blocked_submissions: list[Submission] = []
        size = left = 0
        while self._waiting and size < BATCH:
            submission = self._waiting.popleft()
            entries = len(submission.entries)
            if submission.done.done():
                self.depth -= entries
            elif blocked and _names_any(submission, blocked):
                blocked.update(entry.channel_id for entry in submission.entries)
                blocked_submissions.append(submission)
                left += entries
            else:
                batch.append(submission)
                size += entries
        self._waiting.extendleft(reversed(blocked_submissions))
        self._blocked_entries = left
        self.depth -= size
        if not (batch or self._waiting or self._under_way):
            self._idle.set()
        return batch

    def _held_now(self) -> set[UUID]:
        if self._held:
            now = asyncio.get_running_loop().time()
            self._held = {channel_id: end for channel_id, end in self._held.items() if end > now}
        return set(self._held)

    def _retry(self) -> None:
        self._blocked_entries = 0
        self._ready.set()

    def _expire(self) -> None:
        """Fail submissions after their timeouts; one timer for all: one each costs as much as the commit."""
        loop = asyncio.get_running_loop()
        now, left = loop.time(), False
        for submissions in (*self._under_way, self._waiting):
            for submission in submissions:
                if submission.expires_at <= now:
                    submission.fail("the database did not commit in time")
                elif not submission.done.done():
                    left = True
        again = EXPIRED_WITHIN.total_seconds()
        self._expiring = loop.call_later(again, self._expire) if left else None


def _names_any(submission: Submission, channel_ids: Collection[UUID]) -> bool:
    return any(entry.channel_id in channel_ids for entry in submission.entries)
