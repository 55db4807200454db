"""What is kept of gateways in trouble, on a real database: who may look, who may ask, what a replay knows."""

from datetime import timedelta
from uuid import UUID

import asyncpg
import pytest

from db.connection.types import Connection
from db.history.replay import replay
from db.ingest.apply import apply
from db.reconcile.claims import claim_probes
from db.reconcile.gateway_health import (
    GatewayObservation,
    GatewayVerdict,
    claim_recovery_probes,
    end_recovery_probe,
    evaluate,
    gateways_to_evaluate,
    hasten_other_probes,
    note_left_together,
    note_trial,
    pick_targets,
)
from statemachine.gateway import ENOUGH, Cause, Down, Limits, Up, streak
from statemachine.model import Reason, Trigger
from statemachine.signals import Open
from tests.conftest import connected
from tests.db.entries import RULES, Of, at, register

LIMITS = Limits()
LEASE = timedelta(seconds=20)
NOW = 1_000_000_000.0
"""Seconds after T0 at which everything that was ever registered is due."""


async def filled(connection: Connection, channels: int = 6, host: str = "evo") -> tuple[UUID, list[UUID]]:
    """Register so many channels of a gateway; return its id and theirs."""
    ids = [await register(connection, f"loja-{n:03}", f"http://{host}") for n in range(channels)]
    sql = "select gateway_id from zapwatch_states where channel_id = $1"
    return await connection.fetchval(sql, ids[0]), ids


async def looked(
    connection: Connection, gateway: UUID, seconds: float, noted: GatewayObservation | None = None
) -> GatewayVerdict | None:
    return await evaluate(connection, gateway, at(seconds), noted or GatewayObservation(), LIMITS)


async def brought_down(connection: Connection, gateway: UUID, channels: list[UUID], seconds: float) -> None:
    """Have a gateway's silence told, with nobody who objects."""
    silence = streak(at(seconds - 5), at(seconds - 4), channels[:ENOUGH], ENOUGH)
    await looked(connection, gateway, seconds - 3, GatewayObservation(failing=silence))
    judged = await looked(connection, gateway, seconds)
    assert judged is not None
    assert judged.effect == Down(Cause.UNREACHABLE, at(seconds - 5))


async def opened_all(connection: Connection, channels: list[UUID]) -> None:
    for channel in channels:
        await apply(connection, [Of(channel).told(0, Trigger.OPENED)], RULES)


async def test_a_gateway_that_is_down_is_asked_nothing_but_one_trial_at_a_time(
    connection: Connection, dsn: str
) -> None:
    gateway, channels = await filled(connection)
    other = await register(connection, "loja-01", "http://other")
    await brought_down(connection, gateway, channels, NOW)

    claimed, _ = await claim_probes(connection, at(NOW), LEASE, 20, 1000)
    early = await claim_recovery_probes(connection, at(NOW + 0.9), LEASE, 10)
    (recovery_probe,) = await claim_recovery_probes(connection, at(NOW + 1), LEASE, 10)
    async with connected(dsn) as replica:
        meanwhile = await claim_recovery_probes(replica, at(NOW + 20), LEASE, 10)
    await end_recovery_probe(connection, recovery_probe, at(NOW + 9), LIMITS)
    soon = await claim_recovery_probes(connection, at(NOW + 10.9), LEASE, 10)
    (again,) = await claim_recovery_probes(connection, at(NOW + 11), LEASE, 10)

    assert [target.channel_id for target in claimed] == [other]
    assert recovery_probe.target.channel_id in channels
    assert (early, meanwhile, soon) == ([], [], [])
    assert (recovery_probe.tries, again.tries) == (1, 2)


async def test_a_trial_of_a_replica_that_died_is_made_by_another(connection: Connection) -> None:
    gateway, channels = await filled(connection)
    await brought_down(connection, gateway, channels, NOW)
    await claim_recovery_probes(connection, at(NOW + 1), LEASE, 10)

    (again,) = await claim_recovery_probes(connection, at(NOW + 21), LEASE, 10)

    assert again.gateway_id == gateway


async def test_one_channel_is_picked_however_the_statement_is_planned(connection: Connection) -> None:
    gateway, _ = await filled(connection, 20)
    await connection.execute("set plan_cache_mode = force_generic_plan")

    picked = [await pick_targets(connection, [gateway]) for _ in range(20)]

    assert [len(targets) for targets in picked] == [1] * 20
    assert len({target.channel_id for targets in picked for target in targets}) > 1


