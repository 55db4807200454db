"""How gateways deliver webhooks: attempts, their schedule, copies and disorder. Knows no event.

What a gateway's retries do is known (docs/provider-facts.md#evolution-delivery); copies and disorder are as
often as the fleet was told.
"""

import asyncio
from collections import Counter
from collections.abc import Coroutine, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import count
from random import Random
from typing import Any, Final

import httpx

from receiver.sandbox.stage import Stage

IN_FLIGHT: Final = 20
"""Attempts of one gateway at a time. Real ones have no bound; our machine and httpx's pool have."""
HELD_FOR: Final = 5.0
"""Seconds at most that an event is held back for a later one to overtake it."""
LEAST_TIMEOUT: Final = 1.0
"""Real seconds that a receiver gets at least, however fast time runs: it is not sped up itself."""
ECHO: Final = (0.05, 2.0)
"""Seconds between an event and its copy."""


@dataclass(frozen=True, slots=True)
class Retry:
    """When a gateway tries again; all times in seconds."""

    attempts: int = 1
    first: float = 5.0
    """The first delay, and the shortest."""
    factor: float = 2.0
    ceiling: float = 300.0
    jitter: float = 0.0
    """Share by which a delay varies, also above the ceiling."""
    final: frozenset[int] = frozenset()
    """Statuses after which an event is dropped at once."""
    timeout: float | None = None

    def delay(self, failures: int, random: Random) -> float:
        """Return how long to wait after so many failures."""
        nominal = min(self.first * self.factor ** (failures - 1), self.ceiling)
        return max(self.first, nominal * random.uniform(1 - self.jitter, 1 + self.jitter))


@dataclass(frozen=True, slots=True)
class QueuedPost:
    """One request; every attempt and every copy has these bytes."""

    url: str
    headers: dict[str, str] = field(repr=False)
    body: bytes = field(repr=False)


@dataclass(slots=True)
class DeliveryCounts:
    """What became of all webhooks of a fleet; a copy counts by itself."""

    attempts: int = 0
    delivered: int = 0
    dropped: int = 0
    answers: Counter[int] = field(default_factory=Counter)


@dataclass(slots=True)
class Courier:
    """One gateway's way out."""

    stage: Stage
    http: httpx.AsyncClient
    tally: DeliveryCounts
    doubled: float
    reordered: float
    _slots: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(IN_FLIGHT))

    async def attempt(self, post: QueuedPost, timeout: float | None) -> int | None:
        """Return the status that the receiver answered, or None when it didn't."""
        async with self._slots:
            self.tally.attempts += 1
            try:
                async with asyncio.timeout(None if timeout is None else self._real(timeout)):
                    answer = await self.http.post(post.url, headers=post.headers, content=post.body)
            except (httpx.HTTPError, httpx.InvalidURL, TimeoutError):
                return None
            self.tally.answers[answer.status_code] += 1
            return answer.status_code

    def _real(self, timeout: float) -> float:
        return max(timeout / self.stage.speed, LEAST_TIMEOUT)

    def happens(self, share: float) -> bool:
        """Return whether something of this likelihood happens now."""
        return share > 0 and self.stage.random.random() < share


class Outbox:
    """One channel's webhooks under way, each on its own."""

    def __init__(self, courier: Courier) -> None:
        self._courier = courier
        self._tasks: set[asyncio.Task[None]] = set()
        self._numbers = count()
        self._held: dict[int, asyncio.Future[None]] = {}

    def put(self, posts: Sequence[QueuedPost], retry: Retry, after: float = 0.0) -> None:
        """Send an event to its addresses, one after the other, beginning `after` seconds from now."""
        number = next(self._numbers)
        courier = self._courier
        is_held = courier.happens(courier.reordered)
        self._begin(self._carry(number, posts, retry, after, is_held))
        if courier.happens(courier.doubled):
            later = after + courier.stage.random.uniform(*ECHO)
            self._begin(self._carry(number, posts, retry, later, is_held=False))

    async def said(self) -> None:
        """Wait until what was put so far is delivered or given up."""
        if self._tasks:
            await asyncio.wait(set(self._tasks))

    def forget(self) -> None:
        """Drop what is under way: the gateway's process has ended."""
        self._courier.tally.dropped += len(self._tasks)
        for task in self._tasks:
            task.cancel()

    def _begin(self, work: Coroutine[Any, Any, None]) -> None:
        task = self._courier.stage.spawn(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _carry(
        self, number: int, posts: Sequence[QueuedPost], retry: Retry, after: float, is_held: bool
    ) -> None:
        if after:
            await self._courier.stage.pause(after)
        if is_held:
            await self._overtaken(number)
        for post in posts:
            await self._deliver(number, post, retry)

    async def _deliver(self, number: int, post: QueuedPost, retry: Retry) -> None:
        courier = self._courier
        for failures in range(1, retry.attempts + 1):
            status = await courier.attempt(post, retry.timeout)
            self._let_go(number)
            if status is not None and 200 <= status < 300:
                courier.tally.delivered += 1
                return
            if status in retry.final:
                break
            if failures < retry.attempts:
                await courier.stage.pause(retry.delay(failures, courier.stage.random))
        courier.tally.dropped += 1

    async def _overtaken(self, number: int) -> None:
        """Wait until a later event has gone, for a while."""
        self._held[number] = asyncio.get_running_loop().create_future()
        with suppress(TimeoutError):
            async with asyncio.timeout(HELD_FOR / self._courier.stage.speed):
                await self._held[number]
        del self._held[number]

    def _let_go(self, number: int) -> None:
        for held, overtaken in self._held.items():
            if held < number and not overtaken.done():
                overtaken.set_result(None)
