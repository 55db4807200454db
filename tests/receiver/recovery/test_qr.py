"""QRs for scanning: shown to who may scan, asked for only where only a scan helps, and kept by nobody."""

import asyncio
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import httpx
import pytest

from db.connection.types import Connection
from db.reconcile.qr import SHOWN_FOR, forget_qrs
from db.registry.tokens import create_operator_token
from receiver.sandbox import Fault
from tests.factories import Evolution
from tests.support.service import KEY, Zapwatch, time, zapwatch
from tests.support.story import Story, story

UNHURRIED: dict[str, Any] = {
    "stale_after": timedelta(hours=1),
    "retry_after": timedelta(hours=1),
    "probe_timeout": timedelta(seconds=20),
}
"""Settings under which a channel is only probed when something puts it in doubt; a busy gateway has time."""


def scanning(dsn: str) -> AbstractAsyncContextManager[Story]:
    """Return a story in which a QR is shown as long as it really is."""
    return story(dsn, speed=1.0, **UNHURRIED)


async def qr(z: Zapwatch, channel: str, accept: str = "*/*", **params: str) -> httpx.Response:
    """Ask for a channel's QR."""
    return await z.client.get(f"/channels/{channel}/qr", params=params, headers={"Accept": accept})


async def needing_a_scan(told: Story, host: Any) -> tuple[Any, str]:
    """Return an instance that was unlinked on the phone, and its channel; its webhooks go nowhere."""
    instance = host.add("loja-01")
    channel = await told.watch(host, instance)
    instance.unlink()
    await told.becomes(channel, "disconnected", "logged_out")
    instance.webhook = None
    return instance, channel


async def sealed(connection: Connection, channel: str) -> bytes | None:
    """Return what is kept of a channel's QR."""
    value: bytes | None = await connection.fetchval(
        "select sealed from zapwatch_qrs where channel_id = $1", UUID(channel)
    )
    return value


async def asked_long_ago(connection: Connection) -> None:
    """Let the five seconds between two questions be over."""
    await connection.execute("update zapwatch_qrs set asked_at = asked_at - interval '1 minute'")


async def test_qr_that_a_webhook_told_is_shown_and_the_gateway_is_not_asked(dsn: str) -> None:
    async with scanning(dsn) as told:
        host = await told.fleet.evolution()
        instance = host.add("loja-01")
        channel = await told.watch(host, instance)
        instance.show_qr(times=1)
        await told.becomes(channel, "qr_pending")

        answers = [await qr(told.z, channel) for _ in range(3)]

        assert [answer.status_code for answer in answers] == [200, 200, 200]
        shown = answers[0].json()
        assert shown.keys() == {"code", "image", "pairing_code", "expires_at"}
        assert (shown["code"], shown["pairing_code"]) == (instance.code, None)
        assert shown["image"].startswith("data:image/png;base64,iVBORw0K")
        assert timedelta(0) < time(shown["expires_at"]) - datetime.now(UTC) <= SHOWN_FOR
        assert {answer.headers["cache-control"] for answer in answers} == {"no-store"}
        assert instance.connects == 0


async def test_picture_is_given_to_who_asks_for_one(dsn: str) -> None:
    async with scanning(dsn) as told:
        host = await told.fleet.evolution()
        instance = host.add("loja-01")
        channel = await told.watch(host, instance)
        instance.show_qr(times=1)
        await told.becomes(channel, "qr_pending")

        picture = await qr(told.z, channel, accept="image/avif,image/png,*/*;q=0.8")
        both = await qr(told.z, channel, accept="application/json, image/png")

        assert picture.headers["content-type"] == "image/png"
        assert picture.headers["cache-control"] == "no-store"
        assert picture.content.startswith(b"\x89PNG\r\n\x1a\n")
        assert both.headers["content-type"] == "application/json"


async def test_without_a_picture_whoever_wants_one_gets_json(dsn: str) -> None:
    async with zapwatch(dsn) as z:
        channel = await z.channel()
        await z.hear(channel, Evolution().qr())

        answer = await qr(z, channel, accept="image/png")

        assert answer.headers["content-type"] == "application/json"
        assert (answer.json()["code"], answer.json()["image"]) == ("2@SECRET", None)


