"""What is held is decided for people when it may be, for programs at once, and seldom in between."""

from datetime import timedelta

from receiver.alerts.message import DeliveryResult
from tests.receiver.alerts.host import Host, read, town

SETTLE = timedelta(seconds=60)
STILL_DOWN = "WhatsApp of Um is still without connection"
REFUSED = DeliveryResult(False, permanent=True, status=400)


async def returned(host: Host, *, settles: bool = True) -> None:
    """Have all be told of a gateway, and that it is back, which its first channel isn't."""
    await town(host)
    await host.falls(tell_after=0)
    await host.opens("Um")
    await host.desk.tell()
    await host.desk.later(timedelta(minutes=1))
    await host.returns()
    await host.settles(SETTLE if settles else None)
    await host.back("Dois", "Três")


async def settled(host: Host) -> None:
    """Let the gateway have settled, and be told what is to be told then."""
    await host.settles(None)
    await host.desk.connection.execute(
        "update zapwatch_gateway_incidents set resolved_at = resolved_at - $1::interval, "
        "started_at = started_at - $1::interval",
        SETTLE,
    )
    for _ in range(2):
        await host.desk.later(2 * SETTLE)
        await host.desk.tell()


async def test_change_after_the_loss_of_the_cause_leaves_the_incident_to_be_told_after_settling(
    host: Host,
) -> None:
    await returned(host)

    await host.loses_cause("Um", "disconnected/dropped", "connection_closed")
    await host.desk.tell()
    await host.loses_cause("Um", "connecting", "connecting")
    for _ in range(3):
        await host.desk.later(timedelta(seconds=1))
        await host.desk.tell()
    while_settling = read(host.desk.letters.told, "ops").count(STILL_DOWN)
    await settled(host)

    assert while_settling == 0
    assert read(host.desk.letters.told, "ops").count(STILL_DOWN) == 1
    assert read(host.desk.letters.told, "ana")[1:] == ["2 channels are back, 1 is not back"]


async def test_change_beside_the_loss_of_the_cause_is_told_as_what_stays_down(host: Host) -> None:
    await returned(host, settles=False)

    await host.loses_cause("Um", "disconnected/dropped", "connection_closed")
    await host.loses_cause("Um", "connecting", "connecting")
    await settled(host)

    assert read(host.desk.letters.told, "ops").count(STILL_DOWN) == 1
    assert read(host.desk.letters.told, "ana")[1:] == ["2 channels are back, 1 is not back"]
    assert host.desk.sink.events("prog").count("incident.changed") == 1


async def test_logout_after_the_loss_of_the_cause_is_told_at_once(host: Host) -> None:
    await returned(host)

    await host.loses_cause("Um", "disconnected/dropped", "connection_closed")
    await host.desk.tell()
    await host.loses_cause("Um", "disconnected/unpaired", "logged_out")
    await host.desk.later(timedelta(seconds=31))
    await host.desk.tell()

    for name in ("ana", "ops"):
        assert "WhatsApp of Um lost its connection" in read(host.desk.letters.told, name)


async def test_programs_are_told_of_a_change_while_the_gateway_settles_and_once(host: Host) -> None:
    await returned(host)

    await host.loses_cause("Um", "disconnected/dropped", "connection_closed")
    await host.desk.tell()
    at_once = host.desk.sink.events("prog").count("incident.changed")
    await settled(host)

    assert at_once == 1
    assert host.desk.sink.events("prog").count("incident.changed") == 1


async def test_what_waits_for_the_gateway_to_settle_is_not_decided_again_before(host: Host) -> None:
    await returned(host)
    await host.loses_cause("Um", "disconnected/dropped", "connection_closed")
    await host.desk.tell()

    decided = 0
    for _ in range(10):
        await host.desk.later(timedelta(seconds=1))
        decided += await host.desk.routing.route_due()

    assert decided == 0


async def in_doubt(host: Host) -> None:
    """Open the incident of a channel beside another that goes unanswered."""
    await host.desk.connection.execute(
        "update zapwatch_gateways set failing_since = now(), failed_at = now(), failed = $1::uuid[]",
        [host.channels["Três"]],
    )
    await host.desk.open(host.channels["Um"], "error", "unreachable")


