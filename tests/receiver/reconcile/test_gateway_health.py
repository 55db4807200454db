"""One incident for one cause: gateways in trouble as a whole, seen by an operator over HTTP."""

import asyncio
from collections import Counter
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from db.connection.types import Connection
from receiver.jobs.loop import LoopRunner
from receiver.reconcile.gateway_answers import GatewayAnswers
from receiver.reconcile.gateway_health import GatewayHealth
from receiver.sandbox import Fault, open_fleet
from receiver.timings import Timings
from tests.support.service import served, time, zapwatch
from tests.support.soak import sized
from tests.support.story import Story, story

SOON: dict[str, Any] = {"metadata": {"heartbeat_threshold_minutes": 0.01}}
"""A channel whose own incident would open long before any of these stories ends."""
LATER: dict[str, Any] = {"metadata": {"heartbeat_threshold_minutes": 0.05}}
"""The same, with time for its gateway's verdict beforehand."""
BRISK: dict[str, Any] = {
    "verdict_within": timedelta(seconds=4),
    "gateway_settle": timedelta(seconds=2),
    "breaker_max": timedelta(seconds=1),
    "stale_after": timedelta(seconds=3),
    "retry_after": timedelta(seconds=0.2),
    "probe_timeout": timedelta(seconds=1),
}


async def fill(told: Story, host: Any, count: int, **more: Any) -> dict[str, Any]:
    """Register so many channels of a host and return each one's instance by id, once all are open."""
    instances = [host.add(f"loja-{n:04}") for n in range(count)]
    ids = [await told.watch(host, instance, state=None, **{**SOON, **more}) for instance in instances]
    for id in ids:
        await told.becomes(id, "open")
    return dict(zip(ids, instances, strict=True))


async def gateway(told: Story, host: Any) -> Any:
    """Return what an operator sees of a host."""
    items = (await told.z.get("/gateways", limit="500"))["items"]
    return next(item for item in items if item["base_url"] == host.url)


async def goes(told: Story, host: Any, state: str) -> Any:
    """Return the gateway once it is in this state."""
    return await told.z.until(lambda: gateway(told, host), lambda it: it["state"] == state, within=40)


async def alerts(connection: Connection) -> list[tuple[str, bool]]:
    """Return of what operators and tenants are told: the kind, and whether it is about a gateway."""
    rows = await connection.fetch(
        "select kind, incident_id is null as whole from zapwatch_alerts order by id"
    )
    return [(row["kind"], row["whole"]) for row in rows]


def cause(incident: Any) -> tuple[Any, Any]:
    """Return what an incident of a channel says of its cause."""
    return incident["details"].get("cause"), incident["details"].get("gateway_incident_id")


async def caused(told: Story, ids: Any, gateway_incident_id: Any) -> list[Any]:
    """Return the incidents of these channels, and no other, once each is open and names the gateway's."""
    wanted = {("gateway", gateway_incident_id)}
    incidents = await told.z.until(
        told.all_incidents, lambda found: len(found) == len(ids) and set(map(cause, found)) == wanted, 40
    )
    assert {it["channel_id"] for it in incidents} == set(ids)
    return list(incidents)


@pytest.mark.parametrize("fault", [Fault.HANG, Fault.REFUSED, Fault.UNAVAILABLE, Fault.RESET])
async def test_a_dead_host_is_an_incident_of_its_own_and_the_cause_of_its_channels(
    dsn: str, connection: Connection, fault: Fault
) -> None:
    async with story(dsn, **BRISK) as told:
        host = await told.fleet.evolution()
        channels = await fill(told, host, 12, **LATER)
        assert (await goes(told, host, "up"))["incident"] is None

        host.fault = fault
        down = await goes(told, host, "down")
        kind = "unavailable" if fault is Fault.UNAVAILABLE else "unreachable"
        for id in channels:
            await told.becomes(id, "error", f"gateway_{kind}")
        await caused(told, channels, down["incident"]["id"])
        metrics = (await told.z.client.get("/metrics")).text
        host.fault = None
        up = await goes(told, host, "up")

        assert (down["incident"]["affected"], down["incident"]["cause"]) == (12, kind)
        assert up["incident"] is None
        assert 'zapwatch_gateways{state="down"} 1.0' in metrics
        assert "zapwatch_gateway_incidents_open 1.0" in metrics
        for id in channels:
            await told.becomes(id, "open")
        assert await told.open_incidents() == {}


