"""Which incidents of channels name that of their gateway as their cause, and until when."""

from typing import Any
from uuid import UUID

import orjson
import pytest

from db.connection.types import Connection
from db.ingest.apply import apply
from db.ingest.entry import Source
from db.queries import sql
from db.reconcile.gateway_health import GatewayObservation, evaluate, settle
from db.reconcile.gateways.causes import drop_causes_of_moved
from statemachine.gateway import ENOUGH, Limits, streak
from statemachine.model import Reason, Trigger
from statemachine.signals import GatewaySilence, Verdict
from tests.db.entries import RULES, Of, at, register

LIMITS = Limits()


async def filled(connection: Connection, channels: int = 6) -> tuple[UUID, list[UUID]]:
    """Register so many open channels of a gateway; return its id and theirs."""
    ids = [await register(connection, f"loja-{n:03}") for n in range(channels)]
    for id in ids:
        await apply(connection, [Of(id).told(0, Trigger.OPENED)], RULES)
    sql = "select gateway_id from zapwatch_states where channel_id = $1"
    return await connection.fetchval(sql, ids[0]), ids


async def falls(connection: Connection, gateway: UUID, channels: list[UUID], seconds: float) -> None:
    """Have a gateway called unreachable then, silent since five seconds before."""
    failing = streak(at(seconds - 5), at(seconds - 4), channels[:ENOUGH], ENOUGH)
    await evaluate(connection, gateway, at(seconds - 3), GatewayObservation(failing=failing), LIMITS)
    await evaluate(connection, gateway, at(seconds), GatewayObservation(), LIMITS)
    assert await connection.fetchval("select state from zapwatch_gateways where id = $1", gateway) == "down"


async def returns(connection: Connection, gateway: UUID, seconds: float) -> None:
    """Have a gateway answer then."""
    answer = GatewayObservation(answered_at=at(seconds))
    await evaluate(connection, gateway, at(seconds), answer, LIMITS)


def silenced(channel: UUID, seconds: float, since: float) -> Any:
    """The verdict on its gateway as an entry for a channel."""
    signal = GatewaySilence(at(seconds), at(since), Reason.GATEWAY_UNREACHABLE)
    return Of(channel).signal(seconds, Source.PROBE, signal)._replace(name="gateway_silence")


def unanswered(channel: UUID, seconds: float, trigger: Trigger = Trigger.UNREACHABLE) -> Any:
    """A verdict of a channel's own probes as an entry."""
    reason = Reason(trigger.value)
    return Of(channel).signal(
        seconds, Source.PROBE, Verdict(at(seconds), at(seconds - 1), at(seconds - 1), trigger, reason)
    )


async def cause(connection: Connection, channel: UUID) -> Any:
    """Return whether a channel's open incident names its gateway's open or newest one; None without one."""
    text = await connection.fetchval(
        """select details::text from whatsapp_connection_incidents
           where channel_id = $1 and resolved_at is null""",
        channel,
    )
    if text is None:
        return None
    details = orjson.loads(text)
    newest = await connection.fetchval(
        "select id::text from zapwatch_gateway_incidents order by opened_at desc limit 1"
    )
    named = details.get("cause"), details.get("gateway_incident_id")
    assert named in ((None, None), ("gateway", newest))
    return named[0] is not None


async def opened(connection: Connection, channel: UUID, *entries: Any, seconds: float) -> None:
    """Have a channel's incident open then."""
    applied = await apply(connection, [*entries, Of(channel).deadline(seconds)], RULES)
    assert len(applied.opened) == 1


async def test_an_incident_that_opens_while_its_gateway_is_silent_names_it(connection: Connection) -> None:
    gateway, channels = await filled(connection)
    await falls(connection, gateway, channels, 100)

    await opened(connection, channels[0], silenced(channels[0], 101, 95), seconds=500)

    assert await cause(connection, channels[0])


@pytest.mark.parametrize(("before", "is_caused"), [(59, True), (61, False)])
async def test_an_incident_that_opened_before_its_gateways_names_it_for_a_minute(
    connection: Connection, before: float, is_caused: bool
) -> None:
    gateway, channels = await filled(connection)
    await opened(connection, channels[0], unanswered(channels[0], 20), seconds=500)

    await falls(connection, gateway, channels, 500 + before)

    assert await cause(connection, channels[0]) is is_caused


