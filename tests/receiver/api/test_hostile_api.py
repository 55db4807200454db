"""Whatever is sent to the ops API, or answered by a gateway: words, never a failure."""

import asyncio
import base64
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final

import httpx
import pytest

from db.connection.types import Connection
from receiver.api import OPERATIONS
from receiver.api.endpoint import Operation
from receiver.service.composition import http_app
from tests.conftest import Server, connected
from tests.factories import Evolution
from tests.support.gateway import gateway
from tests.support.hostile import MIB, Rig
from tests.support.service import Zapwatch, zapwatch

GUARDED: Final = [
    (operation.method, operation.path) for operation in OPERATIONS if isinstance(operation, Operation)
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
    transport = httpx.ASGITransport(http_app(rig.z.app))
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


@dataclass(frozen=True)
class Versions:
    """A service that reads the versions of gateways, whatever they answer."""

    z: Zapwatch
    connection: Connection

    async def are_read(self) -> None:
        """Return when every gateway has been claimed for its version to be asked."""
        read = "select bool_and(version_due_at > now() or base_url = '') from zapwatch_gateways"
        await self.z.until(lambda: self.connection.fetchval(read), lambda done: done is not False)

    async def expect_working(self) -> None:
        """Have another gateway's version read, in a round that begins when that of now is over."""
        async with gateway("2.3.7") as base_url:
            await self.z.channel("loja-02", api_url=base_url)

            async def version() -> object:
                found = (await self.z.get("/gateways", limit="500"))["items"]
                return next(it["version"] for it in found if it["base_url"] == base_url)

            await self.z.until(version, lambda read: read == "2.3.7")
        assert (await self.z.client.get("/readyz")).status_code == 200


@pytest.fixture(scope="module")
async def versions(server: Server, template: str) -> AsyncIterator[Versions]:
    """One service for all gateways that answer oddly."""
    async with (
        server.database(template) as name,
        connected(server.dsn(name)) as connection,
        zapwatch(server.dsn(name), probe_timeout=timedelta(seconds=1)) as z,
    ):
        yield Versions(z, connection)


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
async def test_address_that_leads_nowhere_stops_no_loop(versions: Versions, host: str) -> None:
    """The gateway's version is read in the background: a host that can't be looked up ended the process."""
    body = {"provider": "evolution_api", "instance": "loja-01", "api_url": f"http://{host}"}
    answer = await versions.z.client.post("/channels", json=body)
    assert answer.status_code in {201, 422}

    await versions.are_read()
    await versions.expect_working()


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
        due = "select due_at from zapwatch_states"
        await z.until(lambda: connection.fetchval(due), lambda at: at is None)
        assert (await z.client.get(f"/channels/{channel['channel_id']}")).status_code == 200


def cursor(values: object) -> str:
    """What a forger takes for a cursor."""
    return base64.urlsafe_b64encode(json.dumps(values).encode()).decode()


TELLING: Final = ("/destinations", "/deliveries", "/maintenance", "/notifications")
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
    paths = ("/channels", "/gateways", "/tenants", "/incidents", *TELLING)
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
    paths = ("/channels", "/gateways", "/tenants", "/incidents", *TELLING)
    own = (f"/channels/{channel}/events", f"/channels/{channel}/incidents")

    answers = [await rig.z.client.get(f"{path}?{query}") for path in (*paths, *own)]

    assert {answer.status_code for answer in answers} <= {200, 422}
    refused = [answer.json()["errors"][0]["pointer"] for answer in answers if answer.status_code == 422]
    assert set(refused) == {"/" + query.partition("=")[0]}


@pytest.mark.parametrize(
    "path",
    [
        "/channels?q=%ED%A0%80%FF",
        "/channels?q='%20or%201=1--",
        "/channels?q=%25_%5C",
        "/incidents?since=0001-01-01T00:00:00Z&until=9999-12-31T23:59:59Z",
        "CHANNEL/incidents?days=99999.999999",
        "CHANNEL/incidents?days=0",
        "/gateways?limit=500",
        "/tenants?&&&",
        "CHANNEL/events?cursor=",
    ],
    ids=lambda path: path[:30],
)
async def test_odd_but_lawful_parameter_is_answered(rig: Rig, path: str) -> None:
    _, channel, _ = await rig.hooks("evolution_api")

    answer = await rig.z.client.get(path.replace("CHANNEL", f"/channels/{channel}"))

    assert answer.status_code == 200


@pytest.mark.parametrize("query", ["x=1&" * 5000, "limit=1&limit=2", "==="], ids=lambda query: query[:30])
async def test_parameters_that_no_call_has_are_refused_by_all(rig: Rig, query: str) -> None:
    _, channel, _ = await rig.hooks("evolution_api")
    paths = ("/channels", "/gateways", "/tenants", "/incidents", *TELLING)
    own = (f"/channels/{channel}/events", f"/channels/{channel}/incidents")

    answers = [await rig.z.client.get(f"{path}?{query}") for path in (*paths, *own)]

    assert {answer.status_code for answer in answers} == {422}


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
                await asyncio.sleep(0.2 if drip else 0)  # a gateway that is slow, but never silent
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(talk, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()


@pytest.mark.parametrize("answer", GREETINGS.values(), ids=GREETINGS.keys())
async def test_gateway_that_answers_oddly_stops_no_loop(versions: Versions, answer: bytes) -> None:
    async with answering(answer) as odd:
        await versions.z.channel(api_url=odd)

        await versions.are_read()
        await versions.expect_working()
    assert (await versions.z.client.get("/gateways")).status_code == 200


async def test_gateway_that_drips_keeps_no_other_waiting(dsn: str) -> None:
    version = b'HTTP/1.1 200 OK\r\nContent-Length: 19\r\n\r\n{"version":"2.3.6"}'
    async with (
        answering(b"HTTP/1.1 200 OK\r\n\r\n" + b"A" * 200, drip=True) as slow,
        answering(version) as quick,
        zapwatch(dsn, probe_timeout=timedelta(seconds=0.5)) as z,
    ):
        await z.channel(api_url=slow)
        async with connected(dsn) as connection:
            await Versions(z, connection).are_read()
        await z.channel(api_url=quick)

        async def versions() -> set[str | None]:
            return {gateway["version"] for gateway in (await z.get("/gateways"))["items"]}

        await z.until(versions, lambda found: "2.3.6" in found)
