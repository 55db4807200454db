"""One message for one cause: what a gateway's incident caused is grouped for people, and not for programs."""

from datetime import UTC, datetime, timedelta

from db.alerts.alerts import release_held
from db.connection.types import Connection
from receiver.alerts.grouping.batching import GATHER
from receiver.alerts.notifiers.texts import text_of
from statemachine.model import State
from tests.receiver.alerts.desk import open_desk
from tests.receiver.alerts.host import Host, read, town
from tests.receiver.conftest import running_api


async def test_tenant_reads_once_of_all_its_channels_and_operators_no_later(host: Host) -> None:
    await town(host)
    await host.falls()
    await host.desk.tell()
    before = list(host.desk.letters.told)

    [first] = await host.opens("Um")
    await host.desk.tell()
    [second] = await host.opens("Dois")
    await host.desk.tell()
    await host.desk.later(timedelta(minutes=1))
    await host.desk.tell()

    assert before == []
    assert read(host.desk.letters.told, "ana") == ["3 of your 3 channels can't be reached"]
    assert read(host.desk.letters.told, "ops") == ["Gateway Casa is down"]
    assert host.desk.sink.events("prog") == ["incident.opened", "incident.opened"]
    programs = [message.items[0] for _, message in host.desk.sink.told]
    assert {(it.cause, it.gateway_incident_id) for it in programs} == {("gateway", host.incident)}
    rows = await host.desk.connection.fetch(
        "select id, notified_at is not null as told from whatsapp_connection_incidents"
    )
    assert {row["id"] for row in rows if row["told"]} == {first, second}
    whys = await host.desk.connection.fetch(
        "select d.why, d.message_id is not null as linked from zapwatch_decisions d "
        "join zapwatch_destinations o on o.id = d.destination_id and o.kind = 'letters' "
        "where d.incident_id is not null"
    )
    assert {(row["why"], row["linked"]) for row in whys} == {("caused_by_gateway", True)}


async def test_end_is_told_once_with_the_lost_ones_named(host: Host) -> None:
    await town(host)
    await host.falls(tell_after=0)
    await host.opens("Um", "Dois", "Três")
    await host.desk.tell()

    await host.returns()
    await host.back("Um", "Dois")
    await host.desk.later(timedelta(minutes=1))
    await host.desk.tell()
    settling = len(read(host.desk.letters.told, "ana"))
    await host.desk.connection.execute(
        "update zapwatch_gateway_incidents set resolved_at = resolved_at - interval '61 seconds', "
        "started_at = started_at - interval '10 minutes'"
    )
    await host.loses_cause("Três")
    await host.desk.tell()
    await host.desk.later(timedelta(minutes=1))
    await host.desk.tell()

    assert settling == 1
    ana = [message for to, message in host.desk.letters.told if to == "ana"]
    assert [text_of(message).subject for message in ana][1:] == ["2 channels are back, 1 is not back"]
    group = ana[1].items[0].group
    assert group is not None
    assert [channel.name for channel in group.channels] == ["Três"]
    ops = read(host.desk.letters.told, "ops")
    assert ops == [
        "Gateway Casa is down",
        "Gateway Casa is back",
        "WhatsApp of Três is still without connection",
    ]
    assert host.desk.sink.events("prog").count("incident.changed") == 1


async def test_logout_meanwhile_is_told_as_its_own_at_once(host: Host) -> None:
    await town(host)
    await host.falls(tell_after=0)
    await host.opens("Um", "Dois")
    await host.desk.tell()
    await host.desk.later(timedelta(minutes=1))

    await host.loses_cause("Dois", State.UNPAIRED, "logged_out")
    await host.desk.tell()
    await host.desk.later(timedelta(minutes=1))
    await host.desk.tell()

    for name in ("ana", "ops"):
        assert read(host.desk.letters.told, name)[1:] == ["WhatsApp of Dois lost its connection"]
    assert [message.items[0].needs_scan for _, message in host.desk.letters.told[2:]] == [True, True]