async def test_fresh_qr_is_fetched_for_a_channel_that_lost_its_session(dsn: str) -> None:
    async with scanning(dsn) as told:
        instance, channel = await needing_a_scan(told, await told.fleet.evolution())

        answer = await qr(told.z, channel)

        assert answer.status_code == 200
        assert answer.json()["code"] == instance.code != ""
        assert instance.connects == 1
        assert (await told.z.state(channel))["state"] == "disconnected"


async def test_once_the_gateway_tells_its_qrs_it_is_asked_no_more(dsn: str, connection: Connection) -> None:
    async with scanning(dsn) as told:
        instance, channel = await needing_a_scan(told, await told.fleet.evolution())
        instance.webhook = told.z.hooks[channel]
        assert (await qr(told.z, channel)).status_code == 200
        await told.becomes(channel, "qr_pending", "scan_needed")
        await asked_long_ago(connection)

        again = await qr(told.z, channel)

        assert again.status_code == 200
        assert again.json()["code"].startswith("2@")
        assert instance.connects == 1


def _open(instance: Evolution) -> list[Any]:
    return [instance.update("open")]


def _dropped(instance: Evolution) -> list[Any]:
    return [instance.update("open"), instance.update("close", 428)]


@pytest.mark.parametrize(
    ("said", "state", "words"),
    [
        (lambda it: [], "unknown", "Nothing is known"),
        (_open, "open", "is connected"),
        (lambda it: [it.update("connecting")], "connecting", "is connecting"),
        (_dropped, "disconnected", "may come back"),
    ],
)
async def test_gateway_is_not_asked_for_a_channel_that_may_need_no_scan(
    dsn: str, said: Any, state: str, words: str
) -> None:
    async with scanning(dsn) as told:
        host = await told.fleet.evolution()
        instance = host.add("loja-01", "close")
        instance.fault = Fault.HANG  # no probe says a word
        channel = await told.watch(host, instance, state=None)
        await told.z.hear(channel, *said(Evolution()))
        assert (await told.z.state(channel))["state"] == state

        answer = await qr(told.z, channel)

        assert answer.status_code == 409
        assert answer.headers["content-type"] == "application/problem+json"
        assert words in answer.json()["detail"]
        assert instance.connects == 0


async def test_gateways_trouble_is_no_reason_to_scan(dsn: str) -> None:
    async with story(dsn) as told:
        host = await told.fleet.evolution()
        instance = host.add("loja-01")
        channel = await told.watch(host, instance)
        instance.fault = Fault.UNAUTHORIZED
        await told.becomes(channel, "error", "unauthorized")

        answer = await qr(told.z, channel)

        assert answer.status_code == 409
        assert "refused the key" in answer.json()["detail"]
        assert instance.connects == 0


@pytest.mark.parametrize("provider", ["evolution", "wapi"])
async def test_channel_that_was_scanned_meanwhile_is_probed_and_not_scanned_again(
    dsn: str, provider: str
) -> None:
    async with scanning(dsn) as told:
        host = await getattr(told.fleet, provider)()
        instance = host.add("loja-01")
        channel = await told.watch(host, instance, metadata={"auto_recovery": False})
        instance.state = "close"
        await told.z.client.post(f"/channels/{channel}/check")
        await told.z.client.post(f"/channels/{channel}/check")
        if provider == "evolution":
            await told.z.hear(channel, Evolution().update("close", 401))
        await told.becomes(channel, "disconnected")
        instance.state = "open"
        before = await told.z.events(channel)

        answer = await qr(told.z, channel)

        assert answer.status_code == 409
        assert "is connected" in answer.json()["detail"]
        await told.becomes(channel, "open")
        said = (await told.z.events(channel))[len(before) :]
        assert {event["source"] for event in said} <= {"probe", "deadline"}


async def test_replicas_together_ask_a_gateway_once_in_five_seconds(dsn: str, connection: Connection) -> None:
    async with AsyncExitStack() as stack:
        told = await stack.enter_async_context(scanning(dsn))
        other = await stack.enter_async_context(zapwatch(dsn, **UNHURRIED))
        instance, channel = await needing_a_scan(told, await told.fleet.evolution())

        answers = await asyncio.gather(*(qr(z, channel) for z in (told.z, other) * 4))

        assert sorted(answer.status_code for answer in answers) == [200] + [429] * 7
        waits = {answer.headers["retry-after"] for answer in answers if answer.status_code == 429}
        assert waits <= {"1", "2", "3", "4", "5"}
        assert instance.connects == 1
        await asked_long_ago(connection)
        assert (await qr(other, channel)).status_code == 200


