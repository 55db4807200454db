"""Whatever is sent: a webhook address answers 202 or 204 and goes on working, the ops API never fails.

Bodies travel as bytes, through a real server where the shape of the request itself is what is hostile.
"""

import asyncio
import base64
import copy
import gzip
import json
import time as clocks
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path
from typing import Any, Final

import asyncpg
import httpx
import pytest
import uvicorn
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from starlette.applications import Starlette

from db.connections import Connection
from db.intake import KEPT_OF_BODY
from db.tokens import hash_token
from receiver.api import routes
from receiver.providers import PROVIDERS
from tests.conftest import Server, connected
from tests.factories import Evolution, stamp
from tests.receiver.service import KEY, Zapwatch, zapwatch

SAMPLES = Path(__file__).parents[1] / "samples"
TAKEN: Final = {202, 204}
MIB: Final = 1024 * 1024
RAW: Final = {
    "@raw-nan@": "NaN",
    "@raw-infinity@": "-Infinity",
    "@raw-exponent@": "1e999",
    "@raw-digits@": "9" * 5000,
    "@raw-minus@": "-" + "9" * 400,
    "@raw-escape@": '"\\ud800\\u0000\\udfff"',
    "@raw-deep@": "[" * 900 + "]" * 900,
    "@raw-deeper@": "[" * 100_000 + "]" * 100_000,
}
"""JSON, or nearly, that Python's own writer wouldn't write; put in place of these strings."""
ODD: Final[list[Any]] = [
    None,
    True,
    False,
    0,
    -1,
    401.0,
    1.5,
    2**31,
    -(2**63),
    10**30,
    "",
    " ",
    "401",
    "\0",
    "open\0",
    "\ud800",
    "x\udfffy",
    "\u202e\r\n\x1b[31m",
    "é" * 5000,
    [],
    [None, [1, {}]],
    {},
    {"": None, "\0": "\ud800"},
    *RAW,
]
TIMES: Final[list[Any]] = [
    "0001-01-01T00:00:00Z",
    "0001-01-01T00:00:00+14:00",
    "0000-00-00T00:00:00Z",
    "9999-12-31T23:59:59.999999-14:00",
    "9999-12-31T23:59:59Z",
    "2026-11-23T03:00:00+99:99",
    "2026-11-23T03:00:00+23:59:59.999999",
    "2026-W48-1",
    "20261123",
    "2026-11-23T03:00:00 \ud800",
    "1970-01-01",
    -62135596800,
    -62135596801,
    253402300799,
    253402300800,
    253402300799999,
    -1e308,
    1e308,
    10**400,
    "9" * 40,
    "١٢٣",
    "-1",
]


@dataclass
class Rig:
    """A running service that a whole module shares, and its database."""

    z: Zapwatch
    connection: Connection
    port: int
    gateways: dict[str, tuple[str, str]]
    """By provider: a gateway's address and its webhook address."""
    numbers: "count[int]"

    async def hooks(self, provider: str) -> tuple[str, str, dict[str, str]]:
        """Register a channel; return its name, its id, and the two addresses that lead to it."""
        instance = f"loja-{next(self.numbers)}"
        url, gateway_hook = self.gateways[provider]
        channel = await self.z.channel(instance, provider, api_url=url)
        return instance, channel, {"channel": self.z.hooks[channel], "gateway": gateway_hook}

    async def expect_working(self, provider: str, instance: str, channel: str) -> None:
        """Post an ordinary event that must be heard."""
        if provider == "twilio":
            return
        assert await self.z.post(channel, normal(provider, instance)) == 204
        assert (await self.z.state(channel))["state"] == "open"

    async def raw(self, request: bytes) -> int:
        """Send bytes to the real server and return the status of the answer."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        writer.write(request)
        await writer.drain()
        answer = await asyncio.wait_for(reader.readline(), 20)
        writer.close()
        await writer.wait_closed()
        return int(answer.split()[1])


@asynccontextmanager
async def served(app: Starlette) -> AsyncIterator[int]:
    """Serve an app on loopback by uvicorn and yield its port."""
    config = uvicorn.Config(app, port=0, log_config=None, access_log=False, lifespan="off")
    server = uvicorn.Server(config)
    config.load()
    server.lifespan = config.lifespan_class(config)
    await server.startup()
    try:
        yield server.servers[0].sockets[0].getsockname()[1]
    finally:
        await server.shutdown()


@pytest.fixture(scope="module")
async def rig(server: Server, template: str) -> AsyncIterator[Rig]:
    """The service of these tests; each of them registers channels of its own."""
    async with (
        server.database(template) as name,
        connected(server.dsn(name)) as connection,
        zapwatch(server.dsn(name)) as z,
        served(z.app) as port,
    ):
        gateways = {}
        for provider in PROVIDERS:
            url = f"http://127.0.0.1:9/{provider}"
            body = {"provider": provider, "base_url": url, "api_key": "k"}
            answer = await z.client.post("/gateways", json=body)
            gateways[provider] = url, answer.json()["webhook_url"]
        yield Rig(z, connection, port, gateways, count())


def normal(provider: str, instance: str) -> dict[str, Any]:
    """An event that says open."""
    now = int(clocks.time() * 1000)
    match provider:
        case "evolution_api":
            return Evolution(instance).update("open")
        case "wapi":
            return {
                "event": "webhookConnected",
                "instanceId": instance,
                "connected": True,
                "connectedPhone": "5511900000001",
                "moment": now,
            }
        case "waha":
            payload = {"name": instance, "status": "WORKING"}
            return {"event": "session.status", "session": instance, "timestamp": now, "payload": payload}
        case _:
            return {"MessageSid": "SM1", "MessageStatus": "delivered", "ErrorCode": ""}


def bodies(provider: str, instance: str) -> list[dict[str, Any]]:
    """One body of each shape that a provider sends."""
    evolution = Evolution(instance)
    now = int(clocks.time() * 1000)
    match provider:
        case "evolution_api":
            return [
                evolution.update("close", 401),
                evolution.closed(message="Log out instance"),
                evolution.qr(),
                evolution.qr_limit(),
                evolution.logout(),
                evolution.message(),
                evolution.event("something.new", {"a": [1]}),
            ]
        case "wapi":
            gone = {"event": "webhookDisconnected", "instanceId": instance, "moment": now}
            legacy = {
                "event": "connection",
                "instanceId": instance,
                "data": {"connected": True, "phone": "5"},
            }
            return [normal(provider, instance), gone, legacy]
        case "waha":
            return [normal(provider, instance), {"event": "message", "session": instance, "payload": {}}]
        case _:
            return [normal(provider, instance)]


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The path of every value in a document, the whole one first."""
    yield path
    parts = value.items() if isinstance(value, dict) else enumerate(value if isinstance(value, list) else ())
    for name, part in parts:
        yield from places(part, (*path, name))


def replaced(document: Any, path: tuple[Any, ...], value: Any) -> Any:
    """A copy of a document with another value at this place."""
    if not path:
        return value
    changed = copy.deepcopy(document)
    parent = changed
    for name in path[:-1]:
        parent = parent[name]
    parent[path[-1]] = value
    return changed


def written(document: Any) -> bytes:
    """JSON, or what a careless gateway takes for it."""
    text = json.dumps(document)
    for name, raw in RAW.items():
        text = text.replace(f'"{name}"', raw)
    return text.encode()


