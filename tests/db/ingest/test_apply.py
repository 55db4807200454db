"""One transaction a batch, the same rows however the batch is cut, and a replay that gives them again."""

from collections.abc import Sequence
from datetime import timedelta
from random import Random
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import orjson
import pytest

from db.connection.pool import connect_writer
from db.connection.types import Connection
from db.history.replay import replay
from db.ingest.apply import Locked, acknowledge, apply, freshen
from db.ingest.entry import GATEWAY_SILENCE, Entry, OwnerProfile, Source
from db.queries import sql
from db.reconcile.qr import SHOWN_FOR
from statemachine.model import Reason, Rules, State, Trigger
from statemachine.signals import Alive, Answered, Deadline, GatewaySilence, Open, Resolve
from tests.conftest import connected
from tests.db.entries import RULES, Of, at, register

KINDS: list[tuple[Trigger | None, Reason | None, int | None]] = [
    (Trigger.OPENED, None, 200),
    (Trigger.OPENED, None, 200),
    (Trigger.CONNECTING, Reason.CONNECTING, 200),
    (Trigger.CONNECTING, Reason.CONNECTING, 200),
    (Trigger.QR_ISSUED, Reason.QR_SHOWN, None),
    (Trigger.DROPPED, Reason.CONNECTION_LOST, 408),
    (Trigger.UNPAIRED, Reason.LOGGED_OUT, 401),
    (None, None, None),
]


async def rows(connection: Connection, table: str, channel_id: UUID, without: Sequence[str]) -> list[Any]:
    """A channel's rows of one table, without columns that differ from run to run."""
    found = await connection.fetch(f"select * from {table} where channel_id = $1", channel_id)
    kept = [{k: v for k, v in row.items() if k not in without} for row in found]
    return sorted(kept, key=lambda row: str(row.get("started_at")))


async def stored(connection: Connection, channel_id: UUID) -> dict[str, Any]:
    """All that is stored of a channel but ids and the time of storing."""
    mine = ("id", "channel_id", "tenant_id", "gateway_id", "created_at", "updated_at")
    return {
        "states": await rows(connection, "zapwatch_states", channel_id, mine),
        "events": [
            {k: v for k, v in row.items() if k not in ("id", "channel_id", "tenant_id")}
            for row in await connection.fetch(
                "select * from zapwatch_events where channel_id = $1 order by id", channel_id
            )
        ],
        "incidents": await rows(connection, "whatsapp_connection_incidents", channel_id, mine),
        # A change in the transaction that opens an incident is no news: it is told as it is by then.
        "alerts": await connection.fetchval(
            "select count(*) from zapwatch_alerts where channel_id = $1 and kind <> 'changed'", channel_id
        ),
    }


def story(of: Of, seed: int) -> list[Entry]:
    """A random hour: webhooks in and out of order and doubled, probes, traffic and deadlines."""
    random = Random(seed)
    entries: list[Entry] = []
    told: list[Entry] = []
    for number in range(40):
        now = number * 90 + random.random()
        choice = random.random()
        if choice < 0.55:
            kind = random.choice(KINDS)
            told.append(of.told(now - random.choice([0, 0, 0, 120]), *kind, received=now))
            entries.append(told[-1])
        elif choice < 0.65 and told:
            twin = random.choice(told)
            entries.append(Entry(twin.channel_id, twin.source, twin.name, at(now), twin.content, twin.key))
        elif choice < 0.75:
            entries.append(of.signal(now, Source.WEBHOOK, Alive(at(now))))
        elif choice < 0.85:
            trigger, reason = random.choice(
                [(Trigger.OPENED, None), (Trigger.UNREACHABLE, Reason.UNREACHABLE), (Trigger.DROPPED, None)]
            )
            # A version that is right now and then: others are dropped, as a probe overtaken by events is.
            answered = Answered(at(now), at(now - 1), random.randint(0, 6), trigger, reason, certain=True)
            entries.append(of.signal(now, Source.PROBE, answered))
        else:
            entries.append(of.deadline(now))
    return entries


