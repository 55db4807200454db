"""What people are told of a gateway's channels, over HTTP and with real receivers, in their languages."""

import asyncio
import re
from contextlib import AsyncExitStack
from datetime import datetime, timedelta
from typing import Any, Final, NamedTuple

import httpx
from standardwebhooks import Webhook

from db.connection.types import Connection
from receiver.alerts.dispatch import SCHEDULE
from tests.receiver.alerts.clinic import Clinic, open_clinic, open_town
from tests.receiver.alerts.desk import let_pass
from tests.receiver.alerts.inbox import answering, break_off, hang, open_inbox
from tests.receiver.alerts.post import part
from tests.receiver.alerts.sink import Got
from tests.support.service import time

HOUR: Final = timedelta(hours=1)
WINDOW: Final = timedelta(seconds=30)


class Words(NamedTuple):
    """What people read."""

    lost: str
    label: str
    back: str
    lasted: str


LANGUAGES: Final = {
    "pt-BR": Words(
        "WhatsApp da unidade Praça perdeu conexão. Reconecte via QR Code em Configurações.",
        "Reconectar",
        "WhatsApp da unidade Praça voltou a se conectar",
        "Durou 2 horas",
    ),
    "en": Words(
        "WhatsApp of Praça lost its connection. Reconnect by QR code in Settings.",
        "Reconnect",
        "WhatsApp of Praça is connected again",
        "It lasted 2 hours",
    ),
    "es": Words(
        "WhatsApp de la unidad Praça perdió la conexión. Reconéctelo por código QR en Configuración.",
        "Reconectar",
        "WhatsApp de la unidad Praça volvió a conectarse",
        "Duró 2 horas",
    ),
}


def links_in(text: str) -> list[str]:
    """Return the ways back that a text shows."""
    return re.findall(r"http://127[.\d:]+/reconnect/[\w-]+", text)


def read_slack(got: Got) -> str:
    """Return what Slack shows of a message."""
    return "\n".join(block["text"]["text"] for block in got.json["blocks"])


async def texts_of(clinic: Clinic) -> dict[str, list[str]]:
    """Return what people can read, by where they read it, in the order in which it came."""
    inbox, post = clinic.inbox, clinic.post
    return {
        "slack": [read_slack(got) for got in inbox.got if got.path == "/slack"],
        "telegram": [got.json["text"] for got in inbox.got if got.path.endswith("/sendMessage")],
        "plain": [part(mail, "plain") for mail in post.got],
        "html": [part(mail, "html") for mail in post.got],
        "in_app": [it["payload"]["body"] for it in await clinic.notifications()],
    }


async def assert_read(clinic: Clinic, words: Words) -> None:
    """Everybody could read once that it was lost, with the way back, and once that it is over."""
    for way, texts in (await texts_of(clinic)).items():
        lost, back = texts
        assert words.lost in lost, way
        assert words.label in lost, way
        [link] = links_in(lost)
        assert (words.back in back, words.lasted in back, links_in(back)) == (True, True, []), way
        async with httpx.AsyncClient(timeout=30) as browser:
            page = await browser.get(link)
        assert (page.status_code, "Praça" in page.text) == (200, True), way


def assert_verified(clinic: Clinic, secret: str, incident: str) -> None:
    """A program got the beginning and the end, signed, with all that it needs."""
    opened, resolved = [
        Webhook(secret).verify(got.body, dict(got.headers))
        for got in clinic.inbox.got
        if got.path == "/webhook"
    ]
    same = {"incident_id": incident, "channel_id": clinic.channel, "tenant_id": clinic.id, "name": "Praça"}
    for news, event in ((opened, "incident.opened"), (resolved, "incident.resolved")):
        assert (news["type"], news["data"] | same) == (event, news["data"])
        assert (news["data"]["kind"], news["data"]["reason"]) == ("disconnected", "logged_out")
    assert links_in(opened["data"]["link"]) == [opened["data"]["link"]]
    assert (opened["data"]["resolved_at"], opened["data"]["duration_seconds"]) == (None, None)
    assert resolved["data"]["link"] is None
    lasted = time(resolved["data"]["resolved_at"]) - time(resolved["data"]["started_at"])
    assert abs(lasted.total_seconds() - resolved["data"]["duration_seconds"]) <= 1
    assert 7200 <= resolved["data"]["duration_seconds"] < 7320


async def test_people_hear_in_their_language_and_by_every_way_that_a_channel_is_lost_and_is_back(
    dsn: str, connection: Connection
) -> None:
    async with open_town(dsn) as told, AsyncExitStack() as stack:
        clinics = [
            await stack.enter_async_context(open_clinic(told, connection, locale)) for locale in LANGUAGES
        ]
        secrets = [(await clinic.destination("webhook"))["secret"] for clinic in clinics]
        for clinic in clinics:
            for kind in ("slack", "telegram", "email"):
                await clinic.destination(kind)

        incidents = await asyncio.gather(*(clinic.lose() for clinic in clinics))
        for clinic in clinics:
            await clinic.delivered("incident.opened", 5)
        await connection.execute(
            "update whatsapp_connection_incidents set started_at = started_at - interval '2 hours'"
        )
        await let_pass(connection, WINDOW)
        for clinic in clinics:
            clinic.instance.scan()
        for clinic in clinics:
            await clinic.delivered("incident.resolved", 5)

        for clinic, secret, incident, words in zip(
            clinics, secrets, incidents, LANGUAGES.values(), strict=True
        ):
            await assert_read(clinic, words)
            assert_verified(clinic, secret, incident)
            assert len(clinic.inbox.got) == 6
            assert (await told.z.get(f"/incidents/{incident}"))["notification_count"] == 5


