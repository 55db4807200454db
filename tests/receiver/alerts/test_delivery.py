"""What becomes of messages: tried again, given up, reminded of; destinations that hang, refuse, are gone."""

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest

from db.alerts.alerts import prune_messages
from db.connection.types import Connection
from receiver.alerts.dispatch import SCHEDULE
from receiver.alerts.message import DeliveryResult, Event
from receiver.jobs.loop import LoopRunner
from tests.receiver.alerts.desk import Desk, Sink, open_desk
from tests.receiver.conftest import running_api
from tests.support.eventually import eventually
from tests.support.service import zapwatch

DOWN = DeliveryResult(False, status=503)


async def due_in(desk: Desk) -> float:
    """Return in how many seconds the one message is tried next."""
    left: timedelta = await desk.connection.fetchval("select due_at - now() from zapwatch_messages")
    return left.total_seconds()


async def reached(desk: Desk, sends: int, within: float = 60) -> None:
    """Wait until the sink was told so often."""
    await eventually(lambda: len(desk.sink.told) >= sends, within=within)


async def one_open(desk: Desk, name: str = "ana", **columns: Any) -> tuple[UUID, UUID]:
    """Open an incident of a tenant with one destination; return the channel and the destination."""
    tenant = await desk.tenant()
    destination = await desk.destination(tenant, name, **columns)
    channel = await desk.channel(tenant)
    await desk.open(channel)
    return channel, destination


async def test_tries_follow_the_schedule_and_end(desk: Desk) -> None:
    await one_open(desk)
    desk.sink.answers["ana"] = [DOWN] * 20

    waits = []
    for _ in SCHEDULE:
        await desk.tell()
        waits.append(await due_in(desk))
        await desk.later(timedelta(seconds=waits[-1] + 1))
    await desk.tell()
    await desk.later(timedelta(hours=1))
    await desk.tell()

    # From when it failed, which was a moment ago.
    for wait, planned in zip(waits, SCHEDULE, strict=True):
        assert planned.total_seconds() - 10 < wait <= planned.total_seconds() * 1.1
    assert len(desk.sink.told) == len(SCHEDULE) + 1
    assert await desk.connection.fetchval("select outcome from zapwatch_messages") == "given_up"


async def test_a_destination_says_how_long_to_wait(desk: Desk) -> None:
    await one_open(desk)
    desk.sink.answers["ana"] = [DeliveryResult(False, status=429, retry_after=timedelta(minutes=10))]

    await desk.tell()

    assert 500 < await due_in(desk) <= 600


async def test_what_would_fail_again_is_tried_once(desk: Desk) -> None:
    await one_open(desk)
    desk.sink.answers["ana"] = [DeliveryResult(False, permanent=True, status=400)]

    await desk.tell()
    await desk.later(timedelta(hours=1))
    await desk.tell()

    assert len(desk.sink.told) == 1
    assert await desk.connection.fetchval("select outcome from zapwatch_messages") == "failed"


async def test_the_end_of_an_incident_never_arrives_before_its_beginning(desk: Desk) -> None:
    channel, _ = await one_open(desk)
    desk.sink.answers["ana"] = [DOWN, DOWN]
    await desk.tell()

    await desk.resolve(channel)
    await desk.tell()
    tried_meanwhile = desk.sink.events("ana")
    for _ in range(4):
        await desk.later(timedelta(seconds=10))
        await desk.tell()

    assert tried_meanwhile == ["incident.opened"]
    assert desk.sink.events("ana") == ["incident.opened"] * 3 + ["incident.resolved"]