@pytest.mark.parametrize("reason", [Reason.LOGGED_OUT, Reason.CONNECTION_LOST])
async def test_what_a_silence_does_not_explain_has_no_cause(connection: Connection, reason: Reason) -> None:
    gateway, channels = await filled(connection)
    await falls(connection, gateway, channels, 100)
    trigger = Trigger.UNPAIRED if reason is Reason.LOGGED_OUT else Trigger.DROPPED

    await opened(connection, channels[0], Of(channels[0]).told(101, trigger, reason), seconds=500)

    assert await cause(connection, channels[0]) is False


async def test_a_terminal_reason_takes_the_cause_away(connection: Connection) -> None:
    gateway, channels = await filled(connection)
    await falls(connection, gateway, channels, 100)
    await opened(connection, channels[0], silenced(channels[0], 101, 95), seconds=500)

    await apply(connection, [Of(channels[0]).told(501, Trigger.UNPAIRED, Reason.LOGGED_OUT)], RULES)

    assert await cause(connection, channels[0]) is False


async def test_an_incident_that_the_verdict_explains_later_names_the_gateway(connection: Connection) -> None:
    gateway, channels = await filled(connection)
    await falls(connection, gateway, channels, 490)
    await opened(connection, channels[0], Of(channels[0]).told(101, Trigger.CONNECTING), seconds=500)
    before = await cause(connection, channels[0])

    await apply(connection, [silenced(channels[0], 501, 485)], RULES)

    assert (before, await cause(connection, channels[0])) == (False, True)


async def test_staying_down_after_the_gateway_has_settled_takes_the_cause_away(
    connection: Connection,
) -> None:
    gateway, channels = await filled(connection)
    await falls(connection, gateway, channels, 100)
    await opened(connection, channels[0], silenced(channels[0], 101, 95), seconds=500)
    await returns(connection, gateway, 600)

    await settle(connection, at(659))
    settling = await cause(connection, channels[0])
    await settle(connection, at(660))

    assert (settling, await cause(connection, channels[0])) == (True, False)


async def test_an_incident_that_opens_while_its_gateway_settles_names_it(connection: Connection) -> None:
    gateway, channels = await filled(connection)
    await falls(connection, gateway, channels, 480)
    await returns(connection, gateway, 490)

    await opened(connection, channels[0], unanswered(channels[0], 249), seconds=549)

    assert await cause(connection, channels[0])


async def test_a_channel_that_is_moved_loses_the_cause(connection: Connection) -> None:
    gateway, channels = await filled(connection)
    elsewhere = await register(connection, "loja-99", "http://other")
    await falls(connection, gateway, channels, 100)
    for channel in channels[:2]:
        await opened(connection, channel, silenced(channel, 101, 95), seconds=500)

    await connection.execute(
        """update zapwatch_channels c set gateway_id = o.gateway_id
           from zapwatch_channels o where c.channel_id = $1 and o.channel_id = $2""",
        channels[0],
        elsewhere,
    )
    await drop_causes_of_moved(connection, at(0))

    assert [await cause(connection, channel) for channel in channels[:2]] == [False, True]


async def test_an_incident_that_another_application_opened_has_no_cause(connection: Connection) -> None:
    gateway, channels = await filled(connection)
    await apply(connection, [unanswered(channels[0], 20)], RULES)
    await connection.execute(
        "select whatsapp_heartbeat_open_incident($1, 'error', 'error', '{\"reason\": \"unreachable\"}')",
        channels[0],
    )
    now = await connection.fetchval("select extract(epoch from now() - $1)::float", at(0))

    await falls(connection, gateway, channels, now + 10)
    await apply(connection, [silenced(channels[0], now + 11, now + 5)], RULES)

    assert await cause(connection, channels[0]) is False


async def test_who_opened_an_incident_is_known_without_reading_all_events_of_its_channel(
    connection: Connection,
) -> None:
    gateway, channels = await filled(connection, 20)
    await falls(connection, gateway, channels, 100)
    await connection.execute(
        """insert into zapwatch_events
             (channel_id, tenant_id, source, name, received_at, last_received_at, state)
           select channel_id, tenant_id, 'webhook', 'connection.update', now(), now(), 'open'
           from zapwatch_channels cross join generate_series(1, 500)"""
    )
    await connection.execute("analyze")
    asked = (channels, [at(400)] * 20, ["error"] * 20, ["gateway_unreachable"] * 20, at(400))

    plan = str(await connection.fetch("explain " + sql.causes_of, *asked))

    assert "idx_zapwatch_events_opened_outside" in plan