async def imported(told: Story, host: Any, count: int, minutes: float = 0.01) -> list[Any]:
    """Register a host with so many channels, which nobody tells us of, and return them once all are open."""
    instances = [host.add(f"loja-{n:04}") for n in range(count)]
    wishes = {"name": "Lojas", "defaults": {"heartbeat_threshold_minutes": minutes}}
    tenant = (await told.z.client.post("/tenants", json=wishes)).json()["id"]
    body = {"provider": "evolution_api", "base_url": host.url, "api_key": host.key}
    id = (await told.z.client.post("/gateways", json=body)).json()["id"]
    answer = await told.z.client.post(f"/gateways/{id}/import", params={"tenant_id": tenant})
    assert answer.status_code == 202, answer.text
    await all_open(told, host, count)
    return instances


async def all_open(told: Story, host: Any, count: int) -> None:
    """Wait until so many channels of a host are open, and no other is there."""
    await told.z.until(lambda: gateway(told, host), lambda it: it["channels"] == {"open": count}, within=60)


async def asked_again(told: Story, instances: list[Any]) -> None:
    """Wait until every one of them was asked about once more."""
    before = [len(it.probed) for it in instances]

    async def unasked() -> int:
        return sum(len(it.probed) <= then for it, then in zip(instances, before, strict=True))

    await told.z.until(unasked, lambda left: left == 0, within=60)


def since(told: Any) -> datetime:
    """Return since when a gateway is in its state."""
    return time(told["since"])


MANY = sized(200, 2000)
"""Channels of a host that dies."""
MINUTE = timedelta(seconds=sized(0.5, 1))
"""What is a minute to them."""


@pytest.mark.soak
@pytest.mark.parametrize("others", [0, 2], ids=["known alone", "known with others"])
async def test_many_channels_of_a_host_that_is_dead_for_ten_minutes(
    dsn: str, connection: Connection, others: int
) -> None:
    settings = {**BRISK, "stale_after": 10 * MINUTE, "gateway_settle": 10 * MINUTE}
    async with story(dsn, speed=timedelta(minutes=1) / MINUTE, **settings) as told:
        for _ in range(others):
            await imported(told, await told.fleet.evolution(), 2)
        host = await told.fleet.evolution()
        instances = await imported(told, host, MANY)

        host.fault = Fault.HANG
        down = await goes(told, host, "down")
        before = sum(len(it.probed) for it in instances)
        await told.fleet.pause(600)
        during = sum(len(it.probed) for it in instances) - before
        host.most_at_once = 0
        host.fault = None
        await goes(told, host, "up")
        await asked_again(told, instances)
        await all_open(told, host, MANY)

        assert down["incident"]["affected"] == MANY
        assert during <= 30
        assert host.most_at_once <= 30
        assert not any(it.ordered for it in instances)
        assert await told.all_incidents() == []
        assert await alerts(connection) == [("opened", True), ("resolved", True)]


async def test_of_a_host_that_is_back_only_the_lost_channels_have_incidents(
    dsn: str, connection: Connection
) -> None:
    settings = {**BRISK, "gateway_settle": timedelta(seconds=5), "probe_timeout": timedelta(seconds=8)}
    async with story(dsn, **settings) as told:
        host = await told.fleet.evolution()
        instances = await imported(told, host, 80)

        host.fault = Fault.REFUSED
        await goes(told, host, "down")
        for instance in instances[:30]:
            instance.vanish()
        host.fault = None
        up = await goes(told, host, "up")
        incidents = await told.z.until(told.all_incidents, lambda found: len(found) == 30, within=60)

        settled_at = since(up) + settings["gateway_settle"]
        assert min(time(it["opened_at"]) for it in incidents) >= settled_at
        assert {it["kind"] for it in incidents} == {"disconnected"}
        assert (await gateway(told, host))["channels"] == {"open": 50, "disconnected": 30}
        assert Counter(await alerts(connection)) == {
            ("opened", True): 1,
            ("resolved", True): 1,
            ("opened", False): 30,
        }


async def test_when_no_gateway_answers_nobody_is_blamed_at_first_and_then_all_are_told_of(
    dsn: str, connection: Connection
) -> None:
    settings = {**BRISK, "offline_for": timedelta(seconds=5)}
    async with story(dsn, **settings) as told:
        hosts = [await told.fleet.evolution() for _ in range(3)]
        channels = [id for host in hosts for id in await fill(told, host, 3)]

        cut_at = datetime.now(UTC)
        for host in hosts:
            host.fault = Fault.HANG
        for id in channels:
            await told.becomes(id, "error", "unreachable")
        down = [await goes(told, host, "down") for host in hosts]

        assert min(map(since, down)) >= cut_at + settings["offline_for"]
        assert await told.all_incidents() == []
        rows = await connection.fetch("select details::text as details from zapwatch_gateway_incidents")
        assert [row["details"] for row in rows] == 3 * ['{"perhaps_offline": true}']


