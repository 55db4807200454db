"""Which gateways are swept, by whom, and whose probes a sweep may bring nearer."""

from datetime import datetime, timedelta
from typing import Any

import pytest

from db.connection.types import Connection
from db.ingest.apply import apply
from db.reconcile.bulk_probes import (
    BulkProbeTarget,
    bulk_probe_channels,
    claim_bulk_probes,
    hasten_probes,
    settle_bulk_probe,
)
from statemachine.model import State, Trigger
from tests.conftest import connected
from tests.db.entries import RULES, Of, at, register

NOW = at(1000)
LATER = at(1090)


async def host(connection: Connection, channels: int, url: str = "http://evo") -> list[Of]:
    """Register so many channels of one gateway that are open, with a sweep and their probes due at `NOW`."""
    found = [Of(await register(connection, f"loja-{n}", url)) for n in range(channels)]
    await apply(connection, [channel.told(0, Trigger.OPENED) for channel in found], RULES)
    await connection.execute("update zapwatch_states set probe_due_at = $1", NOW)
    await connection.execute("update zapwatch_gateways set sweep_due_at = $1", NOW)
    return found


async def claim(connection: Connection, now: datetime = NOW, fewest: int = 2, limit: int = 9) -> list[str]:
    """Claim sweeps and return whose."""
    soon = now + timedelta(seconds=100)
    due, _ = await claim_bulk_probes(connection, ["evolution_api"], now, LATER, soon, fewest, limit)
    return [gateway.base_url for gateway in due]


async def test_a_due_sweep_is_claimed_by_one_and_again_when_it_is_due_again(connection: Connection) -> None:
    await host(connection, 2)

    claimed = [await claim(connection, now) for now in (NOW, NOW, at(1089), LATER)]

    assert claimed == [["http://evo"], [], [], ["http://evo"]]


async def test_a_gateway_with_too_few_channels_due_soon_is_put_off(connection: Connection) -> None:
    await host(connection, 3)
    await connection.execute(
        "update zapwatch_states set probe_due_at = $1 where channel_id = (select channel_id from"
        " zapwatch_states limit 1)", at(1200)
    )  # fmt: skip

    assert await claim(connection, fewest=3) == []
    assert await claim(connection, fewest=2) == []
    assert await claim(connection, LATER, fewest=2) == ["http://evo"]


async def test_those_whose_row_somebody_has_are_left(connection: Connection, dsn: str) -> None:
    await host(connection, 2)
    await host(connection, 2, "http://other")

    async with connected(dsn) as other, other.transaction():
        await other.execute("select from zapwatch_gateways where base_url = 'http://evo' for update")
        assert await claim(connection) == ["http://other"]


async def test_no_more_are_claimed_than_there_are_places_for(connection: Connection) -> None:
    await host(connection, 2)
    await host(connection, 2, "http://other")

    claimed = [await claim(connection, limit=1) for _ in range(3)]

    assert sorted(claimed) == [[], ["http://evo"], ["http://other"]]


async def test_what_was_learnt_is_told_at_the_next_claim(connection: Connection) -> None:
    await host(connection, 2)
    gateway = await connection.fetchval("select id from zapwatch_gateways")

    await settle_bulk_probe(connection, gateway, True, NOW)

    due, _ = await claim_bulk_probes(connection, ["evolution_api"], NOW, LATER, NOW, 2, 9)
    assert [(it.id, it.supports_bulk) for it in due] == [(gateway, True)]


async def test_channels_that_have_to_be_asked_themselves_are_not_swept(connection: Connection) -> None:
    named, unknown, broken, unprobed = await host(connection, 4)
    for channel, change in (
        (unknown, "state = 'unknown'"),
        (broken, "state = 'error'"),
        (unprobed, "probe_due_at = null"),
    ):
        update = f"update zapwatch_states set {change} where channel_id = $1"
        await connection.execute(update, channel.channel_id)

    gateway = await connection.fetchval("select id from zapwatch_gateways")
    found = await bulk_probe_channels(connection, gateway)

    assert found == [BulkProbeTarget(named.channel_id, 1, State.OPEN, NOW, "loja-0")]


@pytest.mark.parametrize(
    ("what", "change"),
    [
        ("", "probe_due_at = '2030-01-01'"),
        ("due", "probe_due_at = '2020-01-01'"),
        ("changed", "version = 7, probe_due_at = '2030-01-01'"),
        ("being asked", "probe_claimed_until = '2030-01-01', probe_due_at = '2030-01-01'"),
        ("not probed", "probe_due_at = null"),
    ],
)
async def test_a_probe_is_brought_nearer_unless_the_channel_is(
    connection: Connection, what: str, change: str
) -> None:
    (channel,) = await host(connection, 1)
    await connection.execute(f"update zapwatch_states set {change}")
    before: Any = await connection.fetchval("select probe_due_at from zapwatch_states")

    await hasten_probes(connection, [BulkProbeTarget(channel.channel_id, 1, State.OPEN, NOW, "loja-0")], NOW)

    after = await connection.fetchval("select probe_due_at from zapwatch_states")
    assert after == (before if what else NOW)
