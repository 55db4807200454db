"""E-mail is handed to a real SMTP server, in clear, by STARTTLS and by TLS."""

from collections.abc import AsyncIterator, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from receiver.alerts.message import DeliveryResult, InvalidConfig, Message
from receiver.alerts.notifiers import NOTIFIERS
from receiver.outbound.egress import EgressPolicy
from tests.receiver.alerts.certificates import certified
from tests.receiver.alerts.post import PASSWORD, Post, open_post, part
from tests.receiver.alerts.sink import LINK, MESSAGE, item, message, open_rude, resolved

EMAIL = NOTIFIERS["email"]
EVERYWHERE = EgressPolicy(None)


@pytest.fixture
async def post() -> AsyncIterator[Post]:
    """A mail server that knows no encryption."""
    async with open_post() as opened:
        yield opened


def config(port: int, **fields: Any) -> dict[str, Any]:
    given = {"host": "127.0.0.1", "port": port, "tls": "none", "from": "Zapwatch <z@watch.example>"}
    return {**given, "to": ["ana@clinic.example", "bia@clinic.example"], **fields}


async def send(post: Post, told: Message, **fields: Any) -> DeliveryResult:
    return await EMAIL.send(EMAIL.check(config(post.port, **fields)), told, EVERYWHERE)


@pytest.mark.parametrize(
    ("locale", "subject", "label"),
    [
        ("pt-BR", "WhatsApp da unidade Praça perdeu conexão", "Reconectar"),
        ("en", "WhatsApp of Praça lost its connection", "Reconnect"),
        ("es", "WhatsApp de la unidad Praça perdió la conexión", "Reconectar"),
    ],
)
async def test_news_arrives_as_text_and_html_in_the_readers_language(
    post: Post, locale: str, subject: str, label: str
) -> None:
    sent = await send(post, message(item(name="Praça"), locale=locale))

    (mail,) = post.got
    assert (sent.ok, sent.status) == (True, 250)
    assert post.recipients == ["ana@clinic.example", "bia@clinic.example"]
    assert mail["Subject"] == subject
    assert mail["From"] == "Zapwatch <z@watch.example>"
    assert part(mail, "plain").startswith(f"{subject}.")
    assert f"{label}: {LINK}" in part(mail, "plain")
    assert f'<a href="{LINK}">{label}</a>' in part(mail, "html")
    assert f'<html lang="{locale}">' in part(mail, "html")


async def test_another_try_is_recognised_by_its_message_id(post: Post) -> None:
    for _ in range(2):
        await send(post, message())

    assert [mail["Message-ID"] for mail in post.got] == [f"<{MESSAGE}@watch.example>"] * 2
    assert len({str(mail["Date"]) for mail in post.got}) == 1


async def test_several_are_one_mail(post: Post) -> None:
    await send(post, message(*[item()] * 5, resolved()))

    (mail,) = post.got
    assert mail["Subject"] == "5 aparelhos foram desvinculados e 1 canal voltou a se conectar"
    assert part(mail, "html").count("<p>") == 6


@pytest.mark.parametrize(
    "name", ["x\r\nBcc: eve@evil.example\r\n\r\nhi", "x\n\nBcc: eve@evil.example", "x\u2028y"]
)
async def test_a_name_adds_no_header(post: Post, name: str) -> None:
    await send(post, message(item(name=name)))

    (mail,) = post.got
    assert mail["Bcc"] is None
    assert "eve@evil.example" not in post.recipients
    assert len(mail.get_all("Subject", [])) == 1


async def test_a_name_is_no_markup(post: Post) -> None:
    await send(post, message(item(name='<img src=x onerror="a()">&')))

    html = part(post.got[0], "html")
    assert "<img" not in html
    assert "&lt;img src=x onerror=&quot;a()&quot;&gt;&amp;" in html


@pytest.mark.parametrize("mode", ["starttls", "tls"])
async def test_the_servers_name_must_be_certified_and_the_login_is_encrypted(
    mode: str, tmp_path: Path
) -> None:
    ours, theirs = certified("smtp.example", tmp_path)
    login = {"tls": mode, "user": "z@watch.example", "password": PASSWORD}

    async def resolve(host: str, port: int) -> Sequence[str]:
        return ["127.0.0.1"]

    outgoing = EgressPolicy(None, resolve=resolve, tls=theirs)
    async with open_post(**{mode: ours}) as post:
        right = await EMAIL.send(config(post.port, host="smtp.example", **login), message(), outgoing)
        wrong = await EMAIL.send(config(post.port, host="other.example", **login), message(), outgoing)

    assert right.ok
    assert post.users == ["z@watch.example"]
    assert (wrong.ok, wrong.permanent) == (False, False)
    assert len(post.got) == 1


