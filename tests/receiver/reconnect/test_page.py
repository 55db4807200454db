"""The way back: one link, one page without login, one scan; and nothing else for whoever has no such link."""

import asyncio
import signal
from base64 import urlsafe_b64encode
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import AbstractAsyncContextManager, aclosing, asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest

from db.connection.types import Connection
from db.history.replay import replay
from receiver.http.rate_limit import KEPT, RateLimit
from receiver.http.signed_links import LIFE, ReconnectLinks
from receiver.reconnect.limits import BY_LINK, CODES, STREAMS_OF_LINK
from receiver.sandbox import Fault
from tests.factories import Evolution
from tests.receiver.test_secrets import serving as process
from tests.support.eventually import eventually
from tests.support.service import KEY, OPERATOR, SOON, Zapwatch, zapwatch
from tests.support.story import Story, story

UNHURRIED: dict[str, Any] = {
    "stale_after": timedelta(hours=1),
    "retry_after": timedelta(seconds=1),
    "probe_timeout": timedelta(seconds=20),
    "terminal_grace": timedelta(seconds=0.1),
}
OPENED = "reconnect_opened"
"""The event of a page that was opened."""


def waiting(dsn: str, **settings: Any) -> AbstractAsyncContextManager[Story]:
    """Return a story in which a QR is shown as long as it really is, and incidents open at once."""
    return story(dsn, speed=1.0, **{**UNHURRIED, **settings})


async def reconnect_targets(told: Story, **more: Any) -> tuple[Any, str, str]:
    """Return an instance that was unlinked on the phone, its channel, and the link of its incident."""
    host = await told.fleet.evolution()
    instance = host.add("loja-01")
    channel = await told.watch(host, instance, **{"name": "Loja <Centro>", **more})
    instance.unlink()
    return instance, channel, await link_of(told.z, channel)


async def link_of(z: Zapwatch, channel: str) -> str:
    """Return the link that people would be sent for a channel's incident."""
    incident = await z.incident(channel)
    return str(z.app.links.link_for(UUID(channel), UUID(incident["id"]), datetime.now(UTC)))


@asynccontextmanager
async def browser(**headers: str) -> AsyncIterator[httpx.AsyncClient]:
    """Yield somebody without a token."""
    async with httpx.AsyncClient(timeout=30, headers=headers) as client:
        yield client


async def panels(client: httpx.AsyncClient, link: str, **params: str) -> AsyncGenerator[str, None]:
    """Yield what the page's stream shows, one picture after the other."""
    async with client.stream("GET", f"{link}/stream", params=params, timeout=60) as answer:
        assert answer.status_code == 200, answer.status_code
        shown: list[str] = []
        async for line in answer.aiter_lines():
            if line.startswith("data:"):
                shown.append(line[5:])
            elif not line and shown:
                yield "\n".join(shown)
                shown = []


async def seen(stream: AsyncIterator[str], name: str) -> str:
    """Return the first picture with this name."""
    async for panel in stream:
        if f'class="view {name}"' in panel:
            return panel
    raise AssertionError(f"the stream ended without {name}")


async def names(z: Zapwatch, channel: str) -> list[str]:
    """Return what operators read in a channel's history of those who came by a link."""
    return [event["name"] for event in await z.events(channel) if event["source"] == "operator"]


async def test_one_link_and_one_scan_bring_a_channel_back(dsn: str) -> None:
    async with waiting(dsn) as told, browser() as client:
        instance, channel, link = await reconnect_targets(told)

        page = await client.get(link)
        async with aclosing(panels(client, link)) as stream:
            qr = await seen(stream, "qr")
            instance.scan()
            await seen(stream, "connected")

        assert page.status_code == 200
        assert "Loja &lt;Centro&gt;" in page.text
        assert 'src="data:image/png;base64,iVBORw0K' in qr
        incidents = await told.z.until(
            lambda: told.z.incidents(channel), lambda all_: all_[0]["resolved_at"] is not None
        )
        assert len(incidents) == 1
        assert instance.connects == 1


