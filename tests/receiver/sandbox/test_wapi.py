"""W-API's webhooks and answers beside the samples."""

import re
from collections.abc import Callable
from datetime import UTC, datetime

import httpx
import pytest

from receiver.providers import PROVIDERS
from receiver.sandbox import Fault, open_fleet
from receiver.sandbox.wapi import WapiHost, WapiInstance
from statemachine.model import Trigger
from tests.receiver.sandbox.inbox import Inbox
from tests.receiver.sandbox.shape import keys, sample

NAME = "LITE-ABC123-XYZ789"


async def ask(
    client: httpx.AsyncClient, host: WapiHost, name: str, token: str, what: str = "status-instance"
) -> httpx.Response:
    """Ask about an instance."""
    headers = {"Authorization": f"Bearer {token}"}
    return await client.get(f"{host.url}/instance/{what}", params={"instanceId": name}, headers=headers)


@pytest.mark.parametrize(
    ("act", "name", "trigger"),
    [
        (WapiInstance.connect, "webhook_connected", Trigger.OPENED),
        (WapiInstance.disconnect, "webhook_disconnected", Trigger.DROPPED),
        (WapiInstance.false_disconnect, "webhook_disconnected", Trigger.DROPPED),
        (WapiInstance.message, "webhook_received_text", None),
        (WapiInstance.ack, "webhook_status", None),
    ],
)
async def test_webhook_has_the_keys_of_the_sample_and_is_read_so(
    inbox: Inbox, act: Callable[[WapiInstance], None], name: str, trigger: Trigger | None
) -> None:
    async with open_fleet() as fleet:
        channel = (await fleet.wapi()).add()
        channel.webhook = inbox.url
        act(channel)
        await channel.said()

    body = inbox.letters[0].body
    report = PROVIDERS["wapi"].parse(body, None, datetime.now(UTC))
    assert keys(inbox.letters[0].document) == keys(sample(f"wapi/{name}.json"))
    assert report.instance == channel.name
    assert report.alive == (trigger is None)
    assert (report.said.trigger if report.said else None) == trigger


async def test_status_is_answered_as_the_samples(client: httpx.AsyncClient) -> None:
    async with open_fleet() as fleet:
        host = await fleet.wapi()
        channel = host.add(NAME)
        connected = await ask(client, host, NAME, channel.key)
        channel.disconnect(heard=False)
        disconnected = await ask(client, host, NAME, channel.key)
        record = await ask(client, host, NAME, channel.key, "fetch-instance")

    for answer, name in (
        (connected, "resp_200_status_instance_connected"),
        (disconnected, "resp_200_status_instance_disconnected"),
    ):
        assert answer.json() == sample(f"wapi/{name}.json")
        assert list(answer.json()) == list(sample(f"wapi/{name}.json"))
    assert keys(record.json()) == keys(sample("wapi/resp_200_fetch_instance.json"))
    assert channel.sent == []


async def test_false_disconnect_leaves_it_connected(client: httpx.AsyncClient, inbox: Inbox) -> None:
    async with open_fleet() as fleet:
        host = await fleet.wapi()
        channel = host.add()
        channel.webhook = inbox.url
        channel.false_disconnect()
        await channel.said()

        assert (await ask(client, host, channel.name, channel.key)).json()["connected"] is True
    assert inbox.letters[0].document["disconnected"] is True


async def test_failures_are_worded_as_the_samples(client: httpx.AsyncClient) -> None:
    async with open_fleet() as fleet:
        host = await fleet.wapi()
        channel = host.add()
        denied = await ask(client, host, channel.name, "wrong")
        wrong_path = await ask(client, host, channel.name, channel.key, "status")
        channel.vanish()
        lost = await ask(client, host, channel.name, channel.key)
        channel.come_back()
        back = await ask(client, host, channel.name, channel.key)

    assert (denied.status_code, denied.json()) == (401, sample("wapi/resp_401_bad_token.INFERRED.json"))
    assert (lost.status_code, lost.json()) == (404, sample("wapi/resp_404_lost_instance.INFERRED.json"))
    assert wrong_path.status_code == 404
    assert wrong_path.headers["content-type"].startswith("text/html")
    assert back.json()["connected"] is True
    assert len(channel.probed) == 3


async def test_faults_speak_its_dialect(client: httpx.AsyncClient) -> None:
    async with open_fleet() as fleet:
        host = await fleet.wapi()
        channel = host.add()
        answers = {}
        for fault in (Fault.NO_STATE, Fault.ROUTE_NOT_FOUND, Fault.ERROR_200, Fault.UNAVAILABLE):
            channel.fault = fault
            answers[fault] = await ask(client, host, channel.name, channel.key)

    assert answers[Fault.NO_STATE].json() == {"instanceId": channel.name}
    assert answers[Fault.ROUTE_NOT_FOUND].text.startswith("<!DOCTYPE html>")
    assert answers[Fault.ERROR_200].json()["error"] is True
    assert answers[Fault.UNAVAILABLE].status_code == 503


async def test_made_names_are_lite_ids() -> None:
    async with open_fleet() as fleet:
        host = await fleet.wapi()
        names = {host.add().name for _ in range(20)}

    assert host.url.endswith("/v1")
    assert len(names) == 20
    for name in names:
        assert re.fullmatch(r"LITE-[A-Z0-9]{6}-[A-Z0-9]{6}", name)


async def test_qr_and_pairing_code_are_made_for_who_is_not_connected(client: httpx.AsyncClient) -> None:
    async with open_fleet() as fleet:
        host = await fleet.wapi()
        channel = host.add(NAME)
        connected = await ask(client, host, NAME, channel.key, "qr-code")
        channel.disconnect(heard=False)
        qr = await ask(client, host, NAME, channel.key, "qr-code")
        code = await ask(client, host, NAME, channel.key, "pairing-code")
        refused = await ask(client, host, NAME, "wrong", "qr-code")

    assert connected.json() == {"connected": True, "phone": channel.phone}
    assert qr.json()["qrcode"].startswith("data:image/png;base64,")
    assert len(code.json()["pairingCode"]) == 8
    assert refused.status_code == 401