async def test_a_destination_that_is_gone_is_switched_off_and_its_owner_told_otherwise(desk: Desk) -> None:
    _, gone = await one_open(desk)
    tenant = await desk.connection.fetchval("select id from tenants")
    member = await desk.member(tenant)
    await desk.open(await desk.channel(tenant, "Praia"))
    desk.sink.answers["ana"] = [DeliveryResult(False, status=410, permanent=True), DOWN]

    await desk.route()
    await desk.dispatch()
    await desk.later(timedelta(minutes=1))
    await desk.tell()
    await desk.open(await desk.channel(tenant, "Serra"))
    await desk.tell()

    row = await desk.connection.fetchrow("select disabled_why from zapwatch_destinations where id = $1", gone)
    assert row is not None
    assert row["disabled_why"] == "gone"
    assert "disabled" in await desk.whys(destination_id=gone)
    shown = await desk.connection.fetch("select owner_id, payload->>'body' as body from notifications")
    assert {row["owner_id"] for row in shown} == {member}
    assert any("ana" in row["body"] for row in shown)
    unsettled = "select count(*) from zapwatch_messages where destination_id = $1 and settled_at is null"
    assert await desk.connection.fetchval(unsettled, gone) == 0


async def test_a_destination_that_fails_for_five_days_is_switched_off_and_operators_told(desk: Desk) -> None:
    _, failing = await one_open(desk)
    await desk.destination(None, "ops", "letters")
    desk.sink.answers["ana"] = [DOWN] * 3

    await desk.tell()
    await desk.later(timedelta(days=4))
    await desk.tell()
    is_off = "select disabled_why from zapwatch_destinations where id = $1"
    after_four = await desk.connection.fetchval(is_off, failing)
    tenant = await desk.connection.fetchval("select id from tenants")
    await desk.open(await desk.channel(tenant, "Praia"))
    await desk.later(timedelta(days=1))
    await desk.tell()

    assert after_four is None
    assert await desk.connection.fetchval(is_off, failing) == "failing"
    told = [item for _, message in desk.letters.told for item in message.items]
    assert [(it.name, it.kind) for it in told if it.event is Event.DESTINATION_DISABLED] == [
        ("ana", "failing")
    ]


async def test_one_that_gets_through_again_is_not_failing(desk: Desk) -> None:
    _, ana = await one_open(desk)
    desk.sink.answers["ana"] = [DOWN]
    await desk.tell()
    failing = "select failing_since is not null from zapwatch_destinations where id = $1"
    before = await desk.connection.fetchval(failing, ana)
    await desk.later(timedelta(seconds=5))

    await desk.tell()

    assert (before, await desk.connection.fetchval(failing, ana)) == (True, False)


async def test_reminders_come_at_growing_intervals_until_somebody_has_seen_it(desk: Desk) -> None:
    await one_open(desk, reminder_minutes=10)
    await desk.tell()

    told = []
    for minutes in (9, 2, 15, 10, 30):
        await desk.later(timedelta(minutes=minutes))
        await desk.tell()
        told.append(sum(message.is_reminder for _, message in desk.sink.told))
    await desk.connection.execute("update whatsapp_connection_incidents set acknowledged_at = now()")
    await desk.later(timedelta(days=1))
    await desk.tell()

    # Due 10 minutes after the opening, then 20 and 40 after the last.
    assert told == [0, 1, 1, 2, 2]
    assert sum(message.is_reminder for _, message in desk.sink.told) == 2
    assert "acknowledged" in await desk.whys()
    assert await desk.connection.fetchval("select notification_count from whatsapp_connection_incidents") == 3


async def test_nobody_is_reminded_without_wishing_or_after_the_end(desk: Desk) -> None:
    channel, _ = await one_open(desk, "ana", reminder_minutes=10)
    tenant = await desk.connection.fetchval("select id from tenants")
    await desk.destination(tenant, "bia")
    await desk.tell()
    await desk.resolve(channel)

    await desk.later(timedelta(hours=2))
    await desk.tell()

    assert desk.sink.events("ana") == desk.sink.events("bia") == ["incident.opened", "incident.resolved"]


async def gateway_down(desk: Desk) -> UUID:
    """Open the incident of a gateway."""
    incident: UUID = await desk.connection.fetchval(
        "with g as (insert into zapwatch_gateways (provider, base_url, name) "
        "values ('wapi', 'http://w.test', 'Casa') returning id), "
        "i as (insert into zapwatch_gateway_incidents (gateway_id, cause, affected, started_at, opened_at) "
        "select id, 'unreachable', 7, now(), now() from g returning id), "
        "a as (insert into zapwatch_alerts (gateway_incident_id, kind) select id, 'opened' from i) "
        "select id from i"
    )
    return incident


