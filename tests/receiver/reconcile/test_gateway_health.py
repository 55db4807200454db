"""One incident for one cause: gateways in trouble as a whole, seen by an operator over HTTP."""

import asyncio
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest

from db.connection.types import Connection
from receiver.jobs.loop import LoopRunner
from receiver.reconcile.gateway_answers import GatewayAnswers
from receiver.reconcile.gateway_health import GatewayHealth
from receiver.reconcile.gateways.refused_keys import RefusedKeys
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
        assert await told.open_incidents() == {}
        assert [one for one in await alerts(connection) if one[1]] == [("opened", True), ("resolved", True)]


async def test_of_a_host_that_is_back_only_the_lost_channels_stay_down_and_lose_the_cause(
    dsn: str, connection: Connection
) -> None:
    settings = {**BRISK, "gateway_settle": timedelta(seconds=4), "probe_timeout": timedelta(seconds=8)}
    async with story(dsn, **settings) as told:
        host = await told.fleet.evolution()
        instances = await imported(told, host, 40)

        host.fault = Fault.REFUSED
        down = await goes(told, host, "down")
        ids = [it["channel_id"] for it in (await told.z.get("/channels", limit="500"))["items"]]
        await caused(told, ids, down["incident"]["id"])
        for instance in instances[:15]:
            instance.vanish()
        host.fault = None
        await goes(told, host, "up")
        left = await told.z.until(
            told.open_incidents,
            lambda found: [it["kind"] for it in found.values()] == 15 * ["disconnected"],
            60,
        )

        assert set(map(cause, left.values())) == {(None, None)}
        assert (await gateway(told, host))["channels"] == {"open": 25, "disconnected": 15}


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
        down = [await goes(told, host, "down") for host in hosts]
        for id in channels:
            await told.becomes(id, "error", "gateway_unreachable")

        assert min(map(since, down)) >= cut_at + settings["offline_for"]
        rows = await connection.fetch("select details::text as details from zapwatch_gateway_incidents")
        assert [row["details"] for row in rows] == 3 * ['{"perhaps_offline": true}']


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


UNASKED: dict[str, Any] = {
    **BRISK,
    "stale_after": timedelta(hours=1),
    "retry_after": timedelta(hours=1),
    "away_for": timedelta(seconds=1),
}
"""Settings under which channels are only heard of, and a mass loss is soon one."""
LOST: dict[str, Any] = {"metadata": {"heartbeat_threshold_minutes": 0.05}}


async def trouble(told: Story, host: Any) -> Any:
    """Return the gateway once it has an incident."""
    return await told.z.until(lambda: gateway(told, host), lambda it: it["incident"] is not None, within=40)


async def calm(told: Story, host: Any) -> Any:
    """Return the gateway once it has no incident."""
    return await told.z.until(lambda: gateway(told, host), lambda it: it["incident"] is None, within=40)


async def test_a_mass_loss_lasts_while_its_channels_are_away_and_is_the_cause_of_their_incidents(
    dsn: str,
) -> None:
    async with story(dsn, **UNASKED) as told:
        host = await told.fleet.evolution()
        channels = await fill(told, host, 10, **LOST)
        lost = list(channels)[:6]
        alone = list(channels)[9]
        channels[alone].unlink()
        await told.z.incident(alone)

        for id in lost:
            channels[id].drop(None)
        found = await trouble(told, host)
        incidents = await told.z.until(
            told.open_incidents,
            lambda them: set(them) == {*lost, alone} and all(cause(them[id])[0] for id in lost),
        )
        for id in lost[:3]:
            channels[id].connect()
        settling = await gateway(told, host)
        over = await calm(told, host)
        left = await told.z.until(told.open_incidents, lambda them: set(them) == {*lost[3:], alone})

        assert (found["state"], found["incident"]["cause"]) == ("up", "mass_loss")
        assert found["incident"]["affected"] == 6
        assert {cause(incidents[id]) for id in lost} == {("gateway", found["incident"]["id"])}
        assert cause(incidents[alone]) == (None, None)
        assert settling["incident"] is not None
        assert over["state"] == "up"
        assert {cause(it) for it in left.values()} == {(None, None)}


