"""Episodes of recovery: the orders to gateways for a channel, bounded over all replicas.

An episode is a row, and each order a time in it. Nothing is ordered before its time is committed here, so
the rows count at least the orders that were sent. Whether an order would help is for the provider to decide.
"""

from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final, NamedTuple, Self
from uuid import UUID

from db.codec.channel import reason_of, state_of
from db.connection.tenant_scope import reading
from db.connection.types import Connection, Pool, Record
from db.queries import sql
from db.reconcile.claims import Claim, ProbeTarget
from statemachine.model import Reason, State

KEPT: Final = timedelta(days=90)
"""How long episodes are kept."""


class Budget(NamedTuple):
    """How much may be ordered. Counted in rows, by the database's clock."""

    tries: int = 3
    """Orders within one episode."""
    gap: timedelta = timedelta(seconds=5)
    """Between two orders of one episode."""
    rest: timedelta = timedelta(minutes=30)
    """From a channel's last order to its next episode."""
    per_gateway: int = 10
    """Orders to one gateway within `window`."""
    window: timedelta = timedelta(minutes=1)

    def faster(self, speed: float) -> Self:
        """Return the same budget where time runs so many times as fast."""
        return self._replace(gap=self.gap / speed, rest=self.rest / speed, window=self.window / speed)


class RequestedBy(StrEnum):
    """The requester of an episode."""

    CLOCK = "clock"
    OPERATOR = "operator"


class Outcome(StrEnum):
    """The outcome of an episode."""

    RECOVERED = "recovered"
    FAILED = "failed"
    OVERTAKEN = "overtaken"
    """Paused, moved, or of another status now: no further order was wanted."""


class RecoveryContext(NamedTuple):
    """A channel with its status and the episode that runs, for the choice of an order."""

    target: ProbeTarget
    state: State
    reason: Reason | None
    since: datetime | None
    wanted: bool
    """Whether the machine says that orders may be given."""
    gateway_version: str | None
    paused: bool
    gateway_down: bool
    gateway_settles: bool
    """Whether its gateway has just come back, so that incidents of its channels are still held."""
    recovery_id: UUID | None
    asked_by: RequestedBy
    tries: int


class SpentEpisode(NamedTuple):
    """A channel that has had its episode, and when it may have another."""

    channel_id: UUID
    again_at: datetime


class OverBudget(Exception):
    """An operator's order exceeds the budget; `wait` is the time until it may be given."""

    def __init__(self, why: str, wait: timedelta) -> None:
        super().__init__(why)
        self.wait: Final = wait


@asynccontextmanager
async def _handing_out(connection: Connection) -> AsyncIterator[None]:
    """Yield while no other replica hands out an episode or a try."""
    async with connection.transaction():
        await connection.execute(sql.lock_recoveries)
        yield


async def claim_recoveries(
    connection: Connection, now: datetime, until: datetime, limit: int, budget: Budget
) -> list[Claim]:
    """Return claims of episodes: those without a live claim, and new ones for channels that are due."""
    async with _handing_out(connection):
        left = await connection.fetch(sql.resume_recoveries, now, until)
        new = await connection.fetch(
            sql.begin_recoveries, now, until, limit, budget.per_gateway, budget.rest, budget.window
        )
    return [Claim(row["channel_id"], until) for row in (*left, *new)]


async def spent_recoveries(
    connection: Connection, now: datetime, limit: int, budget: Budget
) -> list[SpentEpisode]:
    """Return channels that are due although they have had their episode."""
    rows = await connection.fetch(sql.spent_recoveries, now, budget.rest, limit)
    return [SpentEpisode(**row) for row in rows]


async def claim_for_operator(
    connection: Connection, channel_id: UUID, until: datetime, budget: Budget
) -> Claim:
    """Return an episode for an operator: a new one, or what is left of the last; raise `OverBudget`."""
    async with _handing_out(connection):
        row = await connection.fetchrow(sql.recovery_spent, channel_id, budget.per_gateway, budget.window)
        assert row is not None
        goes_on = _check(row, budget)
        if goes_on:
            await connection.execute(sql.reopen_recovery, row["id"], until)
        else:
            await connection.execute(sql.begin_recovery, channel_id, until)
    return Claim(channel_id, until)


def _check(row: Record, budget: Budget) -> bool:
    """Return whether the last episode goes on, or else a new one may begin; raise `OverBudget`."""
    now, last = row["now"], row["last_tried_at"]
    if row["running"]:
        raise OverBudget("Its recovery is under way.", budget.gap)
    if row["free_at"] is not None:
        raise OverBudget("Its gateway has been given as many orders as it may get.", row["free_at"] - now)
    if last is None or last <= now - budget.rest:
        return False
    if row["tries"] >= budget.tries:
        raise OverBudget("It has been tried as often as it may be for now.", last + budget.rest - now)
    if last > now - budget.gap:
        raise OverBudget("It was tried just now.", last + budget.gap - now)
    return True


async def read_context(
    connection: Connection, channel_id: UUID, tenant_id: UUID | None = None
) -> RecoveryContext | None:
    """Return a channel's context, or None when there is none, it is deleted or another tenant's."""
    row = await connection.fetchrow(sql.read_context, channel_id, tenant_id)
    if row is None:
        return None
    return RecoveryContext(
        target=ProbeTarget(**{name: row[name] for name in ProbeTarget._fields}),
        state=state_of(row["state"]),
        reason=reason_of(row["reason"]),
        since=row["since"],
        wanted=row["wanted"],
        gateway_version=row["gateway_version"],
        paused=row["paused"],
        gateway_down=row["gateway_down"] is True,
        gateway_settles=row["gateway_settles"] is True,
        recovery_id=row["recovery_id"],
        asked_by=RequestedBy(row["asked_by"] or RequestedBy.CLOCK),
        tries=row["tries"],
    )


async def take_try(
    connection: Connection, claim: Claim, state: State, action: str, budget: Budget
) -> int | None:
    """Return which order of its episode may be given now, counted and committed; None: none may be."""
    async with _handing_out(connection):
        number: int | None = await connection.fetchval(
            sql.take_try,
            claim.channel_id,
            claim.until,
            state.value,
            budget.tries,
            budget.gap,
            budget.per_gateway,
            budget.window,
            action,
        )
    if number is not None:
        await connection.execute(sql.show_recovery, claim.channel_id, number)
    return number


async def end_recovery(connection: Connection, claim: Claim, outcome: Outcome) -> None:
    """End an episode; one in which no order was given is forgotten, for it counts for nothing."""
    await connection.execute(sql.drop_recovery, claim.channel_id, claim.until)
    await connection.execute(sql.end_recovery, claim.channel_id, claim.until, outcome.value)


async def release_recoveries(connection: Connection, claims: Collection[Claim]) -> None:
    """Give back episodes that have not ended: another replica need not wait for the lease's end."""
    await connection.execute(sql.release_recoveries, *zip(*claims, strict=True))


async def last_recovery(pool: Pool, tenant_id: UUID | None, channel_id: UUID) -> Record | None:
    """Return a channel's newest episode in which an order was given, or None."""
    async with reading(pool, tenant_id) as connection:
        return await connection.fetchrow(sql.last_recovery, channel_id, tenant_id)


async def prune_recoveries(connection: Connection, now: datetime) -> None:
    """Forget episodes that are older than `KEPT`."""
    await connection.execute(sql.prune_recoveries, now - KEPT)