async def test_grouped_incidents_are_reminded_of_as_one_until_each_has_acknowledged_its_own(
    host: Host, dsn: str
) -> None:
    await town(host)
    await host.desk.connection.execute("update zapwatch_destinations set reminder_minutes = 10")
    await host.falls(tell_after=0)
    incidents = await host.opens("Um", "Dois", "Três")
    await host.desk.tell()
    await host.desk.later(timedelta(minutes=11))
    await host.desk.connection.execute("update zapwatch_gateways set tried_at = now(), failed_at = now()")
    await host.desk.tell()
    reminded = {name: read(host.desk.letters.told, name)[1:] for name in ("ana", "ops")}

    async with running_api(dsn) as api:
        for incident in (host.incident, *incidents):
            await api.client.post(f"/incidents/{incident}/ack")
    for _ in range(2):
        await host.desk.later(timedelta(days=1))
        await host.desk.tell()

    assert reminded == {
        "ana": ["3 of your 3 channels are still without connection"],
        "ops": ["Gateway Casa is still down"],
    }
    assert {name: len(read(host.desk.letters.told, name)) for name in reminded} == {"ana": 2, "ops": 2}


async def test_gateway_over_before_told_is_told_to_nobody(host: Host) -> None:
    await town(host)
    await host.falls()
    await host.returns()

    await host.desk.later(timedelta(minutes=1))
    await host.desk.tell()

    assert host.desk.letters.told == host.desk.sink.told == []


async def test_end_of_maintenance_elsewhere_tells_of_no_gateway_before_its_time(host: Host) -> None:
    await town(host)
    await host.falls()

    await release_held(host.desk.connection, datetime.now(UTC))
    await host.desk.tell()
    early = list(host.desk.letters.told)
    await host.desk.later(timedelta(seconds=31))
    await host.desk.tell()

    assert early == []
    assert read(host.desk.letters.told, "ops") == ["Gateway Casa is down"]


async def test_nothing_of_a_silent_gateway_is_told_before_it_was_tried(host: Host) -> None:
    await town(host)
    await host.falls(tell_after=0)
    await host.opens("Um")
    stale = "update zapwatch_gateways set tried_at = now() - $1::interval, failed_at = now() - $1::interval"
    await host.desk.connection.execute(stale, timedelta(hours=1))
    await host.desk.connection.execute(
        "update zapwatch_gateway_incidents set opened_at = opened_at - interval '1 hour'"
    )

    await host.desk.tell()
    held = list(host.desk.letters.told)
    await host.desk.connection.execute(stale, timedelta(0))
    await host.desk.later(timedelta(seconds=6))
    await host.desk.tell()

    assert held == []
    assert sorted(to for to, _ in host.desk.letters.told) == ["ana", "ops"]


async def test_change_of_an_open_incident_is_told_to_programs_alone(host: Host) -> None:
    await town(host)
    await host.desk.open(host.channels["Um"], "connecting", "connecting")
    await host.desk.tell()
    await host.desk.connection.execute("update whatsapp_connection_incidents set kind = 'qr_pending'")
    await host.desk.tell()
    await host.desk.tell()

    assert host.desk.sink.events("prog") == ["incident.opened", "incident.changed"]
    assert host.desk.sink.told[1][1].items[0].kind == "qr_pending"
    assert host.desk.letters.events("ana") == ["incident.opened"]


async def test_in_doubt_people_wait_at_most_fifteen_seconds_and_a_logout_never(host: Host) -> None:
    await town(host)
    await host.desk.connection.execute(
        "update zapwatch_gateways set failing_since = now(), failed_at = now(), failed = $1::uuid[]",
        [host.channels["Três"]],
    )
    await host.desk.open(host.channels["Um"], "error", "unreachable")
    await host.desk.connection.execute(
        "update zapwatch_states set state = $2, reason = 'logged_out' where channel_id = $1",
        host.channels["Dois"],
        State.UNPAIRED,
    )
    await host.desk.open(host.channels["Dois"], "disconnected", "logged_out")
    await host.desk.tell()
    at_once = [item.name for to, message in host.desk.letters.told if to == "ana" for item in message.items]
    programs = len(host.desk.sink.told)
    await host.desk.later(timedelta(seconds=16))
    await host.desk.tell()
    await host.desk.later(timedelta(seconds=31))
    await host.desk.tell()

    assert (at_once, programs) == (["Dois"], 2)
    names = [item.name for to, message in host.desk.letters.told if to == "ana" for item in message.items]
    assert names == ["Dois", "Um"]
    assert len(host.desk.sink.told) == 2