async def test_receivers_that_misbehave_are_tried_again_by_the_rules_and_keep_nobody_waiting(
    dsn: str, connection: Connection
) -> None:
    async with AsyncExitStack() as stack:
        told = await stack.enter_async_context(open_town(dsn))
        clinic = await stack.enter_async_context(open_clinic(told, connection, "pt-BR"))
        other = await stack.enter_async_context(open_clinic(told, connection, "en"))
        manners = {
            "busy": ("webhook", answering(429, b"slow down", Retry_After="3600")),
            "cut": ("webhook", break_off),
            "broken": ("slack", answering(500, b"rollup_error")),
            "stuck": ("telegram", hang),
        }
        inboxes = {name: await stack.enter_async_context(open_inbox(it)) for name, (_, it) in manners.items()}
        ours = {name: await clinic.destination(kind, inboxes[name]) for name, (kind, _) in manners.items()}
        ours["greylisted"] = await clinic.destination("email")
        well = [await clinic.destination("webhook"), await other.destination("webhook")]
        clinic.post.answer = "451 try later"

        incident, _ = await asyncio.gather(clinic.lose(), other.lose())
        await inboxes["stuck"].reached(1)
        await asyncio.gather(clinic.inbox.reached(1), other.inbox.reached(1))
        while_one_hangs = [await clinic.tried(well[0], 1), await other.tried(well[1], 1)]
        still = await clinic.sent(destination_id=ours["stuck"]["id"])
        await clinic.tried(ours["greylisted"], 1)
        clinic.post.answer = "250 OK"
        tries = {name: await clinic.tried(one, 2) for name, one in ours.items() if name != "busy"}
        [waiting] = await clinic.sent(destination_id=ours["busy"]["id"])
        await let_pass(connection, HOUR)
        tries["busy"] = await clinic.tried(ours["busy"], 2)
        shown = await told.z.get(f"/incidents/{incident}")

    assert [attempt["ok"] for attempts in while_one_hangs for attempt in attempts] == [True, True]
    assert still[0]["attempts"] == []
    assert {name: [it["status"] for it in attempts] for name, attempts in tries.items()} == {
        "busy": [429, 200],
        "cut": [None, 200],
        "broken": [500, 200],
        "stuck": [None, 200],
        "greylisted": [451, 250],
    }
    assert {name: attempts[0]["answer"] for name, attempts in tries.items() if name != "stuck"} == {
        "busy": "slow down",
        "cut": "no answer: ReadError",
        "broken": "rollup_error",
        "greylisted": "try later",
    }
    assert re.match("no answer", tries["stuck"][0]["answer"])
    assert all(wait_of(*attempts) >= SCHEDULE[0] for attempts in tries.values())
    [asked_to_wait] = waiting["attempts"]
    assert HOUR <= time(waiting["message"]["next_try_at"]) - end_of(asked_to_wait) < 1.1 * HOUR
    hung_until = end_of(tries["stuck"][0])
    assert all(time(tries[name][1]["at"]) < hung_until for name in ("cut", "broken", "greylisted"))
    for name, inbox in inboxes.items():
        first, second = inbox.got
        assert first.headers.get("webhook-id") == second.headers.get("webhook-id"), name
        # For the busy one it is an hour earlier now that everything was said.
        assert name == "busy" or first.body == second.body, name
    assert (len(clinic.inbox.got), len(other.inbox.got), len(clinic.post.got)) == (1, 1, 1)
    # Its application was told, too.
    assert shown["notification_count"] == len(ours) + 2


def end_of(attempt: Any) -> datetime:
    """Return when a try had failed; kept to the millisecond, so it may have been one later."""
    return time(attempt["at"]) + timedelta(milliseconds=attempt["took_ms"] - 1)


def wait_of(failed: Any, again: Any) -> timedelta:
    """Return how long after a failure it was tried again."""
    return time(again["at"]) - end_of(failed)


async def test_destination_that_is_gone_is_switched_off_and_its_owner_told_by_the_other_ways(
    dsn: str, connection: Connection
) -> None:
    async with (
        open_town(dsn) as told,
        open_clinic(told, connection, "es") as clinic,
        open_inbox(answering(410, b"channel_is_archived")) as gone,
    ):
        made = await clinic.destination("webhook", gone, name="Sistema antiguo")
        await clinic.destination("slack")
        secret = (await clinic.destination("webhook"))["secret"]

        await clinic.lose()
        await clinic.delivered("destination.disabled", 3)
        await let_pass(connection, WINDOW)
        clinic.instance.scan()
        await clinic.delivered("incident.resolved", 3)
        shown = await told.z.get(f"/destinations/{made['id']}")
        log = (await told.z.get("/deliveries", destination_id=made["id"]))["items"]
        texts = await texts_of(clinic)

    assert (shown["enabled"], shown["disabled_why"]) == (False, "gone")
    assert [got.json["type"] for got in gone.got] == ["incident.opened"]
    assert [(it["event"], it["decision"], it["reason"]) for it in log] == [
        ("incident.resolved", "skip", "disabled"),
        ("incident.opened", "send", "opened"),
    ]
    for way in ("slack", "in_app"):
        [said] = [text for text in texts[way] if "Sistema antiguo" in text]
        assert said.startswith("Ya no se envía nada a Sistema antiguo: no se pudo alcanzarlo."), way
        assert len(texts[way]) == 3, way
    news = [
        Webhook(secret).verify(got.body, dict(got.headers))
        for got in clinic.inbox.got
        if got.path == "/webhook"
    ]
    assert sorted(it["type"] for it in news) == [
        "destination.disabled",
        "incident.opened",
        "incident.resolved",
    ]
