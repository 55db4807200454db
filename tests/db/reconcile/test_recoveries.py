"""Who may order what, and how often: episodes and tries handed out on a real database; and their replay."""

import asyncio
from dataclasses import replace
from datetime import timedelta
from random import Random
from uuid import UUID

import asyncpg
import pytest

from db.connection.types import Connection
from db.history.replay import replay
from db.ingest.apply import apply
from db.ingest.entry import RECOVERY, Entry, Source
from db.reconcile.claims import Claim
from db.reconcile.recoveries import (
    Budget,
    Outcome,
    OverBudget,
    claim_for_operator,
    claim_recoveries,
    end_recovery,
    last_recovery,
    read_context,
    release_recoveries,
    spent_recoveries,
    take_try,
)
from statemachine.model import Reason, RecoverableCondition, Rules, State, Trigger
from statemachine.signals import Answered, Deadline, Open, RecoveryEnded, Resolve
from tests.conftest import connected
from tests.db.entries import Of, at, register

BUDGET = Budget(gap=timedelta(0))
"""Without the gap, so that a test need not wait; what the gap does has its own."""
NOW = at(1_000_000)
"""When everything is due."""
LEASE = timedelta(seconds=60)


async def stuck(connection: Connection, instance: str = "loja-01", api_url: str = "http://evo") -> UUID:
    """Register a channel that has been connecting for long."""
    channel = await register(connection, instance, api_url)
    of = Of(channel)
    entries = [of.told(1, Trigger.OPENED), of.told(2, Trigger.CONNECTING, Reason.CONNECTING)]
    await apply(connection, entries, Rules())
    return channel


async def claim(connection: Connection, budget: Budget = BUDGET, seconds: float = 0) -> list[Claim]:
    """Claim what is due, so many seconds after `NOW`."""
    now = NOW + timedelta(seconds=seconds)
    return await claim_recoveries(connection, now, now + LEASE, 1000, budget)


async def order(connection: Connection, claimed: Claim, budget: Budget = BUDGET) -> int | None:
    """Take a try."""
    return await take_try(connection, claimed, State.CONNECTING, "restart", budget)


async def test_what_is_due_is_claimed_once_whoever_asks(connection: Connection, dsn: str) -> None:
    channel = await stuck(connection)

    async with connected(dsn) as other:
        mine, theirs = await asyncio.gather(claim(connection), claim(other))

    assert [it.channel_id for it in (*mine, *theirs)] == [channel]


async def test_two_episodes_of_a_channel_can_not_run_together(connection: Connection) -> None:
    channel = await stuck(connection)
    await claim(connection)

    with pytest.raises(asyncpg.UniqueViolationError):
        await connection.execute(
            """insert into zapwatch_recoveries (channel_id, tenant_id, gateway_id, asked_by, began_at)
               select channel_id, tenant_id, gateway_id, asked_by, began_at from zapwatch_recoveries
               where channel_id = $1""",
            channel,
        )


async def test_an_episode_has_three_tries(connection: Connection) -> None:
    await stuck(connection)
    (mine,) = await claim(connection)

    assert [await order(connection, mine) for _ in range(4)] == [1, 2, 3, None]


async def test_tries_are_a_gap_apart(connection: Connection) -> None:
    await stuck(connection)
    (mine,) = await claim(connection)

    assert [await order(connection, mine, Budget()) for _ in range(2)] == [1, None]


async def test_a_gateway_gets_ten_orders_a_minute_whoever_gives_them(
    connection: Connection, dsn: str
) -> None:
    for number in range(14):
        await stuck(connection, f"loja-{number:02}")
    elsewhere = await stuck(connection, "loja-99", "http://other")

    claims = await claim(connection)
    async with connected(dsn) as other:
        halves = ([one for one in claims if one.channel_id != elsewhere][:5], claims)

        async def give(there: Connection, some: list[Claim]) -> list[int | None]:
            return [await order(there, one) for one in some for _ in range(3)]

        mine, theirs = await asyncio.gather(give(connection, halves[0]), give(other, halves[1]))

    given = await connection.fetch(
        "select gateway_id, sum(cardinality(tried_at))::int as n from zapwatch_recoveries group by 1"
    )
    assert len(claims) == 11
    assert sorted(row["n"] for row in given) == [3, 10]
    assert len([number for number in (*mine, *theirs) if number]) == 13