async def test_scan_is_seen_although_the_gateway_tells_nobody(dsn: str) -> None:
    async with waiting(dsn, retry_after=timedelta(hours=1)) as told, browser() as client:
        instance, _, link = await reconnect_targets(told)

        async with aclosing(panels(client, link)) as stream:
            instance.webhook = None
            await seen(stream, "qr")
            instance.scan()

            await seen(stream, "connected")


async def test_page_alone_asks_no_gateway(dsn: str) -> None:
    """Messengers open links that they preview."""
    async with waiting(dsn) as told, browser() as client:
        instance, _, link = await reconnect_targets(told)

        for _ in range(3):
            assert (await client.get(link)).status_code == 200
        assert (await client.head(link)).status_code == 200

        assert instance.connects == 0


async def test_without_javascript_a_button_brings_the_qr_with_the_page(dsn: str) -> None:
    async with waiting(dsn) as told, browser() as client:
        _, channel, link = await reconnect_targets(told)
        assert "?lang=pt-BR&amp;qr=1" in (await client.get(link)).text

        page = await client.get(link, params={"qr": "1"})

        assert 'src="data:image/png;base64,iVBORw0K' in page.text
        assert '<noscript><meta http-equiv="refresh"' in page.text
        assert (await names(told.z, channel))[-1] == "reconnect_qr_shown"


async def test_qr_is_renewed_while_the_page_is_open(dsn: str) -> None:
    async with waiting(dsn) as told, browser() as client:
        instance, channel, link = await reconnect_targets(told)

        async with aclosing(panels(client, link)) as stream:
            await seen(stream, "qr")
            instance.show_qr(times=1)
            await told.becomes(channel, "qr_pending")
            await told.z.app.pool.execute("update zapwatch_qrs set sealed = null, expires_at = null")
            instance.fault = instance.order_fault = Fault.HANG
            instance.stop()
            await told.z.hear(channel, _another_qr())

            renewed = await seen(stream, "qr")

        assert "iVBORw0KAAAA" in renewed


def _another_qr() -> dict[str, Any]:
    body = Evolution().qr()
    body["data"]["qrcode"]["base64"] = "data:image/png;base64,iVBORw0KAAAA"
    return body


async def test_code_to_type_is_given_for_a_number(dsn: str) -> None:
    async with waiting(dsn) as told, browser() as client:
        instance, channel, link = await reconnect_targets(told)

        answer = await client.post(
            link, data={"number": "+55 (11) 99999-0000"}, headers={"HX-Request": "true"}
        )

        assert answer.status_code == 200
        code = instance.pairing_code
        assert f"<span>{code[:4]}</span>" in answer.text
        assert f"<span>{code[4:]}</span>" in answer.text
        assert "<html" not in answer.text
        assert instance.number == "5511999990000"
        assert (await names(told.z, channel))[-1] == "reconnect_code_shown"


@pytest.mark.parametrize("number", ["", "123", "abc", "1" * 16, "1" * 2000])
async def test_number_that_is_none_is_answered_in_words(dsn: str, number: str) -> None:
    async with waiting(dsn) as told, browser() as client:
        instance, _, link = await reconnect_targets(told)

        answer = await client.post(link, data={"number": number}, params={"lang": "en"})

        assert "Check the number" in answer.text
        assert "<html" in answer.text
        assert instance.connects == 0


async def test_codes_are_given_seldom(dsn: str) -> None:
    async with waiting(dsn) as told, browser() as client:
        instance, _, link = await reconnect_targets(told)
        instance.fault = Fault.SERVER_ERROR
        for _ in range(CODES):
            await client.post(link, data={"number": "5511999990000"})

        answer = await client.post(link, data={"number": "5511999990000"}, params={"lang": "en"})

        assert "Too many codes" in answer.text


