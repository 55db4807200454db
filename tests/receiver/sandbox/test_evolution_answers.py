"""What an Evolution server answers: its guards' order, its bodies beside the samples, its start."""

import asyncio
from collections.abc import Callable
from datetime import datetime
from typing import Any

import httpx
import pytest

from receiver.providers import PROVIDERS
from receiver.sandbox import Fault, open_fleet
from receiver.sandbox.evolution.host import EvolutionHost
from receiver.sandbox.evolution.instance import Instance
from statemachine.model import Trigger
from tests.receiver.sandbox.inbox import Inbox
from tests.receiver.sandbox.shape import keys, sample


async def ask(client: httpx.AsyncClient, host: EvolutionHost, name: str, key: str | None) -> httpx.Response:
    """Ask for a state."""
    headers = {} if key is None else {"apikey": key}
    return await client.get(f"{host.url}/instance/connectionState/{name}", headers=headers)


def vanish_for_a_while(channel: Instance) -> None:
    """Be gone and come back."""
    channel.vanish()
    channel.come_back()


async def test_guards_ask_whether_the_instance_exists_before_they_ask_for_the_key(
    client: httpx.AsyncClient,
) -> None:
    async with open_fleet() as fleet:
        host = await fleet.evolution()
        channel, other = host.add("loja-01"), host.add("loja-02")

        async def status(name: str, key: str | None) -> int:
            return (await ask(client, host, name, key)).status_code

        assert await status("nobody", None) == 404
        assert await status("nobody", "wrong") == 404
        assert await status("LOJA-01", host.key) == 404
        assert await status("loja-01", None) == 401
        assert await status("loja-01", "wrong") == 401
        assert await status("loja-01", other.key) == 401
        assert await status("loja-01", channel.key) == 200
        assert await status("loja-01/", host.key) == 200
        assert len(channel.probed) == 5


@pytest.mark.parametrize(
    ("word", "name"),
    [
        ("open", "connection_state_open"),
        ("connecting", "connection_state_connecting"),
        ("close", "connection_state_close"),
        (None, "connection_state_missing_state"),
    ],
)
async def test_state_is_answered_in_the_bytes_of_the_sample(
    client: httpx.AsyncClient, word: str | None, name: str
) -> None:
    async with open_fleet() as fleet:
        host = await fleet.evolution()
        channel = host.add("acme-sales-01")
        channel.state = word
        answer = await ask(client, host, channel.name, host.key)

    assert answer.json() == sample(f"evolution/{name}.json")
    assert answer.headers["content-type"] == "application/json; charset=utf-8"
    assert answer.headers["keep-alive"] == "timeout=5"


async def test_failures_are_worded_as_the_samples(client: httpx.AsyncClient) -> None:
    async with open_fleet() as fleet:
        host = await fleet.evolution()
        host.add("acme-support-02")
        missing = await ask(client, host, "acme-sales-01", host.key)
        denied = await ask(client, host, "acme-support-02", "wrong")
        route = await client.put(f"{host.url}/instance/restart/acme-sales-01", headers={"apikey": host.key})

    assert missing.json() == sample("evolution/connection_state_404.json")
    assert denied.json() == sample("evolution/unauthorized_401.json")
    assert (route.status_code, route.json()) == (404, sample("evolution/route_404.json"))


async def test_name_with_slash_and_accents_is_found(client: httpx.AsyncClient) -> None:
    async with open_fleet() as fleet:
        host = await fleet.evolution()
        channel = host.add("Loja São Paulo/01")
        answer = await ask(client, host, "Loja%20S%C3%A3o%20Paulo%2F01", channel.key)

    assert answer.json()["instance"]["instanceName"] == "Loja São Paulo/01"


async def test_root_tells_the_version_without_a_key(client: httpx.AsyncClient) -> None:
    async with open_fleet() as fleet:
        host = await fleet.evolution("2.3.7")
        answer = await client.get(host.url)

    assert keys(answer.json()) == keys(sample("evolution/server_root.json"))
    assert PROVIDERS["evolution_api"].read_version(answer.content) == "2.3.7"