async def test_acknowledging_a_gateways_incident_ends_its_reminders(desk: Desk, dsn: str) -> None:
    ops = await desk.destination(None, "ops", events=["gateway.*"], reminder_minutes=10)
    incident = await gateway_down(desk)
    await desk.tell()
    await desk.later(timedelta(minutes=11))
    await desk.tell()

    async with running_api(dsn) as api:
        answer = await api.client.post(f"/incidents/{incident}/ack")
    await desk.later(timedelta(days=1))
    await desk.tell()
    await desk.later(timedelta(days=1))
    await desk.tell()

    assert answer.json()["acknowledged_at"] is not None
    assert [message.is_reminder for _, message in desk.sink.told] == [False, True]
    assert await desk.whys(destination_id=ops) == ["opened", "reminder", "acknowledged"]


async def test_gateways_are_the_operators_affair(desk: Desk) -> None:
    tenant = await desk.tenant()
    await desk.destination(tenant, "ana", events=["gateway.*"])
    await desk.destination(None, "ops", events=["incident.opened", "gateway.*"])
    incident = await gateway_down(desk)
    await desk.open(await desk.channel(tenant, "Praia"))
    await desk.tell()
    await desk.connection.execute(
        "update zapwatch_gateway_incidents set resolved_at = now(), duration_seconds = 0"
    )
    await desk.connection.execute(
        "insert into zapwatch_alerts (gateway_incident_id, kind) values ($1, 'resolved')", incident
    )
    await desk.tell()

    assert desk.sink.events("ana") == []
    assert desk.sink.events("ops") == ["gateway.opened", "incident.opened", "gateway.resolved"]
    item = desk.sink.told[0][1].items[0]
    assert (item.name, item.kind, item.affected, item.incident_id) == ("Casa", "unreachable", 7, incident)


async def test_a_table_of_another_application_that_refuses_costs_nothing_else(desk: Desk) -> None:
    tenant = await desk.tenant()
    await desk.member(tenant)
    await desk.destination(tenant, "ana")
    await desk.connection.execute(
        "alter table notifications add constraint theirs check (type = 'new_patient')"
    )

    incident = await desk.open(await desk.channel(tenant))
    await desk.tell()
    refused = await desk.connection.fetch("select answer from zapwatch_attempts where not is_ok")
    await desk.connection.execute("alter table notifications drop constraint theirs")
    await desk.later(timedelta(seconds=10))
    await desk.tell()

    assert [row["answer"] for row in refused] == ["notifications refuses it: CheckViolationError"]
    assert desk.sink.events("ana") == ["incident.opened"]
    shown = await desk.connection.fetch("select ref_id from notifications")
    assert [row["ref_id"] for row in shown] == [incident]


async def test_all_members_are_told_where_the_tenant_wants_that_and_each_once(desk: Desk) -> None:
    tenant = await desk.tenant()
    members = {await desk.member(tenant, role) for role in ("clinic_admin", "receptionist")}
    await desk.destination(tenant, "all", "in_app")
    await desk.open(await desk.channel(tenant), "error", "unreachable")
    await desk.tell()

    # It was shown, and the one who did it died before he could say so.
    await desk.connection.execute("update zapwatch_messages set settled_at = null, outcome = null")
    await desk.dispatch()

    shown = await desk.connection.fetch("select owner_id, type from notifications")
    assert sorted(row["owner_id"] for row in shown) == sorted(members)
    assert {row["type"] for row in shown} == {"system_alert"}


async def test_a_destination_that_hangs_delays_no_other(desk: Desk) -> None:
    tenant = await desk.tenant()
    await desk.destination(tenant, "stuck")
    await desk.destination(tenant, "ana")
    desk.sink.hanging.add("stuck")
    for n in range(30):
        await desk.open(await desk.channel(tenant, f"Loja {n}"))
    await desk.route()

    async def sent() -> int:
        await desk.dispatcher.send_due()
        return len(desk.sink.events("ana"))

    await eventually(sent, lambda count: count >= 30)

    # One that can't be reached has no more than its places.
    assert 1 <= len(desk.sink.events("stuck")) <= 5
    assert desk.dispatcher.in_flight >= 1