def broken(instance: str) -> dict[str, bytes]:
    """Bodies that aren't JSON objects, or only just, by name."""
    good = json.dumps(Evolution(instance).update("close", 401)).encode()
    return {
        "empty": b"",
        "blank": b" \r\n\t",
        "truncated": good[:-20],
        "half": good[: len(good) // 2],
        "one brace": b"{",
        "null": b"null",
        "text": b'"connection.update"',
        "number": b"1",
        "list": b"[" + good + b"]",
        "invalid utf-8": good.replace(b"connection", b"conn\xff\xfe\xc0\x80ction"),
        "utf-16": good.decode().encode("utf-16"),
        "bom": b"\xef\xbb\xbf" + good,
        "doubled keys": b'{"event":"x",' + good[1:-1] + b',"event":"connection.update","data":1}',
        "form": b"event=connection.update&instance=" + instance.encode() + b"&data%5Bstate%5D=open",
        "multipart": b'--x\r\nContent-Disposition: form-data; name="event"\r\n\r\nx\r\n--x--\r\n',
        "gzip": gzip.compress(good),
        "two documents": good + good,
        "single quotes": good.replace(b'"', b"'"),
        "nul bytes": b"\0" * 1000,
        "nul inside": good.replace(b"close", b"cl\0ose"),
        "open brackets": b"[" * 100_000,
        "open braces": b'{"a":' * 100_000,
        "brackets": b"[" * 100_000 + b"]" * 100_000,
        "deep data": good.replace(b'"open"', b"[" * 100_000 + b"]" * 100_000),
        "html": b"<html><body>502 Bad Gateway</body></html>",
        "many keys": json.dumps({str(n): n for n in range(20_000)}).encode(),
    }


# ---- webhook addresses


@pytest.mark.parametrize("token", ["channel", "gateway"])
@pytest.mark.parametrize("provider", list(PROVIDERS))
async def test_what_is_not_json_is_taken_and_spoils_nothing(rig: Rig, provider: str, token: str) -> None:
    instance, channel, hooks = await rig.hooks(provider)
    answers = {}

    for name, body in broken(instance).items():
        answers[name] = await rig.z.post(hooks[token], body)
        await rig.expect_working(provider, instance, channel)

    assert {name: status for name, status in answers.items() if status not in TAKEN} == {}


@pytest.mark.parametrize("token", ["channel", "gateway"])
@pytest.mark.parametrize("provider", list(PROVIDERS))
async def test_odd_value_at_any_place_is_taken_and_spoils_nothing(
    rig: Rig, provider: str, token: str
) -> None:
    instance, channel, hooks = await rig.hooks(provider)
    await rig.expect_working(provider, instance, channel)
    refused, deaf = {}, {}

    for body in bodies(provider, instance):
        for path in places(body):
            for value in ODD:
                odd = written(replaced(body, path, value))
                answer = await rig.z.post(hooks[token], odd)
                if answer not in TAKEN:
                    refused[body.get("event"), path, str(value)[:20]] = answer
            try:
                await rig.expect_working(provider, instance, channel)
            except AssertionError as error:
                deaf[body.get("event"), path] = str(error)

    assert refused == {}
    assert deaf == {}


@pytest.mark.parametrize("field", ["date_time", "moment", "timestamp", "messageTimestamp"])
@pytest.mark.parametrize("time", TIMES, ids=lambda time: ascii(time)[:40])
async def test_odd_time_is_taken_and_spoils_nothing(rig: Rig, field: str, time: Any) -> None:
    provider = {"moment": "wapi", "timestamp": "waha"}.get(field, "evolution_api")
    instance, channel, hooks = await rig.hooks(provider)
    await rig.expect_working(provider, instance, channel)
    if field == "messageTimestamp":
        body = Evolution(instance).event("messages.upsert", [{"messageTimestamp": time}, {}, None])
    else:
        body = {**bodies(provider, instance)[0], field: time}

    answers = [await rig.z.post(hook, written(body)) for hook in hooks.values()]

    assert set(answers) == {204}
    await rig.expect_working(provider, instance, channel)


async def test_event_without_a_time_before_the_clock_is_known_gives_way_to_the_next_one(dsn: str) -> None:
    """Its gateway is three hours behind; nothing has told so when the first event comes."""
    async with zapwatch(dsn) as z:
        channel, instance = await z.channel(), Evolution()
        await z.hear(channel, {**instance.update("close", 428), "date_time": None})

        await z.hear(channel, instance.update("open"))

        assert (await z.stands(channel))[0] == "open"


@pytest.mark.parametrize("hours", [-14, 1, 5.123, 14])
async def test_one_event_of_a_wrong_zone_gives_way_to_the_next_two(dsn: str, hours: float) -> None:
    async with zapwatch(dsn) as z:
        channel, instance = await z.channel(), Evolution()
        await z.hear(channel, instance.update("open"))
        wrong = stamp(datetime.now(UTC) + timedelta(hours=hours))
        await z.hear(channel, {**instance.update("close", 428), "date_time": wrong})

        await z.hear(channel, instance.update("connecting"), instance.update("open"))

        assert (await z.stands(channel))[0] == "open"


@pytest.mark.parametrize("reason", ["401", 401.0, 2**31, -401, 10**30, -(10**30), 1.5, None, [], {"a": 1}])
async def test_odd_status_reason_costs_the_reason_and_not_the_event(rig: Rig, reason: Any) -> None:
    instance, channel, _ = await rig.hooks("evolution_api")
    await rig.expect_working("evolution_api", instance, channel)
    data = {"instance": instance, "state": "close", "statusReason": reason}

    await rig.z.hear(channel, written({**Evolution(instance).update("close", 7), "data": data}))

    assert (await rig.z.state(channel))["state"] == "disconnected"


async def test_lone_surrogates_and_nuls_beside_it_cost_no_event(rig: Rig) -> None:
    instance, channel, hooks = await rig.hooks("evolution_api")
    body = Evolution(instance).update("close", 401, profileName="\ud800\0", wuid=10**30)

    assert await rig.z.post(hooks["gateway"], written(body)) == 204

    assert await rig.z.stands(channel) == ("disconnected", "logged_out", True)


async def test_byte_order_mark_costs_no_event(rig: Rig) -> None:
    instance, channel, _ = await rig.hooks("evolution_api")
    body = b"\xef\xbb\xbf" + written(Evolution(instance).update("close", 401))

    assert await rig.z.post(channel, body) in TAKEN

    assert await rig.z.stands(channel) == ("disconnected", "logged_out", True)


@pytest.mark.parametrize(
    "suffix",
    [
        "",
        "/",
        "//",
        "/connection-update",
        "/connection-update/",
        "/a/b/c?x=1&token=2#f",
        "/%00",
        "/a%00b",
        "/%ED%A0%80",
        "/%FF%FE",
        "/%C0%AF..%2F..%2Fetc",
        "/../../x",
        "/%2e%2e/x",
        "/%zz%",
        "/a%0Ab",
        "/a%0D%0AX-Injected:%201",
        "/%E2%80%AE",
        "/" + "x" * 8000,
        "?" + "y=1&" * 2000,
    ],
    ids=lambda suffix: suffix[:30],
)
async def test_any_suffix_leads_to_the_address(rig: Rig, suffix: str) -> None:
    instance, channel, hooks = await rig.hooks("evolution_api")
    body = written(Evolution(instance).update("close", 401))
    answers = {}

    for name, hook in hooks.items():
        path = hook.removeprefix("http://zapwatch") + suffix
        for kind, content in (("good", body), ("bad", b"{")):
            head = f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(content)}\r\n\r\n"
            answers[name, kind] = await rig.raw(head.encode() + content)

    assert answers == {
        ("channel", "good"): 204,
        ("channel", "bad"): 202,
        ("gateway", "good"): 204,
        ("gateway", "bad"): 202,
    }
    assert await rig.z.stands(channel) == ("disconnected", "logged_out", True)