async def test_gateway_that_is_down_is_told_in_words(dsn: str) -> None:
    async with waiting(dsn, probe_timeout=timedelta(seconds=1)) as told, browser() as client:
        instance, _, link = await reconnect_targets(told)
        instance.fault = Fault.HANG

        async with aclosing(panels(client, link, lang="en")) as stream:
            panel = await seen(stream, "down")

        assert "is not answering" in panel
        assert "<img" not in panel


async def test_connected_channel_shows_no_qr_and_asks_nobody(dsn: str) -> None:
    async with waiting(dsn) as told, browser() as client:
        instance, channel, link = await reconnect_targets(told)
        instance.come_back()
        await told.z.client.post(f"/channels/{channel}/check")
        await told.becomes(channel, "open")

        async with aclosing(panels(client, link)) as stream:
            await seen(stream, "connected")

        assert (await client.get(link)).status_code == 200
        assert instance.connects == 0


def altered(link: str, at: int) -> str:
    """Return a link with another character at a place of its token."""
    head, _, token = link.rpartition("/")
    return f"{head}/{token[:at]}{'A' if token[at] != 'A' else 'B'}{token[at + 1 :]}"


async def test_forged_links_lead_nowhere(dsn: str) -> None:
    async with waiting(dsn) as told, browser() as client:
        instance, channel, link = await reconnect_targets(told)
        incident = UUID((await told.z.incident(channel))["id"])
        head = link.rpartition("/")[0]
        stranger = ReconnectLinks((bytes(32),), told.z.app.settings.base_url)
        forged = [
            stranger.link_for(UUID(channel), incident, datetime.now(UTC)),
            *(altered(link, at) for at in (0, 5, 30, 47, 60, 75)),
            link[:-1],
            link + "A",
            link + "=",
            f"{head}/x",
        ]

        answers = [
            answer
            for address in forged
            for answer in (await client.get(address), await client.get(f"{address}/stream"))
        ]
        posted = await client.post(forged[0], data={"number": "5511999990000"})

        assert {answer.status_code for answer in [*answers, posted]} == {404}
        assert all(answer.headers["content-type"].startswith("text/html") for answer in answers)
        assert instance.connects == 0


async def test_link_works_for_three_days_and_no_longer(dsn: str) -> None:
    async with waiting(dsn) as told, browser() as client:
        instance, channel, _ = await reconnect_targets(told)
        incident, links = UUID((await told.z.incident(channel))["id"]), told.z.app.links
        now = datetime.now(UTC)

        old = await client.get(links.link_for(UUID(channel), incident, now - LIFE + timedelta(minutes=5)))
        expired = links.link_for(UUID(channel), incident, now - LIFE - timedelta(seconds=2))
        answers = [
            await client.get(expired, params={"lang": "en"}),
            await client.get(f"{expired}/stream", params={"lang": "en"}),
            await client.post(expired, params={"lang": "en"}, data={"number": "5511999990000"}),
        ]

        assert old.status_code == 200
        assert {answer.status_code for answer in answers} == {410}
        assert all("has expired" in answer.text for answer in answers)
        assert instance.connects == 0


async def test_link_is_for_its_own_channel_and_incident_alone(dsn: str) -> None:
    async with waiting(dsn) as told, browser() as client:
        _, channel, _ = await reconnect_targets(told)
        other = await told.z.channel("loja-02")
        incident, links = UUID((await told.z.incident(channel))["id"]), told.z.app.links

        swapped = await client.get(links.link_for(UUID(other), incident, datetime.now(UTC)))
        unknown = await client.get(links.link_for(UUID(channel), uuid4(), datetime.now(UTC)))

        assert (swapped.status_code, unknown.status_code) == (410, 410)


