"""Slack gets what it takes, and its refusals are understood; the other side answers as Slack does."""

from datetime import timedelta
from typing import Any

import pytest

from receiver.alerts.message import DeliveryResult, InvalidConfig, Message
from receiver.alerts.notifiers import NOTIFIERS
from receiver.outbound.egress import EgressPolicy
from tests.receiver.alerts.sink import LINK, Sink, item, message, open_rude, resolved

SLACK = NOTIFIERS["slack"]
EVERYWHERE = EgressPolicy(None)
PATH = "/services/T0/B0/s3cret"


async def send(sink: Sink, told: Message) -> DeliveryResult:
    return await SLACK.send({"url": sink.url + PATH}, told, EVERYWHERE)


def texts(document: Any) -> list[str]:
    return [block["text"]["text"] for block in document["blocks"]]


async def test_one_piece_of_news_is_one_section_with_the_way_back(sink: Sink) -> None:
    assert await send(sink, message()) == DeliveryResult(ok=True, status=200, answer="ok")

    document = sink.only.json
    (section,) = texts(document)
    assert sink.only.path == PATH
    assert document["text"] == "WhatsApp da unidade Loja 1 perdeu conexão"
    assert section.splitlines()[0].endswith("Reconecte via QR Code em Configurações.")
    assert section.splitlines()[-1] == f"<{LINK}|Reconectar>"


async def test_slack_is_told_not_to_open_the_way_back(sink: Sink) -> None:
    await send(sink, message())

    assert (sink.only.json["unfurl_links"], sink.only.json["unfurl_media"]) == (False, False)


async def test_several_have_a_header_that_counts_them(sink: Sink) -> None:
    await send(sink, message(*[item()] * 5, resolved(), locale="en"))

    header, *sections = texts(sink.only.json)
    assert header == "5 devices were unlinked and 1 channel is connected again"
    assert len(sections) == 6


async def test_very_many_stay_within_slacks_limits(sink: Sink) -> None:
    await send(sink, message(*[item(name="N" * 300)] * 500))

    document = sink.only.json
    assert len(document["blocks"]) <= 50
    assert all(len(text) <= 3000 for text in texts(document))
    assert len(texts(document)[0]) <= 150
    assert texts(document)[-1] == "E mais 480."


async def test_a_name_can_neither_link_nor_call_anybody(sink: Sink) -> None:
    await send(sink, message(item(name="<!channel> <https://evil.example|x> & co")))

    document = sink.only.json
    assert "<!channel>" not in document["text"] + texts(document)[0]
    assert "&lt;!channel&gt; &lt;https://evil.example|x&gt; &amp; co" in texts(document)[0]


@pytest.mark.parametrize(
    ("status", "words"),
    [(400, "invalid_payload"), (403, "invalid_token"), (404, "no_service"), (410, "channel_is_archived")],
)
async def test_slacks_refusals_are_for_good(sink: Sink, status: int, words: str) -> None:
    sink.status, sink.body = status, words.encode()

    assert await send(sink, message()) == DeliveryResult(
        ok=False, permanent=True, status=status, answer=words
    )


async def test_too_many_and_broken_are_tried_again_when_slack_says(sink: Sink) -> None:
    sink.status, sink.headers, sink.body = 429, {"Retry-After": "30"}, b"rate_limited"
    many = await send(sink, message())
    sink.status, sink.headers, sink.body = 500, {}, b"rollup_error"
    broken = await send(sink, message())

    assert many == DeliveryResult(False, False, timedelta(seconds=30), 429, "rate_limited")
    assert broken == DeliveryResult(False, False, None, 500, "rollup_error")


@pytest.mark.parametrize("is_reset", [True, False])
async def test_one_that_resets_or_hangs_is_tried_again(is_reset: bool) -> None:
    impatient = EgressPolicy(None, timeout=timedelta(seconds=10 if is_reset else 0.5))
    async with open_rude(is_reset=is_reset) as url:
        sent = await SLACK.send({"url": url + PATH}, message(), impatient)

    assert (sent.ok, sent.permanent) == (False, False)
    assert "s3cret" not in sent.answer
    assert (sent.answer == "no answer: timed out") is not is_reset


def test_address_is_the_secret_and_is_not_shown() -> None:
    config = SLACK.check({"url": "https://hooks.slack.com/services/T0/B0/s3cret"})

    assert SLACK.shown(config) == {"url": "https://hooks.slack.com/***"}


@pytest.mark.parametrize("config", [{}, {"url": "hooks.slack.com"}, {"url": "https://x", "channel": "#a"}])
def test_configuration_that_can_not_be_is_refused(config: dict[str, Any]) -> None:
    with pytest.raises(InvalidConfig):
        SLACK.check(config)
