"""The webhook is verified with the library that receivers use."""

from base64 import b64encode
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any
from uuid import UUID

import pytest
from standardwebhooks.webhooks import Webhook as Verifier
from standardwebhooks.webhooks import WebhookVerificationError

from receiver.alerts.message import DeliveryResult, Event, InvalidConfig, Message
from receiver.alerts.notifiers import NOTIFIERS
from receiver.outbound.egress import EgressPolicy
from tests.receiver.alerts.sink import (
    CHANNEL,
    INCIDENT,
    LINK,
    MESSAGE,
    TENANT,
    Got,
    Sink,
    item,
    message,
    open_rude,
    resolved,
)

WEBHOOK = NOTIFIERS["webhook"]
EVERYWHERE = EgressPolicy(None)
NEW, OLD, OTHER = ("whsec_" + b64encode(bytes([n]) * 32).decode() for n in (1, 2, 3))


def config(sink: Sink, **fields: Any) -> dict[str, Any]:
    return {"url": f"{sink.url}/hook", "secret": NEW, **fields}


async def send(sink: Sink, told: Message, **fields: Any) -> DeliveryResult:
    return await WEBHOOK.send(WEBHOOK.check(config(sink, **fields)), told, EVERYWHERE)


def verified(got: Got, secret: str) -> Any:
    return Verifier(secret).verify(got.body, dict(got.headers))


async def test_opened_incident_arrives_signed_and_exactly_as_documented(sink: Sink) -> None:
    sent = await send(sink, message(at=datetime(2026, 3, 1, 15, 4, 6, tzinfo=UTC)))

    assert sent == DeliveryResult(ok=True, status=200, answer="ok")
    assert sink.only.path == "/hook"
    assert sink.only.headers["content-type"] == "application/json"
    assert verified(sink.only, NEW) == {
        "type": "incident.opened",
        "timestamp": "2026-03-01T15:04:06Z",
        "data": {
            "incident_id": str(INCIDENT),
            "channel_id": str(CHANNEL),
            "tenant_id": str(TENANT),
            "name": "Loja 1",
            "kind": "disconnected",
            "reason": "logged_out",
            "started_at": "2026-03-01T15:04:05Z",
            "resolved_at": None,
            "duration_seconds": None,
            "link": LINK,
        },
    }


async def test_resolved_incident_says_when_it_ended_and_how_long_it_was(sink: Sink) -> None:
    await send(sink, message(resolved(timedelta(hours=2, seconds=1))))

    data = sink.only.json["data"]
    assert sink.only.json["type"] == "incident.resolved"
    assert (data["resolved_at"], data["duration_seconds"]) == ("2026-03-01T17:04:06Z", 7201)


async def test_gateways_incident_says_how_many_channels_it_stands_for(sink: Sink) -> None:
    gateway = item(event=Event.GATEWAY_OPENED, channel_id=None, tenant_id=None, link=None, affected=12)

    await send(sink, message(gateway))

    assert sink.only.json["type"] == "gateway.opened"
    assert sink.only.json["data"]["affected"] == 12
    assert sink.only.json["data"]["channel_id"] is None


@pytest.mark.parametrize("items", [(), (item(),)])
async def test_test_can_not_be_taken_for_news(sink: Sink, items: tuple[Any, ...]) -> None:
    await WEBHOOK.send(config(sink), message()._replace(items=items, is_test=True), EVERYWHERE)

    assert verified(sink.only, NEW)["type"] == "test"
    assert "incident_id" in sink.only.json["data"]


async def test_id_is_the_same_over_tries_and_another_for_another_message(sink: Sink) -> None:
    for told in (message(), message(), message(id=UUID(int=9))):
        await send(sink, told)

    ids = [got.headers["webhook-id"] for got in sink.got]
    assert ids == [str(MESSAGE), str(MESSAGE), str(UUID(int=9))]


async def test_while_a_secret_is_rotated_both_verify_and_no_other_does(sink: Sink) -> None:
    rotated = WEBHOOK.check(config(sink, secret=OLD, rotate_secret=True))

    await WEBHOOK.send(rotated, message(), EVERYWHERE)

    assert rotated["old_secret"] == OLD
    assert rotated["secret"] != OLD
    assert verified(sink.only, OLD) == verified(sink.only, str(rotated["secret"]))
    with pytest.raises(WebhookVerificationError):
        verified(sink.only, OTHER)