async def test_pairing_code_is_made_for_a_number(dsn: str) -> None:
    async with scanning(dsn) as told:
        instance, channel = await needing_a_scan(told, await told.fleet.evolution())

        answer = await qr(told.z, channel, number="5511999990000")

        assert answer.json()["pairing_code"] == instance.pairing_code is not None
        assert instance.number == "5511999990000"


@pytest.mark.parametrize(
    "number", ["+5511999990000", "55 11", "1234567", "1" * 16, "5511999990000&x=1", "٥" * 10]
)
async def test_number_is_digits_and_nothing_else(dsn: str, number: str) -> None:
    async with zapwatch(dsn) as z:
        channel = await z.channel()

        answer = await qr(z, channel, number=number)

        assert answer.status_code == 422
        assert answer.json()["errors"][0]["pointer"] == "/number"


async def test_wapi_gives_pictures_and_pairing_codes(dsn: str, connection: Connection) -> None:
    async with scanning(dsn) as told:
        host = await told.fleet.wapi()
        instance = host.add()
        channel = await told.watch(host, instance, metadata={"auto_recovery": False})
        instance.disconnect(heard=False)
        await told.z.client.post(f"/channels/{channel}/check")
        await told.becomes(channel, "disconnected")

        picture = await qr(told.z, channel, accept="image/png")
        await asked_long_ago(connection)
        typed = await qr(told.z, channel, number="5511999990000")

        assert picture.content.startswith(b"\x89PNG")
        assert len(typed.json()["pairing_code"]) == 8
        assert (typed.json()["code"], typed.json()["image"]) == (None, None)
        assert instance.qrs == 2
        assert (await told.z.state(channel))["state"] == "disconnected"


async def test_qr_is_kept_sealed_and_wiped_when_the_channel_waits_no_more(
    dsn: str, connection: Connection
) -> None:
    async with zapwatch(dsn) as z:
        channel, instance = await z.channel(), Evolution()
        await z.hear(channel, instance.update("open"), instance.qr())
        kept = await sealed(connection, channel)
        assert kept is not None
        assert b"SECRET" not in kept

        await z.hear(channel, instance.update("open"))

        assert await sealed(connection, channel) is None
        assert (await qr(z, channel)).status_code == 409


async def test_qr_that_expired_is_not_shown_and_forgotten(dsn: str, connection: Connection) -> None:
    async with zapwatch(dsn) as z:
        channel = await z.channel()
        await z.hear(channel, Evolution().qr())
        await forget_qrs(connection, datetime.now(UTC))
        assert await sealed(connection, channel) is not None

        await connection.execute("update zapwatch_qrs set expires_at = now() - interval '1 second'")

        assert (await qr(z, channel)).status_code == 409  # no key, so that the gateway can't be asked
        await forget_qrs(connection, datetime.now(UTC))
        assert await connection.fetchval("select count(*) from zapwatch_qrs") == 0


async def test_forgetting_a_qr_forgets_no_question_that_was_just_asked(
    dsn: str, connection: Connection
) -> None:
    async with scanning(dsn) as told:
        instance, channel = await needing_a_scan(told, await told.fleet.evolution())
        await qr(told.z, channel)

        await forget_qrs(connection, datetime.now(UTC))

        assert (await qr(told.z, channel)).status_code == 429
        assert instance.connects == 1


async def test_late_retry_brings_no_old_qr_back(dsn: str) -> None:
    async with zapwatch(dsn) as z:
        channel, instance = await z.channel(), Evolution()
        first, second = instance.qr(), instance.qr()
        second["data"]["qrcode"]["code"] = "2@NEWER"

        await z.hear(channel, second, first)

        assert (await qr(z, channel)).json()["code"] == "2@NEWER"


async def test_qr_that_a_retry_brings_too_late_is_not_kept(dsn: str, connection: Connection) -> None:
    async with zapwatch(dsn) as z:
        channel, instance = await z.channel(), Evolution()
        await z.hear(channel, instance.update("connecting"))
        late = instance.qr()
        instance.ahead = -SHOWN_FOR - timedelta(seconds=20)
        late["date_time"] = instance.qr()["date_time"]

        await z.hear(channel, late)

        assert (await z.state(channel))["state"] == "qr_pending"
        assert await sealed(connection, channel) is None


