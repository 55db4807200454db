"""Changes of channels that are no incidents, by hand: which is told to whom, in what order, and which not."""

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest

from db.alerts.state_changes import release_held_changes
from db.connection.types import Connection
from receiver.alerts.message import DeliveryResult, MessageItem
from receiver.jobs.loop import LoopRunner
from tests.receiver.alerts.desk import Desk, open_desk
from tests.support.eventually import eventually

WISH: dict[str, Any] = {"events": ["channel.state_changed"]}
DOWN = DeliveryResult(False, status=503)
DAY = timedelta(days=1)


def told(desk: Desk, name: str) -> list[MessageItem]:
    """Return what a destination was told, in order."""
    return [item for to, message in desk.sink.told if to == name for item in message.items]


def states(items: list[MessageItem]) -> list[tuple[str | None, str | None, int | None]]:
    return [(item.previous_state, item.state, item.sequence) for item in items]


async def one_wishing(desk: Desk, **columns: Any) -> tuple[UUID, UUID]:
    """Return a channel, and a destination of its tenant that wishes to be told of its states."""
    tenant = await desk.tenant()
    return await desk.channel(tenant), await desk.destination(tenant, "ana", **{**WISH, **columns})


async def outcomes(desk: Desk) -> list[str | None]:
    rows = await desk.connection.fetch("select outcome from zapwatch_messages order by created_at, id")
    return [row["outcome"] for row in rows]


async def test_several_changes_before_the_first_is_routed_are_one(desk: Desk) -> None:
    channel, ana = await one_wishing(desk)

    await desk.moves(channel, "unknown", "open", "connecting", "disconnected")
    await desk.tell()

    assert states(told(desk, "ana")) == [("unknown", "disconnected", 3)]
    assert await desk.whys(destination_id=ana) == ["state_changed"]
    assert await desk.connection.fetchval("select count(*) from zapwatch_changes") == 0


async def test_what_is_back_where_it_began_is_not_told(desk: Desk) -> None:
    channel, _ = await one_wishing(desk)

    await desk.moves(channel, "open", "connecting", "open")
    await desk.tell()

    assert desk.sink.told == []
    assert await desk.whys() == ["over_before_told"]
    assert await desk.connection.fetchval("select count(*) from zapwatch_changes") == 0


async def test_channel_that_is_removed_tells_nothing(desk: Desk) -> None:
    channel, _ = await one_wishing(desk)

    await desk.moves(channel, "unknown", "open")
    await desk.connection.execute("update zapwatch_channels set removed = true")
    await desk.tell()

    assert desk.sink.told == []
    assert await desk.whys() == ["removed"]


async def test_only_who_still_wishes_it_is_told_and_it_is_said_that_nobody_does(desk: Desk) -> None:
    channel, ana = await one_wishing(desk)
    await desk.destination(None, "hub")

    await desk.moves(channel, "unknown", "open")
    await desk.connection.execute(
        "update zapwatch_destinations set events = '{incident.opened}' where id = $1", ana
    )
    await desk.tell()

    assert desk.sink.told == []
    assert await desk.whys() == ["nobody"]


async def test_tenants_whose_channels_change_together_are_told_of_their_own(desk: Desk) -> None:
    ours, theirs = await desk.tenant(), await desk.tenant(name="Outra")
    for tenant, name in ((ours, "ana"), (theirs, "bia"), (None, "hub")):
        await desk.destination(tenant, name, **WISH)
    channels = [await desk.channel(tenant) for tenant in (ours, theirs)]

    for channel in channels:
        await desk.moves(channel, "unknown", "open")
    await desk.tell()

    by_name = [[item.channel_id for item in told(desk, name)] for name in ("ana", "bia", "hub")]
    assert by_name == [[channels[0]], [channels[1]], channels]


async def test_destination_that_was_down_is_told_the_newest_alone(desk: Desk) -> None:
    channel, ana = await one_wishing(desk)
    desk.sink.answers["ana"] = [DOWN, DOWN]

    await desk.moves(channel, "unknown", "open")
    await desk.tell()
    await desk.moves(channel, "open", "disconnected", version=2)
    await desk.tell()
    await desk.moves(channel, "disconnected", "open", version=3)
    await desk.tell()
    await desk.later(DAY / 2)
    await desk.tell()

    assert [item.sequence for item in told(desk, "ana")] == [1, 2, 3]
    assert await outcomes(desk) == ["void", "void", "delivered"]
    assert await desk.whys(destination_id=ana) == ["superseded", "superseded", "state_changed"]