async def test_who_does_not_answer_in_time_has_not_been_told(dsn: str, connection: Connection) -> None:
    async with open_desk(dsn, connection, send_within=timedelta(seconds=0.1)) as desk:
        await one_open(desk, "stuck")
        desk.sink.hanging.add("stuck")

        await desk.tell()

        answer = await connection.fetchval("select answer from zapwatch_attempts where not is_ok")
    assert answer == "no answer within 0.1 s"


async def test_a_death_between_sending_and_settling_costs_one_duplicate(
    dsn: str, connection: Connection
) -> None:
    sink = Sink()
    async with open_desk(dsn, connection, sink=sink) as dying:
        await one_open(dying, "stuck")
        sink.hanging.add("stuck")
        await dying.route()
        sending = await dying.dispatcher.send_due()
        await reached(dying, 1)
        for task in sending:
            task.cancel()
        await asyncio.wait(sending)
    sink.hanging.clear()

    async with open_desk(dsn, connection, sink=sink) as other:
        await other.tell()
        within_the_lease = len(sink.told)
        await other.later(timedelta(minutes=1))
        await other.tell()
        await other.later(timedelta(minutes=1))
        await other.tell()

    assert within_the_lease == 1
    assert len(sink.told) == 2
    assert len({message.id for _, message in sink.told}) == 1
    assert await connection.fetchval("select notification_count from whatsapp_connection_incidents") == 1


async def test_a_service_that_ends_gives_back_what_it_has_not_delivered(
    dsn: str, connection: Connection
) -> None:
    async with open_desk(dsn, connection) as desk:
        await one_open(desk, "stuck")
        desk.sink.hanging.add("stuck")
        await desk.route()
        sending = asyncio.create_task(LoopRunner().run(desk.dispatcher.loop()))
        await reached(desk, 1)
        sending.cancel()
        await asyncio.wait([sending])

    claimed = "select count(*) from zapwatch_messages where claimed_until is not null"
    assert await connection.fetchval(claimed) == 0


async def test_two_replicas_send_what_one_sends(dsn: str, connection: Connection) -> None:
    sink, letters = Sink(), Sink("letters", is_grouped=True)
    options = {"sink": sink, "letters": letters}
    async with open_desk(dsn, connection, **options) as one, open_desk(dsn, connection, **options) as two:
        tenant = await one.tenant()
        await one.destination(tenant, "ana")
        await one.destination(tenant, "carta", "letters")
        running = [
            asyncio.create_task(LoopRunner().run(part.loop()))
            for desk in (one, two)
            for part in (desk.routing, desk.dispatcher)
        ]
        channels = [await one.channel(tenant, f"Loja {n}") for n in range(20)]
        for channel in channels:
            await one.open(channel)
        await reached(one, 20)
        for channel in channels:
            await one.resolve(channel)
        await reached(one, 40)
        unsettled = "select count(*) from zapwatch_alerts where settled_at is null"
        await eventually(lambda: connection.fetchval(unsettled), lambda left: left == 0)
        for task in running:
            task.cancel()
        await asyncio.wait(running)

    assert len(sink.told) == len({message.id for _, message in sink.told}) == 40
    for channel in channels:
        mine = [it.event for _, message in sink.told for it in message.items if it.channel_id == channel]
        assert mine == ["incident.opened", "incident.resolved"]
    assert [len(message.items) for _, message in letters.told] == [1]