async def test_channel_without_a_key_shows_what_webhooks_tell(dsn: str) -> None:
    async with zapwatch(dsn) as z:
        channel, instance = await z.channel(), Evolution()
        await z.hear(channel, instance.update("open"), instance.update("close", 401))
        without = await qr(z, channel)

        await z.hear(channel, instance.qr())

        assert without.status_code == 409
        assert "no address or no key" in without.json()["detail"]
        assert (await qr(z, channel)).json()["code"] == "2@SECRET"


async def test_paused_channels_gateway_is_not_asked(dsn: str) -> None:
    async with scanning(dsn) as told:
        instance, channel = await needing_a_scan(told, await told.fleet.evolution())
        await told.z.client.post(f"/channels/{channel}/pause")

        answer = await qr(told.z, channel)

        assert answer.status_code == 409
        assert "paused" in answer.json()["detail"]
        assert instance.connects == 0


async def test_provider_without_qrs_says_so(dsn: str) -> None:
    async with scanning(dsn) as told:
        host = await told.fleet.twilio()
        sender = host.add("XE0123456789abcdef0123456789abcdef")
        channel = await told.watch(host, sender)
        await told.z.app.pool.execute(
            "update zapwatch_states set state = 'disconnected/unpaired', reason = 'logged_out'"
        )

        answer = await qr(told.z, channel)

        assert answer.status_code == 409
        assert "has no QR" in answer.json()["detail"]


@pytest.mark.parametrize("fault", [Fault.SERVER_ERROR, Fault.UNAVAILABLE, Fault.HTML_200, Fault.RESET])
async def test_gateway_that_gives_none_is_said_to(dsn: str, fault: Fault) -> None:
    async with scanning(dsn) as told:
        host = await told.fleet.evolution()
        _, channel = await needing_a_scan(told, host)
        host.fault = fault

        answer = await qr(told.z, channel)

        assert answer.status_code == 502
        assert "gateway" in answer.json()["detail"]


async def test_gateway_that_is_making_one_is_asked_again_later(dsn: str) -> None:
    async with scanning(dsn) as told:
        instance, channel = await needing_a_scan(told, await told.fleet.evolution())
        instance.state = "connecting"
        instance.code = ""

        answer = await qr(told.z, channel)

        assert answer.status_code == 502
        assert answer.headers["retry-after"] == "5"


async def test_instance_that_is_gone_is_named_as_the_reason(dsn: str) -> None:
    async with scanning(dsn) as told:
        instance, channel = await needing_a_scan(told, await told.fleet.evolution())
        instance.vanish()

        answer = await qr(told.z, channel)

        assert answer.status_code == 409
        assert "no such instance" in answer.json()["detail"]


async def test_looking_whether_there_is_one_makes_none(dsn: str) -> None:
    async with scanning(dsn) as told:
        instance, channel = await needing_a_scan(told, await told.fleet.evolution())

        answer = await told.z.client.head(f"/channels/{channel}/qr")

        assert answer.status_code == 405
        assert instance.connects == 0


async def test_tenant_is_shown_its_own_qrs_only(dsn: str) -> None:
    async with zapwatch(dsn) as z:
        ours, theirs = [
            (await z.client.post("/tenants", json={"name": name})).json()["id"] for name in ("ours", "theirs")
        ]
        channel = await z.channel(tenant_id=theirs)
        await z.hear(channel, Evolution().qr())
        async with z.app.pool.acquire() as connection:
            tokens = [
                await create_operator_token(connection, tenant_id=UUID(tenant)) for tenant in (ours, theirs)
            ]

        answers = [
            await z.client.get(f"/channels/{channel}/qr", headers={"Authorization": f"Bearer {token}"})
            for token in tokens
        ]

        assert [answer.status_code for answer in answers] == [404, 200]


async def test_qr_that_no_key_opens_any_more_is_fetched_anew(dsn: str) -> None:
    async with scanning(dsn) as told:
        host = await told.fleet.evolution()
        instance = host.add("loja-01")
        channel = await told.watch(host, instance)
        instance.show_qr(times=1)
        await told.becomes(channel, "qr_pending")
        await told.z.app.pool.execute("update zapwatch_qrs set sealed = $1", KEY)

        answer = await qr(told.z, channel)

        assert answer.json()["code"] == instance.code
        assert instance.connects == 1