async def test_change_waits_for_the_one_that_is_on_its_way_and_ends_its_tries(
    dsn: str, connection: Connection
) -> None:
    async with open_desk(dsn, connection, send_within=timedelta(seconds=0.5)) as desk:
        channel, _ = await one_wishing(desk)
        desk.sink.hanging.add("ana")

        await desk.moves(channel, "unknown", "open")
        await desk.route()
        hanging = await desk.dispatcher.send_due()
        await desk.moves(channel, "open", "error", version=2)
        await desk.route()
        meanwhile = await desk.dispatcher.send_due()
        desk.sink.hanging.clear()
        await asyncio.wait(hanging)
        await desk.later(timedelta(minutes=1))
        await desk.tell()

        assert (len(hanging), len(meanwhile)) == (1, 0)
        assert [item.sequence for item in told(desk, "ana")] == [1, 2]
        assert await outcomes(desk) == ["void", "delivered"]


async def test_another_channel_is_told_of_meanwhile(desk: Desk) -> None:
    channel, _ = await one_wishing(desk)
    tenant = await desk.connection.fetchval("select tenant_id from zapwatch_channels")
    other = await desk.channel(tenant, "Praia")
    desk.sink.answers["ana"] = [DOWN]
    await desk.moves(channel, "unknown", "open")
    await desk.tell()

    await desk.moves(other, "unknown", "open")
    await desk.later(timedelta(minutes=1))
    await desk.tell()

    assert [(item.name, item.state) for item in told(desk, "ana")] == [
        ("Centro", "open"),
        ("Centro", "open"),
        ("Praia", "open"),
    ]


async def test_people_read_the_newest_state_of_each_channel_in_one_message(desk: Desk) -> None:
    channel, ana = await one_wishing(desk, kind="letters")
    tenant = await desk.connection.fetchval("select tenant_id from zapwatch_channels")
    other = await desk.channel(tenant, "Praia")

    await desk.moves(channel, "unknown", "open")
    await desk.tell()
    await desk.moves(channel, "open", "connecting", version=2)
    await desk.route()
    await desk.moves(other, "unknown", "error")
    await desk.moves(channel, "connecting", "disconnected", version=3)
    await desk.tell()
    await desk.later(timedelta(minutes=1))
    await desk.tell()

    (_, first), (_, second) = desk.letters.told
    assert [item.state for item in first.items] == ["open"]
    assert sorted((item.name, item.state or "") for item in second.items) == [
        ("Centro", "disconnected"),
        ("Praia", "error"),
    ]
    assert (await desk.whys(destination_id=ana)).count("superseded") == 1


async def test_message_of_several_that_was_tried_keeps_what_newer_changes_follow(desk: Desk) -> None:
    first, ana = await one_wishing(desk, kind="letters")
    tenant = await desk.connection.fetchval("select tenant_id from zapwatch_channels")
    praia, serra = await desk.channel(tenant, "Praia"), await desk.channel(tenant, "Serra")
    for one in (first, praia, serra):
        await desk.moves(one, "unknown", "open")
    await desk.tell()
    desk.letters.answers["ana"] = [DOWN, DOWN, DOWN]
    await desk.later(timedelta(minutes=1))
    await desk.tell()

    await desk.moves(praia, "open", "error", version=2)
    await desk.tell()
    await desk.connection.execute("update zapwatch_messages set due_at = now() where tries > 0")
    await desk.dispatch()
    one_is_followed = await desk.whys(destination_id=ana)
    await desk.moves(serra, "open", "error", version=2)
    await desk.route()

    told = [[(item.name, item.state) for item in message.items] for _, message in desk.letters.told]
    assert told[1:3] == [[("Praia", "open"), ("Serra", "open")]] * 2
    assert one_is_followed == ["state_changed"] * 4
    assert (await desk.whys(destination_id=ana))[1:3] == ["superseded", "superseded"]
    assert (await outcomes(desk)).count("void") == 1


