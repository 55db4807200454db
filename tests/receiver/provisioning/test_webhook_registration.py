"""Webhooks that stay set and never take what isn't ours: set by an import, mended daily, put back."""

import base64
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from typing import Any

import pytest

from db.connection.types import Connection
from receiver.sandbox import Fault, Fleet, open_fleet
from tests.factories import Evolution
from tests.support.command import Said, zapwatch
from tests.support.service import KEY, Zapwatch, served

SECRET_KEY = base64.urlsafe_b64encode(KEY).decode()
PUBLIC = "http://zapwatch.example"
THEIRS = "https://chatwoot.example/hooks/SECRET"


@pytest.fixture
async def fleet() -> AsyncIterator[Fleet]:
    async with open_fleet() as opened:
        yield opened


@pytest.fixture
def environ(dsn: str) -> dict[str, str]:
    return {
        "ZAPWATCH_DATABASE_URL": dsn,
        "ZAPWATCH_SECRET_KEYS": SECRET_KEY,
        "ZAPWATCH_PUBLIC_URL": PUBLIC,
        "COLUMNS": "200",
    }


async def imported(
    host: Any, environ: dict[str, str], *options: str, provider: str = "evolution_api", answer: str = ""
) -> Said:
    """Import a host with its webhooks set; nothing that is said names a secret."""
    arguments = ("import", provider, "--url", host.url, "--api-key", host.key, "--set-webhooks", *options)
    said = await zapwatch(*arguments, typed=answer, **environ)
    assert "SECRET" not in said.out + said.err
    assert host.key not in said.out + said.err
    return said


EVENTS = {
    "1.8.2": {"CONNECTION_UPDATE", "QRCODE_UPDATED"},
    "2.1.1": {"CONNECTION_UPDATE", "QRCODE_UPDATED", "LOGOUT_INSTANCE", "REMOVE_INSTANCE"},
    "2.3.6": {
        "CONNECTION_UPDATE",
        "QRCODE_UPDATED",
        "LOGOUT_INSTANCE",
        "REMOVE_INSTANCE",
        "STATUS_INSTANCE",
        "INSTANCE_DELETE",
    },
}


@pytest.mark.parametrize("version", EVENTS)
async def test_free_places_get_our_address_for_the_events_that_the_version_knows(
    environ: dict[str, str], fleet: Fleet, version: str
) -> None:
    host = await fleet.evolution(version)
    instances = [host.add(f"loja-{n}") for n in range(12)]

    said = await imported(host, environ)

    assert said.code == 0
    assert "Channels whose webhooks come here: 12; not saved: 0." in said.out
    for instance in instances:
        assert instance.webhook is not None
        assert instance.webhook.startswith(f"{PUBLIC}/webhooks/evolution_api/zw_")
        assert set(instance.events) == EVENTS[version]


async def test_messages_are_told_only_when_asked_for(environ: dict[str, str], fleet: Fleet) -> None:
    host = await fleet.evolution()
    instance = host.add("loja-1")

    await imported(host, environ, "--traffic")

    assert {"MESSAGES_UPSERT", "CONNECTION_UPDATE"} <= set(instance.events)


async def test_what_was_set_leads_here(dsn: str, fleet: Fleet, environ: dict[str, str]) -> None:
    host = await fleet.evolution()
    instance = host.add("loja-1")
    async with served(dsn) as z:
        url = str(z.app.settings.base_url)
        await imported(host, environ | {"ZAPWATCH_PUBLIC_URL": url})
        channel = (await z.get("/channels"))["items"][0]["channel_id"]
        await z.until(lambda: z.state(channel), lambda shown: shown["state"] == "open")

        instance.unlink()

        await z.until(lambda: z.stands(channel), lambda stands: stands[1] == "logged_out")