async def test_wrong_password_is_for_good_and_told_to_nobody(tmp_path: Path) -> None:
    ours, theirs = certified("smtp.example", tmp_path)

    async def resolve(host: str, port: int) -> Sequence[str]:
        return ["127.0.0.1"]

    async with open_post(tls=ours) as post:
        login = {"tls": "tls", "host": "smtp.example", "user": "z", "password": "wr0ng"}
        outgoing = EgressPolicy(None, resolve=resolve, tls=theirs)
        sent = await EMAIL.send(config(post.port, **login), message(), outgoing)

    assert (sent.ok, sent.permanent, sent.status) == (False, True, 535)
    assert sent.answer.endswith("nobody has the password ***")


async def test_server_that_knows_no_starttls_gets_nothing_in_clear(post: Post) -> None:
    sent = await send(post, message(), tls="starttls")

    assert (sent.ok, post.got) == (False, [])
    assert "STARTTLS" in sent.answer


async def test_4xx_is_tried_again_and_5xx_is_not(post: Post) -> None:
    answers = []
    for post.answer in ("451 try later", "554 spam"):
        answers.append(await send(post, message()))

    assert answers == [
        DeliveryResult(ok=False, permanent=False, status=451, answer="try later"),
        DeliveryResult(ok=False, permanent=True, status=554, answer="spam"),
    ]


async def test_mail_that_reached_somebody_is_not_sent_again(post: Post) -> None:
    post.refusing = {"ana@clinic.example": "550 no such user"}

    sent = await send(post, message())

    assert sent.ok
    assert sent.answer.endswith("(refused: ana@clinic.example)")
    assert post.recipients == ["bia@clinic.example"]


async def test_where_all_are_refused_one_that_may_pass_is_worth_a_try(post: Post) -> None:
    post.refusing = {"ana@clinic.example": "550 no such user", "bia@clinic.example": "450 greylisted"}
    later = await send(post, message())
    post.refusing["bia@clinic.example"] = "550 no such user"
    never = await send(post, message())

    assert (later.permanent, later.status) == (False, 450)
    assert (never.permanent, never.status) == (True, 550)


@pytest.mark.parametrize("is_reset", [True, False])
async def test_server_that_resets_or_hangs_is_tried_again(is_reset: bool) -> None:
    impatient = EgressPolicy(None, timeout=timedelta(seconds=10 if is_reset else 0.5))
    async with open_rude(is_reset=is_reset, greeting=b"220 mail.example\r\n") as url:
        port = int(url.rpartition(":")[2])
        sent = await EMAIL.send(config(port), message(), impatient)

    assert (sent.ok, sent.permanent) == (False, False)
    assert sent.answer.startswith("no answer: ")
    assert (sent.answer == "no answer: timed out") is not is_reset


async def test_tenants_mail_server_may_not_be_inside(post: Post) -> None:
    sent = await EMAIL.send(config(post.port), message(), EgressPolicy())

    assert (sent.ok, post.got) == (False, [])
    assert "OUTGOING_ALLOW" in sent.answer


def test_password_is_not_shown() -> None:
    stored = EMAIL.check(config(587, user="z", password=PASSWORD))

    shown = EMAIL.shown(stored)

    assert stored["password"] == PASSWORD
    assert shown == {name: value for name, value in stored.items() if name != "password"}
    assert shown["from"] == "Zapwatch <z@watch.example>"


@pytest.mark.parametrize(
    ("fields", "wrong"),
    [
        ({"to": []}, "to"),
        ({"to": ["ana"]}, "to.0"),
        ({"to": ["a@x.example", "Ana <a@x.example>"]}, "to.1"),
        ({"to": ["a@x.example\r\nRCPT TO:<eve@evil.example>"]}, "to.0"),
        ({"from": "z@watch.example\nBcc: eve@evil.example"}, "from"),
        ({"from": "nobody"}, "from"),
        ({"host": "a b"}, "host"),
        ({"port": 0}, "port"),
        ({"tls": "maybe"}, "tls"),
        ({"user": "z"}, "config"),
        ({"cc": "x"}, "cc"),
    ],
)
def test_configuration_that_can_not_be_is_refused_by_field(fields: dict[str, Any], wrong: str) -> None:
    with pytest.raises(InvalidConfig) as caught:
        EMAIL.check({**config(25), **fields})

    assert set(caught.value.problems) == {wrong}