async def test_when_the_network_is_back_in_time_nobody_is_told_of_anything(
    dsn: str, connection: Connection
) -> None:
    async with story(dsn, **BRISK) as told:
        hosts = [await told.fleet.evolution() for _ in range(3)]
        channels = [id for host in hosts for id in await fill(told, host, 3)]

        for host in hosts:
            host.fault = Fault.HANG
        for id in channels:
            await told.becomes(id, "error", "unreachable")
        for host in hosts:
            host.fault = None
        for id in channels:
            await told.becomes(id, "open")

        assert await told.all_incidents() == []
        assert await alerts(connection) == []


async def test_one_host_of_three_is_blamed_at_once(dsn: str) -> None:
    async with story(dsn, **BRISK) as told:
        hosts = [await told.fleet.evolution() for _ in range(3)]
        for host in hosts:
            await fill(told, host, 3)

        hosts[0].fault = Fault.HANG

        down = await goes(told, hosts[0], "down")
        assert down["incident"]["cause"] == "unreachable"
        assert [(await gateway(told, host))["state"] for host in hosts[1:]] == ["up", "up"]


async def test_gateway_that_can_not_be_judged_keeps_no_other_from_it(
    dsn: str, admin: Connection, caplog: pytest.LogCaptureFixture
) -> None:
    async with story(dsn, **BRISK) as told:
        odd, host, other = [await told.fleet.evolution() for _ in range(3)]
        for one in (odd, host, other):
            await fill(told, one, 2)
            await goes(told, one, "up")
        await admin.execute(
            f"alter table zapwatch_gateways add constraint refused check"
            f" (base_url <> '{odd.url}' or failing_since is null) not valid"
        )

        odd.fault = Fault.REFUSED
        await told.z.until(lambda: said(caplog), lambda text: "can't be evaluated, and is delayed" in text)
        host.fault = Fault.REFUSED

        assert (await goes(told, host, "down"))["incident"]["cause"] == "unreachable"
        assert (await gateway(told, odd))["state"] == "up"


async def said(caplog: pytest.LogCaptureFixture) -> str:
    return caplog.text


async def test_an_address_that_answers_proves_that_we_are_online(dsn: str, connection: Connection) -> None:
    async with open_fleet() as elsewhere:
        proof = await elsewhere.twilio()
        async with story(dsn, **BRISK, connectivity_url=proof.url) as told:
            hosts = [await told.fleet.evolution() for _ in range(3)]
            for host in hosts:
                await fill(told, host, 1)

            for host in hosts:
                host.fault = Fault.HANG
            for host in hosts:
                await goes(told, host, "down")

            rows = await connection.fetch("select details::text as details from zapwatch_gateway_incidents")
            assert [row["details"] for row in rows] == 3 * ["{}"]


async def test_an_address_that_gives_no_answer_raises_the_doubt_for_a_single_gateway(
    dsn: str, silent_gateway: str
) -> None:
    settings = {**BRISK, "offline_for": timedelta(seconds=5)}
    async with story(dsn, **settings, connectivity_url=silent_gateway) as told:
        host = await told.fleet.evolution()
        await fill(told, host, 5)

        cut_at = datetime.now(UTC)
        host.fault = Fault.HANG

        assert since(await goes(told, host, "down")) >= cut_at + settings["offline_for"]
        assert await told.all_incidents() == []


UNASKED: dict[str, Any] = {**BRISK, "stale_after": timedelta(hours=1), "retry_after": timedelta(hours=1)}
"""Settings under which channels are only heard of."""


async def test_a_mass_loss_that_webhooks_tell_is_one_incident(dsn: str, connection: Connection) -> None:
    settings = {**UNASKED, "gateway_settle": timedelta(seconds=4)}
    async with story(dsn, **settings) as told:
        host = await told.fleet.evolution()
        channels = await fill(told, host, 10)

        lost = dict(list(channels.items())[:6])
        for instance in lost.values():
            instance.unlink()
        down = await goes(told, host, "down")
        assert await told.all_incidents() == []
        await told.z.until(lambda: gateway(told, host), lambda it: it["incident"]["affected"] == 6)
        await goes(told, host, "up")
        incidents = await told.z.until(told.all_incidents, lambda found: len(found) == 6, within=40)

        assert down["incident"]["cause"] == "mass_loss"
        assert {it["channel_id"] for it in incidents} == set(lost)
        assert (await alerts(connection))[:2] == [("opened", True), ("resolved", True)]