@pytest.mark.parametrize(
    ("silently", "expected"),
    [
        (Instance.vanish, (404, Trigger.SESSION_MISSING)),
        (Instance.lose, (200, Trigger.DROPPED)),
        (Instance.die_open, (200, Trigger.OPENED)),
        (vanish_for_a_while, (200, Trigger.OPENED)),
    ],
)
async def test_probe_sees_what_no_webhook_told(
    client: httpx.AsyncClient,
    inbox: Inbox,
    silently: Callable[[Instance], object],
    expected: tuple[int, Trigger],
) -> None:
    async with open_fleet() as fleet:
        host = await fleet.evolution()
        channel = host.add("loja-01")
        channel.webhook = inbox.url
        silently(channel)
        await fleet.said()
        answer = await ask(client, host, "loja-01", channel.key)

    read = PROVIDERS["evolution_api"].read(answer.status_code, answer.content)
    assert (answer.status_code, read.trigger) == expected
    assert inbox.letters == []


async def test_removed_instance_is_404(client: httpx.AsyncClient) -> None:
    async with open_fleet(speed=100) as fleet:
        host = await fleet.evolution()
        channel = host.add("loja-01")
        channel.remove()

        assert (await ask(client, host, "loja-01", channel.key)).status_code == 404
        host.add("loja-01")
        assert (await ask(client, host, "loja-01", host.key)).status_code == 200


@pytest.mark.parametrize(("version", "asks_again"), [("2.3.6", True), ("2.3.7", False)])
async def test_start_has_no_state_then_connects_what_the_version_connects(
    client: httpx.AsyncClient, inbox: Inbox, version: str, asks_again: bool
) -> None:
    async with open_fleet() as fleet, asyncio.timeout(10):
        host = await fleet.evolution(version)
        paired, unpaired = host.add("loja-01"), host.add("loja-02", state="close")
        host.webhook = inbox.url
        booted = host.restart()
        answer = await ask(client, host, "loja-01", host.key)
        assert answer.json() == {"instance": {"instanceName": "loja-01"}}

        await booted
        assert paired.state == "connecting"
        await paired.said()
        assert paired.state == "open"
        assert unpaired.state == ("connecting" if asks_again else "close")

    first = next(one.document for one in inbox.letters if one.document["instance"] == "loja-01")
    assert first["data"]["state"] == "connecting"
    assert "sender" not in first


async def test_restarting_server_refuses_while_it_is_down(client: httpx.AsyncClient) -> None:
    async with open_fleet(speed=100) as fleet, asyncio.timeout(10):
        host = await fleet.evolution()
        channel = host.add("loja-01")
        booted = host.restart(down=5)
        with pytest.raises(httpx.ConnectError):
            await ask(client, host, "loja-01", host.key)

        await booted
        await channel.said()
        assert (await ask(client, host, "loja-01", host.key)).status_code == 200


@pytest.mark.parametrize(("version", "verb", "wrong"), [("1.8.2", "PUT", "POST"), ("2.3.6", "POST", "PUT")])
async def test_restart_of_a_stuck_instance_opens_it(
    client: httpx.AsyncClient, version: str, verb: str, wrong: str
) -> None:
    async with open_fleet(speed=100) as fleet:
        host = await fleet.evolution(version)
        channel = host.add("loja-01", state="connecting")
        url, headers = f"{host.url}/instance/restart/loja-01", {"apikey": channel.key}

        assert (await client.request(wrong, url, headers=headers)).status_code == 404
        assert (await client.request(verb, url, headers=headers)).status_code == 200
        await channel.said()
        assert channel.state == "open"