async def incident(connection: Connection, cause: str) -> None:
    """Open an incident of the gateway that began when its channels left open."""
    await connection.execute(
        "insert into zapwatch_gateway_incidents (gateway_id, cause, started_at, opened_at)"
        " select id, $1, $2, $2 from zapwatch_gateways",
        cause,
        at(2),
    )


@pytest.mark.parametrize("cause", ["unreachable", "unavailable", "unauthorized"])
async def test_a_gateway_that_is_silent_or_refuses_the_key_gets_no_order_and_spends_no_budget(
    connection: Connection, cause: str
) -> None:
    await stuck(connection)
    (mine,) = await claim(connection)
    await incident(connection, cause)
    if cause != "unauthorized":
        await connection.execute("update zapwatch_gateways set state = 'down'")

    assert await order(connection, mine) is None
    await end_recovery(connection, mine, Outcome.FAILED)

    assert await claim(connection) == []
    assert await connection.fetchval("select count(*) from zapwatch_recoveries") == 0


async def test_a_gateway_gets_orders_again_once_it_has_settled(connection: Connection) -> None:
    await stuck(connection)
    await connection.execute("update zapwatch_gateways set settles_until = $1", NOW + timedelta(seconds=1))
    settling = await claim(connection)

    await connection.execute("update zapwatch_gateways set settles_until = $1", NOW)

    assert (settling, len(await claim(connection))) == ([], 1)


async def test_in_a_mass_loss_one_is_restarted_first_and_the_others_when_it_is_open(
    connection: Connection,
) -> None:
    channels = [await stuck(connection, f"loja-{number:02}") for number in range(7)]
    await incident(connection, "mass_loss")

    (first,) = await claim(connection)
    assert await claim(connection) == []
    assert await order(connection, first) == 1
    await end_recovery(connection, first, Outcome.FAILED)
    still_down = await claim(connection)
    await apply(connection, [Of(first.channel_id).told(100, Trigger.OPENED)], Rules())
    others = await claim(connection)

    assert still_down == []
    assert {one.channel_id for one in others} == {*channels} - {first.channel_id}
    assert [await order(connection, one) for one in others] == [1] * 6


async def test_a_first_one_that_needs_a_scan_meanwhile_lets_another_be_the_first(
    connection: Connection,
) -> None:
    for number in range(7):
        await stuck(connection, f"loja-{number:02}")
    await incident(connection, "mass_loss")
    (first,) = await claim(connection)
    await order(connection, first)
    await end_recovery(connection, first, Outcome.FAILED)

    of = Of(first.channel_id)
    await apply(connection, [of.told(100, Trigger.UNPAIRED, Reason.LOGGED_OUT, 401)], Rules())

    (second,) = await claim(connection)
    assert second.channel_id != first.channel_id


@pytest.mark.parametrize(("left", "begun"), [(4, 4), (5, 1)])
async def test_channels_that_left_together_just_now_are_a_mass_loss_before_it_has_an_incident(
    connection: Connection, left: int, begun: int
) -> None:
    for number in range(left):
        await stuck(connection, f"loja-{number:02}")
    await connection.execute("update zapwatch_states set left_at = $1", NOW - timedelta(seconds=50))

    assert len(await claim(connection)) == begun


async def test_an_operator_need_not_wait_for_the_first_of_a_mass_loss(connection: Connection) -> None:
    channels = [await stuck(connection, f"loja-{number:02}") for number in range(7)]
    await incident(connection, "mass_loss")
    (first,) = await claim(connection)
    await order(connection, first)
    other = next(channel for channel in channels if channel != first.channel_id)

    mine = await claim_for_operator(connection, other, NOW, BUDGET)

    assert await order(connection, mine) == 1


