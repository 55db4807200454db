"""Runs background loops: awaits one round after another, and goes on whatever a round fails with.

Failures that pass by themselves are waited out. Everything else is logged with its frames, counted, and tried
again after a pause that grows. Only a critical loop ends the process. A loop is failing once it has had no
good round for a while after a failure.
"""

import asyncio
import logging
import math
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Final, NamedTuple, NoReturn

import asyncpg

from db.connection.retry import passes

REPORTED_WITHIN: Final = timedelta(seconds=5)
LOGGED_EVERY: Final = timedelta(seconds=10)
"""How often a loop logs, at most, that it waits for the database."""
SHORTEST_PAUSE: Final = timedelta(seconds=0.2)
"""A pause that is longer is never made shorter than this by `LoopTiming.speed`."""

log = logging.getLogger(__name__)


class Failure(StrEnum):
    """How a round failed."""

    TRANSIENT = "transient"
    """The database is away, or did not answer in time."""
    REFUSED = "refused"
    """The database refuses a statement, and will again until the row or the schema is corrected."""
    UNFORESEEN = "unforeseen"


class Backoff(NamedTuple):
    """Pauses after rounds that failed in a row: each twice the one before."""

    first: timedelta = timedelta(seconds=1)
    longest: timedelta = timedelta(minutes=1)

    def pause(self, failures: int) -> timedelta:
        """Return the pause after this many failures in a row, from 1 on."""
        doubled: timedelta = self.first * 2 ** min(failures - 1, 30)
        return min(doubled, self.longest)


class LoopTiming(NamedTuple):
    """How often loops come round, and when one that fails does what."""

    speed: float = 1.0
    """How many times as fast loops come round."""
    failing_after: timedelta = timedelta(minutes=5)
    """Time since the first failure without one good round, after which a loop is failing."""
    reported_every: timedelta = timedelta(minutes=1)
    """How often a failing loop is reported again, at most."""
    backoff: Backoff = Backoff()
    retried_within: timedelta = timedelta(minutes=2)
    """A failed item is due again within this time; later, a round without anything to do is a good one."""

    def pause(self, usual: timedelta) -> timedelta:
        """Return the pause between two rounds of a loop that usually pauses so long."""
        return max(usual / self.speed, min(usual, SHORTEST_PAUSE))


NORMAL: Final = LoopTiming()


class ItemFailed(Exception):
    """One item failed and is delayed, so that the next round goes on without it; its cause is the error.

    Counts as a failure of the loop, without a back-off.
    """


@dataclass(frozen=True, slots=True)
class Loop:
    """One background loop."""

    name: str
    """Label of its metrics, in snake_case."""
    round: Callable[[], Awaitable[bool | None]]
    """Does one round; returns True when the next one is due at once, and None when there was nothing to do:
    such a round does not show that a loop that failed works again. May raise `ItemFailed`."""
    pause: timedelta
    """Between two rounds, unless the next one is due at once."""
    stop: Callable[[], Awaitable[None]] | None = None
    """Gives back what the loop holds; awaited when it is cancelled or raises."""
    waits_first: bool = False
    """Whether the first round comes after a pause."""
    critical: bool = False
    """Whether a failure that does not pass by itself is raised, and so ends the process."""


class Failing(NamedTuple):
    """A loop without a good round since `since`; `error` is the type of the last failure."""

    since: datetime
    error: str


OnFailure = Callable[[str, Failure], None]
"""Called with the loop's name and how a round failed."""
Report = Callable[[str, Failing | None], Awaitable[None]]
"""Called repeatedly with the name of a failing loop, and with None after its next good round."""


@dataclass(slots=True)
class _Streak:
    """Failures of one loop without a good round between them."""

    began: float
    since: datetime
    last: float = 0.0
    error: str = ""
    backed_off: int = 0
    transient: bool = True
    logged: float = -math.inf


