"""The first news leaves at once; what follows within half a minute leaves as one."""

from datetime import timedelta

from tests.receiver.alerts.desk import Desk

WINDOW = timedelta(seconds=30)


async def test_what_follows_the_first_within_the_window_leaves_as_one_second_message(desk: Desk) -> None:
    tenant = await desk.tenant()
    channels = [await desk.channel(tenant, f"Loja {n}") for n in range(5)]
    await desk.destination(tenant, "ana", "letters")

    for channel in channels:
        await desk.open(channel)
        await desk.tell()
    at_once = [len(message.items) for _, message in desk.letters.told]
    await desk.later(WINDOW)
    await desk.tell()

    assert at_once == [1]
    assert [len(message.items) for _, message in desk.letters.told] == [1, 4]
    assert [item.name for item in desk.letters.told[1][1].items] == [f"Loja {n}" for n in range(1, 5)]


async def test_news_after_the_window_leaves_at_once(desk: Desk) -> None:
    tenant = await desk.tenant()
    await desk.destination(tenant, "ana", "letters")
    await desk.open(await desk.channel(tenant))
    await desk.tell()
    await desk.later(WINDOW)

    await desk.open(await desk.channel(tenant, "Praia"))
    await desk.tell()

    assert [len(message.items) for _, message in desk.letters.told] == [1, 1]


async def test_a_program_gets_each_piece_of_news_as_a_message_of_its_own_and_at_once(desk: Desk) -> None:
    tenant = await desk.tenant()
    await desk.destination(tenant, "ana", "sink")

    for n in range(3):
        await desk.open(await desk.channel(tenant, f"Loja {n}"))
    await desk.tell()

    assert [len(message.items) for _, message in desk.sink.told] == [1, 1, 1]


async def test_what_is_over_before_its_message_leaves_is_told_to_nobody(desk: Desk) -> None:
    tenant = await desk.tenant()
    first, brief, lasting = [await desk.channel(tenant, name) for name in ("Um", "Breve", "Longo")]
    ana = await desk.destination(tenant, "ana", "letters")

    await desk.open(first)
    incident = await desk.open(brief)
    await desk.tell()
    await desk.resolve(brief)
    await desk.open(lasting)
    await desk.tell()
    await desk.later(WINDOW)
    await desk.tell()

    assert [[item.name for item in message.items] for _, message in desk.letters.told] == [["Um"], ["Longo"]]
    assert await desk.whys(destination_id=ana, incident_id=incident) == ["over_before_told"] * 2


async def test_a_message_with_nothing_left_to_tell_is_void(desk: Desk) -> None:
    tenant = await desk.tenant()
    first, brief = await desk.channel(tenant, "Um"), await desk.channel(tenant, "Breve")
    await desk.destination(tenant, "ana", "letters")
    await desk.open(first)
    await desk.open(brief)
    await desk.tell()

    await desk.resolve(brief)
    await desk.route()
    await desk.later(WINDOW)
    await desk.tell()

    outcomes = await desk.connection.fetch("select outcome from zapwatch_messages order by leaves_at")
    assert [row["outcome"] for row in outcomes] == ["delivered", "void"]
    assert len(desk.letters.told) == 1


async def test_what_began_and_ended_between_two_rounds_is_told_in_order_where_it_can_leave(
    desk: Desk,
) -> None:
    tenant = await desk.tenant()
    channel = await desk.channel(tenant)
    await desk.destination(tenant, "ana")
    await desk.destination(tenant, "carta", "letters")

    await desk.open(channel)
    await desk.resolve(channel)
    for _ in range(3):
        await desk.tell()
        await desk.later(WINDOW)

    assert desk.sink.events("ana") == ["incident.opened", "incident.resolved"]
    assert desk.letters.events("carta") == ["incident.opened", "incident.resolved"]
