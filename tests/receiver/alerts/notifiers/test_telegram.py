"""Telegram gets what it takes, and its answers are understood; the other side answers as its bot API does."""

from datetime import timedelta
from typing import Any

import orjson
import pytest

from receiver.alerts.message import DeliveryResult, InvalidConfig, Message
from receiver.alerts.notifiers import NOTIFIERS
from receiver.outbound.egress import EgressPolicy
from tests.receiver.alerts.sink import LINK, Sink, item, message, open_rude

TELEGRAM = NOTIFIERS["telegram"]
EVERYWHERE = EgressPolicy(None)
TOKEN = "123456789:AAs3cretAAs3cretAAs3cretAAs3cretAAs"
CHAT = "-1001234567890"


def config(url: str, **fields: Any) -> dict[str, Any]:
    return {"token": TOKEN, "chat_id": CHAT, "api_url": url, **fields}


async def send(sink: Sink, told: Message) -> DeliveryResult:
    return await TELEGRAM.send(config(sink.url), told, EVERYWHERE)


def refuse(sink: Sink, status: int, description: str, **parameters: Any) -> None:
    answer = {"ok": False, "error_code": status, "description": description, "parameters": parameters}
    sink.status, sink.body = status, orjson.dumps(answer)


async def test_news_is_plain_text_with_the_way_back(sink: Sink) -> None:
    sink.body = orjson.dumps({"ok": True, "result": {"message_id": 5, "text": LINK}})

    sent = await send(sink, message())

    document = sink.only.json
    assert sent == DeliveryResult(ok=True, status=200, answer="ok")
    assert sink.only.path == f"/bot{TOKEN}/sendMessage"
    assert document["chat_id"] == CHAT
    assert document["text"].startswith("WhatsApp da unidade Loja 1 perdeu conexão. Reconecte via QR Code")
    assert document["text"].endswith(f"Reconectar: {LINK}")


async def test_a_name_is_no_markup_and_telegram_is_told_not_to_open_the_way_back(sink: Sink) -> None:
    await send(sink, message(item(name="<b>*x*</b> [a](https://evil.example)")))

    document = sink.only.json
    assert "parse_mode" not in document
    assert "<b>*x*</b> [a](https://evil.example)" in document["text"]
    assert document["link_preview_options"] == {"is_disabled": True}


async def test_very_many_fit_into_one_message(sink: Sink) -> None:
    await send(sink, message(*[item(name="😀" * 300)] * 500, locale="es"))

    text = sink.only.json["text"]
    assert text.startswith("500 dispositivos fueron desvinculados\n\n")
    assert len(text.encode("utf-16-le")) <= 2 * 4096
    assert text.endswith("\n\nY 495 más.")


@pytest.mark.parametrize(
    ("status", "words"),
    [
        (400, "Bad Request: chat not found"),
        (401, "Unauthorized"),
        (403, "Forbidden: bot was blocked by the user"),
        (404, "Not Found"),
    ],
)
async def test_telegrams_refusals_are_for_good(sink: Sink, status: int, words: str) -> None:
    refuse(sink, status, words)

    assert await send(sink, message()) == DeliveryResult(
        ok=False, permanent=True, status=status, answer=words
    )


async def test_telegram_says_how_long_to_wait(sink: Sink) -> None:
    refuse(sink, 429, "Too Many Requests: retry after 35", retry_after=35)

    sent = await send(sink, message())

    assert sent == DeliveryResult(
        False, False, timedelta(seconds=35), 429, "Too Many Requests: retry after 35"
    )


@pytest.mark.parametrize("body", [b"", b"<html>", b"[]", b'{"parameters":[],"description":7}', b"\xff"])
@pytest.mark.parametrize("status", [200, 502])
async def test_an_answer_that_is_not_telegrams_is_only_its_status(
    sink: Sink, status: int, body: bytes
) -> None:
    sink.status, sink.body = status, body

    sent = await send(sink, message())

    assert (sent.ok, sent.permanent, sent.status) == (status == 200, False, status)


@pytest.mark.parametrize("is_reset", [True, False])
async def test_one_that_resets_or_hangs_is_tried_again_and_no_token_is_told(is_reset: bool) -> None:
    impatient = EgressPolicy(None, timeout=timedelta(seconds=10 if is_reset else 0.5))
    async with open_rude(is_reset=is_reset) as url:
        sent = await TELEGRAM.send(config(url), message(), impatient)

    assert (sent.ok, sent.permanent) == (False, False)
    assert "s3cret" not in sent.answer
    assert (sent.answer == "no answer: timed out") is not is_reset


async def test_answer_that_repeats_the_token_is_kept_without_it(sink: Sink) -> None:
    refuse(sink, 404, f"no such bot: {TOKEN}")

    assert (await send(sink, message())).answer == "no such bot: ***"


def test_bot_and_chat_are_shown_and_the_token_is_not() -> None:
    stored = TELEGRAM.check({"token": TOKEN, "chat_id": -1001234567890})

    assert stored == {"token": TOKEN, "chat_id": CHAT}
    assert TELEGRAM.shown(stored) == {"chat_id": CHAT, "bot_id": "123456789"}


@pytest.mark.parametrize(
    ("fields", "wrong"),
    [
        ({"token": "x"}, "token"),
        ({"token": f"{TOKEN}/../x"}, "token"),
        ({"token": f"{TOKEN}\n"}, "token"),
        ({"chat_id": "me"}, "chat_id"),
        ({"chat_id": True}, "chat_id"),
        ({"chat_id": None}, "chat_id"),
        ({"api_url": "x"}, "api_url"),
        ({"other": 1}, "other"),
    ],
)
def test_configuration_that_can_not_be_is_refused_by_field(fields: dict[str, Any], wrong: str) -> None:
    with pytest.raises(InvalidConfig) as caught:
        TELEGRAM.check({"token": TOKEN, "chat_id": CHAT, **fields})

    assert set(caught.value.problems) == {wrong}
