"""A host full of instances that were never connected: nobody is told, and nothing is ordered."""

from typing import Any
from uuid import UUID

import orjson
import pytest

from db.connection.types import Connection
from db.history.replay import replay
from receiver.providers.evolution import Evolution as EvolutionProvider
from tests.factories import Evolution
from tests.support.service import SOON
from tests.support.story import Story, story

NEVER = 24
LIVE = 4
LASTED = """
select count(*) from zapwatch_states
where state <> 'open' and clock_timestamp() - first_unhealthy_at > make_interval(secs => $1)
"""
"""How many channels have not been open for so many seconds."""

DUE = "select count(*) from zapwatch_states where due_at is not null"


async def imported(told: Story, host: Any) -> tuple[dict[str, str], str]:
    """Import a host; return its channels by instance, and its webhook address."""
    z = told.z
    wishes = {"name": "Lojas", "defaults": {"heartbeat_threshold_minutes": SOON}}
    tenant = (await z.client.post("/tenants", json=wishes)).json()
    body = {"provider": "evolution_api", "base_url": host.url, "api_key": host.key}
    gateway = (await z.client.post("/gateways", json=body)).json()
    answer = await z.client.post(f"/gateways/{gateway['id']}/import", params={"tenant_id": tenant["id"]})
    assert answer.status_code == 202, answer.text
    items = (await z.get("/channels", limit="500"))["items"]
    return {item["instance"]: item["channel_id"] for item in items}, gateway["webhook_url"]


@pytest.mark.parametrize("connects", [True, False])
async def test_importing_dead_instances_is_silent_and_touches_nothing(
    dsn: str, connection: Connection, connects: bool
) -> None:
    async with story(dsn, 40.0) as told:
        host = await told.fleet.evolution("2.3.6" if connects else "2.3.7")
        dead = [host.add(f"dead-{n}", "qr") for n in range(NEVER)]
        live = [host.add(f"live-{n}") for n in range(LIVE)]
        for instance in dead[::2]:
            instance.lose()
        for instance in dead[1::2]:
            instance.lose("connecting")
        channels, hook = await imported(told, host)
        for n, name in enumerate(f"dead-{n}" for n in range(NEVER)):
            said = Evolution(name)
            bodies = [said.update("connecting"), said.qr(), said.update("close", 428), said.qr_limit()]
            await told.z.hear(hook, bodies[n % 4])
        await told.z.until(lambda: connection.fetchval(LASTED, 2 * 60 * SOON), lambda count: count == NEVER)

        assert await told.all_incidents() == []

        live[0].unlink()
        await told.z.hear(hook, Evolution("live-0").update("close", 401))
        await told.z.until(told.open_incidents, lambda opened: set(opened) == {channels["live-0"]})
        assert [it.ordered for it in dead] == [[]] * NEVER
        assert await connection.fetchval("select count(*) from zapwatch_recoveries") == 0


async def test_logout_on_the_phone_is_told_and_one_by_the_api_is_not(
    dsn: str, connection: Connection
) -> None:
    async with story(dsn, 40.0) as told:
        host = await told.fleet.evolution("2.3.7")
        for name in ("lost", "ended"):
            host.add(name, "qr").lose()
        channels, hook = await imported(told, host)

        ended = Evolution("ended")
        by_api = ended.closed(401, "Log out instance: ended"), ended.logout(), ended.update("close", 401)
        await told.z.hear(hook, *by_api[::-1])
        lost = Evolution("lost")
        await told.z.hear(hook, lost.logout(), lost.closed(), lost.update("close", 401))

        opened = await told.z.until(told.open_incidents, lambda found: channels["lost"] in found, 20)
        assert set(opened) == {channels["lost"]}
        assert opened[channels["lost"]]["details"]["reason"] == "logged_out"
        await told.z.until(lambda: connection.fetchval(DUE), lambda count: count == 0)
        replayed, _ = await replay(connection, UUID(channels["lost"]))
        assert (replayed.has_been_open, replayed.incident is not None) == (True, True)


async def test_refused_key_of_an_instance_that_was_never_connected_is_told_until_it_is_put_right(
    dsn: str,
) -> None:
    async with story(dsn, 40.0) as told:
        host = await told.fleet.evolution("2.3.7")
        instance = host.add("new", "qr")
        instance.lose()
        wishes = {"metadata": {"heartbeat_threshold_minutes": SOON}, "api_key": "refused"}
        channel = await told.watch(host, instance, state=None, **wishes)
        await told.z.until(told.open_incidents, lambda opened: set(opened) == {channel}, 20)

        await told.z.client.patch(f"/channels/{channel}", json={"api_key": instance.key})

        await told.z.until(told.open_incidents, lambda opened: not opened, 20)
        (incident,) = await told.z.incidents(channel)
        assert incident["details"]["resolved_by"] == "never_connected"
        assert instance.ordered == []


@pytest.mark.parametrize(
    ("code", "message", "was_connected"),
    [
        (None, None, False),
        (401, "Stream Errored (conflict)", True),
        (401, "Log out instance: loja", False),
        (403, "Connection Failure", True),
        (428, "Connection Terminated", False),
    ],
)
def test_record_of_an_end_proves_that_there_was_a_session(
    code: int | None, message: str | None, was_connected: bool
) -> None:
    ended = {"error": {"output": {"payload": {"message": message}}}}
    row = {
        "name": "loja",
        "connectionStatus": "close",
        "ownerJid": None,
        "disconnectionReasonCode": code,
        "disconnectionObject": None if message is None else orjson.dumps(ended).decode(),
    }

    listing = EvolutionProvider().read_instances(200, orjson.dumps([row]))

    assert listing is not None
    assert [it.has_been_open for it in listing.found] == [was_connected]
