"""When nobody is told, and that it is said why: settings, maintenance, wishes, ends before beginnings."""

import asyncio
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest

from receiver.alerts.notice import Sent
from tests.receiver.alerts.desk import Desk

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
        ({"disabled_at": None}, "opened"),
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
    desk.sink.answers["ana"] = [Sent(False, permanent=True, status=400)]
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


async def test_one_alert_that_the_database_refuses_keeps_no_other(desk: Desk) -> None:
    tenant = await desk.tenant()
    bad, good = await desk.channel(tenant, "Mau"), await desk.channel(tenant, "Bom")
    await desk.destination(tenant, "ana")
    incident = await desk.open(bad)
    await desk.open(good)
    await desk.connection.execute(
        f"alter table zapwatch_decisions add constraint refuses check (incident_id <> '{incident}')"
    )

    deciding = asyncio.create_task(desk.routing.run())
    async with asyncio.timeout(60):
        while not await desk.connection.fetchval("select count(*) from zapwatch_messages"):  # noqa: ASYNC110
            await asyncio.sleep(0.05)  # a row tells nobody that it is there
    deciding.cancel()
    await asyncio.wait([deciding])
    await desk.dispatch()

    assert [message.items[0].name for _, message in desk.sink.told] == ["Bom"]
    assert (
        await desk.connection.fetchval("select count(*) from zapwatch_alerts where settled_at is null") == 1
    )