async def test_channels_that_come_back_together_have_no_incidents(dsn: str, connection: Connection) -> None:
    async with story(dsn, **UNASKED) as told:
        host = await told.fleet.evolution()
        channels = await fill(told, host, 10)

        for instance in channels.values():
            instance.drop(None)
        await goes(told, host, "down")
        for instance in channels.values():
            instance.connect()
        await goes(told, host, "up")

        await all_open(told, host, 10)
        assert await told.all_incidents() == []
        assert await alerts(connection) == [("opened", True), ("resolved", True)]


async def test_nothing_is_restarted_while_the_gateways_incident_stands(dsn: str) -> None:
    settings = {**UNASKED, "gateway_settle": timedelta(minutes=1), "recovery_speed": 20}
    async with story(dsn, **settings) as told:
        host = await told.fleet.evolution()
        channels = await fill(told, host, 10)

        for instance in channels.values():
            instance.drop(None)
        await goes(told, host, "down")
        await told.fleet.pause(600)
        refused = await told.z.client.post(f"/channels/{next(iter(channels))}/restart")

        assert [instance.ordered for instance in channels.values()] == [[]] * 10
        assert (refused.status_code, refused.json()["detail"]) == (409, "Its whole gateway is in trouble.")


async def test_channels_that_flap_together_are_one_incident(dsn: str, connection: Connection) -> None:
    async with story(dsn, **UNASKED) as told:
        host = await told.fleet.evolution()
        channels = await fill(told, host, 10)

        await asyncio.gather(*(instance.flap(8, gap=20) for instance in channels.values()))
        await told.fleet.said()
        down = await goes(told, host, "down")
        await goes(told, host, "up")

        assert down["incident"]["cause"] == "mass_loss"
        assert await told.all_incidents() == []
        assert (await alerts(connection)).count(("opened", True)) == 1


async def test_two_replicas_open_one_incident(dsn: str, connection: Connection) -> None:
    async with story(dsn, **BRISK) as told, served(dsn, **BRISK) as other:
        host = await told.fleet.evolution()
        await fill(told, host, 12, **LATER)

        host.fault = Fault.REFUSED
        await goes(told, host, "down")
        await goes(Story(other, told.fleet), host, "down")
        await told.z.until(lambda: connection.fetchval(HELD), lambda held: held)
        host.fault = None
        await goes(told, host, "up")

        assert await told.all_incidents() == []
        assert await alerts(connection) == [("opened", True), ("resolved", True)]


async def test_a_lone_channels_loss_waits_for_nobody(dsn: str) -> None:
    settings = {**UNASKED, "verdict_within": timedelta(minutes=5)}
    async with story(dsn, **settings) as told:
        host = await told.fleet.evolution()
        channels = await fill(told, host, 10)
        lost, instance = next(iter(channels.items()))

        instance.unlink()

        assert (await told.z.incident(lost))["kind"] == "disconnected"


async def test_a_loss_beside_others_waits_for_the_verdict_and_no_longer(dsn: str) -> None:
    settings = {**UNASKED, "verdict_within": timedelta(seconds=4)}
    async with story(dsn, **settings) as told:
        host = await told.fleet.evolution()
        channels = await fill(told, host, 10)
        lost = list(channels)[:2]

        for id in lost:
            channels[id].unlink()
        for id in lost:
            await told.z.incident(id)

        for incident in await told.all_incidents():
            assert time(incident["opened_at"]) - time(incident["started_at"]) >= timedelta(seconds=3)
        assert (await gateway(told, host))["state"] == "up"


async def test_a_verdict_that_is_wanted_at_once_has_nobody_look_without_a_pause(dsn: str) -> None:
    looks = 0

    class Counting(GatewayHealth):
        async def evaluate_due(self) -> bool:
            nonlocal looks
            looks += 1
            return await super().evaluate_due()

    async with zapwatch(dsn) as z:
        app, timings = z.app, Timings(verdict_within=timedelta(0))
        answers = GatewayAnswers(timings.offline_for)
        looking = Counting(app.pool, app.writer, app.prober, app.client, answers, app.settings, timings)
        with suppress(TimeoutError):
            async with asyncio.timeout(0.5):
                await LoopRunner().run(looking.loop())

    assert 1 <= looks <= 6
