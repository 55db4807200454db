"""Which verdicts of silent gateways are due to their channels, once each, whatever other sessions do."""

import asyncio
from datetime import timedelta
from uuid import UUID

import orjson

from db.connection.types import Connection
from db.ingest.apply import apply
from db.reconcile.gateways.verdicts import claim_verdicts, end_verdicts, sweep_verdicts
from statemachine.model import Trigger
from tests.conftest import connected
from tests.db.entries import RULES, Of, at, register
from tests.db.reconcile.gateways.test_causes import falls, filled, returns, silenced, unanswered

STALE_AFTER = timedelta(seconds=120)


async def give(connection: Connection, seconds: float) -> list[UUID]:
    """Give the verdicts that are due then, of a silence since 95, and return their channels."""
    due = await claim_verdicts(connection, at(seconds), at(seconds + 20), 500)
    for one in due:
        await apply(connection, [silenced(one.channel_id, seconds, 95)], RULES)
    await end_verdicts(connection, due, at(seconds + 20))
    return [one.channel_id for one in due]


async def test_verdicts_of_a_process_that_died_are_given_by_another_once_the_lease_is_over(
    connection: Connection,
) -> None:
    gateway, channels = await filled(connection)
    await falls(connection, gateway, channels, 100)

    died = await claim_verdicts(connection, at(100), at(120), 4)
    rest = await claim_verdicts(connection, at(101), at(121), 500)
    await end_verdicts(connection, rest, at(121))
    early = await claim_verdicts(connection, at(119), at(139), 500)
    again = await claim_verdicts(connection, at(120), at(140), 500)

    assert {one.channel_id for one in (*died, *rest)} == set(channels)
    assert {one.since for one in died} == {at(95)}
    assert early == []
    assert {one.channel_id for one in again} == {one.channel_id for one in died}


async def test_what_is_still_to_be_given_is_cancelled_when_the_gateway_answers(
    connection: Connection,
) -> None:
    gateway, channels = await filled(connection)
    await falls(connection, gateway, channels, 100)

    await returns(connection, gateway, 101)

    assert await claim_verdicts(connection, at(200), at(220), 500) == []


async def test_a_channel_that_is_registered_during_the_silence_gets_the_verdict(
    connection: Connection,
) -> None:
    gateway, channels = await filled(connection)
    await falls(connection, gateway, channels, 100)
    given = await claim_verdicts(connection, at(100), at(120), 500)
    for one in given:
        await apply(connection, [silenced(one.channel_id, 100, 95)], RULES)
    await end_verdicts(connection, given, at(120))

    new = await register(connection, "loja-99")
    await sweep_verdicts(connection, at(130), timedelta(seconds=120))
    due = await claim_verdicts(connection, at(130), at(150), 500)

    assert [one.channel_id for one in due] == [new]
    assert await connection.fetchval("select affected from zapwatch_gateway_incidents") == 7


async def test_a_channel_that_spoke_since_gets_the_verdict_when_it_is_silent_for_long(
    connection: Connection,
) -> None:
    gateway, channels = await filled(connection)
    await apply(connection, [Of(channels[0]).told(97, Trigger.OPENED)], RULES)
    await falls(connection, gateway, channels, 100)
    at_once = await claim_verdicts(connection, at(100), at(120), 500)
    for one in at_once:
        await apply(connection, [silenced(one.channel_id, 100, 95)], RULES)
    await end_verdicts(connection, at_once, at(120))

    for seconds in (216, 217):
        await sweep_verdicts(connection, at(seconds), timedelta(seconds=120))
        due = await claim_verdicts(connection, at(seconds), at(300), 500)
        assert [one.channel_id for one in due] == ([channels[0]] if seconds == 217 else [])

    details = await connection.fetchval("select details::text from zapwatch_gateway_incidents")
    assert orjson.loads(details) == {"webhooks_arrive": True}


async def test_reason_of_own_unanswered_probes_becomes_the_gateways_once_the_channel_is_silent_for_long(
    connection: Connection,
) -> None:
    gateway, channels = await filled(connection)
    rules = RULES._replace(stale_after=STALE_AFTER)
    await apply(connection, [Of(channels[0]).told(97, Trigger.OPENED), unanswered(channels[0], 99)], rules)
    await falls(connection, gateway, channels, 100)
    await give(connection, 100)

    due = {}
    for seconds in (130, 216, 217, 219):
        await sweep_verdicts(connection, at(seconds), STALE_AFTER)
        due[seconds] = await claim_verdicts(connection, at(seconds), at(seconds + 20), 500)
        for one in due[seconds]:
            verdict = silenced(one.channel_id, seconds, 95)
            await apply(connection, [verdict], rules)
        await end_verdicts(connection, due[seconds], at(seconds + 20))

    assert [seconds for seconds, found in due.items() if found] == [217]
    reason = "select reason from zapwatch_states where channel_id = $1"
    assert await connection.fetchval(reason, channels[0]) == "gateway_unreachable"


async def test_no_statement_on_verdicts_waits_for_another_session(dsn: str, connection: Connection) -> None:
    gateway, channels = await filled(connection)
    await falls(connection, gateway, channels, 100)
    claimed = await claim_verdicts(connection, at(100), at(120), 500)
    elsewhere = await register(connection, "loja-99", "http://other")
    await connection.execute(
        """update zapwatch_channels c set gateway_id = o.gateway_id
           from zapwatch_channels o where c.channel_id = $1 and o.channel_id = $2""",
        channels[0],
        elsewhere,
    )

    async with connected(dsn) as other, other.transaction():
        await returns(other, gateway, 101)
        async with asyncio.timeout(5):
            await end_verdicts(connection, claimed, at(120))
            await sweep_verdicts(connection, at(101), STALE_AFTER)

    assert await claim_verdicts(connection, at(200), at(220), 500) == []