async def test_a_trial_that_ended_late_does_not_close_a_gateway_that_is_back(connection: Connection) -> None:
    gateway, channels = await filled(connection)
    await brought_down(connection, gateway, channels, NOW)
    (recovery_probe,) = await claim_recovery_probes(connection, at(NOW + 1), LEASE, 10)
    judged = await looked(connection, gateway, NOW + 2, GatewayObservation(answered_at=at(NOW + 2)))

    await end_recovery_probe(connection, recovery_probe, at(NOW + 3), LIMITS)

    assert judged is not None
    assert judged.effect == Up()
    claimed, _ = await claim_probes(connection, at(NOW + 100), LEASE, 20, 1000)
    assert len(claimed) == len(channels)


async def test_probes_after_a_return_are_spread_over_the_time_for_settling(connection: Connection) -> None:
    gateway, channels = await filled(connection, 40)
    await brought_down(connection, gateway, channels, NOW)

    await looked(connection, gateway, NOW + 2, GatewayObservation(answered_at=at(NOW + 2)))

    rows = await connection.fetch("select probe_due_at from zapwatch_states order by 1")
    due = [row["probe_due_at"] for row in rows]
    assert at(NOW + 2) <= due[0]
    assert due[-1] < at(NOW + 62)
    assert due[-1] - due[0] > LIMITS.settle / 3


async def test_whoever_is_looked_at_by_another_replica_is_left_to_it(
    connection: Connection, dsn: str
) -> None:
    gateway, _ = await filled(connection)

    async with connected(dsn) as replica, replica.transaction():
        await replica.execute("select from zapwatch_gateways where id = $1 for no key update", gateway)

        assert await looked(connection, gateway, NOW) is None


async def test_a_second_open_incident_of_a_gateway_is_refused_by_an_index(connection: Connection) -> None:
    gateway, channels = await filled(connection)
    await brought_down(connection, gateway, channels, NOW)

    with pytest.raises(asyncpg.UniqueViolationError):
        await connection.execute(
            """insert into zapwatch_gateway_incidents (gateway_id, cause, started_at, opened_at)
               values ($1, 'unreachable', now(), now())""",
            gateway,
        )


async def test_an_alert_is_about_a_channel_or_a_gateway_and_never_about_both_or_none(
    connection: Connection,
) -> None:
    with pytest.raises(asyncpg.CheckViolationError):
        await connection.execute("insert into zapwatch_alerts (kind) values ('opened')")


async def test_open_incidents_of_channels_are_attached_to_that_of_their_gateway(
    connection: Connection,
) -> None:
    gateway, channels = await filled(connection)
    await opened_all(connection, channels)
    lost = Of(channels[0])
    lost_entries = [lost.told(10, Trigger.UNPAIRED, Reason.LOGGED_OUT), lost.deadline(30)]
    await apply(connection, lost_entries, RULES)

    await brought_down(connection, gateway, channels, NOW)

    rows = await connection.fetch(
        """select a.channel_id, i.channel_id as own from zapwatch_affected_channels a
           left join whatsapp_connection_incidents i on i.id = a.incident_id"""
    )
    assert {row["channel_id"] for row in rows} == set(channels)
    assert [row["own"] for row in rows if row["own"]] == [channels[0]]


async def test_healthy_gateways_are_not_looked_at_again_and_again(connection: Connection) -> None:
    gateway, _ = await filled(connection)
    answered = {gateway: GatewayObservation(answered_at=at(NOW))}
    first = await gateways_to_evaluate(connection, at(NOW), answered, LIMITS)
    await looked(connection, gateway, NOW, answered[gateway])

    second = await gateways_to_evaluate(connection, at(NOW + 1), answered, LIMITS)

    assert (first, second) == ({gateway: True}, {})