@pytest.mark.parametrize("version", ["1.8.2", "2.1.1", "2.2.3", "2.3.6", "2.4.0-rc2"])
async def test_secret_is_set_beside_our_address_where_a_version_has_headers(
    environ: dict[str, str], fleet: Fleet, version: str
) -> None:
    host = await fleet.evolution(version)
    instances = [host.add(f"loja-{n}") for n in range(3)]

    await imported(host, environ)
    first = [dict(instance.headers) for instance in instances]
    await imported(host, environ)

    has_headers = not version.startswith(("1.", "2.1"))
    assert {tuple(headers) for headers in first} == {("X-Zapwatch-Secret",) if has_headers else ()}
    assert [instance.headers for instance in instances] == first
    if has_headers:
        (secret,) = {headers["X-Zapwatch-Secret"] for headers in first}
        assert len(secret) >= 40
        assert secret not in str(instances[0].webhook)


async def test_secret_is_kept_sealed_and_its_hash_beside_the_token(
    environ: dict[str, str], fleet: Fleet, connection: Connection
) -> None:
    host = await fleet.evolution()
    instance = host.add("loja-1")

    await imported(host, environ)

    secret = instance.headers["X-Zapwatch-Secret"]
    sealed = await connection.fetchval("select webhook_secret from zapwatch_gateways")
    hashes = await connection.fetch("select secret_hash from zapwatch_tokens where secret_hash is not null")
    assert sealed is not None
    assert secret.encode() not in sealed
    assert [row["secret_hash"] for row in hashes] == [sha256(secret.encode()).digest()]


async def test_secret_that_vanished_is_put_back_and_its_loss_is_no_loss_of_the_address(
    dsn: str, environ: dict[str, str], fleet: Fleet, connection: Connection
) -> None:
    host = await fleet.evolution()
    instance = host.add("loja-1")
    async with served(dsn) as z:
        await imported(host, environ | {"ZAPWATCH_PUBLIC_URL": str(z.app.settings.base_url)})
        wanted = dict(instance.headers)
        await connection.execute("update zapwatch_gateways set version = '2.3.6'")

        instance.headers = {}
        await due(connection)
        await z.until(lambda: _headers(instance), lambda headers: headers == wanted)
        row = await looked_at(z, connection, "set")
        assert row["mended_at"] is not None

        instance.headers = {}
        await due(connection)
        row = await looked_at(z, connection, "set")

        assert instance.headers == {}


async def test_word_without_the_secret_is_taken_and_confirmed_by_a_probe(
    dsn: str, environ: dict[str, str], fleet: Fleet
) -> None:
    """Somebody who saw the address, or a gateway's global webhook, which sends no headers."""
    host = await fleet.evolution()
    instance, spoken = host.add("loja-1"), Evolution("loja-1")
    async with served(dsn, retry_after=timedelta(hours=1), stale_after=timedelta(hours=1)) as z:
        await imported(host, environ | {"ZAPWATCH_PUBLIC_URL": str(z.app.settings.base_url)})
        channel = (await z.get("/channels"))["items"][0]["channel_id"]
        await z.until(lambda: z.state(channel), lambda shown: shown["state"] == "open")
        address = str(instance.webhook)

        assert await z.post(address, spoken.update("close", 401)) == 204

        said = await z.until(lambda: z.events(channel), lambda events: events[-1]["source"] == "probe")
        assert [event["state"] for event in said[-2:]] == ["disconnected", "open"]
        assert (await z.state(channel))["state"] == "open"


async def test_word_with_the_secret_needs_no_probe(dsn: str, environ: dict[str, str], fleet: Fleet) -> None:
    host = await fleet.evolution()
    instance = host.add("loja-1")
    async with served(dsn, retry_after=timedelta(hours=1), stale_after=timedelta(hours=1)) as z:
        await imported(host, environ | {"ZAPWATCH_PUBLIC_URL": str(z.app.settings.base_url)})
        channel = (await z.get("/channels"))["items"][0]["channel_id"]
        await z.until(lambda: z.state(channel), lambda shown: shown["state"] == "open")
        asked = len(instance.probed)

        await instance.unlink()
        await instance.said()

        shown = await z.state(channel)
        assert shown["state"] == "disconnected"
        assert datetime.fromisoformat(shown["next_check_at"]) > datetime.now(UTC) + timedelta(minutes=30)
        assert len(instance.probed) == asked