@pytest.mark.parametrize("seed", range(8))
async def test_how_a_batch_is_cut_has_no_meaning(connection: Connection, seed: int) -> None:
    whole = await register(connection, "whole", "http://one")
    single = await register(connection, "single", "http://two")
    thirds = await register(connection, "thirds", "http://three")

    await apply(connection, story(Of(whole), seed), RULES)
    for entry in story(Of(single), seed):
        await apply(connection, [entry], RULES)
    for start in range(0, 40, 13):
        await apply(connection, story(Of(thirds), seed)[start : start + 13], RULES)

    assert await stored(connection, single) == await stored(connection, whole)
    assert await stored(connection, thirds) == await stored(connection, whole)


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize(
    "rules", [RULES, RULES._replace(stale_after=timedelta(seconds=60))], ids=["fresh", "stale"]
)
@pytest.mark.parametrize("configured", [True, False], ids=["keyed", "keyless"])
async def test_replaying_the_events_gives_the_same_channel_and_incidents(
    connection: Connection, seed: int, rules: Rules, configured: bool
) -> None:
    channel_id = await register(connection)
    if not configured:
        await connection.execute("update zapwatch_channels set api_key = null")
    await apply(connection, story(Of(channel_id), seed), rules)

    channel, effects = await replay(connection, channel_id)

    row = await connection.fetchrow("select * from zapwatch_states where channel_id = $1", channel_id)
    incidents = await rows(connection, "whatsapp_connection_incidents", channel_id, ())
    assert row is not None
    assert channel.status[:2] == (row["state"], row["reason"])
    assert (channel.version, channel.since) == (row["version"], row["since"])
    assert channel.first_unhealthy_at == row["first_unhealthy_at"]
    opened = [effect.incident for effect in effects if isinstance(effect, Open)]
    resolved = [effect.resolved_at for effect in effects if isinstance(effect, Resolve)]
    assert [i.started_at for i in opened] == [i["started_at"] for i in incidents]
    assert [i.opened_at for i in opened] == [i["opened_at"] for i in incidents]
    assert resolved == [i["resolved_at"] for i in incidents if i["resolved_at"] is not None]
    assert channel.has_been_open == ('"has_been_open": true' in row["memory"])


@pytest.mark.parametrize("traffic", [160, 99], ids=["after the silence began", "before"])
async def test_replay_dates_a_gateways_verdict_as_it_was_dated(
    connection: Connection, traffic: float
) -> None:
    of, rules = Of(await register(connection)), RULES._replace(stale_after=timedelta(seconds=120))
    await apply(connection, [of.told(0, Trigger.OPENED)], rules)
    assert await freshen(connection, {of.channel_id: at(traffic)}, rules) == {of.channel_id}
    verdict = GatewaySilence(at(280), at(100), Reason.GATEWAY_UNREACHABLE)

    await apply(connection, [of.signal(280, Source.PROBE, verdict)._replace(name=GATEWAY_SILENCE)], rules)
    due = Deadline(at(600), certain=True)
    await apply(connection, [of.signal(600, Source.DEADLINE, due)], rules)
    channel, effects = await replay(connection, of.channel_id)

    row = await connection.fetchrow("select * from zapwatch_states where channel_id = $1", of.channel_id)
    (incident,) = await rows(connection, "whatsapp_connection_incidents", of.channel_id, ())
    assert row is not None
    assert row["since"] == channel.since == at(max(traffic, 100))
    assert (channel.status[:2], channel.version) == ((row["state"], row["reason"]), row["version"])
    assert channel.first_unhealthy_at == row["first_unhealthy_at"]
    opened = [effect.incident.started_at for effect in effects if isinstance(effect, Open)]
    assert opened == [incident["started_at"]] == [row["since"]]


async def test_replay_knows_when_traffic_was_sent_that_ended_an_error(connection: Connection) -> None:
    of, rules = Of(await register(connection)), RULES._replace(stale_after=timedelta(seconds=120))
    gone = Answered(at(51), at(50), 1, Trigger.UNREACHABLE, Reason.UNREACHABLE, certain=True)
    verdict = GatewaySilence(at(120), at(100), Reason.GATEWAY_UNREACHABLE)
    batch = [
        of.told(0, Trigger.OPENED),
        of.signal(51, Source.PROBE, gone),
        of.signal(101, Source.WEBHOOK, Alive(at(101), at(99)))._replace(name="alive"),
        of.signal(120, Source.PROBE, verdict)._replace(name=GATEWAY_SILENCE),
    ]

    await apply(connection, batch, rules)
    channel, _ = await replay(connection, of.channel_id)

    row = await connection.fetchrow("select * from zapwatch_states where channel_id = $1", of.channel_id)
    assert row is not None
    assert (row["reason"], row["since"]) == (Reason.GATEWAY_UNREACHABLE, at(101))
    assert (channel.status.reason, channel.since) == (row["reason"], row["since"])


