"""A rig that tests of hostile input share, and bodies that no gateway means to send."""

import asyncio
import copy
import gzip
import json
import time as clocks
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any, Final

import uvicorn
from starlette.types import ASGIApp

from db.connection.types import Connection
from receiver.service.server import server_config
from tests.factories import Evolution
from tests.support.service import Zapwatch

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

    async def lone(self) -> tuple[str, str, dict[str, str]]:
        """Do as `hooks` on a gateway of its own, which others' silence does not bring down."""
        instance = f"loja-{next(self.numbers)}"
        url = f"http://127.0.0.1:9/{instance}"
        gateway = {"provider": "evolution_api", "base_url": url, "api_key": "k"}
        hook = (await self.z.client.post("/gateways", json=gateway)).json()["webhook_url"]
        channel = await self.z.channel(instance, api_url=url)
        return instance, channel, {"channel": self.z.hooks[channel], "gateway": hook}

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
async def served(app: ASGIApp) -> AsyncIterator[int]:
    """Serve an app on loopback as the service does, and yield its port."""
    config = server_config(app)
    config.port = 0
    server = uvicorn.Server(config)
    config.load()
    server.lifespan = config.lifespan_class(config)
    await server.startup()
    try:
        yield server.servers[0].sockets[0].getsockname()[1]
    finally:
        await server.shutdown()


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