async def test_departures_from_open_put_a_gateway_in_question(connection: Connection) -> None:
    gateway, channels = await filled(connection)
    await opened_all(connection, channels)
    for n, channel in enumerate(channels[:ENOUGH]):
        await apply(connection, [Of(channel).told(100 + n, Trigger.CONNECTING)], RULES)

    in_time = await gateways_to_evaluate(connection, at(110), {}, LIMITS)
    too_late = await gateways_to_evaluate(connection, at(300), {}, LIMITS)
    early = await looked(connection, gateway, 113.9)
    judged = await looked(connection, gateway, 114)

    assert (in_time, too_late) == ({gateway: True}, {})
    assert early is not None
    assert early.effect is None
    assert early.left_together is not None
    assert early.left_together[:2] == (at(100), at(104))
    assert set(early.left_together.channel_ids) == set(channels[:ENOUGH])
    assert judged is not None
    assert judged.effect == Down(Cause.MASS_LOSS, at(100))


async def test_departures_that_were_told_of_are_not_told_again(connection: Connection) -> None:
    gateway, channels = await filled(connection, 8)
    await opened_all(connection, channels)
    for n, channel in enumerate(channels[:6]):
        await apply(connection, [Of(channel).told(100 + n, Trigger.CONNECTING)], RULES)
    await note_left_together(connection, gateway, at(104))

    judged = await looked(connection, gateway, 107)
    await note_left_together(connection, gateway, at(105))
    again = await looked(connection, gateway, 108)

    assert judged is not None
    assert judged.left_together == (at(100), at(105), [channels[5]])
    assert again is not None
    assert again.left_together is None


async def test_an_alert_of_a_gateway_is_due_after_a_time_that_counts_from_its_beginning(
    connection: Connection,
) -> None:
    gateway, channels = await filled(connection)

    await brought_down(connection, gateway, channels, NOW)

    due_at = await connection.fetchval("select due_at from zapwatch_alerts")
    assert due_at == at(NOW - 5) + LIMITS.tell_after


async def test_a_failed_trial_is_noted_while_a_gateway_is_down(connection: Connection) -> None:
    gateway, channels = await filled(connection)
    await brought_down(connection, gateway, channels, NOW)

    await note_trial(connection, gateway, at(NOW + 7), failed=True)

    row = await connection.fetchrow(
        "select failed_at, tried_at from zapwatch_gateways where id = $1", gateway
    )
    assert tuple(row or ()) == (at(NOW + 7), at(NOW + 7))


async def test_others_than_those_that_failed_are_asked_about_their_gateway(connection: Connection) -> None:
    gateway, channels = await filled(connection)
    await opened_all(connection, channels)
    await connection.execute("update zapwatch_states set probe_due_at = $1", at(1000))

    await hasten_other_probes(connection, gateway, at(500), channels[:4])

    due = await connection.fetch(
        "select channel_id from zapwatch_states where probe_due_at = $1 order by 1", at(500)
    )
    assert {row["channel_id"] for row in due} == set(channels[4:])


async def test_a_replay_knows_which_flapping_was_the_gateways(connection: Connection) -> None:
    gateway, channels = await filled(connection)
    of = Of(channels[0])
    await apply(connection, [of.told(0, Trigger.OPENED)], RULES)
    await brought_down(connection, gateway, channels, 5)
    for n in range(5):
        await apply(
            connection,
            [of.told(10 + 2 * n, Trigger.DROPPED), of.told(11 + 2 * n, Trigger.OPENED)],
            RULES,
        )
    held = await apply(connection, [of.deadline(44)], RULES)
    await apply(connection, [of.told(30, Trigger.UNPAIRED, Reason.LOGGED_OUT)], RULES)
    opened = await apply(connection, [of.deadline(200)], RULES)

    channel, effects = await replay(connection, channels[0])

    assert (held.opened, opened.opened) == ([], ["disconnected"])
    assert channel.incident is not None
    assert not channel.incident.flapping
    assert [effect.incident.opened_at for effect in effects if isinstance(effect, Open)] == [at(200)]


async def test_a_replay_opens_what_flapped_by_itself(connection: Connection) -> None:
    _, channels = await filled(connection)
    of = Of(channels[0])
    flapping = [of.told(10 + 3 * n, Trigger.OPENED if n % 2 else Trigger.DROPPED) for n in range(10)]
    await apply(connection, [of.told(0, Trigger.OPENED), *flapping], RULES)
    await apply(connection, [of.deadline(44)], RULES)

    channel, effects = await replay(connection, channels[0])

    assert channel.incident is not None
    assert channel.incident.flapping
    assert [effect.incident.opened_at for effect in effects if isinstance(effect, Open)] == [at(44)]