async def test_another_systems_place_is_left_alone_and_the_free_one_advised(
    environ: dict[str, str], fleet: Fleet
) -> None:
    host = await fleet.evolution()
    taken, free = host.add("taken"), host.add("free")
    taken.webhook, taken.headers = THEIRS, {"Authorization": "SECRET"}

    said = await imported(host, environ)

    assert (taken.webhook, taken.headers) == (THEIRS, {"Authorization": "SECRET"})
    assert free.webhook is not None
    assert "Channels whose webhooks come here: 1;" in said.out
    assert "Left to another system (chatwoot.example: 1): 1. Probing finds their losses." in said.out
    assert said.out.rstrip().endswith(free.webhook)


async def test_place_is_replaced_only_after_a_yes_and_can_be_put_back(
    environ: dict[str, str], fleet: Fleet
) -> None:
    host = await fleet.evolution()
    taken = host.add("taken")
    taken.webhook, taken.headers = THEIRS, {"Authorization": "SECRET", "jwt_key": "SECRET"}
    taken.events, taken.by_events = ("MESSAGES_UPSERT",), True

    refused = await imported(host, environ, "--replace-webhooks", answer="n\n")
    unchanged = taken.webhook
    replaced = await imported(host, environ, "--replace-webhooks", answer="y\n")
    ours, headers = taken.webhook, taken.headers
    restored = await zapwatch("webhooks", "restore", **environ)

    assert (refused.code, replaced.code, restored.code) == (0, 0, 0)
    assert unchanged == THEIRS
    assert ours.startswith(f"{PUBLIC}/webhooks/")
    assert set(headers) == {"X-Zapwatch-Secret"}
    assert restored.out == "1 of 1 channels have what they had before.\n"
    assert (taken.webhook, tuple(taken.events), taken.by_events) == (THEIRS, ("MESSAGES_UPSERT",), True)
    assert taken.headers == {"Authorization": "SECRET", "jwt_key": "SECRET"}
    again = await zapwatch("webhooks", "restore", **environ)
    assert again.out == "0 of 0 channels have what they had before.\n"