async def test_restart_does_nothing_for_a_closed_one_or_a_dead_open_one(client: httpx.AsyncClient) -> None:
    async with open_fleet(speed=100) as fleet:
        host = await fleet.evolution()
        closed, dead = host.add("loja-01", state="close"), host.add("loja-02")
        dead.die_open()

        async def restart(name: str) -> Any:
            url = f"{host.url}/instance/restart/{name}"
            return (await client.post(url, headers={"apikey": host.key})).json()

        assert await restart("loja-01") == sample("evolution/restart_error_http200.json")
        assert await restart("loja-02") == {"instance": {"instanceName": "loja-02", "state": "open"}}
        await fleet.said()
        assert closed.state == "close"
        assert dead.is_mute


@pytest.mark.parametrize(("version", "name"), [("2.3.6", "fetch_instances"), ("1.8.2", "v1_fetch_instances")])
async def test_instances_are_listed_in_the_shape_of_the_version(
    client: httpx.AsyncClient, version: str, name: str
) -> None:
    async with open_fleet() as fleet:
        host = await fleet.evolution(version)
        channel = host.add("acme-sales-01")
        host.add("acme-support-02", state="close")
        url = f"{host.url}/instance/fetchInstances"
        everything = (await client.get(url, headers={"apikey": host.key})).json()
        own = (await client.get(url, headers={"apikey": channel.key})).json()
        denied = await client.get(url, headers={"apikey": "wrong"})

    expected = sample(f"evolution/{name}.json")
    assert keys(everything[0]) == keys(expected[0])
    assert len(everything) == 2
    assert len(own) == 1
    assert denied.status_code == 401


async def test_list_keeps_saying_open_through_an_outage(client: httpx.AsyncClient) -> None:
    async with open_fleet() as fleet:
        host = await fleet.evolution()
        channel = host.add("loja-01")
        channel.drop(None)
        url = f"{host.url}/instance/fetchInstances?instanceName=loja-01"
        row = (await client.get(url, headers={"apikey": host.key})).json()[0]
        missing = await client.get(url.replace("-01", "-99"), headers={"apikey": host.key})

    assert (row["connectionStatus"], channel.state) == ("open", "connecting")
    assert missing.status_code == 404


async def test_list_keeps_why_it_ended_after_it_is_open_again(client: httpx.AsyncClient) -> None:
    async with open_fleet(speed=1000) as fleet:
        host = await fleet.evolution()
        channel = host.add("acme-sales-01")
        await channel.logout()
        await channel.scan()
        url = f"{host.url}/instance/fetchInstances"
        row = (await client.get(url, headers={"apikey": host.key})).json()[0]

    expected = sample("evolution/fetch_instances_stale_reason.json")[0]
    assert keys(row) == keys(expected)
    assert (row["connectionStatus"], row["disconnectionReasonCode"]) == ("open", 401)
    assert datetime.fromisoformat(row["disconnectionAt"])


async def test_webhook_is_set_and_found_in_v2s_words(client: httpx.AsyncClient, inbox: Inbox) -> None:
    wish = sample("evolution/webhook_set_request.json")
    wish["webhook"]["url"] = inbox.url
    async with open_fleet(speed=100) as fleet:
        host = await fleet.evolution()
        channel = host.add("loja-01")
        headers = {"apikey": host.key}
        unset = await client.get(f"{host.url}/webhook/find/loja-01", headers=headers)
        flat = await client.post(f"{host.url}/webhook/set/loja-01", headers=headers, json=wish["webhook"])
        unknown = {"webhook": wish["webhook"] | {"events": ["NO_SUCH"]}}
        refused = await client.post(f"{host.url}/webhook/set/loja-01", headers=headers, json=unknown)
        done = await client.post(f"{host.url}/webhook/set/loja-01", headers=headers, json=wish)
        found = await client.get(f"{host.url}/webhook/find/loja-01", headers=headers)
        channel.unlink()
        channel.presence()
        await fleet.said()

    assert unset.json() is None
    assert (flat.status_code, refused.status_code, done.status_code) == (400, 400, 201)
    assert keys(found.json()) == keys(sample("evolution/webhook_find.json"))
    assert found.json() == done.json()
    assert {one.document["event"] for one in inbox.letters} == {
        "status.instance",
        "logout.instance",
        "connection.update",
    }
    assert inbox.letters[0].headers["x-watch-token"] == "REPLACE_ME"