async def test_logout_whose_delivery_failed_before_the_gateways_verdict_is_told_as_what_it_is(
    connection: Connection,
) -> None:
    of = Of(await register(connection))
    await apply(connection, [of.told(0, Trigger.OPENED)], RULES)
    verdict = GatewaySilence(at(120), at(100), Reason.GATEWAY_UNREACHABLE)
    await apply(connection, [of.signal(120, Source.PROBE, verdict)._replace(name=GATEWAY_SILENCE)], RULES)

    await apply(connection, [of.told(95, Trigger.UNPAIRED, Reason.LOGGED_OUT, 401, received=130)], RULES)
    await apply(connection, [of.deadline(145)], RULES)

    (incident,) = await rows(connection, "whatsapp_connection_incidents", of.channel_id, ())
    assert (incident["last_state"], orjson.loads(incident["details"])["reason"]) == (
        "disconnected/unpaired",
        "logged_out",
    )


async def test_applying_a_batch_again_after_an_unknown_outcome_is_harmless(connection: Connection) -> None:
    channel_id = await register(connection)
    batch = [entry for entry in story(Of(channel_id), 3) if entry.key is not None]
    await apply(connection, batch, RULES)
    before = await stored(connection, channel_id)

    await apply(connection, batch, RULES)

    after = await stored(connection, channel_id)
    assert (after["incidents"], after["alerts"]) == (before["incidents"], before["alerts"])
    for column in ("state", "reason", "version", "since", "first_unhealthy_at", "due_at"):
        assert after["states"][0][column] == before["states"][0][column]


async def test_incident_that_opened_and_ended_within_one_batch_is_stored_whole(
    connection: Connection,
) -> None:
    of = Of(await register(connection))
    batch = [
        of.told(0, Trigger.OPENED),
        of.told(10, Trigger.UNPAIRED, Reason.LOGGED_OUT, 401),
        of.deadline(25),
        of.told(60, Trigger.OPENED),
        of.told(70, Trigger.DROPPED, Reason.CONNECTION_LOST, 408),
        of.deadline(370),
    ]

    await apply(connection, batch, RULES)

    incidents = await rows(connection, "whatsapp_connection_incidents", of.channel_id, ())
    assert [(i["kind"], i["started_at"], i["resolved_at"], i["duration_seconds"]) for i in incidents] == [
        ("disconnected", at(10), at(60), 50),
        ("disconnected", at(70), None, None),
    ]
    alerts = await connection.fetch(
        "select kind from zapwatch_alerts where channel_id = $1 order by id", of.channel_id
    )
    assert sorted(alert["kind"] for alert in alerts) == ["opened", "opened", "resolved"]


async def test_incident_that_another_application_opened_ends_with_the_channel_open(
    connection: Connection,
) -> None:
    of = Of(await register(connection))
    await apply(connection, [of.told(0, Trigger.OPENED), of.told(10, Trigger.CONNECTING)], RULES)
    opened = await connection.fetchval(
        "select whatsapp_heartbeat_open_incident($1, 'connecting')", of.channel_id
    )

    await apply(connection, [of.told(30, Trigger.OPENED, received=10**9)], RULES)

    row = await connection.fetchrow("select * from whatsapp_connection_incidents where id = $1", opened)
    assert row is not None
    assert row["resolved_at"] is not None


async def test_details_that_another_application_wrote_stay_when_the_incident_changes(
    connection: Connection,
) -> None:
    of = Of(await register(connection))
    await apply(connection, [of.told(0, Trigger.OPENED), of.told(10, Trigger.CONNECTING)], RULES)
    await connection.execute(
        """select whatsapp_heartbeat_open_incident($1, 'connecting', null, '{"ticket": 77}')""", of.channel_id
    )

    await apply(connection, [of.told(20, Trigger.DROPPED, Reason.CONNECTION_LOST, 408)], RULES)

    row = await connection.fetchrow("select kind, details from whatsapp_connection_incidents")
    assert row is not None
    assert row["kind"] == "disconnected"
    assert orjson.loads(row["details"]) == {"ticket": 77, "reason": "connection_lost", "status": 408}