async def test_doubt_is_looked_at_a_few_times_alone(host: Host) -> None:
    await town(host)
    await in_doubt(host)

    decided = 0
    for _ in range(15):
        decided += await host.desk.routing.route_due()
        await host.desk.later(timedelta(seconds=1))

    assert decided <= 5


async def test_end_of_the_doubt_by_a_cause_or_a_logout_is_told_at_once(host: Host) -> None:
    await town(host)
    await in_doubt(host)
    await host.desk.later(timedelta(seconds=7))
    await host.desk.tell()

    await host.loses_cause("Um", "disconnected/unpaired", "logged_out")
    await host.desk.tell()

    for name in ("ana", "ops"):
        assert read(host.desk.letters.told, name) == ["WhatsApp of Um lost its connection"]


async def test_program_that_refuses_an_opening_is_sent_it_once_while_people_wait(host: Host) -> None:
    await town(host)
    host.desk.sink.answers["prog"] = [REFUSED] * 9
    await in_doubt(host)

    for _ in range(9):
        await host.desk.tell()
        await host.desk.later(timedelta(seconds=2))

    assert host.desk.sink.events("prog") == ["incident.opened"]
    assert read(host.desk.letters.told, "ana") == ["WhatsApp of Um lost its connection"]
    assert "nobody" not in await host.desk.whys()


async def test_destination_that_refuses_messages_is_sent_each_gateway_once_while_we_are_offline(
    host: Host,
) -> None:
    await town(host)
    await host.desk.destination(None, "gone", "letters", events=["gateway.opened"])
    host.desk.letters.answers["gone"] = [REFUSED] * 9
    other = await host.desk.connection.fetchval(
        "insert into zapwatch_gateways (provider, base_url, name, state) "
        "values ('wapi', 'http://v.test', 'Dois', 'up') returning id"
    )
    for one in (host, Host(host.desk, other)):
        await one.falls(tell_after=0, details='{"perhaps_offline": true}')

    for _ in range(6):
        await host.desk.tell()
        await host.desk.later(timedelta(seconds=31))
        await host.desk.connection.execute("update zapwatch_gateways set tried_at = now(), failed_at = now()")

    assert len(read(host.desk.letters.told, "gone")) <= 2
    assert len(read(host.desk.letters.told, "ops")) == 1


async def test_operators_are_told_no_later_than_the_first_of_very_many(host: Host) -> None:
    tenant = await town(host)
    names = [f"Loja {n}" for n in range(500)]
    for name in names:
        await host.channel(tenant, name)
    await host.falls()
    await host.opens(*names)

    await host.desk.routing.route_due()
    await host.desk.dispatch()

    assert read(host.desk.letters.told, "ana") == ["503 of your 503 channels can't be reached"]
    assert read(host.desk.letters.told, "ops") == ["Gateway Casa is down"]


async def test_nothing_of_a_mass_loss_is_told_on_old_rows_while_a_probe_may_be_answered(host: Host) -> None:
    await town(host)
    await host.falls("mass_loss", tell_after=0)
    await host.opens("Um")
    await host.desk.connection.execute("update zapwatch_states set probe_due_at = now()")
    await host.desk.connection.execute(
        "update zapwatch_gateway_incidents set opened_at = opened_at - interval '1 hour'"
    )
    tried = "update zapwatch_gateways set tried_at = now() - $1::interval, failed_at = null, state = 'up'"
    await host.desk.connection.execute(tried, timedelta(hours=1))

    await host.desk.tell()
    held = list(host.desk.letters.told)
    await host.desk.connection.execute(tried, timedelta(0))
    await host.desk.later(timedelta(seconds=6))
    await host.desk.tell()

    assert held == []
    assert sorted(to for to, _ in host.desk.letters.told) == ["ana", "ops"]


async def test_mass_loss_of_channels_that_can_not_be_probed_is_told(host: Host) -> None:
    await town(host)
    await host.falls("mass_loss", tell_after=0)
    await host.desk.connection.execute(
        "update zapwatch_gateway_incidents set opened_at = opened_at - interval '1 hour'"
    )
    await host.desk.connection.execute(
        "update zapwatch_gateways set tried_at = now() - interval '1 hour', failed_at = null, state = 'up'"
    )

    await host.desk.tell()

    assert [to for to, _ in host.desk.letters.told] == ["ops"]