async def test_our_own_line_is_told_once_for_all_gateways(host: Host) -> None:
    await town(host)
    other = await host.desk.connection.fetchval(
        "insert into zapwatch_gateways (provider, base_url, name, state) "
        "values ('wapi', 'http://v.test', 'Dois', 'up') returning id"
    )
    second = Host(host.desk, other)
    for one in (host, second):
        await one.falls(tell_after=0, details='{"perhaps_offline": true}')

    await host.desk.tell()
    await host.desk.later(timedelta(seconds=20))
    await host.desk.tell()

    assert read(host.desk.letters.told, "ops") == ["Zapwatch may be offline: 2 gateways don't answer"]


async def test_reminder_of_a_refused_key_says_that_it_still_is(host: Host) -> None:
    await town(host)
    await host.desk.connection.execute("update zapwatch_destinations set reminder_minutes = 10")
    await host.falls("unauthorized", tell_after=0)
    await host.desk.tell()

    await host.desk.later(timedelta(minutes=11))
    await host.desk.tell()

    assert read(host.desk.letters.told, "ops") == [
        "Gateway Casa refuses the key",
        "Gateway Casa still refuses the key",
    ]


async def test_refused_key_is_the_operators_affair_unless_the_tenant_gave_it(host: Host) -> None:
    await town(host)
    await host.falls("unauthorized", tell_after=0)
    await host.desk.connection.execute(
        "update zapwatch_channels set put_by = 'tenant', api_key = '\\x00' where name = 'Dois'"
    )
    await host.opens("Um", "Dois")

    await host.desk.tell()

    assert [item.name for to, message in host.desk.letters.told if to == "ana" for item in message.items] == [
        "Dois"
    ]
    assert read(host.desk.letters.told, "ops") == ["Gateway Casa refuses the key"]


async def test_twelve_devices_that_are_unlinked_within_half_a_second_are_one_message(
    dsn: str, connection: Connection
) -> None:
    async with open_desk(dsn, connection, gather=GATHER) as desk:
        tenant = await desk.tenant(locale="en")
        await desk.destination(tenant, "ana", "letters")
        for n in range(12):
            began = datetime.now(UTC)
            await desk.open(await desk.channel(tenant, f"Loja {n}"))
            await desk.route()
            # However long that took here.
            await desk.later(timedelta(seconds=0.04) - (datetime.now(UTC) - began))
        at_once = await desk.dispatcher.send_due()
        await desk.later(GATHER)
        await desk.tell()

        assert not at_once
        assert read(desk.letters.told, "ana") == ["12 devices were unlinked"]


async def test_flapping_says_how_often_and_that_the_channel_is_connected_now(host: Host) -> None:
    await town(host)
    um = await host.desk.open(host.channels["Um"], reason="flapping")
    await host.desk.connection.execute(
        "update whatsapp_connection_incidents "
        """set details = details || '{"flapping": true, "departures": 5}' where id = $1""",
        um,
    )
    await host.desk.later(timedelta(minutes=1))
    await host.desk.tell()

    assert read(host.desk.letters.told, "ana") == [
        "WhatsApp of Um dropped 5 times within 30 minutes; it is connected now"
    ]


