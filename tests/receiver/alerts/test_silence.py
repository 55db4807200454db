"""When nobody is told, and that it is said why: settings, maintenance, wishes, ends before beginnings."""

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest

from receiver.alerts.message import DeliveryResult
from receiver.jobs.loop import LoopRunner
from tests.receiver.alerts.desk import Desk
from tests.support.eventually import eventually

HOUR = timedelta(hours=1)


async def maintain(desk: Desk, **where: UUID) -> None:
    """Begin a window of an hour, a minute ago."""
    names = "".join(f", {name}" for name in where)
    marks = "".join(f", ${n}" for n in range(1, len(where) + 1))
    await desk.connection.execute(
        f"insert into zapwatch_maintenance (starts_at, ends_at{names}) "
        f"values (now() - interval '1 minute', now() + interval '59 minutes'{marks})",
        *where.values(),
    )


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ("update notification_channels set metadata = '{\"alerts_enabled\": false}'", "alerts_disabled"),
        ("update tenants set defaults = '{\"alerts_enabled\": false}'", "alerts_disabled"),
        ("update zapwatch_channels set paused_at = now()", "paused"),
        ("update notification_channels set is_active = false", "removed"),
        ("update notification_channels set deleted_at = now()", "removed"),
    ],
)
async def test_a_channel_that_is_not_to_be_told_of_is_not(desk: Desk, change: str, why: str) -> None:
    tenant = await desk.tenant()
    await desk.destination(tenant, "ana")

    await desk.open(await desk.channel(tenant))
    await desk.connection.execute(change)
    await desk.tell()

    assert desk.sink.told == []
    assert await desk.whys() == [why]
    assert await desk.connection.fetchval("select bool_and(settled_at is not null) from zapwatch_alerts")


@pytest.mark.parametrize(
    ("columns", "why"),
    [
        ({"kind": "pigeon"}, "unknown_kind"),
        ({"events": ["gateway.opened"]}, "not_wanted"),
        ({"disabled_at": datetime(2026, 1, 1, tzinfo=UTC)}, "disabled"),
        ({}, "opened"),
    ],
)
async def test_where_nobody_is_reached_it_is_said(desk: Desk, columns: dict[str, Any], why: str) -> None:
    tenant = await desk.tenant()
    ana = await desk.destination(tenant, "ana", **columns)

    await desk.open(await desk.channel(tenant))
    await desk.tell()

    assert await desk.whys(destination_id=ana) == [why]
    assert ("nobody" in await desk.whys()) is (why != "opened")
    assert "no_recipients" in await desk.whys()


async def test_whoever_was_not_told_of_the_beginning_is_not_told_of_the_end(desk: Desk) -> None:
    tenant = await desk.tenant()
    channel = await desk.channel(tenant)
    await desk.open(channel)
    await desk.route()
    ana = await desk.destination(tenant, "ana")

    await desk.resolve(channel)
    await desk.tell()

    assert desk.sink.told == []
    assert await desk.whys(destination_id=ana) == ["opening_not_told"]


async def test_the_end_is_not_told_where_telling_the_beginning_failed_for_good(desk: Desk) -> None:
    tenant = await desk.tenant()
    channel = await desk.channel(tenant)
    ana = await desk.destination(tenant, "ana")
    desk.sink.answers["ana"] = [DeliveryResult(False, permanent=True, status=400)]
    await desk.open(channel)
    await desk.tell()

    await desk.resolve(channel)
    await desk.tell()

    assert await desk.whys(destination_id=ana) == ["opened", "opening_not_told"]
    assert len(desk.sink.told) == 1


@pytest.mark.parametrize("scope", ["everything", "tenant", "channel", "gateway"])
async def test_what_is_still_down_when_maintenance_ends_is_told_then(desk: Desk, scope: str) -> None:
    tenant = await desk.tenant()
    channel, other = await desk.channel(tenant), await desk.channel(await desk.tenant(name="Outra"))
    gateway = await desk.connection.fetchval(
        "insert into zapwatch_gateways (provider, base_url) values ('wapi', 'http://w.test') returning id"
    )
    await desk.connection.execute(
        "update zapwatch_channels set gateway_id = $1, instance = null where channel_id = $2",
        gateway,
        channel,
    )
    ana = await desk.destination(None, "ana")
    where = {"tenant": {"tenant_id": tenant}, "channel": {"tenant_id": tenant, "channel_id": channel}}
    await maintain(desk, **where.get(scope, {"gateway_id": gateway} if scope == "gateway" else {}))

    held = await desk.open(channel)
    await desk.open(other)
    await desk.tell()
    meanwhile = [message.items[0].incident_id for _, message in desk.sink.told]
    await desk.later(HOUR)
    await desk.tell()

    assert len(meanwhile) == (0 if scope == "everything" else 1)
    assert held not in meanwhile
    assert held in [message.items[0].incident_id for _, message in desk.sink.told]
    assert sorted(await desk.whys(destination_id=ana)) == ["opened", "opened"]
    assert "maintenance" in await desk.whys(incident_id=held)


