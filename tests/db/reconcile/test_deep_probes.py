"""The budget of deep probes: ten minutes for each channel, whoever asks and however a row came to be due."""

import asyncio
from collections import defaultdict
from datetime import datetime
from itertools import pairwise
from random import Random
from uuid import UUID

import pytest

from db.connection.types import Connection
from db.reconcile.deep_probes import (
    BUDGET,
    HARMLESS_FOR,
    PER_GATEWAY,
    claim_deep_probes,
    claim_records,
    drop_candidates,
    note_candidates,
    settle_deep_probe,
)
from tests.conftest import connected
from tests.db.entries import at, register

SPREAD_OVER = 120.0
"""Seconds after which whatever was noted is due."""


async def open_channel(
    connection: Connection, instance: str = "loja-01", api_url: str = "http://evo"
) -> UUID:
    """Register a channel that is open since T0."""
    channel = await register(connection, instance, api_url)
    opened = "update zapwatch_states set state = 'open', since = $2 where channel_id = $1"
    await connection.execute(opened, channel, at(0))
    return channel


async def claimed(connection: Connection, seconds: float, limit: int = 100) -> list[UUID]:
    """Claim what is due then."""
    return [it.target.channel_id for it in await claim_deep_probes(connection, at(seconds), limit)]


async def test_replicas_claim_a_channel_once(connection: Connection, dsn: str) -> None:
    channels = [await open_channel(connection, f"loja-{n}", f"http://evo-{n}") for n in range(5)]
    await note_candidates(connection, dict.fromkeys(channels, "close"), at(0))

    async with connected(dsn) as one, connected(dsn) as other:
        found = await asyncio.gather(claimed(one, SPREAD_OVER), claimed(other, SPREAD_OVER))

    assert sorted(found[0] + found[1]) == sorted(channels)


@pytest.mark.parametrize("outcome", ["alive", "dead", "doubtful", "unanswered", None])
async def test_budget_outlives_whatever_becomes_of_the_suspicion(
    connection: Connection, outcome: str | None
) -> None:
    channel = await open_channel(connection)
    await note_candidates(connection, {channel: "close"}, at(0))
    assert await claimed(connection, 200) == [channel]
    if outcome is not None:
        await settle_deep_probe(connection, channel, outcome, None)

    await drop_candidates(connection, [channel])
    await note_candidates(connection, {channel: "close 401"}, at(201))
    within = await claimed(connection, 200 + BUDGET.total_seconds() - 1)
    afterwards = await claimed(connection, 200 + BUDGET.total_seconds())

    assert (within, afterwards) == ([], [channel])


@pytest.mark.parametrize("seed", range(5))
async def test_budget_is_never_exceeded_whatever_happens_in_whatever_order(
    connection: Connection, dsn: str, seed: int
) -> None:
    random, now = Random(seed), 0.0
    channels = [await open_channel(connection, f"loja-{n}") for n in range(2)]
    asked: dict[UUID, list[datetime]] = defaultdict(list)
    async with connected(dsn) as other:
        for _ in range(300):
            now += random.choice([0, 1, 60, 90, 240])
            channel, sign = random.choice(channels), random.choice(["close", "close 401", "close 403"])
            match random.randrange(7):
                case 0 | 1:
                    await note_candidates(connection, {channel: sign}, at(now))
                case 2:
                    await drop_candidates(connection, [channel])
                case 3:
                    outcome = random.choice(["alive", "dead", "doubtful", "unanswered"])
                    await settle_deep_probe(connection, channel, outcome, None)
                case 4:
                    reason = random.choice([None, "open_but_dead"])
                    stand = "update zapwatch_states set state = $1, reason = $2 where channel_id = $3"
                    await connection.execute(stand, "error" if reason else "open", reason, channel)
                case _:
                    for found in await asyncio.gather(claimed(connection, now), claimed(other, now)):
                        for it in found:
                            asked[it].append(at(now))

    gaps = [later - sooner for times in asked.values() for sooner, later in pairwise(times)]
    assert len(gaps) > 10
    assert min(gaps) >= BUDGET


async def test_sign_that_was_found_harmless_stays_so_for_a_day_while_it_is_the_same(
    connection: Connection,
) -> None:
    channel = await open_channel(connection)
    await note_candidates(connection, {channel: "close"}, at(0))
    assert await claimed(connection, 200) == [channel]
    await settle_deep_probe(connection, channel, "alive", None)
    day = HARMLESS_FOR.total_seconds()

    await note_candidates(connection, {channel: "close"}, at(day))
    same_day = await claimed(connection, day + 199)
    await note_candidates(connection, {channel: "close"}, at(day + 200))
    next_day = await claimed(connection, day + 200 + SPREAD_OVER)

    assert (same_day, next_day) == ([], [channel])


async def test_channel_found_dead_is_asked_again_though_its_sign_is_gone(connection: Connection) -> None:
    channel = await open_channel(connection)
    await note_candidates(connection, {channel: "close"}, at(0))
    assert await claimed(connection, 200) == [channel]
    await settle_deep_probe(connection, channel, "dead", None)
    await connection.execute("update zapwatch_states set state = 'error', reason = 'open_but_dead'")

    await drop_candidates(connection, [channel])

    assert await claimed(connection, 200 + 1.3 * BUDGET.total_seconds()) == [channel]


@pytest.mark.parametrize("change", ["state = 'disconnected/unpaired'", "probe_due_at = null"])
async def test_channel_that_is_not_said_open_or_not_watched_is_not_asked(
    connection: Connection, change: str
) -> None:
    channel = await open_channel(connection)
    await note_candidates(connection, {channel: "close"}, at(0))

    await connection.execute(f"update zapwatch_states set {change}")

    assert await claimed(connection, 1000) == []


async def test_doubt_counts_only_while_nothing_was_heard_of_the_channel(connection: Connection) -> None:
    channel = await open_channel(connection)
    await note_candidates(connection, {channel: "close"}, at(0))
    await claimed(connection, 200)
    await settle_deep_probe(connection, channel, "doubtful", at(200))
    (silent,) = await claim_deep_probes(connection, at(1000), 1)

    await connection.execute("update zapwatch_states set last_event_at = $1", at(300))
    (heard,) = await claim_deep_probes(connection, at(1800), 1)

    assert (silent.doubted_at, heard.doubted_at) == (at(200), None)


async def test_gateway_with_many_suspected_channels_is_asked_about_few_at_a_time(
    connection: Connection,
) -> None:
    many = [await open_channel(connection, f"loja-{n}") for n in range(PER_GATEWAY + 5)]
    other = await open_channel(connection, "loja", "http://other")
    await note_candidates(connection, dict.fromkeys([*many, other], "close"), at(0))

    found = await claimed(connection, SPREAD_OVER)

    assert len(set(found) & set(many)) == PER_GATEWAY
    assert other in found


async def test_records_of_a_gateway_are_looked_at_by_one_replica_in_ten_minutes(
    connection: Connection, dsn: str
) -> None:
    await open_channel(connection)
    await connection.execute("update zapwatch_gateways set version = '2.3.6', records_due_at = $1", at(0))

    async def look(on: Connection, seconds: float) -> int:
        return len(await claim_records(on, ["evolution_api"], at(seconds), 10))

    async with connected(dsn) as other:
        together = await asyncio.gather(look(connection, 0), look(other, 0))
        within = await look(other, BUDGET.total_seconds() - 1)
        afterwards = await look(other, 1.3 * BUDGET.total_seconds())

    assert (sum(together), within, afterwards) == (1, 0, 1)
