"""A message says the same in each try, whatever has changed since the first."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any, Final, NamedTuple
from uuid import UUID

import orjson
import pytest

from db.connection.types import Connection
from receiver.http.signed_links import LIFE, ReconnectLinks
from statemachine.model import State
from tests.receiver.alerts.desk import Desk, open_desk
from tests.receiver.alerts.notifiers.test_webhook import NEW, verified
from tests.receiver.alerts.post import Post, open_post, part
from tests.receiver.alerts.sink import Sink
from tests.support.service import KEY

LINKS: Final = ReconnectLinks((KEY,), "https://watch.test")
WINDOW: Final = timedelta(seconds=30)
DAY: Final = timedelta(days=1)


class Receivers(NamedTuple):
    """What tells people, and the servers that refuse everything until they are told otherwise."""

    desk: Desk
    sink: Sink
    post: Post

    async def destination(self, tenant: UUID, kind: str, **more: Any) -> None:
        configs: dict[str, dict[str, Any]] = {
            "webhook": {"url": self.sink.url, "secret": NEW},
            "slack": {"url": self.sink.url},
            "telegram": {"token": "1:" + "a" * 35, "chat_id": "7", "api_url": self.sink.url},
            "email": {"host": "127.0.0.1", "port": self.post.port, "tls": "none"}
            | {"from": "z@watch.test", "to": ["ana@clinic.test"]},
        }
        await self.desk.destination(tenant, kind, kind, configs[kind], **more)

    async def try_again(self) -> None:
        """Have what was refused be tried now, and taken."""
        self.sink.status, self.post.answer = 200, "250 OK"
        await self.desk.connection.execute(
            "update zapwatch_messages set due_at = now() - interval '1 s' where tries > 0"
        )
        await self.desk.dispatch()

    def tries(self) -> list[object]:
        """Return what arrived in each try, without what belongs to the try alone."""
        if self.post.offered:
            return [(mail["Message-ID"], mail["Subject"], *parts(mail)) for mail in self.post.offered]
        return [(got.headers.get("webhook-id"), got.body) for got in self.sink.got]


def parts(mail: Any) -> tuple[str, str]:
    return part(mail, "plain"), part(mail, "html")


@pytest.fixture
async def receivers(dsn: str, connection: Connection, sink: Sink) -> AsyncIterator[Receivers]:
    sink.status = 503
    async with open_post() as post, open_desk(dsn, connection, link=LINKS.link_for) as desk:
        post.answer = "451 try later"
        yield Receivers(desk, sink, post)


async def unpaired(desk: Desk, tenant: UUID, name: str = "Centro") -> UUID:
    """Return a channel that was logged out, with its incident."""
    channel = await desk.channel(tenant, name)
    await stands(desk, channel, State.UNPAIRED)
    await desk.open(channel)
    return channel


async def stands(desk: Desk, channel: UUID, state: State) -> None:
    await desk.connection.execute(
        "update zapwatch_states set state = $2 where channel_id = $1", channel, state.value
    )


async def change_everything(desk: Desk, *channels: UUID) -> None:
    """Change all that a message could tell of these channels and their tenants."""
    execute = desk.connection.execute
    await execute("update tenants set locale = 'es', time_zone = 'Asia/Tokyo'")
    await execute("update zapwatch_channels set name = 'Filial'")
    await execute("update notification_channels set metadata = '{\"heartbeat_threshold_minutes\": 1}'")
    for channel in channels:
        await desk.open(channel, "error", "unreachable")
        await stands(desk, channel, State.ERROR)


@pytest.mark.parametrize("kind", ["webhook", "slack", "telegram", "email"])
async def test_a_second_try_says_what_the_first_said_whatever_has_changed(
    receivers: Receivers, kind: str
) -> None:
    desk = receivers.desk
    tenant = await desk.tenant()
    await receivers.destination(tenant, kind)
    channel = await unpaired(desk, tenant)
    await desk.tell()

    await change_everything(desk, channel)
    await receivers.try_again()

    first, second = receivers.tries()
    assert first == second


async def test_a_second_try_is_signed_anew_and_its_link_works(receivers: Receivers) -> None:
    desk = receivers.desk
    tenant = await desk.tenant()
    await receivers.destination(tenant, "webhook")
    channel = await unpaired(desk, tenant)
    await desk.tell()

    await change_everything(desk, channel)
    await receivers.try_again()

    first, second = (verified(got, NEW) for got in receivers.sink.got)
    assert first == second
    assert (second["data"]["name"], second["data"]["reason"]) == ("Centro", "logged_out")
    link = LINKS.read(second["data"]["link"].rpartition("/")[2])
    assert link is not None
    assert link.channel_id == channel
    assert timedelta(0) <= datetime.now(UTC) + LIFE - link.expires_at < timedelta(minutes=5)


async def test_members_read_what_was_so_when_it_was_first_to_be_shown(receivers: Receivers) -> None:
    desk = receivers.desk
    tenant = await desk.tenant()
    await desk.member(tenant)
    await desk.connection.execute(
        "alter table notifications add constraint theirs check (type = 'new_patient')"
    )
    channel = await unpaired(desk, tenant)
    await desk.tell()

    await change_everything(desk, channel)
    await desk.connection.execute("alter table notifications drop constraint theirs")
    await receivers.try_again()

    row = await desk.connection.fetchrow("select type, payload::text from notifications")
    assert row is not None
    payload = orjson.loads(row["payload"])
    assert row["type"] == "instance_disconnected"
    assert payload["body"].startswith("WhatsApp da unidade Centro perdeu conexão. Reconecte via QR Code")
    assert payload["link"] in payload["body"]


async def test_all_incidents_of_one_message_stay_as_they_were(receivers: Receivers) -> None:
    desk = receivers.desk
    tenant = await desk.tenant()
    await receivers.destination(tenant, "slack")
    channels = [await unpaired(desk, tenant, name) for name in ("Um", "Dois", "Três")]
    await desk.tell()
    await desk.later(WINDOW)
    receivers.sink.got.clear()
    await desk.connection.execute("update zapwatch_messages set settled_at = now() where tries > 0")
    await desk.dispatch()

    await change_everything(desk, *channels)
    await receivers.try_again()

    first, second = receivers.sink.got
    assert first.body == second.body
    assert [name in first.body.decode() for name in ("Um", "Dois", "Três")] == [False, True, True]


async def test_an_opening_is_told_as_it_was_although_it_is_over_by_the_next_try(
    receivers: Receivers,
) -> None:
    desk = receivers.desk
    tenant = await desk.tenant()
    await receivers.destination(tenant, "webhook")
    channel = await unpaired(desk, tenant)
    await desk.tell()

    await stands(desk, channel, State.OPEN)
    await desk.connection.execute("update whatsapp_connection_incidents set details = '{}'")
    await desk.resolve(channel)
    await desk.tell()
    await receivers.try_again()
    await desk.later(WINDOW)
    await desk.dispatch()

    first, second, end = receivers.sink.got
    assert first.body == second.body
    assert [got.json["type"] for got in (second, end)] == ["incident.opened", "incident.resolved"]


async def test_the_end_of_an_incident_says_the_same_in_each_try(receivers: Receivers) -> None:
    desk = receivers.desk
    tenant = await desk.tenant()
    await receivers.destination(tenant, "webhook")
    channel = await unpaired(desk, tenant)
    receivers.sink.status = 200
    await desk.tell()
    receivers.sink.status = 503
    await desk.resolve(channel)
    await desk.tell()

    await change_everything(desk)
    await desk.connection.execute(
        "update whatsapp_connection_incidents set started_at = started_at - interval '1 h'"
    )
    await receivers.try_again()

    _, first, second = receivers.tries()
    assert first == second


async def test_a_message_of_an_incident_that_is_gone_is_told_as_it_was(receivers: Receivers) -> None:
    desk = receivers.desk
    tenant = await desk.tenant()
    await receivers.destination(tenant, "webhook")
    await unpaired(desk, tenant)
    await desk.tell()

    await desk.connection.execute("delete from whatsapp_connection_incidents")
    await receivers.try_again()

    first, second = receivers.tries()
    assert first == second


async def test_a_message_of_which_nothing_is_left_before_its_first_try_is_void(receivers: Receivers) -> None:
    desk = receivers.desk
    tenant = await desk.tenant()
    await receivers.destination(tenant, "webhook")
    await unpaired(desk, tenant)
    await desk.route()

    await desk.connection.execute("delete from whatsapp_connection_incidents")
    await desk.dispatch()

    assert receivers.sink.got == []
    assert await desk.connection.fetchval("select outcome from zapwatch_messages") == "void"


async def test_what_an_earlier_version_has_tried_is_told_as_it_is_now_and_then_stays_so(
    receivers: Receivers,
) -> None:
    desk = receivers.desk
    tenant = await desk.tenant()
    await receivers.destination(tenant, "webhook")
    channel = await unpaired(desk, tenant)
    await desk.tell()
    await desk.connection.execute("update zapwatch_messages set facts = null")
    await desk.connection.execute("update zapwatch_channels set name = 'Praia'")
    await desk.connection.execute("update zapwatch_messages set due_at = now() - interval '1 s'")
    await desk.dispatch()

    await change_everything(desk, channel)
    await receivers.try_again()

    assert [got.json["data"]["name"] for got in receivers.sink.got] == ["Centro", "Praia", "Praia"]
    assert await desk.connection.fetchval("select outcome from zapwatch_messages") == "delivered"


@pytest.mark.parametrize("days", [1, 4, 30])
async def test_link_of_a_message_that_waited_through_an_outage_still_works(
    receivers: Receivers, days: int
) -> None:
    desk = receivers.desk
    tenant = await desk.tenant()
    await receivers.destination(tenant, "webhook")
    await unpaired(desk, tenant)
    await desk.tell()

    await desk.connection.execute(
        "update zapwatch_messages set facts = facts || jsonb_build_object('made_at', now() - $1::interval)",
        days * DAY,
    )
    await receivers.try_again()

    link = LINKS.read(receivers.sink.got[-1].json["data"]["link"].rpartition("/")[2])
    assert link is not None
    assert link.expires_at > datetime.now(UTC) + LIFE / 3 - timedelta(minutes=1)


async def test_no_link_is_kept(receivers: Receivers) -> None:
    desk = receivers.desk
    tenant = await desk.tenant()
    await receivers.destination(tenant, "webhook")
    await unpaired(desk, tenant)

    await desk.tell()

    link = receivers.sink.only.json["data"]["link"]
    row = await desk.connection.fetchval("select facts::text from zapwatch_messages")
    assert "Centro" in row
    assert link.rpartition("/")[2] not in row
    assert "reconnect" not in row
