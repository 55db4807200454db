"""Twilio's senders beside the samples."""

import re

import httpx
import pytest

from receiver.providers import PROVIDERS
from receiver.sandbox import Fault, open_fleet
from receiver.sandbox.twilio import TwilioHost
from statemachine.model import Trigger
from tests.receiver.sandbox.inbox import Inbox
from tests.receiver.sandbox.shape import keys, sample

SID = "XE" + "a" * 32


async def ask(client: httpx.AsyncClient, host: TwilioHost, name: str, key: str) -> httpx.Response:
    """Fetch a sender."""
    account, _, token = key.partition(":")
    return await client.get(f"{host.url}/v2/Channels/Senders/{name}", auth=(account, token))


@pytest.mark.parametrize(
    ("status", "name", "trigger"),
    [
        ("ONLINE", "online", Trigger.OPENED),
        ("ONLINE:UPDATING", "online_updating", Trigger.OPENED),
        ("OFFLINE", "offline", Trigger.DROPPED),
        ("PENDING_VERIFICATION", "pending_verification", Trigger.CONNECTING),
        ("STUBBED", "stubbed", Trigger.NOT_LOADED),
    ],
)
async def test_sender_is_answered_as_the_sample(
    client: httpx.AsyncClient, inbox: Inbox, status: str, name: str, trigger: Trigger
) -> None:
    async with open_fleet() as fleet:
        host = await fleet.twilio()
        sender = host.add(SID)
        sender.webhook = inbox.url
        sender.become(status)
        answer = await ask(client, host, SID, sender.key)
        await fleet.said()

    expected = sample(f"twilio/resp_200_sender_{name}.json")
    assert answer.json() == expected
    assert keys(answer.json()) == keys(expected)
    assert PROVIDERS["twilio"].read(answer.status_code, answer.content).trigger is trigger
    assert inbox.letters == []


async def test_failures_are_worded_as_the_samples(client: httpx.AsyncClient) -> None:
    async with open_fleet() as fleet:
        host = await fleet.twilio()
        missing = await ask(client, host, SID, host.key)
        denied = await ask(client, host, SID, f"{host.key}x")
        without = await client.get(f"{host.url}/v2/Channels/Senders/{SID}")

    assert (missing.status_code, missing.json()) == (
        404,
        sample("twilio/resp_404_sender_not_found.INFERRED.json"),
    )
    assert (denied.status_code, denied.json()) == (401, sample("twilio/resp_401_auth.INFERRED.json"))
    assert without.status_code == 401


async def test_senders_are_listed(client: httpx.AsyncClient) -> None:
    async with open_fleet() as fleet:
        host = await fleet.twilio()
        sender, gone = host.add(), host.add()
        gone.vanish()
        account, _, token = host.key.partition(":")
        answer = await client.get(f"{host.url}/v2/Channels/Senders?Channel=whatsapp", auth=(account, token))

    assert [one["sid"] for one in answer.json()["senders"]] == [sender.name]
    assert keys(answer.json()) == keys(sample("twilio/resp_200_senders_list.INFERRED.json"))


async def test_sender_can_vanish_hang_and_lack_its_status(client: httpx.AsyncClient) -> None:
    async with open_fleet() as fleet:
        host = await fleet.twilio()
        sender = host.add()
        sender.fault = Fault.NO_STATE
        stateless = await ask(client, host, sender.name, sender.key)
        sender.fault = None
        sender.vanish()
        gone = await ask(client, host, sender.name, sender.key)

    assert "status" not in stateless.json()
    assert gone.status_code == 404
    assert re.fullmatch(r"XE[0-9a-f]{32}", sender.name)
    assert re.fullmatch(r"AC[0-9a-f]{32}:[0-9a-f]{32}", sender.key)