async def test_link_ends_an_hour_after_its_incident(dsn: str, connection: Connection) -> None:
    async with waiting(dsn) as told, browser() as client:
        instance, channel, link = await reconnect_targets(told)
        instance.come_back()
        await told.z.client.post(f"/channels/{channel}/check")
        await told.z.until(lambda: told.z.incidents(channel), lambda all_: all_[0]["resolved_at"] is not None)
        at_once = await client.get(link)

        ago = "now() - interval '61 minutes'"
        await connection.execute(
            f"update whatsapp_connection_incidents set started_at = {ago}, resolved_at = {ago}"
        )

        later = await client.get(link, params={"lang": "en"})
        assert (at_once.status_code, later.status_code) == (200, 410)
        assert "is over" in later.text


async def test_removed_channels_link_says_so(dsn: str) -> None:
    async with waiting(dsn) as told, browser() as client:
        _, channel, link = await reconnect_targets(told)
        async with aclosing(panels(client, link)) as stream:
            await seen(stream, "qr")
            await told.z.client.delete(f"/channels/{channel}")
            await seen(stream, "gone")

        answer = await client.get(link, params={"lang": "es"})

        assert answer.status_code == 410
        assert "ya no existe" in answer.text


async def test_links_of_a_key_that_was_replaced_still_work() -> None:
    channel, incident, now = uuid4(), uuid4(), datetime.now(UTC)
    token = ReconnectLinks((KEY,), "http://z").link_for(channel, incident, now).rpartition("/")[2]

    rotated = ReconnectLinks((bytes(32), KEY), "http://z").read(token)
    dropped = ReconnectLinks((bytes(32),), "http://z").read(token)

    assert rotated is not None
    assert rotated[:2] == (channel, incident)
    assert dropped is None


@pytest.mark.parametrize(
    ("asked", "accepted", "tenants", "words"),
    [
        ("es", "en", "pt-BR", "Escanee"),
        (None, "fr, en;q=0.5, es;q=0.9", "pt-BR", "Escanee"),
        (None, "en-GB,en;q=0.9", "es", "Scan the QR"),
        (None, "fr", "es", "Escanee"),
        (None, "pt;q=0, en;q=0.1", "es", "Scan the QR"),
        (None, None, "en", "Scan the QR"),
        ("xx", None, "pt-BR", "Leia o código"),
    ],
)
async def test_page_is_in_the_readers_language(
    dsn: str, asked: str | None, accepted: str | None, tenants: str, words: str
) -> None:
    async with waiting(dsn) as told:
        tenant = (await told.z.client.post("/tenants", json={"name": "Clínica", "locale": tenants})).json()
        _, _, link = await reconnect_targets(told, tenant_id=tenant["id"])
        headers = {} if accepted is None else {"Accept-Language": accepted}

        async with browser(**headers) as client:
            page = await client.get(link, params={} if asked is None else {"lang": asked})

        assert words in page.text
        assert "Clínica" in page.text


@pytest.mark.parametrize(
    ("code", "reason", "locale", "words"),
    [
        (401, "logged_out", "pt-BR", "O aparelho foi desconectado no WhatsApp do celular."),
        (401, "logged_out", "es", "El dispositivo fue desvinculado en el WhatsApp del teléfono."),
        (402, "banned_temporarily", "en", "WhatsApp has banned this number for a while."),
        (403, "banned", "en", "WhatsApp has banned this number. Ask for a review"),
    ],
)
async def test_page_says_why_where_the_reader_can_do_something(
    dsn: str, code: int, reason: str, locale: str, words: str
) -> None:
    async with waiting(dsn) as told, browser() as client:
        _, channel, link = await reconnect_targets(told)
        await told.z.hear(channel, Evolution().update("close", code))
        await told.becomes(channel, "disconnected", reason)

        page = await client.get(link, params={"lang": locale})

        assert f'<p class="happened reason">{words}' in page.text