async def test_state_change_is_shown_to_the_applications_beside_us(connection: Connection) -> None:
    of = Of(await register(connection))

    await apply(connection, [of.told(0, Trigger.OPENED)], RULES)
    await apply(connection, [of.told(10, Trigger.UNPAIRED, Reason.LOGGED_OUT)], RULES)

    row = await connection.fetchrow("select * from notification_channels where id = $1", of.channel_id)
    assert row is not None
    assert (row["connection_status"], row["error_message"]) == ("disconnected", "logged_out")
    assert row["last_connected_at"] == at(0)


async def test_who_came_back_within_a_batch_is_shown_as_if_it_were_two(connection: Connection) -> None:
    of = Of(await register(connection))
    await apply(connection, [of.told(0, Trigger.OPENED)], RULES)
    opened = of.told(11, Trigger.OPENED)._replace(owner=OwnerProfile("5511999990000", "Loja"))

    await apply(connection, [of.told(10, Trigger.CONNECTING), opened], RULES)

    row = await connection.fetchrow("select * from notification_channels where id = $1", of.channel_id)
    assert row is not None
    assert (row["phone_number"], row["profile_name"]) == ("5511999990000", "Loja")
    assert row["last_connected_at"] == at(11)


async def test_newest_qr_of_a_batch_is_kept_while_the_channel_waits_for_a_scan(
    connection: Connection,
) -> None:
    of = Of(await register(connection))
    newer, older = of.told(20, Trigger.QR_ISSUED), of.told(10, Trigger.QR_ISSUED, received=21)
    kept = "select sealed, expires_at from zapwatch_qrs"

    await apply(connection, [newer._replace(qr=b"newer"), older._replace(qr=b"older")], RULES)
    row = await connection.fetchrow(kept)
    again = of.told(30, Trigger.QR_ISSUED)._replace(qr=b"last")
    await apply(connection, [again, of.told(31, Trigger.OPENED)], RULES)

    assert row is not None
    assert (row["sealed"], row["expires_at"]) == (b"newer", at(20) + SHOWN_FOR)
    after = await connection.fetchrow(kept)
    assert after is not None
    assert tuple(after) == (None, None)


async def test_qr_is_in_no_event(connection: Connection) -> None:
    of = Of(await register(connection))

    await apply(connection, [of.told(0, Trigger.QR_ISSUED)._replace(qr=b"SECRET")], RULES)

    row = await connection.fetchval("select e::text from zapwatch_events e")
    assert "SECRET" not in row
    assert b"SECRET".hex() not in row


async def test_repeated_event_does_not_touch_the_table_of_others(connection: Connection) -> None:
    of = Of(await register(connection))
    await apply(connection, [of.told(0, Trigger.OPENED)], RULES)
    before = await connection.fetchval(
        "select xmin::text from notification_channels where id = $1", of.channel_id
    )

    await apply(connection, [of.told(number, Trigger.OPENED) for number in range(1, 9)], RULES)

    after = await connection.fetchval(
        "select xmin::text from notification_channels where id = $1", of.channel_id
    )
    assert after == before


async def test_failing_batch_writes_nothing(connection: Connection) -> None:
    of = Of(await register(connection))
    broken = Entry(of.channel_id, Source.WEBHOOK, "nul \0", at(5), of.told(5, None).content, b"k")

    with pytest.raises(asyncpg.PostgresError):
        await apply(connection, [of.told(0, Trigger.OPENED), broken], RULES)

    assert await connection.fetchval("select count(*) from zapwatch_events") == 0
    assert await connection.fetchval("select state from zapwatch_states") == "unknown"


async def test_entry_for_a_channel_that_is_gone_is_passed_over(connection: Connection) -> None:
    kept, gone = Of(await register(connection)), Of(UUID(int=7))

    applied = await apply(connection, [gone.told(0, Trigger.OPENED), kept.told(0, Trigger.OPENED)], RULES)

    assert applied.states == {kept.channel_id: State.OPEN}


async def test_acknowledging_keeps_the_first_time(connection: Connection) -> None:
    of = Of(await register(connection))
    lost = [of.told(0, Trigger.OPENED), of.told(10, Trigger.UNPAIRED), of.deadline(25)]
    await apply(connection, lost, RULES)
    incident = await connection.fetchval("select id from whatsapp_connection_incidents")

    await acknowledge(connection, incident)
    first = await connection.fetchval("select acknowledged_at from whatsapp_connection_incidents")
    await acknowledge(connection, incident)

    assert first is not None
    assert await connection.fetchval("select acknowledged_at from whatsapp_connection_incidents") == first