class LoopRunner:
    """Runs the loops of one process, each in a task of its own."""

    def __init__(
        self,
        on_failure: OnFailure = lambda name, failure: None,
        report: Report | None = None,
        timing: LoopTiming = NORMAL,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`clock` returns seconds."""
        self._on_failure = on_failure
        self._report_to = report
        self._failing_after = timing.failing_after.total_seconds()
        self._reported_every = timing.reported_every.total_seconds()
        self._backoff = timing.backoff
        self._retried_within = timing.retried_within.total_seconds()
        self._pause_of = timing.pause
        self._clock = clock
        self._streaks: dict[str, _Streak] = {}
        self._reported_at: dict[str, float] = {}
        self._withdraw_at: dict[str, float] = {}
        """When a withdrawal that failed is tried again."""

    async def run(self, loop: Loop) -> NoReturn:
        """Run a loop until it is cancelled; raises what a critical one fails with."""
        try:
            pause = self._pause_of(loop.pause) if loop.waits_first else timedelta(0)
            while True:
                # Even without a pause: a round that awaits nothing must not keep all others from going on.
                await asyncio.sleep(pause.total_seconds())
                pause = await self._round(loop)
        finally:
            await self._stop(loop)
            await self._withdraw(loop.name)

    async def _stop(self, loop: Loop) -> None:
        """Have a loop give back what it holds; what it can't give back is free again after its lease."""
        if loop.stop is None:
            return
        try:
            await loop.stop()
        except Exception as error:
            _log(f"{loop.name}, which ends,", _kind_of(error), error)

    def is_failing(self, name: str) -> bool:
        """Return whether a loop has had no good round for `failing_after` since it failed."""
        streak = self._streaks.get(name)
        return streak is not None and self._clock() - streak.began >= self._failing_after

    @property
    def failing(self) -> list[str]:
        """Return the names of the loops that are failing."""
        return sorted(name for name in self._streaks if self.is_failing(name))

    async def _round(self, loop: Loop) -> timedelta:
        """Do one round; return the pause after it."""
        try:
            is_more = await loop.round()
        except asyncio.CancelledError as cancelled:
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise
            # Something that the round awaits was cancelled, and not the loop.
            inside = RuntimeError("cancelled inside")
            inside.__cause__ = cancelled
            streak = await self._failed(loop, Failure.UNFORESEEN, inside)
            return self._back_off(loop, Failure.UNFORESEEN, streak)
        except ItemFailed as failed:
            error = failed.__cause__ if isinstance(failed.__cause__, Exception) else failed
            await self._failed(loop, _kind_of(error), error)
            return self._pause_of(loop.pause)
        except Exception as error:
            failure = _kind_of(error)
            if loop.critical and failure is not Failure.TRANSIENT:
                raise
            return self._back_off(loop, failure, await self._failed(loop, failure, error))
        if is_more is not None or self._is_over(loop.name):
            self._streaks.pop(loop.name, None)
            await self._withdraw(loop.name)
        return timedelta(0) if is_more else self._pause_of(loop.pause)

    def _is_over(self, name: str) -> bool:
        """Return whether a round without anything to do ends a streak: a failed item would be due again."""
        streak = self._streaks.get(name)
        return streak is None or streak.transient or self._clock() - streak.last >= self._retried_within

    async def _failed(self, loop: Loop, failure: Failure, error: Exception) -> _Streak:
        self._on_failure(loop.name, failure)
        now = self._clock()
        streak = self._streaks.setdefault(loop.name, _Streak(now, datetime.now(UTC)))
        if failure is not Failure.TRANSIENT or now - streak.logged >= LOGGED_EVERY.total_seconds():
            streak.logged = now
            _log(loop.name, failure, error)
        streak.error = _name_of(error)
        streak.last = now
        streak.transient = streak.transient and failure is Failure.TRANSIENT
        if self.is_failing(loop.name):
            await self._report(loop.name, Failing(streak.since, streak.error))
        return streak

    def _back_off(self, loop: Loop, failure: Failure, streak: _Streak) -> timedelta:
        if failure is Failure.TRANSIENT:
            return self._pause_of(loop.pause)
        streak.backed_off += 1
        return max(self._pause_of(loop.pause), self._backoff.pause(streak.backed_off))

    async def _report(self, name: str, failing: Failing) -> None:
        last, now = self._reported_at.get(name), self._clock()
        if last is None or now - last >= self._reported_every:
            self._reported_at[name] = now
            await self._send_report(name, failing)

    async def _withdraw(self, name: str) -> None:
        if name not in self._reported_at or self._clock() < self._withdraw_at.get(name, -math.inf):
            return
        if await self._send_report(name, None):
            del self._reported_at[name]
            self._withdraw_at.pop(name, None)
        else:
            self._withdraw_at[name] = self._clock() + self._reported_every

    async def _send_report(self, name: str, failing: Failing | None) -> bool:
        """Send a report and return whether that succeeded; a failed one is repeated, and ends no loop."""
        if self._report_to is None:
            return True
        try:
            async with asyncio.timeout(REPORTED_WITHIN.total_seconds()):
                await self._report_to(name, failing)
        except Exception as error:
            _log(f"the report of {name}", _kind_of(error), error)
            return False
        return True


def _kind_of(error: Exception) -> Failure:
    if isinstance(error, ExceptionGroup):
        kinds = {_kind_of(one) for one in error.exceptions}
        return kinds.pop() if len(kinds) == 1 else Failure.UNFORESEEN
    if passes(error):
        return Failure.TRANSIENT
    return Failure.REFUSED if isinstance(error, asyncpg.PostgresError) else Failure.UNFORESEEN


def _name_of(error: Exception) -> str:
    """Return the type of an error, or of a group's only one."""
    while isinstance(error, ExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    return type(error).__name__


def _log(name: str, failure: Failure, error: Exception) -> None:
    match failure:
        case Failure.TRANSIENT:
            # These say where the database is looked for, or what it said; others may hold values.
            if isinstance(error, asyncpg.PostgresError | asyncpg.InterfaceError | ConnectionError):
                log.warning("loop %s waits for the database: %r", name, error)
            else:
                log.warning("loop %s waits for the database: %s", name, _name_of(error), exc_info=error)
        case Failure.REFUSED:
            log.error("the database refuses a statement of loop %s", name, exc_info=error)
        case Failure.UNFORESEEN:
            log.error("a round of loop %s failed", name, exc_info=error)