async def test_end_of_a_fault_of_a_channel_that_was_never_connected_promises_no_connection(
    host: Host,
) -> None:
    await town(host)
    um = await host.desk.open(host.channels["Um"], kind="error", reason="unauthorized")
    await host.desk.later(timedelta(minutes=1))
    await host.desk.tell()
    await host.desk.connection.execute(
        "update whatsapp_connection_incidents "
        """set details = details || '{"resolved_by": "never_connected"}' where id = $1""",
        um,
    )
    await host.desk.resolve(host.channels["Um"])
    await host.desk.later(timedelta(minutes=1))
    await host.desk.tell()

    assert read(host.desk.letters.told, "ana")[1:] == ["The fault of Um is over; it waits for its first scan"]


async def test_channel_named_at_the_end_is_reminded_of_and_its_return_is_told_to_its_people(
    host: Host,
) -> None:
    await town(host)
    await host.desk.connection.execute(
        "update zapwatch_destinations set reminder_minutes = 10 where name = 'ana'"
    )
    await host.falls(tell_after=0)
    await host.opens("Um", "Dois", "Três")
    await host.desk.tell()
    await host.returns()
    await host.back("Um", "Dois")
    await host.desk.connection.execute(
        "update zapwatch_gateway_incidents set resolved_at = resolved_at - interval '61 seconds'"
    )
    await host.desk.later(timedelta(minutes=1))
    await host.desk.tell()

    await host.loses_cause("Três")
    await host.desk.tell()
    await host.desk.later(timedelta(minutes=11))
    await host.desk.tell()
    await host.back("Três")
    await host.desk.later(timedelta(minutes=1))
    await host.desk.tell()
    await host.desk.later(timedelta(days=1))
    await host.desk.tell()

    assert read(host.desk.letters.told, "ana") == [
        "3 of your 3 channels can't be reached",
        "2 channels are back, 1 is not back",
        "WhatsApp of Três is still without connection",
        "WhatsApp of Três is connected again",
    ]


async def test_channel_named_at_the_end_that_returns_before_that_leaves_is_told_once(host: Host) -> None:
    await town(host)
    await host.falls(tell_after=0)
    await host.opens("Um", "Dois", "Três")
    await host.desk.tell()
    await host.returns()
    await host.back("Um", "Dois")
    await host.desk.connection.execute(
        "update zapwatch_gateway_incidents set resolved_at = resolved_at - interval '61 seconds'"
    )
    await host.loses_cause("Três")
    await host.desk.route()
    await host.back("Três")
    await host.desk.route()
    await host.desk.later(timedelta(minutes=1))
    await host.desk.tell()

    assert read(host.desk.letters.told, "ana") == [
        "3 of your 3 channels can't be reached",
        "3 of your 3 channels are connected again",
    ]


async def test_channels_that_were_never_connected_neither_count_nor_slow_the_end(host: Host) -> None:
    for tenant in (await town(host), await host.desk.tenant()):
        for n in range(4):
            await host.channel(tenant, f"Novo {n} {tenant}", has_been_open=False)

    await host.falls(tell_after=0)
    await host.opens("Um")
    await host.desk.tell()
    await host.returns()
    await host.back("Um", "Dois", "Três")
    await host.desk.later(timedelta(minutes=1))
    await host.desk.tell()

    assert read(host.desk.letters.told, "ana") == [
        "3 of your 3 channels can't be reached",
        "3 of your 3 channels are connected again",
    ]
    details = [
        text_of(message._replace(locale="en")).body for to, message in host.desk.letters.told if to == "ops"
    ]
    assert "1 tenant is affected." in details[0]
    assert ["3 channels are affected." in body for body in details] == [True, True]


async def test_alerts_of_a_channel_are_off_only_by_a_setting_of_its_own(host: Host) -> None:
    await town(host)
    settings = {"Um": '{"ui": {"alerts_enabled": false}}', "Dois": '{"alerts_enabled": false}'}
    for name, metadata in settings.items():
        await host.desk.connection.execute(
            "update notification_channels set metadata = $1::jsonb where id = $2",
            metadata,
            host.channels[name],
        )
    await host.falls(tell_after=0)
    await host.opens("Três")
    await host.desk.tell()

    assert read(host.desk.letters.told, "ana") == ["2 of your 3 channels can't be reached"]