async def test_webhook_is_set_and_found_in_v1s_words(client: httpx.AsyncClient) -> None:
    wish = sample("evolution/v1_webhook_set_request.json")
    async with open_fleet() as fleet:
        host = await fleet.evolution("1.8.2")
        host.add("loja-01")
        headers = {"apikey": host.key}
        await client.post(f"{host.url}/webhook/set/loja-01", headers=headers, json=wish)
        found = await client.get(f"{host.url}/webhook/find/loja-01", headers=headers)

    assert found.json() == sample("evolution/v1_webhook_find.json")


async def test_licence_is_missing_in_the_words_of_the_sample(client: httpx.AsyncClient) -> None:
    async with open_fleet() as fleet:
        host = await fleet.evolution("2.4.0-rc2")
        channel = host.add("loja-01")
        host.fault = Fault.UNAVAILABLE
        answer = await ask(client, host, "loja-01", channel.key)

    expected = sample("evolution/license_required_503.json")
    assert answer.status_code == 503
    assert answer.json()["code"] == expected["code"]
    assert keys(answer.json()) == keys(expected)


async def look_up(client: httpx.AsyncClient, host: EvolutionHost, name: str) -> httpx.Response:
    """Ask who has WhatsApp."""
    body = {"numbers": ["447700900617"]}
    url = f"{host.url}/chat/whatsappNumbers/{name}"
    return await client.post(url, json=body, headers={"apikey": host.key})


@pytest.mark.parametrize(
    ("version", "status", "name"),
    [("2.2.3", 500, "connection_closed_500"), ("2.3.0", 400, "whatsapp_numbers_closed_400")],
)
async def test_look_up_over_a_dead_socket_fails_in_the_bytes_of_the_sample(
    client: httpx.AsyncClient, version: str, status: int, name: str
) -> None:
    async with open_fleet() as fleet:
        host = await fleet.evolution(version)
        channel = host.add("loja-01")
        alive = await look_up(client, host, "loja-01")
        channel.die_open(recorded="close")
        dead = await look_up(client, host, "loja-01")
        said = await ask(client, host, "loja-01", host.key)

    assert (alive.status_code, alive.json()[0]["exists"]) == (200, False)
    assert (dead.status_code, dead.json()) == (status, sample(f"evolution/{name}.json"))
    assert said.json()["instance"]["state"] == "open"
    assert len(channel.looked_up) == 2
    assert len(channel.probed) == 1


@pytest.mark.parametrize(("version", "word"), [("2.3.6", "open"), ("2.3.7", "close")])
async def test_new_process_leaves_alone_what_is_recorded_as_closed_from_2_3_7_on(
    client: httpx.AsyncClient, version: str, word: str
) -> None:
    async with open_fleet(speed=100) as fleet:
        host = await fleet.evolution(version)
        channel = host.add("loja-01")
        channel.die_open(recorded="close")

        await host.restart()
        await channel.said()

        assert channel.state == word


async def test_connect_makes_a_qr_only_for_a_closed_instance(client: httpx.AsyncClient) -> None:
    async with open_fleet() as fleet:
        host = await fleet.evolution()
        opened, closed = host.add("loja-01"), host.add("loja-02", "close")

        async def connect(instance: Instance, **query: str) -> dict[str, Any]:
            headers = {"apikey": host.key}
            url = f"{host.url}/instance/connect/{instance.name}"
            answer = await client.get(url, headers=headers, params=query)
            assert answer.status_code == 200
            document: dict[str, Any] = answer.json()
            return document

        state = await connect(opened)
        made = await connect(closed, number="5511999990000")
        shown = await connect(closed)

        assert state == {"instance": {"instanceName": "loja-01", "state": "open"}}
        assert made.keys() == {"pairingCode", "code", "base64", "count"}
        assert (made["count"], len(made["pairingCode"])) == (1, 8)
        assert shown == made