async def test_page_of_a_banned_number_asks_for_no_scan_and_asks_no_gateway(dsn: str) -> None:
    async with waiting(dsn) as told, browser() as client:
        instance, channel, link = await reconnect_targets(told)
        await told.z.hear(channel, Evolution().update("close", 403))
        await told.becomes(channel, "disconnected", "banned")
        english = {"lang": "en"}

        page = await client.get(link, params=english)
        with_qr = await client.get(link, params={**english, "qr": "1"})
        async with aclosing(panels(client, link, **english)) as stream:
            panel = await seen(stream, "refused")
        code = await client.post(link, params=english, data={"number": "5511999990000"})

        for shown in (page.text, with_qr.text, code.text):
            assert "This channel shows no QR code" in shown
            assert "Scan the QR code" not in shown
            assert "Linked devices" not in shown
        assert "Talk to whoever looks after your WhatsApp" in panel
        assert instance.connects == 0


async def test_page_of_a_number_that_is_banned_for_a_while_shows_the_qr_for_when_that_is_over(
    dsn: str,
) -> None:
    async with waiting(dsn) as told, browser() as client:
        _, channel, link = await reconnect_targets(told)
        await told.z.hear(channel, Evolution().update("close", 402))
        await told.becomes(channel, "disconnected", "banned_temporarily")

        async with aclosing(panels(client, link)) as stream:
            await seen(stream, "qr")


async def test_page_keeps_to_itself_what_only_operators_understand(dsn: str) -> None:
    async with waiting(dsn) as told, browser() as client:
        _, channel, link = await reconnect_targets(told)
        await told.z.hear(channel, Evolution().event("instance.delete", {"instance": "loja-01"}))
        await told.becomes(channel, "disconnected", "instance_removed")

        page = await client.get(link, params={"lang": "en"})

        assert "has lost its connection" in page.text
        assert "happened reason" not in page.text
        assert "gateway" not in page.text


async def test_whoever_comes_too_often_with_a_link_waits(dsn: str) -> None:
    async with waiting(dsn) as told, browser() as client:
        _, channel, link = await reconnect_targets(told)

        answers = [await client.get(link, params={"lang": "en"})]
        while answers[-1].status_code == 200 and len(answers) < 10 * BY_LINK:
            answers += await asyncio.gather(*(client.get(f"{link}?lang=en") for _ in range(10)))

        assert {answer.status_code for answer in answers} == {200, 429}
        refused = [answer for answer in answers if answer.status_code == 429]
        assert all(int(answer.headers["retry-after"]) >= 1 for answer in refused)
        assert "Too many tries" in refused[0].text
        opened = [event["count"] for event in await told.z.events(channel) if event["name"] == OPENED]
        assert sum(opened) == len(answers) - len(refused) >= BY_LINK


async def test_only_so_many_look_at_a_channel_at_once(dsn: str) -> None:
    async with waiting(dsn) as told, browser() as client:
        _, _, link = await reconnect_targets(told)
        looking = [panels(client, link) for _ in range(STREAMS_OF_LINK)]
        for one in looking:
            await anext(one)

        refused = await client.get(f"{link}/stream")
        for one in looking:
            await one.aclose()

        assert refused.status_code == 503
        await told.z.until(
            lambda: _status_of(client, f"{link}/stream"), lambda status: status == 200, within=20
        )


async def _status_of(client: httpx.AsyncClient, address: str) -> int:
    async with client.stream("GET", address) as answer:
        return answer.status_code


async def test_openings_are_in_the_channels_history_and_a_replay_knows_nothing_of_them(
    dsn: str, connection: Connection
) -> None:
    async with waiting(dsn) as told, browser() as client:
        _, channel, link = await reconnect_targets(told)
        incident = (await told.z.incident(channel))["id"]
        before = await told.z.state(channel)
        for _ in range(3):
            await client.get(link)

        opened = [event for event in await told.z.events(channel) if event["name"] == OPENED]

        assert {event["source"] for event in opened} == {"operator"}
        assert sum(event["count"] for event in opened) == 3
        kept = await connection.fetchval("select data from zapwatch_events where name = $1", OPENED)
        assert incident in kept
        assert "127.0.0.1" not in kept
        assert (await told.z.state(channel))["since"] == before["since"]
        again, effects = await replay(connection, UUID(channel))
        assert again.state == "disconnected/unpaired"
        assert len(effects) >= 1