async def test_channels_that_blink_together_are_no_incident(dsn: str, connection: Connection) -> None:
    signals = "select count(*) from zapwatch_events where name = 'left_together'"
    async with story(dsn, **{**UNASKED, "away_for": timedelta(seconds=3)}) as told:
        host = await told.fleet.evolution()
        channels = await fill(told, host, 10, metadata={"heartbeat_threshold_minutes": 0.2})

        for instance in channels.values():
            instance.drop(None)
        for instance in channels.values():
            instance.connect()

        await told.z.until(lambda: connection.fetchval(signals), lambda count: count == 10)
        await all_open(told, host, 10)
        assert (await gateway(told, host))["incident"] is None
        assert await told.all_incidents() == []
        assert await alerts(connection) == []


async def test_channels_unlinked_together_are_no_incident_of_their_gateway(dsn: str) -> None:
    async with story(dsn, **UNASKED) as told:
        host = await told.fleet.evolution()
        channels = await fill(told, host, 12)

        for instance in channels.values():
            instance.unlink()
        incidents = await told.z.until(told.open_incidents, lambda found: len(found) == 12, within=40)

        assert {cause(it) for it in incidents.values()} == {(None, None)}
        assert (await gateway(told, host))["incident"] is None


async def test_a_second_mass_loss_is_treated_as_the_first(dsn: str, connection: Connection) -> None:
    settings = {**UNASKED, "gateway_settle": timedelta(seconds=1)}
    async with story(dsn, **settings) as told:
        host = await told.fleet.evolution()
        channels = await fill(told, host, 8, **LOST)

        seen = []
        for _ in range(2):
            for instance in channels.values():
                instance.drop(None)
            seen.append((await trouble(told, host))["incident"]["id"])
            await told.z.until(
                told.open_incidents,
                lambda found: {cause(it) for it in found.values()} == {("gateway", seen[-1])},
            )
            for instance in channels.values():
                instance.connect()
            await calm(told, host)

        assert len(set(seen)) == 2
        await told.z.until(told.open_incidents, lambda found: found == {})


async def test_what_a_tenant_put_there_makes_no_mass_loss_of_an_operators_gateway(
    dsn: str, connection: Connection
) -> None:
    async with story(dsn, **UNASKED) as told:
        host = await told.fleet.evolution()
        channels = await fill(told, host, 12)
        invented, *others = [list(channels)[:6], list(channels)[6:]]
        await connection.execute(
            "update zapwatch_channels set put_by = 'tenant' where channel_id = any ($1::uuid[])", invented
        )

        for id in invented:
            channels[id].drop(None)
        incidents = await told.z.until(told.open_incidents, lambda found: set(found) == set(invented), 40)

        assert (await gateway(told, host))["incident"] is None
        assert {cause(it) for it in incidents.values()} == {(None, None)}
        assert others


async def test_refused_keys_are_one_incident_that_ends_when_one_is_accepted(dsn: str) -> None:
    settings = {**BRISK, "stale_after": timedelta(seconds=1)}
    async with story(dsn, **settings) as told:
        host = await told.fleet.evolution()
        channels = await fill(told, host, 4, **SOON)

        keys = {instance: instance.key for instance in channels.values()}
        for instance in keys:
            instance.key = "another"
        found = await trouble(told, host)
        for id in channels:
            await told.becomes(id, "error", "unauthorized")
        await caused(told, channels, found["incident"]["id"])
        for instance, key in keys.items():
            instance.key = key
        await calm(told, host)

        assert (found["state"], found["incident"]["cause"]) == ("up", "unauthorized")
        for id in channels:
            await told.becomes(id, "open")