@pytest.mark.parametrize(
    "header",
    [
        "Content-Type: application/x-www-form-urlencoded",
        "Content-Type: text/plain; charset=utf-16",
        "Content-Type: multipart/form-data",
        "Content-Type: \xff\xfe",
        "Content-Encoding: br",
        "Authorization: Bearer wrong",
        "X-HTTP-Method-Override: GET",
        "Expect: 100-continue",
        "Range: bytes=0-1",
        "Cookie: " + "a" * 4000,
    ],
    ids=lambda header: ascii(header)[:40],
)
async def test_odd_header_costs_no_event(rig: Rig, header: str) -> None:
    instance, channel, hooks = await rig.hooks("evolution_api")
    body = written(Evolution(instance).update("close", 401))
    path = hooks["channel"].removeprefix("http://zapwatch")
    head = f"POST {path} HTTP/1.1\r\nHost: x\r\n{header}\r\nContent-Length: {len(body)}\r\n\r\n"

    assert await rig.raw(head.encode("latin-1") + body) in {100, 204}

    await rig.z.until(
        lambda: rig.z.stands(channel), lambda found: found == ("disconnected", "logged_out", True)
    )


async def test_gzipped_body_is_taken(rig: Rig) -> None:
    instance, channel, hooks = await rig.hooks("evolution_api")
    content = gzip.compress(written(Evolution(instance).update("close", 401)))

    for hook in hooks.values():
        answer = await rig.z.client.post(hook, content=content, headers={"Content-Encoding": "gzip"})
        assert answer.status_code in TAKEN

    await rig.expect_working("evolution_api", instance, channel)


async def test_callback_of_twilio_is_a_form_and_changes_nothing(rig: Rig) -> None:
    """Twilio sends forms, and message callbacks are no evidence: there is nothing to keep, sealed or not."""
    _, _, hooks = await rig.hooks("twilio")
    before = await rig.connection.fetchval("select count(*) from zapwatch_quarantine")
    sample = json.loads((SAMPLES / "twilio/status_callback_form.INFERRED.json").read_text())

    answers = [(await rig.z.client.post(hook, data=sample)).status_code for hook in hooks.values()]

    assert answers == [204, 204]
    assert await rig.connection.fetchval("select count(*) from zapwatch_quarantine") == before


@pytest.mark.parametrize(
    "method", ["GET", "HEAD", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "QUERY", "post"]
)
async def test_other_methods_are_refused_and_change_nothing(rig: Rig, method: str) -> None:
    instance, channel, hooks = await rig.hooks("evolution_api")
    body = written(Evolution(instance).update("close", 401))
    path = hooks["channel"].removeprefix("http://zapwatch")
    head = f"{method} {path} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n"

    assert await rig.raw(head.encode() + body) in {400, 405}

    assert (await rig.z.state(channel))["state"] == "unknown"


@pytest.mark.parametrize(
    "provider", ["evolution_api", "wapi", "twilio", "waha", "nobody", "%00", "evolution"]
)
async def test_token_that_nobody_has_is_refused_and_nothing_kept(rig: Rig, provider: str) -> None:
    kept = "select (select count(*) from zapwatch_quarantine) + (select count(*) from zapwatch_events)"
    before = await rig.connection.fetchval(kept)
    bodies = (b"", b"{", written(Evolution().update("open")), b"x" * (2 * MIB))

    answers = {
        await rig.z.post(f"http://zapwatch/webhooks/{provider}/{token}", body)
        for token in ("zw_nobody", "%00", "%FF", "%ED%A0%80", "x" * 5000)
        for body in bodies
    }

    assert answers == {401}
    assert await rig.connection.fetchval(kept) == before


async def test_unknown_instance_is_one_row_that_counts(rig: Rig) -> None:
    _, channel, hooks = await rig.hooks("evolution_api")
    names = ["s nobody", "s \0\0", "s \ud800!", "s " + "é" * 300, "s ../..", "s a\nb"]

    for name in names:
        for _ in range(3):
            body = written(Evolution(name).update("close", 401))
            assert await rig.z.post(hooks["gateway"], body) == 202

    rows = await rig.connection.fetch(
        "select instance, count, last_state from zapwatch_unknown_instances where instance like 's %'"
    )
    kept = {"s nobody", "s ??", "s ?!", "s " + "é" * 253, "s ../..", "s a\nb"}
    assert {row["instance"] for row in rows} == kept
    assert {(row["count"], row["last_state"]) for row in rows} == {(3, "close")}
    assert (await rig.z.state(channel))["state"] == "unknown"


async def test_unknown_instance_is_counted_whatever_its_event(rig: Rig) -> None:
    hook = rig.gateways["evolution_api"][1]
    silent = Evolution("silent-stranger")

    answers = [
        await rig.z.post(hook, body)
        for body in (
            silent.event("chats.set", []),
            silent.event("send.message", {}),
            silent.message(age=timedelta(hours=1)),
            silent.event("something.new", {}),
            silent.message(),
        )
    ]

    counted = await rig.connection.fetchval(
        "select count from zapwatch_unknown_instances where instance = 'silent-stranger'"
    )
    assert (answers, counted) == ([202] * 5, 5)


# ---- sizes


def large(body: dict[str, Any], size: int) -> bytes:
    """A body of at least this size whose names come first, as gateways write them."""
    text = json.dumps(body)
    return (text[:-1] + ', "base64": "' + "A" * size + '"}').encode()


async def test_over_the_limit_traffic_counts_as_traffic(rig: Rig) -> None:
    instance, channel, hooks = await rig.hooks("evolution_api")
    evolution = Evolution(instance)
    await rig.z.hear(channel, evolution.update("connecting"))

    for hook in hooks.values():
        before = await rig.z.state(channel)
        assert await rig.z.post(hook, large(evolution.message(), MIB)) == 204
        after = await rig.z.state(channel)
        assert after["last_event_at"] > before["last_event_at"]
        assert after["state"] == "connecting"

    stranger = large(Evolution("large-stranger").message(), MIB)
    assert await rig.z.post(hooks["gateway"], stranger) == 202
    await rig.expect_working("evolution_api", instance, channel)


async def test_over_the_limit_traffic_of_an_open_channel_is_written_within_5_seconds(rig: Rig) -> None:
    instance, channel, hooks = await rig.hooks("evolution_api")
    await rig.expect_working("evolution_api", instance, channel)
    before = await rig.z.state(channel)

    assert await rig.z.post(hooks["gateway"], large(Evolution(instance).message(), 3 * MIB)) == 204

    async with asyncio.timeout(5):
        await rig.z.until(
            lambda: rig.z.state(channel), lambda now: now["last_event_at"] > before["last_event_at"]
        )


@pytest.mark.parametrize(
    "body",
    [
        b"x" * (MIB + 1),
        b"{" + b" " * MIB + b"}",
        b"[" * (2 * MIB),
        b"\0" * (2 * MIB),
        b'{"x":"' + b"A" * (70 * 1024) + b'","event":"messages.upsert","y":"' + b"A" * MIB + b'"}',
        large({"event": "something.new", "instance": "loja-01"}, MIB),
        large({"event": ["messages.upsert"], "instance": "loja-01"}, MIB),
    ],
    ids=["x", "blank", "brackets", "nul", "names too late", "unknown event", "odd event"],
)
@pytest.mark.parametrize("provider", ["evolution_api", "wapi"])
async def test_over_the_limit_and_unrecognised_is_413_and_not_kept(
    rig: Rig, provider: str, body: bytes
) -> None:
    instance, channel, hooks = await rig.hooks(provider)
    before = await rig.connection.fetchval("select count(*) from zapwatch_quarantine")

    answers = [await rig.z.post(hook, body) for hook in hooks.values()]

    assert answers == [413, 413]
    assert await rig.connection.fetchval("select count(*) from zapwatch_quarantine") == before
    await rig.expect_working(provider, instance, channel)


