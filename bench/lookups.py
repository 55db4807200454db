"""How long other statements take that look at every channel or at many: figures without an aim."""

from collections.abc import Awaitable, Callable
from datetime import timedelta
from statistics import median
from time import perf_counter
from typing import Final
from uuid import UUID

from bench.population import CYCLE, DEADLINES, Population
from bench.table import Figure, at_most, percentile
from db.connection.types import Connection
from db.queries import sql
from db.reads.counts import count_channels
from db.reconcile.check_jobs import PAGE
from db.reconcile.claims import claim_deadlines
from receiver.reconcile.deadlines import AT_ONCE

COUNTS: Final = 5
"""Times that every channel is counted: that takes long, and is done seldom."""
SETTLE: Final = (
    "update zapwatch_states set due_at = $2, claimed_until = null where channel_id = any ($1::uuid[])"
)


async def look_up(connection: Connection, population: Population, times: int) -> list[Figure]:
    """Return how long each takes; the checks come last, for they make channels due."""
    lookups = _Lookups(connection, population)
    return [
        await _timed(population, f"claim of {AT_ONCE} deadlines", lookups.claim_deadlines, times),
        await _timed(population, "channels by state (metrics)", lookups.count, COUNTS),
        await _timed(population, "longest due, how many (doctor)", lookups.overdue, COUNTS),
        await _timed(population, f"page of {PAGE:,} made due (check)", lookups.make_page_due, times),
    ]


async def _timed(
    population: Population, what: str, look: Callable[[], Awaitable[float]], times: int
) -> Figure:
    took = [await look() for _ in range(times)]
    return at_most(
        f"other statements, {population}", what, median(took), None, f"p95 {percentile(took, 95):.1f} ms"
    )


class _Lookups:
    """Each returns its milliseconds."""

    def __init__(self, connection: Connection, population: Population) -> None:
        self._connection = connection
        self._started_at = population.began_at
        self._now = population.began_at
        self._between = CYCLE * (AT_ONCE / (DEADLINES * population.channels))
        self._after: UUID | None = None

    async def claim_deadlines(self) -> float:
        self._now += self._between
        began = perf_counter()
        due = await claim_deadlines(self._connection, self._now, AT_ONCE)
        took = perf_counter() - began
        await self._connection.execute(SETTLE, [one.channel_id for one in due], self._now + CYCLE)
        return 1000 * took

    async def count(self) -> float:
        began = perf_counter()
        await count_channels(self._connection)
        return 1000 * (perf_counter() - began)

    async def overdue(self) -> float:
        began = perf_counter()
        await self._connection.fetchrow(sql.overdue, self._now)
        return 1000 * (perf_counter() - began)

    async def make_page_due(self) -> float:
        whose = None, None, None
        scope = self._started_at, self._started_at + timedelta(days=1), *whose, self._after
        began = perf_counter()
        page = await self._connection.fetchrow(sql.make_page_due, *scope, PAGE)
        took = perf_counter() - began
        self._after = page["last"] if page is not None else None
        return 1000 * took