async def test_refused_key_of_a_gateway_is_its_incident_beside_channels_whose_own_keys_work(
    dsn: str,
) -> None:
    settings = {**BRISK, "stale_after": timedelta(seconds=1)}
    async with story(dsn, **settings) as told:
        host = await told.fleet.evolution(exposes_key=False)
        await imported(told, host, 3)
        keyed = [host.add(f"propria-{n}") for n in range(3)]
        ids = [await told.watch(host, instance, state=None, **SOON) for instance in keyed]
        await all_open(told, host, 6)

        key, host.key = host.key, "another"
        found = await trouble(told, host)
        await asked_again(told, keyed)
        await asked_again(told, keyed)
        still = await gateway(told, host)
        states = [(await told.z.get(f"/channels/{id}/state"))["state"] for id in ids]
        host.key = key
        await calm(told, host)
        await all_open(told, host, 6)

        assert (found["state"], found["incident"]["cause"]) == ("up", "unauthorized")
        assert still["incident"]["id"] == found["incident"]["id"]
        assert states == 3 * ["open"]


async def test_a_host_that_falls_again_and_again_keeps_one_incident_until_it_is_stable(
    dsn: str, connection: Connection
) -> None:
    settings = {
        **BRISK,
        "gateway_flaps_within": timedelta(hours=1),
        "gateway_stable_for": timedelta(seconds=6),
    }
    async with story(dsn, **settings) as told:
        host = await told.fleet.evolution()
        await fill(told, host, 3, metadata={"heartbeat_threshold_minutes": 5})

        seen = []
        for _ in range(4):
            host.fault = Fault.REFUSED
            seen.append((await goes(told, host, "down"))["incident"]["id"])
            host.fault = None
            pause = await goes(told, host, "up")
        paused = pause["incident"]
        over = await calm(told, host)
        details = await connection.fetch(
            "select details ? 'flapping' as flapping from zapwatch_gateway_incidents order by opened_at"
        )

        assert len(set(seen)) == 3
        assert (pause["state"], paused["id"]) == ("up", seen[-1])
        assert [row["flapping"] for row in details] == [False, False, True]
        assert over["state"] == "up"
        assert [one for one in await alerts(connection) if one[1]] == 3 * [
            ("opened", True),
            ("resolved", True),
        ]


async def test_a_channel_that_still_speaks_gets_the_verdict_when_it_falls_silent(
    dsn: str, connection: Connection
) -> None:
    async with story(dsn, **{**BRISK, "stale_after": timedelta(seconds=4)}) as told:
        host = await told.fleet.evolution()
        channels = await fill(told, host, 3, **LATER)
        speaking, *others = channels

        host.fault = Fault.REFUSED
        await told.z.until(
            lambda: connection.fetchval(
                "select failing_since is not null from zapwatch_gateways where base_url = $1", host.url
            ),
            bool,
        )
        channels[speaking].connect()
        await told.fleet.said()
        await goes(told, host, "down")
        for id in others:
            await told.becomes(id, "error", "gateway_unreachable")
        meanwhile = await told.z.state(speaking)
        found = await connection.fetchval("select details::text from zapwatch_gateway_incidents")
        shown = await told.becomes(speaking, "error", "gateway_unreachable")

        assert meanwhile["state"] == "open"
        assert "webhooks_arrive" in found
        last = await connection.fetchval(
            "select emitted_at from zapwatch_states where channel_id = $1", UUID(speaking)
        )
        assert last <= time(shown["since"]) < last + timedelta(seconds=1)


async def test_two_replicas_open_one_incident_and_give_each_verdict_once(
    dsn: str, connection: Connection
) -> None:
    given = "select count(*) from zapwatch_events where name = 'gateway_silence'"
    async with story(dsn, **BRISK) as told, served(dsn, **BRISK) as other:
        host = await told.fleet.evolution()
        channels = await fill(told, host, 12, **LATER)

        host.fault = Fault.REFUSED
        down = await goes(told, host, "down")
        await goes(Story(other, told.fleet), host, "down")
        await caused(told, channels, down["incident"]["id"])
        host.fault = None
        await goes(told, host, "up")

        assert await connection.fetchval(given) == 12
        await told.z.until(told.open_incidents, lambda found: found == {})
        assert [one for one in await alerts(connection) if one[1]] == [("opened", True), ("resolved", True)]