async def test_what_was_replaced_can_be_put_back_though_the_gateway_failed_meanwhile(
    environ: dict[str, str], fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    host = await fleet.evolution()
    taken = host.add("taken")
    taken.webhook = THEIRS
    save = host._set_webhook

    def save_and_fail(*what: Any) -> Any:
        answer = save(*what)
        host.fault = Fault.SERVER_ERROR
        return answer

    monkeypatch.setattr(host, "_set_webhook", save_and_fail)
    said = await imported(host, environ, "--replace-webhooks", answer="y\n")
    assert "not saved: 1." in said.out
    assert taken.webhook != THEIRS
    monkeypatch.undo()
    host.fault = None

    restored = await zapwatch("webhooks", "restore", **environ)

    assert restored.out == "1 of 1 channels have what they had before.\n"
    assert taken.webhook == THEIRS


async def test_what_was_replaced_is_kept_sealed(
    environ: dict[str, str], fleet: Fleet, connection: Connection
) -> None:
    host = await fleet.evolution()
    host.add("taken").webhook = THEIRS

    await imported(host, environ, "--replace-webhooks", answer="y\n")

    before = await connection.fetchval("select before from zapwatch_slots")
    assert before is not None
    assert b"chatwoot" not in before


async def test_wapi_gets_an_address_for_each_event_and_others_keep_theirs(
    environ: dict[str, str], fleet: Fleet
) -> None:
    host = await fleet.wapi()
    free, shared, taken = (host.add() for _ in range(3))
    shared.urls["received"] = THEIRS
    taken.urls["disconnected"] = THEIRS

    said = await imported(host, environ, "--traffic", provider="wapi")

    assert "Channels whose webhooks come here: 2;" in said.out
    ours = free.urls["disconnected"]
    assert ours.startswith(f"{PUBLIC}/webhooks/wapi/zw_")
    told = {"connected": ours, "disconnected": ours, "received": ours, "message-status": ours}
    assert free.urls == {**told, "delivery": "", "chat-presence": ""}
    assert shared.urls == {**free.urls, "received": THEIRS}
    assert {url for url in taken.urls.values() if url} == {THEIRS}


async def test_address_whose_token_no_key_opens_any_more_is_set_anew_and_the_old_one_still_leads_here(
    dsn: str, fleet: Fleet, environ: dict[str, str]
) -> None:
    host = await fleet.evolution()
    instance = host.add("loja-1")
    other_key = base64.urlsafe_b64encode(bytes(reversed(KEY))).decode()
    async with served(dsn) as z:
        environ |= {"ZAPWATCH_PUBLIC_URL": str(z.app.settings.base_url)}
        await imported(host, environ | {"ZAPWATCH_SECRET_KEYS": other_key})
        old = str(instance.webhook)

        said = await imported(host, environ)

        assert "Channels whose webhooks come here: 1; not saved: 0." in said.out
        assert instance.webhook != old
        for address in (old, str(instance.webhook)):
            assert await z.post(address, Evolution("loja-1").update("connecting")) == 204


async def due(connection: Connection) -> None:
    """Have all places be looked at now."""
    await connection.execute("update zapwatch_slots set due_at = now()")


async def looked_at(z: Zapwatch, connection: Connection, state: str) -> Any:
    """Return the row of the one place once it was looked at and is so."""
    read = (
        "select state, mended_at, due_at from zapwatch_slots"
        " where state = $1 and (due_at is null or due_at > now() + interval '2 hours')"
    )
    return await z.until(lambda: connection.fetchrow(read, state), bool)


async def test_address_that_vanished_is_put_back_once_and_not_twice_in_a_row(
    dsn: str, environ: dict[str, str], fleet: Fleet, connection: Connection
) -> None:
    host = await fleet.evolution()
    instance = host.add("loja-1")
    await imported(host, environ)
    ours = instance.webhook
    async with served(dsn, public_url=PUBLIC) as z:
        instance.webhook = None
        await due(connection)
        await z.until(lambda: _now(instance), lambda url: url == ours)
        row = await looked_at(z, connection, "set")
        assert row["mended_at"] is not None

        instance.webhook = None
        await due(connection)
        row = await looked_at(z, connection, "lost")

        assert instance.webhook is None
        assert row["due_at"] is None


@pytest.mark.parametrize("url", [THEIRS, "http://[", "http://a\0b/", "\u202e"])
async def test_place_that_another_system_took_meanwhile_is_left_to_it(
    dsn: str, environ: dict[str, str], fleet: Fleet, connection: Connection, url: str
) -> None:
    host = await fleet.evolution()
    instance = host.add("loja-1")
    await imported(host, environ)
    async with served(dsn, public_url=PUBLIC) as z:
        instance.webhook = url
        await due(connection)

        await looked_at(z, connection, "foreign")

        assert instance.webhook == url


async def test_what_was_not_saved_is_tried_again(
    dsn: str, environ: dict[str, str], fleet: Fleet, connection: Connection
) -> None:
    host = await fleet.wapi()
    instance = host.add()
    await zapwatch("import", "wapi", "--url", host.url, "--api-key", host.key, **environ)
    # So that it counts as an operator's, which the import leaves alone.
    await connection.execute("update zapwatch_channels set listed_key_hash = null")
    known, instance.key = instance.key, "refuses the one that is known"
    said = await imported(host, environ, provider="wapi")
    assert "not saved: 1." in said.out
    instance.key = known
    await due(connection)

    async with served(dsn, public_url=PUBLIC) as z:
        await looked_at(z, connection, "set")

    assert str(instance.webhook).startswith(PUBLIC)


async def _headers(instance: Any) -> dict[str, str]:
    return dict(instance.headers)


async def _now(instance: Any) -> str | None:
    url: str | None = instance.webhook
    return url


async def test_address_must_be_one_that_gateways_reach(environ: dict[str, str], fleet: Fleet) -> None:
    host = await fleet.evolution()
    host.add("loja-1")
    del environ["ZAPWATCH_PUBLIC_URL"]

    said = await imported(host, environ)

    assert said.code == 2
    assert "ZAPWATCH_PUBLIC_URL" in said.err