async def test_what_is_over_when_maintenance_ends_is_not_told(desk: Desk) -> None:
    tenant = await desk.tenant()
    channel = await desk.channel(tenant)
    await desk.destination(tenant, "ana")
    await maintain(desk, tenant_id=tenant)

    await desk.open(channel)
    await desk.tell()
    await desk.resolve(channel)
    await desk.tell()
    await desk.later(HOUR)
    await desk.tell()

    assert desk.sink.told == []
    assert (await desk.whys())[0] == "over_before_told"
    assert await desk.connection.fetchval("select bool_and(settled_at is not null) from zapwatch_alerts")


async def test_alerts_of_long_ago_are_told_only_if_their_incident_is_open(desk: Desk) -> None:
    tenant = await desk.tenant()
    over, still = await desk.channel(tenant), await desk.channel(tenant, "Praia")
    await desk.destination(tenant, "ana")
    await desk.open(over)
    await desk.resolve(over)
    await desk.open(still)
    await desk.later(timedelta(days=7))

    await desk.tell()

    assert [message.items[0].name for _, message in desk.sink.told] == ["Praia"]


async def decided(desk: Desk, incident: UUID) -> None:
    """Have alerts decided as the service does, until it is about this incident."""
    deciding = asyncio.create_task(LoopRunner().run(desk.routing.loop()))
    count = "select count(*) from zapwatch_decisions where incident_id = $1 and message_id is not null"
    await eventually(lambda: desk.connection.fetchval(count, incident))
    deciding.cancel()
    await asyncio.wait([deciding])


async def test_reminder_that_can_not_be_decided_keeps_no_alert(desk: Desk) -> None:
    tenant = await desk.tenant()
    await desk.destination(tenant, "ana", reminder_minutes=5)
    await desk.open(await desk.channel(tenant, "Mau"))
    await desk.tell()
    # So late is no time that Python knows.
    await desk.connection.execute("update zapwatch_decisions set reminders = 10000, remind_at = now()")

    await decided(desk, await desk.open(await desk.channel(tenant, "Bom")))
    await desk.dispatch()

    assert [message.items[0].name for _, message in desk.sink.told] == ["Mau", "Bom"]


async def test_alerts_that_the_database_refuses_keep_no_other(desk: Desk) -> None:
    tenant = await desk.tenant()
    await desk.destination(tenant, "ana")
    bad = [await desk.open(await desk.channel(tenant, f"Mau {n}")) for n in range(6)]
    good = await desk.open(await desk.channel(tenant, "Bom"))
    refused = ", ".join(f"'{incident}'" for incident in bad)
    await desk.connection.execute(
        f"alter table zapwatch_decisions add constraint refuses check (incident_id not in ({refused}))"
    )

    await decided(desk, good)
    await desk.dispatch()
    left = await desk.connection.fetch("select incident_id from zapwatch_alerts where settled_at is null")
    await desk.connection.execute("alter table zapwatch_decisions drop constraint refuses")
    await desk.later(timedelta(minutes=1))
    await desk.tell()

    assert {row["incident_id"] for row in left} == {*bad}
    told = [message.items[0].incident_id for _, message in desk.sink.told]
    assert (told[0], {*told[1:]}, len(told)) == (good, {*bad}, 7)


async def test_a_reminder_that_the_database_refuses_keeps_no_alert(desk: Desk) -> None:
    tenant = await desk.tenant()
    await desk.destination(tenant, "ana", reminder_minutes=10)
    await desk.open(await desk.channel(tenant))
    await desk.tell()
    await desk.later(timedelta(minutes=10))
    await desk.connection.execute(
        "alter table zapwatch_decisions add constraint refuses check (why <> 'reminder')"
    )

    await decided(desk, await desk.open(await desk.channel(tenant, "Praia")))
    await decided(desk, await desk.open(await desk.channel(tenant, "Serra")))
    await desk.dispatch()
    await desk.connection.execute("alter table zapwatch_decisions drop constraint refuses")
    await desk.later(timedelta(minutes=1))
    await desk.tell()

    told = [(message.items[0].name, message.is_reminder) for _, message in desk.sink.told]
    assert told == [("Centro", False), ("Praia", False), ("Serra", False), ("Centro", True)]