async def test_a_lone_channels_loss_waits_for_nobody(dsn: str) -> None:
    settings = {**UNASKED, "verdict_within": timedelta(minutes=5)}
    async with story(dsn, **settings) as told:
        host = await told.fleet.evolution()
        channels = await fill(told, host, 10)
        lost, instance = next(iter(channels.items()))

        instance.unlink()

        assert (await told.z.incident(lost))["kind"] == "disconnected"


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
        looking = Counting(
            app.pool, app.writer, app.prober, app.guard, answers, RefusedKeys(), app.settings, timings
        )
        with suppress(TimeoutError):
            async with asyncio.timeout(0.5):
                await LoopRunner().run(looking.loop())

    assert 1 <= looks <= 6


async def moved(told: Story, id: str) -> None:
    """Move a channel to another host."""
    elsewhere = await told.fleet.evolution()
    answer = await told.z.client.patch(f"/channels/{id}", json={"api_url": elsewhere.url})
    assert answer.status_code == 200, answer.text


async def deleted(told: Story, id: str) -> None:
    """Delete a channel."""
    assert (await told.z.client.delete(f"/channels/{id}")).status_code == 204


async def paused(told: Story, id: str) -> None:
    """Pause a channel."""
    assert (await told.z.client.post(f"/channels/{id}/pause")).status_code == 200


async def deactivated(told: Story, id: str) -> None:
    """Deactivate a channel, as another application does."""
    pool = told.z.app.pool
    await pool.execute("update notification_channels set is_active = false where id = $1", UUID(id))


@pytest.mark.parametrize("leave", [deleted, moved, paused, deactivated])
async def test_incident_of_a_gateway_without_a_watched_channel_is_over_as_removed(
    dsn: str, connection: Connection, leave: Any
) -> None:
    resolved = (
        "select details ->> 'resolved_by' from zapwatch_gateway_incidents"
        " where gateway_id = (select id from zapwatch_gateways where base_url = $1)"
    )
    async with story(dsn, **BRISK) as told:
        host = await told.fleet.evolution()
        channels = await fill(told, host, 3)
        host.fault = Fault.HANG
        down = await goes(told, host, "down")
        await caused(told, channels, down["incident"]["id"])

        for id in channels:
            assert await connection.fetchval(resolved, host.url) is None
            await leave(told, id)

        await told.z.until(lambda: gateway(told, host), lambda it: it["incident"] is None)
        assert await connection.fetchval(resolved, host.url) == "removed"
        await told.z.until(
            told.open_incidents, lambda found: all(cause(it)[0] is None for it in found.values())
        )
        assert (await alerts(connection)).count(("resolved", True)) == 1


async def test_channel_that_was_moved_is_given_no_verdict_of_its_former_gateway(
    dsn: str, connection: Connection
) -> None:
    due = "select count(*) from zapwatch_affected_channels where verdict_due_at is not null"
    async with story(dsn, **BRISK) as told:
        host = await told.fleet.evolution()
        first, *_ = await fill(told, host, 3)
        # Silent, and not tried before the end of this test.
        await connection.execute(
            "update zapwatch_gateways"
            " set state = 'down', failing_since = now(), failed_at = now(), failures = 3,"
            " failed = array[gen_random_uuid()], try_at = now() + interval '1 hour'"
        )
        await connection.execute(
            "with i as (insert into zapwatch_gateway_incidents (gateway_id, cause, started_at, opened_at)"
            " select id, 'unreachable', now(), now() from zapwatch_gateways returning id)"
            " insert into zapwatch_affected_channels"
            " (gateway_incident_id, channel_id, tenant_id, verdict_due_at)"
            " select i.id, c.channel_id, c.tenant_id, now() + interval '1 hour' from i, zapwatch_channels c"
        )

        await moved(told, first)

        await told.z.until(lambda: connection.fetchval(due), lambda left: left == 2)