async def test_pages_are_kept_framed_and_told_nowhere(dsn: str) -> None:
    async with waiting(dsn) as told, browser() as client:
        _, _, link = await reconnect_targets(told)

        answers = [await client.get(link), await client.get(altered(link, 9))]

        for answer in answers:
            policy = answer.headers["content-security-policy"]
            assert "default-src 'none'" in policy
            assert "frame-ancestors 'none'" in policy
            assert "unsafe" not in policy
            assert answer.headers["referrer-policy"] == "no-referrer"
            assert answer.headers["cache-control"] == "no-store"
            assert "http://" not in answer.text
            assert "https://" not in answer.text


@pytest.mark.parametrize(
    "name", ["reconnect.css", "htmx.min.js", "htmx-sse.min.js", "icon.svg", "htmx.LICENSE"]
)
async def test_own_files_are_served(dsn: str, name: str) -> None:
    async with zapwatch(dsn) as z:
        answer = await z.client.get(f"/reconnect/static/{name}")

        assert answer.status_code == 200
        assert len(answer.content) > 100


async def test_page_waits_in_words_while_the_database_is_away(dsn: str) -> None:
    async with zapwatch(dsn) as z:
        channel = await z.channel(metadata={"heartbeat_threshold_minutes": SOON})
        link = z.app.links.link_for(UUID(channel), uuid4(), datetime.now(UTC))
        await z.app.pool.close()

        answer = await z.client.get(link, params={"lang": "en"}, timeout=30)

        assert answer.status_code == 503
        assert "One moment" in answer.text


async def test_process_that_stops_keeps_no_page_waiting() -> None:
    key = urlsafe_b64encode(KEY).decode()
    async with (
        process(
            ZAPWATCH_SECRET_KEYS=key,
            ZAPWATCH_OPERATOR_TOKEN=OPERATOR,
            ZAPWATCH_TERMINAL_GRACE_SECONDS="0",
        ) as service,
        httpx.AsyncClient(base_url=service.base, timeout=60) as client,
    ):
        client.headers["Authorization"] = f"Bearer {OPERATOR}"
        body = {"provider": "evolution_api", "instance": "loja-01"}
        registered = (await client.post("/channels", json=body)).json()
        for said in (Evolution().update("open"), Evolution().update("close", 401)):
            await client.post(httpx.URL(registered["webhook_url"]).path, json=said)

        async def incidents() -> list[Any]:
            return list((await client.get("/incidents")).json()["items"])

        found = await eventually(incidents, within=60)
        link = ReconnectLinks((KEY,), service.base).link_for(
            UUID(registered["id"]), UUID(found[0]["id"]), datetime.now(UTC)
        )
        stream = panels(client, link)
        await anext(stream)

        service.process.send_signal(signal.SIGTERM)
        async for _ in stream:
            pass
        code = await asyncio.wait_for(service.process.wait(), 60)

        assert code == 0
        assert b"graceful shutdown exceeded" not in (service.folder / "out").read_bytes()


async def test_rate_gives_back_evenly_what_was_used_up() -> None:
    rate = RateLimit(3, timedelta(seconds=30))

    at_once = [rate.take("a", 0.0) for _ in range(4)]
    later = [rate.take("a", 10.0), rate.take("a", 10.0), rate.take("b", 10.0)]

    assert at_once == [0, 0, 0, 10]
    assert later == [0, 10, 0]


async def test_rate_remembers_so_many_and_no_more() -> None:
    rate = RateLimit(1, timedelta(seconds=30))
    for caller in range(KEPT + 1):
        rate.take(caller, 0.0)

    forgotten, remembered = rate.take(0, 0.0), rate.take(KEPT, 0.0)

    assert (forgotten, remembered) == (0, 30)