async def test_old_messages_are_forgotten_but_not_who_was_told_of_what_is_open(desk: Desk) -> None:
    tenant = await desk.tenant()
    over, still = await desk.channel(tenant), await desk.channel(tenant, "Praia")
    ana = await desk.destination(tenant, "ana")
    await desk.open(over)
    await desk.open(still)
    await desk.tell()
    await desk.resolve(over)
    await desk.tell()
    await desk.later(timedelta(days=91))

    await prune_messages(desk.connection, datetime.now(UTC), timedelta(days=90))
    left = await desk.whys(destination_id=ana)
    await desk.resolve(still)
    await desk.tell()

    assert left == ["opened"]
    assert desk.sink.events("ana")[-1] == "incident.resolved"
    assert len(desk.sink.told) == 4


async def test_changes_of_an_incident_that_stays_open_are_forgotten_and_who_was_told_is_kept(
    desk: Desk,
) -> None:
    tenant = await desk.tenant()
    channel = await desk.channel(tenant)
    ana = await desk.destination(tenant, "ana")
    await desk.open(channel, "connecting", "connecting")
    await desk.tell()
    for kind in ("disconnected", "connecting"):
        await desk.connection.execute("update whatsapp_connection_incidents set kind = $1", kind)
        await desk.tell()
    alerts = "select count(*) from zapwatch_alerts"

    await prune_messages(desk.connection, datetime.now(UTC), timedelta(days=90))
    fresh = await desk.connection.fetchval(alerts)
    await desk.later(timedelta(days=2))
    await prune_messages(desk.connection, datetime.now(UTC), timedelta(days=90))
    left, whys = await desk.connection.fetchval(alerts), await desk.whys(destination_id=ana)
    await desk.later(timedelta(days=90))
    await prune_messages(desk.connection, datetime.now(UTC), timedelta(days=90))

    assert (fresh, left) == (3, 1)
    assert whys == ["opened", "changed", "changed"]
    assert await desk.whys(destination_id=ana) == ["opened"]


async def test_the_service_tells_and_says_why_it_did(dsn: str, connection: Connection) -> None:
    async with open_desk(dsn, connection) as desk, zapwatch(dsn) as z:
        z.app.notifiers["sink"] = desk.sink
        tenant = await desk.tenant()
        await desk.destination(tenant, "ana")
        await desk.member(tenant)
        channel = await desk.channel(tenant, metadata='{"heartbeat_threshold_minutes": 5}')

        incident = await desk.open(channel)
        shown = await z.until(
            lambda: z.get(f"/incidents/{incident}"), lambda shown: shown["notification_count"] == 2
        )
        metrics = (await z.client.get("/metrics")).text

    assert shown["notified_at"] is not None
    assert desk.sink.events("ana") == ["incident.opened"]
    assert await connection.fetchval("select count(*) from notifications") == 1
    assert 'zapwatch_alert_decisions_total{why="opened"} 2.0' in metrics
    assert 'zapwatch_message_tries_total{kind="sink",outcome="delivered"} 1.0' in metrics


@pytest.mark.parametrize("answer", ["x" * 2000, "a\x1b[31mb\r\nc"])
async def test_an_answer_is_kept_short_and_plain(desk: Desk, answer: str) -> None:
    await one_open(desk)
    desk.sink.answers["ana"] = [DeliveryResult(False, status=500, answer=answer)]

    await desk.tell()

    kept = await desk.connection.fetchval("select answer from zapwatch_attempts")
    assert kept.isprintable()
    assert len(kept) <= 500


async def test_message_with_an_event_that_only_a_later_version_knows_waits(desk: Desk) -> None:
    tenant = await desk.tenant()
    ana = await desk.destination(tenant, "ana")
    await desk.destination(tenant, "bob")
    await desk.open(await desk.channel(tenant))
    await desk.route()
    later = "update zapwatch_decisions set event = 'future.event' where destination_id = $1"
    await desk.connection.execute(later, ana)

    await desk.dispatch()

    assert [name for name, _ in desk.sink.told] == ["bob"]
    answer = await desk.connection.fetchval(
        "select answer from zapwatch_attempts where destination_id = $1", ana
    )
    assert answer == "this version does not know what it is to tell"
    waits = "select settled_at is null and due_at > now() from zapwatch_messages where destination_id = $1"
    assert await desk.connection.fetchval(waits, ana)