async def test_exactly_the_limit_is_read_whole(rig: Rig) -> None:
    instance, channel, _ = await rig.hooks("evolution_api")
    body = written(Evolution(instance).update("close", 401))

    assert await rig.z.post(channel, body + b" " * (MIB - len(body))) == 204

    assert await rig.z.stands(channel) == ("disconnected", "logged_out", True)


async def test_twenty_megabytes_in_chunks_are_heard_out_and_answered(rig: Rig) -> None:
    instance, channel, hooks = await rig.hooks("evolution_api")
    evolution = Evolution(instance)
    await rig.z.hear(channel, evolution.update("connecting"))
    before = await rig.z.state(channel)

    async def chunks(start: bytes) -> AsyncIterator[bytes]:
        yield start
        for _ in range(320):
            yield b"A" * 65536

    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{rig.port}") as client:
        path = hooks["gateway"].removeprefix("http://zapwatch")
        known = await client.post(path, content=chunks(json.dumps(evolution.message()).encode()[:-1] + b',"'))
        nothing = await client.post(path, content=chunks(b"A"))

    assert (known.status_code, nothing.status_code) == (204, 413)
    assert (await rig.z.state(channel))["last_event_at"] > before["last_event_at"]
    await rig.expect_working("evolution_api", instance, channel)


# ---- quarantine


async def test_unreadable_body_is_kept_sealed_and_only_its_beginning(rig: Rig) -> None:
    _, _, hooks = await rig.hooks("evolution_api")
    token = hooks["channel"].rpartition("/")[2]
    body = b'{"apikey":"PLAINLY", ' + b"PLAINLY " * 5000

    assert await rig.z.post(hooks["channel"], body, "/a%00b") == 202

    (row,) = await rig.connection.fetch(
        "select * from zapwatch_quarantine where token_hash = $1", hash_token(token)
    )
    assert b"PLAINLY" not in row["body"]
    assert (row["size"], row["provider"], row["suffix"]) == (len(body), "evolution_api", "a?b")
    opened = rig.z.app.state.vault.open(row["body"], f"quarantine:{hash_token(token).hex()}")
    assert opened == body[:KEPT_OF_BODY]
    assert "PLAINLY" not in row["problem"]


async def test_token_keeps_a_thousand_unreadable_bodies_even_when_they_come_at_once(rig: Rig) -> None:
    _, _, hooks = await rig.hooks("evolution_api")
    digest = hash_token(hooks["channel"].rpartition("/")[2])
    await rig.connection.execute(
        "insert into zapwatch_quarantine (token_hash, provider, body, size, problem)"
        " select $1, 'evolution_api', '', 0, '' from generate_series(1, 999)",
        digest,
    )

    # Whoever comes first is held up until the others are there.
    async with rig.connection.transaction():
        await rig.connection.execute("lock table zapwatch_quarantine in exclusive mode")
        posts = asyncio.gather(*(rig.z.post(hooks["channel"], b"{") for _ in range(60)))
        await asyncio.sleep(0.5)
    answers = await posts
    other = await rig.z.post(hooks["gateway"], b"{")

    assert set(answers) | {other} == {202}
    kept = "select count(*) from zapwatch_quarantine where token_hash = $1"
    assert await rig.connection.fetchval(kept, digest) == 1000


# ---- real samples, mutated


def webhook_samples() -> list[tuple[str, str]]:
    """Provider and text of every sample that is JSON; answers of probes serve as strangers."""
    names = {"evolution": "evolution_api"}
    return [
        (names.get(path.parent.name, path.parent.name), path.read_text())
        for path in sorted(SAMPLES.glob("*/*.json"))
    ]


