"""Checks that operators ask for: whom they make due, how far they are, and when they end."""

from datetime import timedelta
from uuid import UUID

from db.connection.types import Connection
from db.ingest.apply import apply
from db.ingest.entry import Source
from db.reconcile import check_jobs
from db.reconcile.check_jobs import Check, advance_check, read_check, start_check
from db.reconcile.claims import claim_probes, put_off_probes
from statemachine.model import Rules, Trigger
from statemachine.signals import Answered
from tests.conftest import connected
from tests.db.conftest import add_tenant
from tests.db.entries import Of, at, register

NOW = 1_000_000_000.0
INSTANT = timedelta(microseconds=1)


async def probed(connection: Connection, seconds: float, *channels: UUID) -> None:
    """Have channels answer a probe that began then."""
    for channel in channels:
        version = await connection.fetchval(
            "select version from zapwatch_states where channel_id = $1", channel
        )
        said = Answered(at(seconds), at(seconds), version, Trigger.OPENED)
        await apply(connection, [Of(channel).signal(seconds, Source.PROBE, said)], Rules())


async def due(connection: Connection, seconds: float) -> set[UUID]:
    claimed, _ = await claim_probes(connection, at(seconds), INSTANT, 1000, 1000)
    return {target.channel_id for target in claimed}


async def advance(connection: Connection, seconds: float) -> None:
    while await advance_check(connection, at(seconds)):
        pass


async def progress(connection: Connection, check: Check) -> tuple[int, bool]:
    shown = await read_check(connection, check.id, None)
    assert shown is not None
    return shown.done, shown.finished_at is not None


async def test_a_check_makes_every_channel_due_and_ends_when_all_were_probed(connection: Connection) -> None:
    one, two = await register(connection, "um"), await register(connection, "dois")
    await probed(connection, NOW, one, two)

    check = await start_check(connection, at(NOW + 5), None, None)
    await advance(connection, NOW + 5)

    assert (check.total, check.done) == (2, 0)
    assert await due(connection, NOW + 5) == {one, two}
    await probed(connection, NOW + 6, one)
    assert await progress(connection, check) == (1, False)
    await probed(connection, NOW + 6, two)
    await advance(connection, NOW + 7)
    assert await progress(connection, check) == (2, True)


async def test_a_check_that_runs_is_the_answer_to_the_next_one(connection: Connection) -> None:
    channel = await register(connection)

    first = await start_check(connection, at(NOW), None, None)
    second = await start_check(connection, at(NOW + 1), None, None)
    of_one = await start_check(connection, at(NOW + 1), None, channel)

    assert second == first
    assert of_one.id != first.id
    assert (of_one.channel_id, of_one.total) == (channel, 1)


async def test_a_tenants_check_is_of_its_channels_and_seen_by_nobody_else(connection: Connection) -> None:
    await register(connection)
    tenant = await connection.fetchval("select tenant_id from zapwatch_states")
    other = await add_tenant(connection)

    check = await start_check(connection, at(NOW), other, None)

    assert check.total == 0
    assert (await start_check(connection, at(NOW), tenant, None)).total == 1
    assert await read_check(connection, check.id, tenant) is None
    assert await read_check(connection, check.id, None) is not None


async def test_a_probe_that_began_before_the_check_does_not_count(connection: Connection) -> None:
    channel = await register(connection)
    await probed(connection, NOW, channel)
    check = await start_check(connection, at(NOW + 5), None, None)
    await advance(connection, NOW + 5)

    await probed(connection, NOW + 4, channel)
    await advance(connection, NOW + 7)

    assert await progress(connection, check) == (0, False)
    assert await due(connection, NOW + 7) == {channel}


async def test_more_channels_than_a_page_are_all_made_due(connection: Connection) -> None:
    tenant = await add_tenant(connection)
    await connection.execute(
        """
        with n as (
          insert into notification_channels (tenant_id, provider)
          select $1, 'wapi' from generate_series(1, $2) returning id
        ), g as (
          insert into zapwatch_gateways (provider, base_url) values ('wapi', 'http://w') returning id
        ), c as (
          insert into zapwatch_channels (channel_id, tenant_id, gateway_id, provider, instance, api_key)
          select n.id, $1, g.id, 'wapi', n.id, 'k' from n, g
        )
        insert into zapwatch_states (channel_id, tenant_id, gateway_id, probe_due_at)
        select n.id, $1, g.id, $3 from n, g
        """,
        tenant,
        check_jobs.PAGE * 2 + 1,
        at(NOW + 100),
    )

    check = await start_check(connection, at(NOW), None, None)
    await advance(connection, NOW)

    assert check.total == check_jobs.PAGE * 2 + 1
    assert await connection.fetchval(
        "select count(*) from zapwatch_states where probe_due_at <= $1", at(NOW)
    ) == (check_jobs.PAGE * 2 + 1)


async def test_a_locked_channel_is_made_due_by_a_later_pass(connection: Connection, dsn: str) -> None:
    channel = await register(connection)
    await probed(connection, NOW, channel)
    check = await start_check(connection, at(NOW + 5), None, None)

    async with connected(dsn) as other, other.transaction():
        await other.execute("select from zapwatch_states for update")
        await advance(connection, NOW + 5)
    assert await due(connection, NOW + 5) == set()
    await advance(connection, NOW + 8)

    assert await due(connection, NOW + 8) == {channel}
    assert await progress(connection, check) == (0, False)


async def test_a_check_that_can_not_end_is_ended(connection: Connection) -> None:
    await register(connection)
    check = await start_check(connection, at(NOW), None, None)

    await advance(connection, NOW + check_jobs.LONGEST.total_seconds())

    assert await progress(connection, check) == (0, True)
    assert (await start_check(connection, at(NOW + 1000), None, None)).id != check.id


async def test_a_channel_that_was_put_off_keeps_no_check_running(connection: Connection) -> None:
    channel = await register(connection)
    check = await start_check(connection, at(NOW), None, None)
    await advance(connection, NOW)

    await put_off_probes(connection, [channel], at(NOW + 300))
    await advance(connection, NOW + 5)

    assert (await progress(connection, check))[1]
    assert await due(connection, NOW + 6) == set()


async def test_checks_are_forgotten_after_a_day(connection: Connection) -> None:
    check = await start_check(connection, at(NOW), None, None)
    await advance(connection, NOW)

    await check_jobs.prune_checks(connection, at(NOW + 86_399))
    assert await read_check(connection, check.id, None) is not None
    await check_jobs.prune_checks(connection, at(NOW + 86_401))

    assert await read_check(connection, check.id, None) is None
