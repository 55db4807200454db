"""Episodes of recovery: the orders to gateways for a channel, bounded over all replicas.

An episode is a row, and each order a time in it. Nothing is ordered before its time is committed here, so
the rows count at least the orders that were sent. Whether an order would help is for the provider to decide.
"""

from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Final, NamedTuple, Self
from uuid import UUID

from db.codec.channel import reason_of, state_of
from db.connection.tenant_scope import reading
from db.connection.types import Connection, Pool, Record
from db.queries import sql
from db.reconcile.claims import Claim, ProbeTarget
from statemachine.gateway import ENOUGH, Cause
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
    together: timedelta = timedelta(minutes=1)
    """Channels that left open within so long of one another may be a mass loss."""

    def faster(self, speed: float) -> Self:
        """Return the same budget where time runs so many times as fast."""
        return self._replace(
            gap=self.gap / speed,
            rest=self.rest / speed,
            window=self.window / speed,
            together=self.together / speed,
        )


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
    gateway_refuses: bool
    """Whether its gateway's open incident is a refused key."""
    gateway_settles: bool
    """Whether its gateway has just come back: channels may open by themselves."""
    recovery_id: UUID | None
    asked_by: RequestedBy
    tries: int


class GatewayOrders(NamedTuple):
    """What bounds orders to a gateway; there are none to one that is down, refuses the key or settles."""

    id: UUID
    free: int
    """How many more it may get, if nothing else speaks against them."""
    lost: bool
    """Whether it has lost many of its channels together."""
    is_back: bool
    """Whether a channel that was given an order since then is open."""
    tried: frozenset[UUID]
    """Those that were given an order since then, and are not open."""
    running: int

    @property
    def episodes(self) -> int:
        """How many may begin now: in a mass loss one, and the others when that channel is open."""
        if not self.lost or self.is_back:
            return max(self.free, 0)
        return 0 if self.tried or self.running else min(max(self.free, 0), 1)

    def may_order(self, channel_id: UUID) -> bool:
        """Whether the channel's episode may give an order now."""
        return not self.lost or self.is_back or self.tried <= {channel_id}


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
        orders = [one for one in await _gateway_orders(connection, now, None, budget) if one.episodes]
        ids, free = [one.id for one in orders], [one.episodes for one in orders]
        new = await connection.fetch(sql.begin_recoveries, now, until, limit, budget.rest, ids, free)
    return [Claim(row["channel_id"], until) for row in (*left, *new)]


async def _gateway_orders(
    connection: Connection, now: datetime, gateway_ids: Collection[UUID] | None, budget: Budget
) -> list[GatewayOrders]:
    """Return what bounds orders to these gateways (None: to those with recoveries that are due)."""
    rows = await connection.fetch(
        sql.gateway_orders,
        now,
        gateway_ids,
        budget.per_gateway,
        budget.window,
        ENOUGH,
        budget.together,
    )
    return [GatewayOrders(**{**row, "tried": frozenset(row["tried"])}) for row in rows]


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
        gateway_refuses=row["gateway_cause"] == Cause.UNAUTHORIZED,
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
        if not await _may_order(connection, claim, budget):
            return None
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


async def _may_order(connection: Connection, claim: Claim, budget: Budget) -> bool:
    """Whether the gateway's trouble allows an order; in a mass loss an operator need not wait for others."""
    row = await connection.fetchrow(sql.running_recovery, claim.channel_id, claim.until)
    if row is None:
        return False
    if row["asked_by"] == RequestedBy.OPERATOR:
        return True
    found = await _gateway_orders(connection, datetime.now(UTC), [row["gateway_id"]], budget)
    return bool(found) and found[0].may_order(claim.channel_id)


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