@st.composite
def mutants(draw: st.DrawFn) -> tuple[str, bytes]:
    """A provider, and a sample of it with a few things gone wrong; the instance is named loja."""
    provider, text = draw(st.sampled_from(webhook_samples()))
    document = json.loads(text)
    for _ in range(draw(st.integers(0, 4))):
        path = draw(st.sampled_from(list(places(document))))
        value = draw(
            st.sampled_from([*ODD, *TIMES])
            | st.recursive(
                st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
                lambda part: st.lists(part, max_size=3) | st.dictionaries(st.text(), part, max_size=3),
                max_leaves=5,
            )
        )
        document = replaced(document, path, value)
    body = written(document)
    for _ in range(draw(st.integers(0, 2))):
        at = draw(st.integers(0, len(body)))
        until = at + draw(st.integers(0, 5))
        body = body[:at] + draw(st.binary(max_size=4)) + body[until:]
    return provider, body[: draw(st.sampled_from([len(body)] * 3 + [len(body) // 2]))]


@settings(
    max_examples=150,
    derandomize=True,
    database=None,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.large_base_example],
)
@given(mutant=mutants())
async def test_mutated_sample_is_taken_and_spoils_nothing(rig: Rig, mutant: tuple[str, bytes]) -> None:
    provider, body = mutant
    instance, channel, hooks = await rig.hooks(provider)
    await rig.expect_working(provider, instance, channel)

    answers = [await rig.z.post(hook, body) for hook in hooks.values()]

    assert set(answers) <= TAKEN
    await rig.expect_working(provider, instance, channel)


# ---- at once


async def test_hundred_copies_at_once_are_one_event_and_one_incident(rig: Rig) -> None:
    instance, channel, hooks = await rig.hooks("evolution_api")
    evolution = Evolution(instance)
    await rig.z.hear(channel, evolution.update("open"))
    body = evolution.update("close", 401)

    answers = await asyncio.gather(
        *(rig.z.post(hooks[("channel", "gateway")[n % 2]], body) for n in range(100))
    )

    assert set(answers) == {204}
    events = [event for event in await rig.z.events(channel) if event["trigger"] == "unpaired"]
    assert [(event["count"], event["deliveries"]) for event in events] == [(1, 100)]
    await rig.z.incident(channel)
    assert len(await rig.z.incidents(channel)) == 1


async def test_registered_at_once_one_wins(rig: Rig) -> None:
    body = {"provider": "waha", "instance": f"race-{next(rig.numbers)}", "api_url": "http://127.0.0.1:9/race"}

    answers = await asyncio.gather(*(rig.z.client.post("/channels", json=body) for _ in range(20)))

    statuses = sorted(answer.status_code for answer in answers)
    assert statuses == [201] + [409] * 19
    (winner,) = [answer.json()["id"] for answer in answers if answer.status_code == 201]
    assert {answer.json()["id"] for answer in answers if answer.status_code == 409} == {winner}


async def test_gateway_registered_while_its_channels_hear_disturbs_neither(rig: Rig) -> None:
    url = f"http://127.0.0.1:9/late-{next(rig.numbers)}"
    channels = [(name, await rig.z.channel(name, api_url=url)) for name in (f"late-{n}" for n in range(10))]

    async def flood() -> set[int]:
        return {
            await rig.z.post(channel, Evolution(name).update(state))
            for state in ("open", "connecting") * 5
            for name, channel in channels
        }

    body = {"provider": "evolution_api", "base_url": url, "api_key": "k"}
    flooded, answer = await asyncio.gather(flood(), rig.z.client.post("/gateways", json=body))

    assert (flooded, answer.status_code) == ({204}, 201)


async def test_deleted_while_webhooks_arrive_answers_them_and_leaves_no_open_incident(rig: Rig) -> None:
    instance, channel, hooks = await rig.hooks("evolution_api")
    evolution = Evolution(instance)
    await rig.z.hear(channel, evolution.update("open"))

    async def flood() -> list[int]:
        return [
            await rig.z.post(hooks["channel"], evolution.update(state))
            for state in ("close", "open", "connecting", "close") * 10
        ]

    async def delete() -> int:
        await asyncio.sleep(0.05)
        return (await rig.z.client.delete(f"/channels/{channel}")).status_code

    answers, deleted = await asyncio.gather(flood(), delete())

    assert deleted == 204
    assert set(answers) <= {204, 401}
    assert answers == sorted(answers)
    open_ones = "select count(*) from whatsapp_connection_incidents where channel_id = $1::text::uuid"
    assert await rig.connection.fetchval(open_ones + " and resolved_at is null", channel) == 0


async def test_paused_and_resumed_while_webhooks_arrive_ends_as_the_last_word(rig: Rig) -> None:
    instance, channel, hooks = await rig.hooks("evolution_api")
    evolution = Evolution(instance)
    await rig.z.hear(channel, evolution.update("open"))

    async def flood() -> set[int]:
        return {
            await rig.z.post(hooks["gateway"], evolution.update(state))
            for state in ("open", "close", *("open",) * 40)
        }

    async def switch() -> set[int]:
        return {
            (await rig.z.client.post(f"/channels/{channel}/{word}")).status_code
            for word in ("pause", "resume") * 10
        }

    flooded, *switched = await asyncio.gather(flood(), switch(), switch())

    assert flooded == {204}
    assert switched == [{200}, {200}]
    assert (await rig.z.client.post(f"/channels/{channel}/pause")).json()["monitoring"]["paused"] is True
    await rig.z.hear(channel, evolution.update("close", 401))
    assert (await rig.z.state(channel))["incident"] is None
    await rig.z.client.post(f"/channels/{channel}/resume")
    assert (await rig.z.incident(channel))["kind"] == "disconnected"


async def test_threshold_lowered_while_unhealthy_opens_the_incident_at_once(rig: Rig) -> None:
    instance, channel, _ = await rig.hooks("evolution_api")
    evolution = Evolution(instance)
    await rig.z.hear(channel, evolution.update("open"), evolution.update("connecting"))
    assert (await rig.z.state(channel))["incident"] is None

    body = {"metadata": {"heartbeat_threshold_minutes": 0}}
    answer = await rig.z.client.patch(f"/channels/{channel}", json=body)

    assert answer.json()["incident"]["kind"] == "connecting"


async def test_threshold_lowered_by_an_application_beside_us_opens_the_incident(rig: Rig) -> None:
    instance, channel, _ = await rig.hooks("evolution_api")
    evolution = Evolution(instance)
    await rig.z.hear(channel, evolution.update("open"), evolution.update("connecting"))

    await rig.connection.execute(
        """update notification_channels set metadata = '{"heartbeat_threshold_minutes": 0}'
           where id = $1::text::uuid""",
        channel,
    )

    assert (await rig.z.incident(channel))["kind"] == "connecting"


# ---- ops API

GUARDED: Final = [
    (method, route.path)
    for route in routes
    for method in sorted((route.methods or set()) - {"HEAD"})
    if route.path not in {"/healthz", "/readyz", "/metrics", "/openapi.json", "/docs"}
]
NO_IDS: Final = [
    "x",
    "0",
    "-1",
    "null",
    "%00",
    "%FF",
    "%ED%A0%80",
    "..%2F..%2Fetc%2Fpasswd",
    "00000000-0000-0000-0000-000000000000",
    "ffffffff-ffff-ffff-ffff-ffffffffffff",
    "00000000-0000-0000-0000-00000000000g",
    "{00000000-0000-0000-0000-000000000000}",
    "0" * 5000,
    "'%20or%201=1--",
    "%0A",
    "a%0Ab",
]


@pytest.mark.parametrize("token", [None, "wrong", "zw_" + "x" * 43, "\xff", "a b", "x" * 20_000, ""])
async def test_every_guarded_route_refuses_whoever_has_no_token(rig: Rig, token: str | None) -> None:
    headers = {} if token is None else {b"Authorization": b"Bearer " + token.encode("latin-1")}
    transport = httpx.ASGITransport(rig.z.app)
    async with httpx.AsyncClient(transport=transport, base_url="http://zapwatch") as client:
        answers = [
            await client.request(method, path.replace("{id}", "x"), headers=headers)
            for method, path in GUARDED
        ]

    assert len(answers) > 15
    assert {(answer.status_code, answer.headers["Content-Type"]) for answer in answers} == {
        (401, "application/problem+json")
    }


@pytest.mark.parametrize("id", NO_IDS, ids=lambda id: id[:40])
async def test_id_of_nothing_is_404_in_words(rig: Rig, id: str) -> None:
    answers = {
        f"{method} {path}": await rig.z.client.request(
            method,
            path.replace("{id}", id),
            json={} if method == "PATCH" else None,
        )
        for method, path in GUARDED
        if "{id}" in path
    }

    assert len(answers) > 10
    for name, answer in answers.items():
        assert (name, answer.status_code) == (name, 404)
        assert answer.headers["Content-Type"] == "application/problem+json"
        assert {"type", "title", "status", "detail"} <= set(answer.json())


@pytest.mark.parametrize(
    ("method", "path"), [("POST", "/channels"), ("POST", "/gateways"), ("POST", "/tenants")]
)
@pytest.mark.parametrize(
    "body",
    [
        b"",
        b" ",
        b"{",
        b"null",
        b"[]",
        b'"x"',
        b"1",
        b"\xff\xfe",
        b"{}",
        b'{"a":1}',
        b'{"provider":NaN}',
        b'{"name":"\\ud800"}',
        b'{"name":"\\u0000"}',
        b'{"\\u0000":1}',
        b'{"name":1e999}',
        b'{"name":' + b"9" * 5000 + b"}",
        b"[" * 100_000,
        b'{"metadata":' + b"[" * 500 + b"]" * 500 + b"}",
        b'{"metadata":' + b'{"a":' * 40 + b"1" + b"}" * 40 + b"}",
        b'{"provider":{"a":[]},"instance":[],"base_url":0,"api_key":{},"name":[],"defaults":[],"locale":0}',
        b"\xef\xbb\xbf{}",
        "{}".encode("utf-16"),
    ],
    ids=lambda body: ascii(body[:40]),
)
async def test_body_that_will_not_do_is_422_with_pointers(
    rig: Rig, method: str, path: str, body: bytes
) -> None:
    answer = await rig.z.client.request(method, path, content=body)

    assert (answer.status_code, answer.headers["Content-Type"]) == (422, "application/problem+json")
    assert answer.json()["errors"]
    for error in answer.json()["errors"]:
        assert error["pointer"] == "" or error["pointer"].startswith("/")
        assert error["detail"]


async def test_every_bad_field_is_named_at_once(rig: Rig) -> None:
    body = {
        "provider": "telegram",
        "instance": "",
        "api_url": 7,
        "api_key": [],
        "name": "x" * 201,
        "tenant_id": "nobody",
        "metadata": {
            "heartbeat_threshold_minutes": -1,
            "alerts_enabled": "yes",
            "auto_recovery": 1,
            "terminal_waits": [],
        },
        "colour": "red",
        "a/b~c": 1,
    }

    answer = await rig.z.client.post("/channels", json=body)

    assert answer.status_code == 422
    assert {error["pointer"] for error in answer.json()["errors"]} == {
        "/provider",
        "/instance",
        "/api_url",
        "/api_key",
        "/name",
        "/tenant_id",
        "/metadata/heartbeat_threshold_minutes",
        "/metadata/alerts_enabled",
        "/metadata/auto_recovery",
        "/metadata/terminal_waits",
        "/colour",
        "/a~1b~0c",
    }


@pytest.mark.parametrize(
    "api_url",
    [
        "x",
        "ftp://x",
        "http://",
        "http:///x",
        "http://[::1",
        "http://x:0",
        "http://x:99999",
        "http://x:-1",
        "http://u:p@x",
        "http://x?y",
        "http://x#y",
        "http://x y",
        "http://x\ny",
        "http://é.example",
        "http://\u202e",
        "javascript:1",
        "//x",
        "http://x/" + "y" * 3000,
    ],
    ids=lambda url: ascii(url)[:40],
)
async def test_odd_address_is_422(rig: Rig, api_url: str) -> None:
    body = {"provider": "evolution_api", "instance": f"loja-{next(rig.numbers)}", "api_url": api_url}
    gateway = {"provider": "evolution_api", "base_url": api_url, "api_key": "k"}

    answers = [
        await rig.z.client.post("/channels", json=body),
        await rig.z.client.post("/gateways", json=gateway),
    ]

    pointers = [(answer.status_code, answer.json()["errors"][0]["pointer"]) for answer in answers]
    assert pointers == [(422, "/api_url"), (422, "/base_url")]


@pytest.mark.parametrize(
    "host",
    [
        "a" * 64 + ".example",
        "a..b",
        ".",
        "..",
        "xn--",
        "xn--a.example",
        "%00",
        "%zz",
        "a_b",
        "-",
        "[::]",
        "[::1%25lo]",
        "[fe80::1%lo]",
        "[v1.x]",
        "0",
        "1.2.3.4.5",
        "999.999.999.999",
        "0x7f.1",
        "a" * 300,
        "*",
        "a'b",
        "localhost:1",
        "127.0.0.1:9/%0d%0a",
        "127.0.0.1:9/" + "x" * 2000,
        "127.0.0.1:9/{id}",
        "127.0.0.1:9/\\..\\",
    ],
    ids=lambda host: host[:30],
)
async def test_address_that_leads_nowhere_stops_no_loop(dsn: str, host: str) -> None:
    """The gateway's version is read in the background: a host that can't be looked up ended the process."""
    async with zapwatch(dsn, probe_timeout=timedelta(seconds=1)) as z:
        body = {"provider": "evolution_api", "instance": "loja-01", "api_url": f"http://{host}"}
        answer = await z.client.post("/channels", json=body)
        assert answer.status_code in {201, 422}

        async with connected(dsn) as connection:
            read = "select bool_and(version_due_at > now() or base_url = '') from zapwatch_gateways"
            await z.until(lambda: connection.fetchval(read), lambda done: done is not False)
        await asyncio.sleep(0.5)

        assert (await z.client.get("/readyz")).status_code == 200


THRESHOLDS: Final[list[Any]] = [-1, 1441, 1e308, 10**30, "5", True, [], {}, float("nan"), "\ud800"]


@pytest.mark.parametrize("minutes", THRESHOLDS, ids=ascii)
async def test_odd_setting_is_422_and_named(rig: Rig, minutes: Any) -> None:
    _, channel, _ = await rig.hooks("evolution_api")
    metadata = {"heartbeat_threshold_minutes": minutes}

    answer = await rig.z.client.patch(
        f"/channels/{channel}", content=json.dumps({"metadata": metadata}).encode()
    )

    assert answer.status_code == 422
    named = {error["pointer"] for error in answer.json()["errors"]}
    assert named <= {"/metadata/heartbeat_threshold_minutes", ""}


@pytest.mark.parametrize(
    "metadata",
    [
        {"heartbeat_threshold_minutes": None},
        {"heartbeat_threshold_minutes": 0.0001},
        {"": "", " ": None, "a" * 5000: "b" * 50_000},
        {"x": 1e308, "y": -(2**63), "z": 2**64 - 1, "w": 10**30, "v": 5e-324},
        {"x": {"y": {"z": [None, {"a": None}]}}},
        {"x": "\u2028\U0001f4a9"},
        {str(n): n for n in range(5000)},
    ],
    ids=lambda metadata: ascii(metadata)[:30],
)
async def test_odd_but_lawful_metadata_is_kept_and_shown(rig: Rig, metadata: Any) -> None:
    instance, channel, _ = await rig.hooks("evolution_api")

    for _ in range(2):
        answer = await rig.z.client.patch(f"/channels/{channel}", json={"metadata": metadata})
        assert answer.status_code == 200, answer.text

    assert (await rig.z.client.get(f"/channels/{channel}")).status_code == 200
    await rig.expect_working("evolution_api", instance, channel)


BESIDE: Final = {
    "deep": '{"x": ' + "[" * 300 + "]" * 300 + "}",
    "very deep": '{"x": ' + "[" * 2000 + "]" * 2000 + "}",
    "huge number": '{"x": 1' + "0" * 400 + "}",
    "huge threshold": '{"heartbeat_threshold_minutes": 1e400}',
    "many digits": '{"x": ' + "9" * 5000 + ', "y": 0.' + "1" * 5000 + "}",
    "list": "[1]",
    "text": '"x"',
    "null": "null",
    "number": "7",
    "strings": '{"heartbeat_threshold_minutes": "x", "alerts_enabled": "no", "terminal_waits": 1}',
}
"""What an application beside us may write into a jsonb column."""


@pytest.mark.parametrize("metadata", BESIDE.values(), ids=BESIDE.keys())
async def test_metadata_written_beside_us_is_read_leniently(rig: Rig, metadata: str) -> None:
    instance, channel, _ = await rig.hooks("evolution_api")

    await rig.connection.execute(
        "update notification_channels set metadata = $1::text::jsonb where id = $2::text::uuid",
        metadata,
        channel,
    )

    shown = [
        await rig.z.client.get(f"/channels/{channel}"),
        await rig.z.client.get(f"/channels/{channel}/state"),
        await rig.z.client.get("/channels", params={"q": instance}),
        await rig.z.client.patch(f"/channels/{channel}", json={"metadata": {"x": {"y": 1}}}),
    ]
    assert [answer.status_code for answer in shown] == [200] * 4
    await rig.expect_working("evolution_api", instance, channel)


@pytest.mark.parametrize("details", BESIDE.values(), ids=BESIDE.keys())
async def test_incident_opened_beside_us_with_odd_details_stops_no_channel(
    dsn: str, connection: Connection, details: str
) -> None:
    async with zapwatch(dsn) as z:
        instance, other = Evolution(), Evolution("loja-02")
        channel, neighbour = await z.channel(), await z.channel("loja-02")
        await z.hear(channel, instance.update("open"), instance.update("connecting"))
        await z.hear(neighbour, other.update("open"), other.update("connecting"))
        await connection.execute(
            "select whatsapp_heartbeat_open_incident($1::text::uuid, 'error', 'x', $2::text::jsonb)",
            channel,
            details,
        )

        # Both are due in one round now.
        await connection.execute(
            """update notification_channels set metadata = '{"heartbeat_threshold_minutes": 0}'"""
        )

        assert (await z.incident(neighbour))["kind"] == "connecting"
        assert await z.post(channel, instance.update("open")) == 204
        assert (await z.state(channel))["incident"] is None
        shown = [
            await z.client.get(path)
            for path in (f"/channels/{channel}/incidents", f"/channels/{channel}/events", "/incidents")
        ]
        assert [answer.status_code for answer in shown] == [200] * 3


CREDENTIALS: Final = {
    **BESIDE,
    "odd values": '{"api_url": 5, "api_key": [], "instance": {}}',
    "odd host": '{"api_url": "http://' + "a" * 64 + '.example", "api_key": "k", "instance": "i"}',
    "two dots": '{"url": "http://a..b", "token": 12345678901234567890123, "instance_name": 7}',
    "long": '{"apiUrl": "http://x/' + "y" * 2040 + '", "apikey": "k", "instance": "' + "é" * 255 + '"}',
}


@pytest.mark.parametrize("credentials", CREDENTIALS.values(), ids=CREDENTIALS.keys())
async def test_channel_of_an_application_beside_us_stops_no_start(
    dsn: str, connection: Connection, admin: Connection, credentials: str
) -> None:
    await admin.execute("alter table notification_channels add column if not exists credentials jsonb")
    tenant = await connection.fetchval("insert into tenants (name) values ('t') returning id")
    await connection.execute(
        "insert into notification_channels (tenant_id, provider, credentials)"
        " values ($1, 'evolution_api', $2::text::jsonb)",
        tenant,
        credentials,
    )

    async with zapwatch(dsn) as z:
        (channel,) = (await z.get("/channels"))["items"]
        await asyncio.sleep(1.5)
        assert (await z.client.get(f"/channels/{channel['channel_id']}")).status_code == 200


def cursor(values: object) -> str:
    """What a forger takes for a cursor."""
    return base64.urlsafe_b64encode(json.dumps(values).encode()).decode()


CURSORS: Final = [
    "x",
    "=",
    "%00",
    "é",
    "A" * 50_000,
    cursor(None),
    cursor(1),
    cursor("x"),
    cursor({}),
    cursor([]),
    cursor([[]]),
    cursor([None, None]),
    cursor([True]),
    cursor([1.5]),
    cursor([2**63]),
    cursor([-(2**63) - 1]),
    cursor([-1e30]),
    cursor(["-" + "9" * 30]),
    cursor(["9" * 5000]),
    cursor([float("inf")]),
    cursor(["0001-01-01T00:00:00", "00000000-0000-0000-0000-000000000000"]),
    cursor(["9999-12-31T23:59:59-14:00", "00000000-0000-0000-0000-000000000000"]),
    cursor(["9999-12-31T23:59:59+00:00", "00000000-0000-0000-0000-000000000000"]),
    cursor(["0001-01-01T00:00:00+00:00", "00000000-0000-0000-0000-000000000000"]),
    cursor(["2026-01-01", 5]),
    cursor(["\ud800"]),
    base64.urlsafe_b64encode(b"[" * 10_000).decode(),
]


@pytest.mark.parametrize("value", CURSORS, ids=lambda value: value[:30])
async def test_forged_cursor_is_answered(rig: Rig, value: str) -> None:
    _, channel, _ = await rig.hooks("evolution_api")
    paths = ("/channels", "/gateways", "/tenants", "/incidents")
    own = (f"/channels/{channel}/events", f"/channels/{channel}/incidents")

    answers = {path: await rig.z.client.get(path, params={"cursor": value}) for path in (*paths, *own)}

    for path, answer in answers.items():
        assert (path, answer.status_code) in {(path, 200), (path, 422)}


@pytest.mark.parametrize(
    "query",
    [
        "limit=0",
        "limit=-1",
        "limit=501",
        "limit=" + "9" * 5000,
        "limit=1e1",
        "limit=%00",
        "limit=١",
        "days=-1",
        "days=" + "9" * 5000,
        "days=nan",
        "days=1e9",
        "tenant_id=x",
        "gateway_id=%00",
        "channel_id=" + "0" * 5000,
        "state=x",
        "state=%ED%A0%80",
        "incident=closed",
        "status=x",
        "kind=x",
        "since=x",
        "since=0001-01-01T00:00:00%2B14:00",
        "until=9999-12-31T23:59:59-14:00",
        "since=%00",
        "q=%00",
        "q=" + "y" * 201,
    ],
    ids=lambda query: query[:30],
)
async def test_odd_parameter_is_422_and_named_where_it_counts_and_never_a_failure(
    rig: Rig, query: str
) -> None:
    _, channel, _ = await rig.hooks("evolution_api")
    paths = ("/channels", "/gateways", "/tenants", "/incidents")
    own = (f"/channels/{channel}/events", f"/channels/{channel}/incidents")

    answers = [await rig.z.client.get(f"{path}?{query}") for path in (*paths, *own)]

    assert {answer.status_code for answer in answers} <= {200, 422}
    refused = [answer.json()["errors"][0]["pointer"] for answer in answers if answer.status_code == 422]
    assert set(refused) == {"/" + query.partition("=")[0]}


@pytest.mark.parametrize(
    "query",
    [
        "q=%ED%A0%80%FF",
        "q='%20or%201=1--",
        "q=%25_%5C",
        "since=0001-01-01T00:00:00Z&until=9999-12-31T23:59:59Z",
        "days=99999.999999",
        "days=0",
        "limit=500",
        "x=1&" * 5000,
        "limit=1&limit=2",
        "&&&===",
        "cursor=",
    ],
    ids=lambda query: query[:30],
)
async def test_odd_but_lawful_parameter_is_answered(rig: Rig, query: str) -> None:
    _, channel, _ = await rig.hooks("evolution_api")
    paths = ("/channels", "/gateways", "/tenants", "/incidents")
    own = (f"/channels/{channel}/events", f"/channels/{channel}/incidents")

    answers = [await rig.z.client.get(f"{path}?{query}") for path in (*paths, *own)]

    assert {answer.status_code for answer in answers} == {200}


@pytest.mark.parametrize("method", ["PUT", "TRACE", "OPTIONS", "QUERY", "DELETE"])
async def test_method_that_is_not_taken_is_405_in_words(rig: Rig, method: str) -> None:
    answers = [
        await rig.z.client.request(method, path)
        for path in ("/channels", "/gateways", "/tenants", "/incidents", "/healthz", "/metrics")
    ]

    assert {answer.status_code for answer in answers} == {405}
    assert {answer.headers["Content-Type"] for answer in answers} == {"application/problem+json"}
    assert all(answer.headers["Allow"] for answer in answers)


@pytest.mark.parametrize(
    "path",
    ["/", "//", "/channels/", "/channels//state", "/nothing", "/%00", "/a%0Ab", "/.git/config", "/webhooks"],
)
async def test_path_of_nothing_is_404_in_words(rig: Rig, path: str) -> None:
    for method in ("GET", "POST"):
        answer = await rig.z.client.request(
            method, httpx.URL("http://zapwatch").copy_with(raw_path=path.encode())
        )
        assert answer.status_code in {404, 405, 307}
        if answer.status_code != 307:
            assert answer.headers["Content-Type"] == "application/problem+json"


@pytest.mark.parametrize(
    "fields",
    [
        {"time_zone": zone}
        for zone in (
            "",
            ".",
            "..",
            "../../etc/passwd",
            "/etc/passwd",
            "x" * 5000,
            "é",
            "America",
            "a.b/c",
            "utc\n",
        )
    ]
    + [{"locale": "xx"}, {"locale": None}, {"name": ""}, {"name": None}, {"name": 5}, {"defaults": None}],
    ids=lambda fields: ascii(fields)[:40],
)
async def test_odd_tenant_is_422(rig: Rig, fields: dict[str, Any]) -> None:
    tenant = (await rig.z.client.post("/tenants", json={"name": "Loja"})).json()

    answers = [
        await rig.z.client.post("/tenants", json={"name": "Loja", **fields}),
        await rig.z.client.patch(f"/tenants/{tenant['id']}", json=fields),
    ]

    (field,) = fields
    named = [(answer.status_code, answer.json()["errors"][0]["pointer"]) for answer in answers]
    assert named == [(422, f"/{field}")] * 2


async def test_body_over_the_limit_is_413_and_a_lying_length_no_failure(rig: Rig) -> None:
    answer = await rig.z.client.post("/channels", content=b"x" * (MIB + 1))
    assert (answer.status_code, answer.headers["Content-Type"]) == (413, "application/problem+json")

    head = b"POST /channels HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer an-operator-of-the-tests\r\n"
    assert await rig.raw(head + b"Content-Length: 99999999999999999999\r\n\r\n{}") in {400, 413}
    assert await rig.raw(head + b"Content-Length: -1\r\n\r\n{}") == 400
    assert await rig.raw(head + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n") == 400


# ---- gateways that answer


GREETINGS: Final = {
    "nothing": b"",
    "not http": b"\xff\xfe\0\0",
    "no status": b"HTTP/1.1\r\n\r\n",
    "odd status": b"HTTP/1.1 999 \xff\r\nContent-Length: 0\r\n\r\n",
    "cut off": b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n{",
    "not gzip": b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 2\r\n\r\n{}",
    "redirect nowhere": b"HTTP/1.1 302 Found\r\nLocation: http://xn--/\r\nContent-Length: 0\r\n\r\n",
    "redirect odd": b"HTTP/1.1 302 Found\r\nLocation: http://[::1\xff\r\nContent-Length: 0\r\n\r\n",
    "redirect port": b"HTTP/1.1 302 Found\r\nLocation: http://x:99999999/\r\nContent-Length: 0\r\n\r\n",
    "odd cookie": b"HTTP/1.1 200 OK\r\nSet-Cookie: \xff=;;=;expires=x\r\nContent-Length: 2\r\n\r\n{}",
    "odd charset": b"HTTP/1.1 200 OK\r\nContent-Type: x; charset=\xff\r\nContent-Length: 2\r\n\r\n[]",
    "odd version": b'HTTP/1.1 200 OK\r\nContent-Length: 27\r\n\r\n{"version":"2.3\\u0000\\ud83d"}',
    "deep": b"HTTP/1.1 200 OK\r\nContent-Length: 200000\r\n\r\n" + b"[" * 200_000,
    "huge": b"HTTP/1.1 200 OK\r\n\r\n" + b"A" * (2 * MIB),
    "headers for ever": b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 50_000,
}


@asynccontextmanager
async def answering(answer: bytes, drip: bool = False) -> AsyncIterator[str]:
    """Run a gateway that answers everything with these bytes; yield its address."""

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await reader.readuntil(b"\r\n\r\n")
            for n in range(len(answer) if drip else 1):
                writer.write(answer[n : n + 1] if drip else answer)
                await writer.drain()
                await asyncio.sleep(0.2 if drip else 0)
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    gateway = await asyncio.start_server(talk, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{gateway.sockets[0].getsockname()[1]}"
    finally:
        gateway.close()


@pytest.mark.parametrize("answer", GREETINGS.values(), ids=GREETINGS.keys())
async def test_gateway_that_answers_oddly_stops_no_loop(dsn: str, answer: bytes) -> None:
    async with answering(answer) as odd, zapwatch(dsn, probe_timeout=timedelta(seconds=0.5)) as z:
        await z.channel(api_url=odd)
        await asyncio.sleep(2)  # its version is asked for within a second, and an answer takes half a one

        assert (await z.client.get("/readyz")).status_code == 200
        assert (await z.client.get("/gateways")).status_code == 200


async def test_gateway_that_drips_keeps_no_other_waiting(dsn: str) -> None:
    version = b'HTTP/1.1 200 OK\r\nContent-Length: 19\r\n\r\n{"version":"2.3.6"}'
    async with (
        answering(b"HTTP/1.1 200 OK\r\n\r\n" + b"A" * 200, drip=True) as slow,
        answering(version) as quick,
        zapwatch(dsn, probe_timeout=timedelta(seconds=0.5)) as z,
    ):
        await z.channel(api_url=slow)
        await asyncio.sleep(1.5)  # it's being asked
        await z.channel(api_url=quick)

        async def versions() -> set[str | None]:
            return {gateway["version"] for gateway in (await z.get("/gateways"))["items"]}

        await z.until(versions, lambda found: "2.3.6" in found)


# ---- a database that refuses


async def test_row_that_is_refused_is_503_and_never_500(dsn: str, admin: Connection) -> None:
    async with zapwatch(dsn) as z:
        z.client._transport = httpx.ASGITransport(z.app, raise_app_exceptions=False)
        body = {"provider": "evolution_api", "base_url": "http://127.0.0.1:9/x", "api_key": "k"}
        hook = (await z.client.post("/gateways", json=body)).json()["webhook_url"]
        channel = await z.channel(api_url="http://127.0.0.1:9/x")
        for table in ("events", "quarantine", "unknown_instances"):
            await admin.execute(f"alter table zapwatch_{table} add constraint no check (false) not valid")

        answers = [
            await z.client.post(z.hooks[channel], content=written(Evolution().update("open"))),
            await z.client.post(hook, content=written(Evolution("stranger").update("open"))),
            await z.client.post(hook, content=b"{"),
        ]

        assert [(answer.status_code, "Retry-After" in answer.headers) for answer in answers] == [
            (503, True)
        ] * 3
        assert 'code="500"' not in (await z.client.get("/metrics")).text


async def test_database_away_is_503_and_counted_as_such(dsn: str) -> None:
    async with zapwatch(dsn) as z:
        channel = await z.channel()
        await z.hear(channel, Evolution().update("open"))
        away = asyncpg.create_pool("postgresql://nobody@/nothing?host=/does/not/exist", min_size=0)
        async with away:
            pool, z.app.state.pool = z.app.state.pool, away
            answer = await z.client.post(z.hooks[channel], content=b"{")
            z.app.state.pool = pool

        assert (answer.status_code, "Retry-After" in answer.headers) == (503, True)
        assert 'zapwatch_webhook_answers_total{code="503"' in (await z.client.get("/metrics")).text


async def test_channel_whose_row_somebody_holds_keeps_no_other_waiting(
    dsn: str, connection: Connection
) -> None:
    """An application beside us, or a psql left open, in the midst of a transaction on one channel."""
    async with zapwatch(dsn) as z:
        held, free = await z.channel(), await z.channel("loja-02")
        other = Evolution("loja-02")
        async with connection.transaction():
            await connection.execute(
                """update notification_channels set metadata = '{"x": 1}' where id = $1::text::uuid""", held
            )
            waiting = asyncio.create_task(z.post(held, Evolution().update("open")))
            await asyncio.sleep(0)
            began = clocks.monotonic()
            answers = await asyncio.gather(*(z.post(free, other.update("open")) for _ in range(3)))
            took = clocks.monotonic() - began

        assert answers == [204] * 3
        assert took < 3
        assert await waiting in {204, 503}


async def test_service_is_well_after_all_this(rig: Rig) -> None:
    answers = [await rig.z.client.get(path) for path in ("/healthz", "/readyz", "/metrics")]

    assert [answer.status_code for answer in answers] == [200] * 3
    failed = [line for line in answers[2].text.splitlines() if 'code="5' in line]
    assert failed == []
    assert KEY.hex() not in answers[2].text