async def test_running_episodes_count_as_orders_to_come(connection: Connection) -> None:
    for number in range(14):
        await stuck(connection, f"loja-{number:02}")

    first, second = await claim(connection), await claim(connection)
    await end_recovery(connection, first[0], Outcome.OVERTAKEN)

    assert (len(first), len(second), len(await claim(connection))) == (10, 0, 1)


async def test_a_channel_rests_after_its_last_try_and_others_are_told_when_it_may_go_on(
    connection: Connection,
) -> None:
    channel = await stuck(connection)
    (mine,) = await claim(connection)
    await order(connection, mine)
    assert await spent_recoveries(connection, NOW, 10, BUDGET) == []
    await end_recovery(connection, mine, Outcome.FAILED)

    again = await claim(connection)
    (spent,) = await spent_recoveries(connection, NOW, 10, BUDGET)
    rested = await claim(connection, BUDGET._replace(rest=timedelta(0)))

    assert (again, spent.channel_id) == ([], channel)
    last = await connection.fetchval("select last_tried_at from zapwatch_recoveries where tried_at <> '{}'")
    assert spent.again_at == last + timedelta(minutes=30)
    assert [one.channel_id for one in rested] == [channel]


async def test_an_episode_without_an_order_counts_for_nothing(connection: Connection, dsn: str) -> None:
    channel = await stuck(connection)
    (mine,) = await claim(connection)

    await end_recovery(connection, mine, Outcome.FAILED)

    assert [one.channel_id for one in await claim(connection)] == [channel]
    async with asyncpg.create_pool(dsn, min_size=1, max_size=1) as pool:
        assert await last_recovery(pool, None, channel) is None


async def test_an_episode_that_nobody_works_on_goes_on_where_it_was(connection: Connection) -> None:
    await stuck(connection)
    (dead,) = await claim(connection)
    await order(connection, dead)

    too_early = await claim(connection, seconds=59)
    (mine,) = await claim(connection, seconds=60)
    given = await order(connection, dead), await order(connection, mine)
    await release_recoveries(connection, [mine])
    (next_one,) = await claim(connection, seconds=61)

    assert (too_early, given) == ([], (None, 2))
    assert next_one.channel_id == mine.channel_id


@pytest.mark.parametrize(
    "change",
    [
        "update zapwatch_channels set paused_at = now()",
        "update zapwatch_channels set removed = true",
        "update notification_channels set is_active = false",
        "update notification_channels set deleted_at = now()",
        "update zapwatch_states set state = 'disconnected/unpaired'",
        "update zapwatch_states set recovery_due_at = null",
        "update zapwatch_channels set gateway_id = null",
    ],
)
async def test_no_order_is_given_once_the_channel_is_no_case_any_more(
    connection: Connection, change: str
) -> None:
    await stuck(connection)
    (mine,) = await claim(connection)

    await connection.execute(change)

    assert await order(connection, mine) is None


async def test_an_operator_gets_what_is_left_of_the_budget_and_no_more(connection: Connection) -> None:
    channel = await stuck(connection)
    numbers = []
    for _ in range(3):
        mine = await claim_for_operator(connection, channel, NOW, BUDGET)
        numbers.append(await order(connection, mine))
        with pytest.raises(OverBudget, match="under way"):
            await claim_for_operator(connection, channel, NOW, BUDGET)
        await end_recovery(connection, mine, Outcome.FAILED)

    with pytest.raises(OverBudget, match="as often") as refused:
        await claim_for_operator(connection, channel, NOW, BUDGET)

    assert numbers == [1, 2, 3]
    assert timedelta(minutes=29) < refused.value.wait <= timedelta(minutes=30)
    assert await connection.fetchval("select count(*) from zapwatch_recoveries") == 1
    assert await claim(connection) == []