async def test_change_that_the_database_refuses_keeps_no_other_and_is_not_overtaken(desk: Desk) -> None:
    bad, ana = await one_wishing(desk)
    good = await desk.channel(await desk.connection.fetchval("select tenant_id from zapwatch_channels"))
    await desk.connection.execute(
        f"alter table zapwatch_decisions add constraint refuses check (channel_id <> '{bad}')"
    )
    await desk.moves(bad, "unknown", "open")
    await desk.moves(good, "unknown", "open")

    deciding = asyncio.create_task(LoopRunner().run(desk.routing.loop()))
    await eventually(lambda: desk.connection.fetchval("select count(*) from zapwatch_messages"))
    deciding.cancel()
    await asyncio.wait([deciding])
    await desk.connection.execute("alter table zapwatch_decisions drop constraint refuses")
    await desk.moves(bad, "open", "error", version=2)
    await desk.tell()
    before = [item.channel_id for item in told(desk, "ana")]
    await desk.later(timedelta(minutes=2))
    await desk.tell()

    assert before == [good]
    assert states(told(desk, "ana"))[1:] == [("unknown", "error", 2)]
    assert await desk.whys(destination_id=ana) == ["state_changed", "state_changed"]


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ("update notification_channels set metadata = '{\"alerts_enabled\": false}'", "alerts_disabled"),
        ("update zapwatch_channels set paused_at = now()", "paused"),
        ("update notification_channels set is_active = false", "removed"),
        ("update zapwatch_channels set expires_at = expires_at + interval '30 days'", "over_before_told"),
        ("update zapwatch_changes set expires_at = now() - interval '1 day'", "over_before_told"),
    ],
)
async def test_end_of_a_subscription_is_not_told_of_a_channel_that_is_not_to_be(
    desk: Desk, change: str, why: str
) -> None:
    tenant = await desk.tenant()
    await desk.destination(tenant, "ana", "letters")
    channel = await desk.channel(tenant)

    await desk.expires(channel, datetime.now(UTC) + 2 * DAY)
    await desk.connection.execute(change)
    await desk.tell()

    assert desk.letters.told == []
    assert await desk.whys() == [why]


async def test_people_are_warned_and_programs_that_wish_it(desk: Desk) -> None:
    tenant = await desk.tenant()
    admin = await desk.member(tenant)
    await desk.destination(tenant, "people", "letters")
    await desk.destination(tenant, "ends alone", "letters", events=["incident.resolved"])
    await desk.destination(tenant, "program")
    await desk.destination(tenant, "wishing program", events=["channel.expiring"])
    await desk.destination(await desk.tenant(name="Outra"), "others", "letters")
    at = datetime.now(UTC) + 2 * DAY

    await desk.expires(await desk.channel(tenant), at)
    await desk.tell()

    assert [name for name, _ in desk.letters.told] == ["people"]
    ((name, message),) = desk.sink.told
    assert (name, message.items[0].expires_at) == ("wishing program", at)
    row = await desk.connection.fetchrow("select owner_id, type, ref_id, payload::text from notifications")
    assert row is not None
    assert (row["owner_id"], row["type"], row["ref_id"]) == (admin, "system_alert", None)
    assert "A assinatura da unidade Centro no gateway vence em 2 dias." in row["payload"]


async def test_warning_waits_for_the_end_of_maintenance(desk: Desk) -> None:
    tenant = await desk.tenant()
    await desk.destination(tenant, "ana", "letters")
    channel = await desk.channel(tenant)
    await desk.connection.execute(
        "insert into zapwatch_maintenance (ends_at) values (now() + interval '1 hour')"
    )

    await desk.expires(channel, datetime.now(UTC) + 2 * DAY)
    await desk.tell()
    held = len(desk.letters.told)
    await desk.connection.execute("delete from zapwatch_maintenance")
    await release_held_changes(desk.connection, datetime.now(UTC))
    await desk.tell()

    assert (held, len(desk.letters.told)) == (0, 1)
    assert [why for why in await desk.whys() if why != "no_recipients"] == ["maintenance", "expiring"]