async def test_old_secret_signs_no_more_after_its_end(sink: Sink) -> None:
    await send(sink, message(), old_secret=OLD, old_secret_until="2026-01-01T00:00:00Z")

    verified(sink.only, NEW)
    with pytest.raises(WebhookVerificationError):
        verified(sink.only, OLD)


def test_a_missing_secret_is_made_and_none_is_shown() -> None:
    url = "https://user:pa55@hooks.example/in?token=t0k"

    made = WEBHOOK.check({"url": url})

    assert str(made["secret"]).startswith("whsec_")
    assert made["secret"] != WEBHOOK.check({"url": url})["secret"]
    assert WEBHOOK.shown(made) == {"url": "https://hooks.example/in?***"}
    assert WEBHOOK.check(made) == made


@pytest.mark.parametrize(
    ("fields", "wrong"),
    [
        ({"url": "ftp://x"}, "url"),
        ({"url": "https://"}, "url"),
        ({"url": "https://x/a b"}, "url"),
        ({"url": "https://x:99999"}, "url"),
        ({"url": 5}, "url"),
        ({"url": "https://x", "secret": "secret"}, "secret"),
        ({"url": "https://x", "secret": "whsec_YQ=="}, "secret"),
        ({"url": "https://x", "sekret": "a"}, "sekret"),
        ({}, "url"),
    ],
)
def test_configuration_that_can_not_be_is_refused_by_field(fields: dict[str, Any], wrong: str) -> None:
    with pytest.raises(InvalidConfig) as caught:
        WEBHOOK.check(fields)

    assert set(caught.value.problems) == {wrong}


@pytest.mark.parametrize("status", [400, 401, 403, 404, 410, 413, 422])
async def test_refusal_is_for_good(sink: Sink, status: int) -> None:
    sink.status = status

    assert await send(sink, message()) == DeliveryResult(ok=False, permanent=True, status=status, answer="ok")


@pytest.mark.parametrize("status", [302, 408, 425, 429, 500, 502, 503, 504])
async def test_what_may_pass_is_not_for_good(sink: Sink, status: int) -> None:
    sink.status = status

    assert await send(sink, message()) == DeliveryResult(ok=False, status=status, answer="ok")


async def test_retry_after_is_understood_in_seconds_and_as_a_date(sink: Sink) -> None:
    sink.status = 503
    waits = []
    for header in ("120", format_datetime(datetime.now(UTC) + timedelta(hours=1), usegmt=True), "soon", "-5"):
        sink.headers = {"Retry-After": header}
        waits.append((await send(sink, message())).retry_after)

    seconds, date, *none = waits
    assert seconds == timedelta(seconds=120)
    assert date is not None
    assert timedelta(minutes=50) < date <= timedelta(hours=1)
    assert none == [None, None]


async def test_retry_after_for_ever_is_a_day(sink: Sink) -> None:
    sink.status, sink.headers = 429, {"Retry-After": "999999999"}

    assert (await send(sink, message())).retry_after == timedelta(days=1)


@pytest.mark.parametrize("is_reset", [True, False])
async def test_a_receiver_that_resets_or_hangs_is_tried_again(is_reset: bool) -> None:
    async with open_rude(is_reset=is_reset) as url:
        impatient = EgressPolicy(None, timeout=timedelta(seconds=10 if is_reset else 0.5))

        sent = await WEBHOOK.send({"url": url, "secret": NEW}, message(), impatient)

    assert (sent.ok, sent.permanent, sent.status) == (False, False, None)
    assert sent.answer.startswith("no answer: ")
    assert (sent.answer == "no answer: timed out") is not is_reset


async def test_answer_is_one_short_line_without_what_it_echoes_of_ours(sink: Sink) -> None:
    sink.body = f"got\n{LINK}\x00 and {NEW} ".encode() + b"\xff" + b"x" * 2000

    sent = await send(sink, message())

    assert sent.answer.startswith("got *** and *** \ufffdxxx")
    assert len(sent.answer) == 500