async def test_writer_gives_way_before_an_application_beside_us_is_killed(dsn: str) -> None:
    async with connected(dsn) as beside:
        of = Of(await register(beside))
        writer = await connect_writer(dsn)
        async with beside.transaction():
            await beside.execute(
                "select 1 from notification_channels where id = $1 for update", of.channel_id
            )

            with pytest.raises(Locked):
                await apply(writer, [of.told(0, Trigger.OPENED)], RULES)

            await beside.execute(
                "update notification_channels set metadata = '{}' where id = $1", of.channel_id
            )
        await apply(writer, [of.told(0, Trigger.OPENED)], RULES)
        await writer.close()

        assert await beside.fetchval("select state from zapwatch_states") == "open"


async def test_every_statement_can_be_prepared_and_says_what_it_does(connection: Connection) -> None:
    for name, statement in sql.statements.items():
        assert statement.startswith("-- "), f"{name} lacks its sentence"
        await connection.prepare(statement)


async def test_events_of_a_channel_that_is_deleted_for_good_go_with_it(connection: Connection) -> None:
    gone, stays = Of(await register(connection)), Of(await register(connection, "loja-02"))
    for channel in (gone, stays):
        await apply(connection, [channel.told(1, Trigger.OPENED)], RULES)

    await connection.execute("delete from notification_channels where id = $1", gone.channel_id)

    left = await connection.fetch("select distinct channel_id from zapwatch_events")
    assert [row["channel_id"] for row in left] == [stays.channel_id]


async def test_a_probe_is_shown_beside_us_at_most_once_a_minute(connection: Connection) -> None:
    channel = Of(await register(connection))
    shown = []

    for seconds in (0, 59, 60, 119, 120):
        version = await connection.fetchval("select version from zapwatch_states")
        said = Answered(at(seconds), at(seconds), version, Trigger.OPENED)
        await apply(connection, [channel.signal(seconds, Source.PROBE, said)], RULES)
        shown.append(await connection.fetchval("select last_health_check from notification_channels"))

    assert shown == [at(0), at(0), at(60), at(60), at(120)]


async def test_a_row_that_somebody_has_only_delays_the_showing_of_a_probe(
    connection: Connection, dsn: str
) -> None:
    channel = Of(await register(connection))
    for seconds in (0, 100):
        version = await connection.fetchval("select version from zapwatch_states")
        said = Answered(at(seconds), at(seconds), version, Trigger.OPENED)
        async with connected(dsn) as beside, beside.transaction():
            if seconds:
                await beside.execute("update notification_channels set profile_name = 'x'")
            await apply(connection, [channel.signal(seconds, Source.PROBE, said)], RULES)

    assert await connection.fetchval("select probed_at from zapwatch_states") == at(100)
    assert await connection.fetchval("select last_health_check from notification_channels") == at(0)


async def test_an_answer_of_the_gateway_of_before_is_dropped_and_asked_for_anew(
    connection: Connection,
) -> None:
    channel = Of(await register(connection))
    said = Answered(at(5), at(5), 0, Trigger.OPENED)
    entry = channel.signal(5, Source.PROBE, said)._replace(gateway_id=uuid4())

    await apply(connection, [entry], RULES)

    row = await connection.fetchrow("select state, probe_due_at from zapwatch_states")
    assert row is not None
    assert tuple(row) == ("unknown", at(5))


async def test_an_event_that_moves_nothing_writes_no_index_of_states(connection: Connection) -> None:
    of = Of(await register(connection))
    await apply(connection, [of.told(0, Trigger.OPENED), of.told(10, Trigger.CONNECTING)], RULES)
    count = """select pg_stat_get_xact_tuples_updated(id) as updated,
                 pg_stat_get_xact_tuples_hot_updated(id) as hot
               from (select 'zapwatch_states'::regclass::oid as id) s"""

    async with connection.transaction():
        before = await connection.fetchrow(count)
        for seconds in (20, 30, 40):
            await apply(connection, [of.told(seconds, Trigger.CONNECTING)], RULES)
        after = await connection.fetchrow(count)

    assert before is not None
    assert after is not None
    assert (after["updated"] - before["updated"], after["hot"] - before["hot"]) == (3, 3)
