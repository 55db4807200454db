"""A scan is asked for, and a link given, exactly where a scan brings the channel back."""

from collections.abc import Iterator
from typing import Any, Final, NamedTuple

import pytest

from db.connection.types import Connection
from receiver.http.signed_links import ReconnectLinks
from statemachine.model import Reason, State
from tests.receiver.alerts.desk import Desk, open_desk
from tests.receiver.alerts.inbox import Inbox, open_inbox
from tests.receiver.alerts.notifiers.test_webhook import NEW
from tests.receiver.alerts.post import Post, open_post, part
from tests.support.service import KEY

SENTENCES: Final = {
    "pt-BR": "Reconecte via QR Code em Configurações.",
    "en": "Reconnect by QR code in Settings.",
    "es": "Reconéctelo por código QR en Configuración.",
}
BY_SCAN: Final = {
    Reason.LOGGED_OUT,
    Reason.LOGGED_OUT_BY_API,
    Reason.BANNED_TEMPORARILY,
    Reason.QR_LIMIT,
    Reason.QR_SHOWN,
    Reason.SCAN_NEEDED,
    Reason.SESSION_MISSING,
}
NOT_BY_SCAN: Final = {Reason.BANNED, Reason.EXPIRED, Reason.INSTANCE_REMOVED}
WAITING: Final = {State.UNPAIRED, State.QR_PENDING}


class Case(NamedTuple):
    """A channel that is told of, and whether a scan brings it back."""

    state: State
    reason: Reason

    @property
    def name(self) -> str:
        return f"{self.state.value} {self.reason.value}"

    @property
    def scan_helps(self) -> bool:
        if self.reason in NOT_BY_SCAN:
            return False
        return self.reason in BY_SCAN or self.state in WAITING


def cases() -> Iterator[Case]:
    """Yield each reason in the states in which a channel can have it."""
    for reason in Reason:
        if reason in {Reason.QR_SHOWN, Reason.SCAN_NEEDED}:
            yield Case(State.QR_PENDING, reason)
        elif reason in BY_SCAN | NOT_BY_SCAN:
            yield Case(State.UNPAIRED, reason)
        elif reason in {Reason.DISCONNECTED, Reason.CONNECTION_LOST}:
            yield Case(State.DROPPED, reason)
            yield Case(State.UNPAIRED, reason)
        else:
            yield Case(State.ERROR, reason)


async def told(desk: Desk, locale: str, inbox: Inbox, post: Post) -> dict[str, dict[Case, str]]:
    """Tell people of every case by every kind of destination; return what each shows, by kind and case."""
    shown: dict[str, dict[Case, str]] = {}
    for case in cases():
        tenant = await desk.tenant(locale=locale)
        await desk.member(tenant)
        for kind, config in configs(inbox, post).items():
            await desk.destination(tenant, kind, kind, config)
        channel = await desk.channel(tenant, case.name)
        await desk.connection.execute(
            "update zapwatch_states set state = $2, reason = $3 where channel_id = $1",
            channel,
            case.state.value,
            case.reason.value,
        )
        await desk.open(channel, case.state.shown, case.reason.value)
        await desk.tell()
        for kind, text in (await newest(desk, inbox, post)).items():
            shown.setdefault(kind, {})[case] = text
    return shown


def configs(inbox: Inbox, post: Post) -> dict[str, dict[str, Any]]:
    return {
        "webhook": {"url": f"{inbox.url}/webhook", "secret": NEW},
        "slack": {"url": f"{inbox.url}/slack"},
        "telegram": {"token": "1:" + "a" * 35, "chat_id": "7", "api_url": inbox.url},
        "email": {
            "host": "127.0.0.1",
            "port": post.port,
            "tls": "none",
            "from": "z@x.test",
            "to": ["a@x.test"],
        },
    }


async def newest(desk: Desk, inbox: Inbox, post: Post) -> dict[str, str]:
    """Return what was shown last of each kind, and forget it."""
    by_path = {got.path.rpartition("/")[2]: got for got in inbox.got}
    row = await desk.connection.fetchrow("delete from notifications returning type, payload::text")
    assert row is not None
    texts = {
        "webhook": by_path["webhook"].body.decode(),
        "slack": "\n".join(block["text"]["text"] for block in by_path["slack"].json["blocks"]),
        "telegram": by_path["sendMessage"].json["text"],
        "plain": part(post.got[-1], "plain"),
        "html": part(post.got[-1], "html"),
        "in_app": f"{row['type']} {row['payload']}",
    }
    inbox.got.clear()
    post.got.clear()
    return texts


@pytest.mark.parametrize("locale", SENTENCES)
async def test_text_asks_for_a_scan_exactly_where_there_is_a_link_for_one(
    dsn: str, connection: Connection, locale: str
) -> None:
    links = ReconnectLinks((KEY,), "https://watch.test")
    async with (
        open_inbox() as inbox,
        open_post() as post,
        open_desk(dsn, connection, link=links.link_for) as desk,
    ):
        shown = await told(desk, locale, inbox, post)

    helped = {case for case in cases() if case.scan_helps}
    for kind, texts in shown.items():
        assert texts.keys() == set(cases()), kind
        linked = {case for case, text in texts.items() if "https://watch.test/reconnect/" in text}
        asked = {case for case, text in texts.items() if SENTENCES[locale] in text}
        assert linked == helped, kind
        # Programs get no words.
        assert asked == (set() if kind == "webhook" else helped), kind
    prompted = {case for case, text in shown["in_app"].items() if text.startswith("instance_disconnected ")}
    assert prompted == helped
