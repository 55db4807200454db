"""Who is probed by whom and when: claims of due probes, on a real database."""

from collections import Counter
from collections.abc import Sequence
from datetime import timedelta
from uuid import UUID

from db.connection.types import Connection
from db.ingest.apply import apply
from db.ingest.entry import Source
from db.reconcile.claims import LEASE as DEADLINE_LEASE
from db.reconcile.claims import (
    PER_GATEWAY,
    Claim,
    ProbeTarget,
    claim_deadlines,
    claim_probes,
    control_targets,
    put_off_probes,
    release_deadlines,
    release_probes,
)
from statemachine.model import Rules, Trigger
from statemachine.signals import Answered
from tests.conftest import connected
from tests.db.entries import Of, at, register

LEASE = timedelta(seconds=20)
NOW = 1_000_000_000.0
"""Seconds after T0 at which everything that was ever registered is due."""


async def claim(
    connection: Connection, seconds: float = NOW, per_gateway: int = 20, limit: int = 1000
) -> list[ProbeTarget]:
    claimed, _ = await claim_probes(connection, at(seconds), LEASE, per_gateway, limit)
    return claimed


async def registered(connection: Connection, gateway: str, channels: int) -> list[UUID]:
    return [await register(connection, f"loja-{n:03}", f"http://{gateway}") for n in range(channels)]


def ids(targets: Sequence[ProbeTarget]) -> set[UUID]:
    return {target.channel_id for target in targets}


async def answer(connection: Connection, target: ProbeTarget, seconds: float = NOW) -> None:
    said = Answered(at(seconds), at(seconds), target.version, Trigger.OPENED)
    await apply(connection, [Of(target.channel_id).signal(seconds, Source.PROBE, said)], Rules())


async def test_a_due_channel_is_claimed_with_all_that_its_probe_needs(connection: Connection) -> None:
    channel = await register(connection, "loja 01", "http://evo")

    (target,) = await claim(connection)

    assert target.channel_id == channel
    assert (target.provider, target.base_url, target.instance) == ("evolution_api", "http://evo", "loja 01")
    assert target.configured
    assert target.version == 0


async def test_a_claimed_channel_is_nobody_elses_until_its_lease_ends(connection: Connection) -> None:
    channel = await register(connection)
    await claim(connection)

    assert await claim(connection, NOW + 19) == []
    assert ids(await claim(connection, NOW + 20)) == {channel}


async def test_an_answer_ends_the_claim_and_moves_the_next_probe(connection: Connection) -> None:
    channel = await register(connection)
    (target,) = await claim(connection)

    await answer(connection, target)

    assert await claim(connection, NOW + 119) == []
    assert ids(await claim(connection, NOW + 121)) == {channel}


async def test_a_webhook_does_not_end_a_claim(connection: Connection) -> None:
    channel = await register(connection)
    await claim(connection)

    await apply(connection, [Of(channel).told(NOW + 1, Trigger.CONNECTING)], Rules())

    assert await claim(connection, NOW + 2) == []


async def test_a_gateway_has_so_many_places_whoever_claims_them(connection: Connection, dsn: str) -> None:
    channels = await registered(connection, "evo", 30)

    mine = await claim(connection, NOW)
    async with connected(dsn) as other:
        theirs = await claim(other, NOW)
    for target in mine[:5]:
        await answer(connection, target)
    freed = await claim(connection, NOW)

    assert (len(mine), len(theirs), len(freed)) == (20, 0, 5)
    assert ids(mine) | ids(freed) <= set(channels)
    assert not ids(mine) & ids(freed)


async def test_a_gateway_with_many_due_channels_keeps_no_other_waiting(connection: Connection) -> None:
    await registered(connection, "slow", 40)
    last = (await registered(connection, "other", 1))[0]

    claimed = await claim(connection, limit=5)

    assert last in ids(claimed)
    assert Counter(target.base_url for target in claimed) == {"http://slow": 4, "http://other": 1}


async def test_the_longest_due_are_first(connection: Connection) -> None:
    first, second, third = await registered(connection, "evo", 3)
    for channel, seconds in ((first, 30), (second, 10), (third, 20)):
        await connection.execute(
            "update zapwatch_states set probe_due_at = $2 where channel_id = $1", channel, at(seconds)
        )

    assert [t.channel_id for t in await claim(connection, 100, per_gateway=1)] == [second]
    assert ids(await claim(connection, 100, per_gateway=2)) == {third}