async def test_an_operator_waits_for_the_gap_and_for_the_gateway_as_well(connection: Connection) -> None:
    channel = await stuck(connection)
    other = await stuck(connection, "loja-02")
    mine = await claim_for_operator(connection, channel, NOW, Budget())
    await order(connection, mine)
    await end_recovery(connection, mine, Outcome.FAILED)

    with pytest.raises(OverBudget, match="just now") as soon:
        await claim_for_operator(connection, channel, NOW, Budget())
    with pytest.raises(OverBudget, match="gateway") as busy:
        await claim_for_operator(connection, other, NOW, Budget(per_gateway=1))

    assert timedelta(0) < soon.value.wait <= timedelta(seconds=5)
    assert timedelta(0) < busy.value.wait <= timedelta(minutes=1)


async def test_applications_beside_us_see_how_often_it_was_tried(connection: Connection) -> None:
    channel = await stuck(connection)
    (mine,) = await claim(connection)

    await order(connection, mine)
    await order(connection, mine)

    row = await connection.fetchrow("select * from notification_channels where id = $1", channel)
    assert row is not None
    assert row["auto_recovery_attempts"] == 2
    assert row["last_recovery_at"] is not None


async def test_a_case_is_another_tenants_secret(connection: Connection) -> None:
    channel = await stuck(connection)

    case = await read_context(connection, channel)
    assert case is not None
    assert (case.state, case.reason, case.wanted) == (State.CONNECTING, Reason.CONNECTING, True)
    assert await read_context(connection, channel, UUID(int=1)) is None


def lossy(of: Of, seed: int) -> list[Entry]:
    """A random hour of losses, of ends of recovery and of what heals by itself; probes know no version."""
    random = Random(seed)
    entries = [of.told(0, Trigger.OPENED)]
    for number in range(1, 40):
        now = number * 30 + random.random()
        choice = random.random()
        if choice < 0.3:
            dropped = Trigger.DROPPED, Reason.DISCONNECTED
            began = at(now - 1)
            content = Answered(at(now), began, number, *dropped, certain=True, session_lost=True)
            entries.append(of.signal(now, Source.PROBE, content))
        elif choice < 0.5:
            ended = RecoveryEnded(at(now), at(now + 600), failed=random.random() < 0.5)
            details = {"outcome": "failed"} if random.random() < 0.5 else {}
            entries.append(Entry(of.channel_id, Source.DEADLINE, RECOVERY, at(now), ended, details=details))
        elif choice < 0.8:
            entries.append(of.signal(now, Source.DEADLINE, Deadline(at(now))))
        else:
            kind = random.choice([Trigger.OPENED, Trigger.CONNECTING, Trigger.DROPPED])
            entries.append(of.told(now, kind, None if kind is Trigger.OPENED else Reason.DISCONNECTED))
    return entries


@pytest.mark.parametrize("seed", range(12))
async def test_replaying_the_events_gives_what_recovery_left(connection: Connection, seed: int) -> None:
    channel_id = await register(connection)
    rules = Rules(
        stale_after=timedelta(days=9), recoverable=(RecoverableCondition.LOST, RecoverableCondition.STUCK)
    )
    for entry in lossy(Of(channel_id), seed):
        content = entry.content
        if isinstance(content, Answered):
            version = await connection.fetchval("select version from zapwatch_states")
            entry = entry._replace(content=replace(content, version=version))
        await apply(connection, [entry], rules)

    channel, effects = await replay(connection, channel_id)

    row = await connection.fetchrow("select *, memory->>'lost_until' as lost_until from zapwatch_states")
    incidents = await connection.fetch("select * from whatsapp_connection_incidents order by started_at")
    assert row is not None
    assert (channel.state, channel.status.reason) == (row["state"], row["reason"])
    assert (channel.version, channel.since) == (row["version"], row["since"])
    assert channel.first_unhealthy_at == row["first_unhealthy_at"]
    assert (channel.lost_until is None) == (row["lost_until"] is None)
    opened = [effect.incident for effect in effects if isinstance(effect, Open)]
    resolved = [effect.resolved_at for effect in effects if isinstance(effect, Resolve)]
    assert [incident.opened_at for incident in opened] == [row["opened_at"] for row in incidents]
    assert resolved == [row["resolved_at"] for row in incidents if row["resolved_at"] is not None]