async def test_a_channel_that_somebody_has_locked_is_passed_over(connection: Connection, dsn: str) -> None:
    locked, free = await registered(connection, "evo", 2)

    async with connected(dsn) as other, other.transaction():
        await other.execute("select from zapwatch_states where channel_id = $1 for update", locked)
        claimed = await claim(connection)

    assert ids(claimed) == {free}


async def test_locked_channels_hold_places_until_they_are_left_aside(
    connection: Connection, dsn: str
) -> None:
    *held, free = await registered(connection, "evo", 4)
    for place, channel in enumerate((*held, free)):
        await connection.execute(
            "update zapwatch_states set probe_due_at = $2 where channel_id = $1", channel, at(place)
        )

    async with connected(dsn) as other, other.transaction():
        await other.execute(
            "select from zapwatch_states where channel_id = any ($1::uuid[]) for update", held
        )
        nobody, locked = await claim_probes(connection, at(NOW), LEASE, 3, 1000)
        claimed, _ = await claim_probes(connection, at(NOW), LEASE, 3, 1000, locked)

    assert (nobody, locked) == ([], set(held))
    assert ids(claimed) == {free}


async def test_what_is_put_off_is_due_later_and_frees_its_place(connection: Connection) -> None:
    channel = await register(connection)
    await claim(connection)

    await put_off_probes(connection, [channel], at(NOW + 300))

    assert await claim(connection, NOW + 299) == []
    assert ids(await claim(connection, NOW + 300)) == {channel}


async def test_controls_are_other_channels_of_the_gateway_open_ones_first(connection: Connection) -> None:
    asking, *others = await registered(connection, "evo", 6)
    await registered(connection, "elsewhere", 1)
    await apply(connection, [Of(others[3]).told(1, Trigger.OPENED)], Rules())
    gateway = await connection.fetchval(
        "select gateway_id from zapwatch_states where channel_id = $1", asking
    )

    controls = await control_targets(connection, gateway, asking, 3)

    assert len(controls) == 3
    assert controls[0].channel_id == others[3]
    assert ids(controls) <= set(others)


async def test_a_deadline_knows_whether_its_channel_is_asked_or_queued(connection: Connection) -> None:
    few = await registered(connection, "few", 2)
    many = await registered(connection, "many", PER_GATEWAY)
    for place, channel in enumerate((*few, *many)):
        await connection.execute(
            "update zapwatch_states set probe_due_at = $2, due_at = $2 where channel_id = $1",
            channel,
            at(place),
        )

    idle = await claim_deadlines(connection, at(100), 100)
    await claim_probes(connection, at(100), LEASE, 1, 1)
    asking = await claim_deadlines(connection, at(115), 100)

    assert {due.channel_id for due in idle if due.queued} == set(many)
    assert {due.channel_id for due in asking if due.queued} == {few[0], *many}


async def test_a_released_probe_is_due_for_others_at_once(connection: Connection) -> None:
    released, kept = await registered(connection, "evo", 2)
    await claim(connection)

    await release_probes(connection, [Claim(released, at(NOW) + LEASE)])

    assert ids(await claim(connection, NOW + 1)) == {released}
    assert ids(await claim(connection, NOW + 20)) == {kept}


async def test_what_another_replica_has_claimed_since_is_not_released(connection: Connection) -> None:
    channel = await register(connection)
    await claim(connection)
    await claim(connection, NOW + 20)

    await release_probes(connection, [Claim(channel, at(NOW) + LEASE)])

    assert await claim(connection, NOW + 21) == []


async def test_a_row_that_somebody_has_holds_up_no_release(dsn: str, connection: Connection) -> None:
    locked, free = await registered(connection, "evo", 2)
    await claim(connection)
    mine = [Claim(channel, at(NOW) + LEASE) for channel in (locked, free)]

    async with connected(dsn) as other, other.transaction():
        await other.execute("select 1 from zapwatch_states where channel_id = $1 for update", locked)
        await release_probes(connection, mine)

    assert ids(await claim(connection, NOW + 1)) == {free}


async def test_a_released_deadline_is_due_for_others_at_once(connection: Connection) -> None:
    released, kept = await registered(connection, "evo", 2)
    await connection.execute("update zapwatch_states set due_at = $1", at(0))
    await claim_deadlines(connection, at(100), 100)

    await release_deadlines(connection, [Claim(released, at(100) + DEADLINE_LEASE)])

    assert [due.channel_id for due in await claim_deadlines(connection, at(101), 100)] == [released]
    assert [due.channel_id for due in await claim_deadlines(connection, at(111), 100)] == [kept]
