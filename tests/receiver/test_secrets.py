"""No secret in a row, a log or an answer that isn't meant to hold it: all rows are read, and every line.

The embedded server's own files are looked at only where people do: its log.
"""

import asyncio
import json
import logging
import os
import re
import signal
import socket
import sys
from base64 import b64encode, urlsafe_b64encode
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from io import StringIO
from pathlib import Path
from typing import Any
from uuid import UUID

import asyncpg
import httpx
import pytest

from db.connection.types import Connection
from db.embedded.running import embedded_or_running
from receiver.sandbox import open_fleet
from receiver.service.composition import http_app
from receiver.telemetry.logs import configure
from tests.conftest import connected, reachable_folder
from tests.factories import Evolution
from tests.receiver.alerts.sink import open_sink
from tests.support.eventually import eventually
from tests.support.service import KEY, OPERATOR, Zapwatch, zapwatch

APIKEY = "B1C2D3E4-APIKEY-OF-THE-INSTANCE"
CHANNEL_KEY = "k3y-0f-the-channel-7f3a9"
GATEWAY_KEY = "k3y-0f-the-gateway-91bc2"
QR_CODE = "2@QRCODEqrcodeQRCODEqrcode=="
QR_IMAGE = "data:image/png;base64,iVBORw0KQRIMAGEqrimage"
PAIRING = "PAIR1NGC"
MESSAGE = "segredo que o cliente escreveu"
WAPI_TOKEN = "wapi-instance-token-5511"
GIVEN = (APIKEY, CHANNEL_KEY, GATEWAY_KEY, QR_CODE, QR_IMAGE, PAIRING, MESSAGE, WAPI_TOKEN, OPERATOR)


@pytest.fixture
def lines() -> Iterator[StringIO]:
    """What is logged, from DEBUG on, by the formatter of production."""
    root, kept = logging.getLogger(), (logging.getLogger().handlers[:], logging.getLogger().level)
    levels = {name: logging.getLogger(name).level for name in ("httpx", "httpcore", "asyncpg", "asyncio")}
    stream = StringIO()
    configure("text", logging.DEBUG, stream)
    yield stream
    root.handlers[:], level = kept
    root.setLevel(level)
    for name, before in levels.items():
        logging.getLogger(name).setLevel(before)
    logging.captureWarnings(False)


def secrets_of(z: Zapwatch, *more: str) -> list[str]:
    """All that nobody may read: what the gateways said, and the tokens in the addresses."""
    return [*GIVEN, *(hook.rpartition("/")[2] for hook in z.hooks.values()), *more]


def forms(secret: str) -> set[bytes]:
    """How a secret may look where it is kept; never so short that it is found by chance."""
    plain = secret.encode()
    escaped = json.dumps(secret)[1:-1].encode()
    return {
        plain,
        escaped,
        b64encode(plain).rstrip(b"="),
        urlsafe_b64encode(plain).rstrip(b"="),
        plain.hex().encode(),
    }


def found(secrets: Iterable[str], text: bytes) -> set[str]:
    """The secrets that a text holds."""
    return {secret for secret in secrets if any(form in text for form in forms(secret))}


async def dump(connection: Connection) -> bytes:
    """Every value of every table, as text; bytes as they are, too. The owner sees every row."""
    columns = await connection.fetch(
        """select c.oid::regclass::text as name, a.attname as column, a.atttypid = 'bytea'::regtype as raw
           from pg_class c join pg_attribute a on a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped
           join pg_namespace s on s.oid = c.relnamespace
           where c.relkind in ('r', 'p', 'm') and s.nspname not in ('pg_catalog', 'information_schema')"""
    )
    parts: list[bytes] = []
    for row in columns:
        column = f'"{row["column"]}"'
        for value in await connection.fetch(
            f"select {column}{'' if row['raw'] else '::text'} from {row['name']}"
        ):
            if value[0] is not None:
                parts.append(value[0] if row["raw"] else value[0].encode())
    return b"\n".join(parts)


def qr(instance: Evolution) -> dict[str, Any]:
    """A qrcode.updated with all that lets somebody in."""
    code = {"instance": instance.instance, "pairingCode": PAIRING, "code": QR_CODE, "base64": QR_IMAGE}
    return instance.event("qrcode.updated", {"qrcode": code}, apikey=APIKEY)


def said(instance: Evolution) -> list[dict[str, Any]]:
    """Ordinary events with every secret that gateways put in."""
    more = {"apikey": APIKEY, "token": WAPI_TOKEN}
    message = {"message": {"conversation": MESSAGE}, "pushName": MESSAGE, "messageTimestamp": 1}
    return [
        {**instance.update("open", token=WAPI_TOKEN), **more},
        qr(instance),
        {**instance.update("close", 401, lastDisconnect={"error": MESSAGE, "apikey": APIKEY}), **more},
        {**instance.closed(message=f"Log out instance {MESSAGE}"), **more},
        instance.event("messages.upsert", message, **more),
        instance.event("something.new", {"qr": QR_CODE, "text": MESSAGE}, **more),
        instance.event("instance.create", {"hash": APIKEY, "token": WAPI_TOKEN}, **more),
        instance.event("new.jwt.token", {"jwt": APIKEY}, **more),
        instance.event("error", {"error": MESSAGE}, **more),
    ]


def bad(instance: Evolution) -> list[bytes]:
    """Bodies that can't be read, or only by halves, with the same secrets."""
    whole = json.dumps(qr(instance)).encode()
    odd = json.dumps(instance.update([QR_CODE, MESSAGE], APIKEY)).encode()  # type: ignore[arg-type]
    return [
        whole[:-5],
        odd,
        b"[" + whole + b"]",
        f"apikey={APIKEY}&Body={MESSAGE}&token={WAPI_TOKEN}".encode(),
        b'{"event": "messages.upsert", "instance": 5, "x": "' + MESSAGE.encode() * 60_000 + b'"}',
        b'{"x": "' + QR_IMAGE.encode() * 40_000 + b'"}',
        json.dumps(instance.event("status.instance", {"status": MESSAGE}, apikey=APIKEY)).encode(),
    ]


async def test_nothing_said_by_a_gateway_or_an_operator_is_kept_or_logged_in_clear(
    dsn: str, admin: Connection, lines: StringIO, capfd: pytest.CaptureFixture[str]
) -> None:
    async with zapwatch(dsn) as z:
        instance = Evolution()
        url = "http://127.0.0.1:9/evolution"
        gateway = {"provider": "evolution_api", "base_url": url, "api_key": GATEWAY_KEY}
        z.hooks["gateway"] = (await z.client.post("/gateways", json=gateway)).json()["webhook_url"]
        channel = await z.channel(api_url=url, api_key=CHANNEL_KEY)
        await z.channel("LITE-1", "wapi", api_key=WAPI_TOKEN)
        secrets = secrets_of(z)

        for hook in (channel, "gateway"):
            for body in [*said(instance), *bad(instance), qr(Evolution("stranger"))]:
                assert await z.post(hook, body, "/connection-update") in {202, 204, 413}
        answers = await asked_wrongly(z, channel)

        assert {answer.status_code for answer in answers} == {401, 404, 405, 409, 413, 422}
        for answer in answers:
            assert found(secrets, answer.content) == set(), answer.request.url.path
        shown = [
            await z.client.get(path)
            for path in (
                "/channels",
                f"/channels/{channel}",
                f"/channels/{channel}/state",
                f"/channels/{channel}/events",
                f"/channels/{channel}/incidents",
                "/gateways",
                "/incidents",
                "/tenants",
                "/metrics",
                "/openapi.json",
            )
        ]
        assert {answer.status_code for answer in shown} == {200}
        for answer in shown:
            assert found(secrets, answer.content) == set(), answer.request.url.path
        rows = await dump(admin)
        assert b"stranger" in rows
        assert found(secrets, rows) == set()
    assert "POST /webhooks/evolution_api/…" in lines.getvalue()
    assert found([*secrets, KEY.hex()], lines.getvalue().encode()) == set()
    assert found(secrets, "".join(capfd.readouterr()).encode()) == set()


async def test_qr_is_told_to_who_asks_for_it_and_nobody_else(
    dsn: str, admin: Connection, lines: StringIO, capfd: pytest.CaptureFixture[str]
) -> None:
    async with open_fleet() as fleet, zapwatch(dsn, probe_timeout=timedelta(seconds=20)) as z:
        host = await fleet.evolution()
        instance = host.add("loja-01", "close")
        channel = await z.channel(api_url=host.url, api_key=instance.key)
        await z.hear(channel, Evolution().update("open"), Evolution().update("close", 401))

        fetched = await z.client.get(f"/channels/{channel}/qr", params={"number": "5511999990000"})
        await z.hear(channel, qr(Evolution()))
        told = await z.client.get(f"/channels/{channel}/qr")

        assert (fetched.status_code, told.status_code) == (200, 200)
        assert (fetched.json()["code"], fetched.json()["pairing_code"]) == (
            instance.code,
            instance.pairing_code,
        )
        assert told.json()["code"] == QR_CODE
        assert found([QR_CODE, PAIRING], told.content) == {QR_CODE, PAIRING}
        secrets = [*secrets_of(z), instance.code, str(instance.pairing_code), "5511999990000"]
        paths = ("", "/state", "/events", "/incidents")
        shown = [await z.client.get(f"/channels/{channel}{path}") for path in paths]
        for answer in [*shown, await z.client.get("/metrics")]:
            assert found(secrets, answer.content) == set(), answer.request.url.path
        rows = await dump(admin)
        assert b"qr_pending" in rows
        assert found(secrets, rows) == set()
    assert f"GET /channels/{channel}/qr 200" in lines.getvalue()
    assert found(secrets, lines.getvalue().encode()) == set()
    assert found(secrets, "".join(capfd.readouterr()).encode()) == set()


async def test_what_lets_somebody_into_a_destination_is_shown_once_and_kept_nowhere_in_clear(
    dsn: str, admin: Connection, lines: StringIO, capfd: pytest.CaptureFixture[str]
) -> None:
    signing, query = "whsec_c2lnbmluZy1zZWNyZXQtb2YtYS1jdXN0b21lcg==", "k3y-in-an-address-55ab1"
    alert = "https://hooks.example/alerts?key=k3y-in-the-setting-77ce2"
    async with open_sink() as sink, zapwatch(dsn, alert_url=alert) as z:
        sink.body = f"got {signing}".encode()
        config = {"url": f"{sink.url}/in?key={query}", "secret": signing}
        created = await z.client.post("/destinations", json={"kind": "webhook", "config": config})
        path = f"/destinations/{created.json()['id']}"
        await z.client.post(f"{path}/test")
        rotated = await z.client.patch(path, json={"rotate_secret": True})
        secrets = [signing, query, alert.partition("=")[2], rotated.json()["secret"]]
        await admin.execute("update zapwatch_messages set leaves_at = leaves_at - interval '10 s'")

        answers = [
            created,
            await z.client.get(path),
            await z.client.get("/destinations"),
            await z.client.get("/deliveries"),
            await z.client.post(f"{path}/test"),
            await z.client.patch(path, json={"name": "Hub", "config": {"url": f"x {query}"}}),
            await z.client.patch(path, json={"config": {"secret": f"{signing}x", query: 1}}),
            await z.client.post("/destinations", json={"kind": query, "config": config}),
            await z.client.post("/destinations", json={"kind": "webhook", "config": [signing]}),
            await z.client.get("/metrics"),
        ]

        assert {answer.status_code for answer in answers} == {200, 201, 422}
        for answer in answers:
            # A field that isn't ours is named as it came, to whoever sent it.
            unnamed = answer.content.replace(f"/config/{query}".encode(), b"")
            assert found(secrets, unnamed) == set(), answer.request.url.path
        assert found(secrets, sink.got[0].body) == set()
        rows = await dump(admin)
        assert b"webhook" in rows
        assert found(secrets, rows) == set()
    assert "POST /destinations" in lines.getvalue()
    assert found(secrets, lines.getvalue().encode()) == set()
    assert found(secrets, "".join(capfd.readouterr()).encode()) == set()


async def test_way_back_tells_its_reader_a_qr_and_nobody_a_key_or_its_link(
    dsn: str, admin: Connection, lines: StringIO, capfd: pytest.CaptureFixture[str]
) -> None:
    settings = {"probe_timeout": timedelta(seconds=20), "terminal_grace": timedelta(0)}
    async with open_fleet() as fleet, zapwatch(dsn, **settings) as z:
        host = await fleet.evolution()
        instance = host.add("loja-01", "close")
        channel = await z.channel(api_url=host.url, api_key=instance.key)
        await z.hear(channel, Evolution().update("open"), Evolution().update("close", 401))
        incident = UUID((await z.incident(channel))["id"])
        link = z.app.links.link_for(UUID(channel), incident, datetime.now(UTC))
        del z.client.headers["Authorization"]

        typed = await z.client.post(link, data={"number": "5511999990000"})
        await z.hear(channel, qr(Evolution()))
        page = await z.client.get(link, params={"qr": "1"})
        instance.come_back()
        await z.hear(channel, Evolution().update("open"))
        stream = await z.client.get(f"{link}/stream")
        forged = [await z.client.get(f"{link}x"), await z.client.get(f"{link[:-1]}/stream")]

        assert {answer.status_code for answer in (typed, page, stream)} == {200}
        assert {answer.status_code for answer in forged} == {404}
        code, token = str(instance.pairing_code), link.rpartition("/")[2]
        assert f"<span>{code[:4]}</span>" in typed.text
        assert found([QR_IMAGE], page.content) == {QR_IMAGE}
        keys = [instance.key, OPERATOR, KEY.hex(), *(hook.rpartition("/")[2] for hook in z.hooks.values())]
        for answer in (typed, page, stream, *forged):
            assert found([*keys, QR_CODE, instance.code, host.url], answer.content) == set()
        rows = await dump(admin)
        assert b"reconnect_code_shown" in rows
        secrets = [*secrets_of(z, token), instance.code, code, "5511999990000", instance.key]
        assert found(secrets, rows) == set()
    logged = lines.getvalue()
    assert "GET /reconnect/…/stream 200" in logged
    assert found([*secrets, token[:40]], logged.encode()) == set()
    assert found([*secrets, token[:40]], "".join(capfd.readouterr()).encode()) == set()


async def asked_wrongly(z: Zapwatch, channel: str) -> list[httpx.Response]:
    """What operators and strangers do wrong, with secrets where they don't belong."""
    client, hook = z.client, z.hooks["gateway"]
    token = hook.rpartition("/")[2]
    twice = {"provider": "wapi", "instance": "LITE-1", "api_key": CHANNEL_KEY}
    wrong = {"api_key": [CHANNEL_KEY], "metadata": {"alerts_enabled": GATEWAY_KEY}, "x": CHANNEL_KEY}
    return [
        await client.get("/channels", headers={"Authorization": f"Bearer {token}"}),
        await client.get("/channels", headers={"Authorization": f"Basic {OPERATOR}x"}),
        await client.get(f"/nothing/{token}"),
        await client.get(hook),
        await client.put(hook, content=APIKEY),
        await client.post(hook.replace("evolution_api", "wapi"), content=APIKEY),
        await client.post(hook.replace("/evolution_api/", "//evolution_api//")),
        await client.post(hook + "x", content=json.dumps({"apikey": APIKEY})),
        await client.post("/channels", json=twice),
        await client.post("/channels", content=json.dumps(twice)[:-1]),
        await client.post("/channels", content=(GATEWAY_KEY * 60_000).encode()),
        await client.patch(f"/channels/{channel}", json={"api_key": [CHANNEL_KEY]}),
        await client.patch(f"/channels/{channel}", json=wrong),
        await client.post("/gateways", json={"provider": GATEWAY_KEY, "base_url": 1, "api_key": 5}),
        await client.post(
            "/gateways",
            json={"provider": "waha", "base_url": f"http://u:{GATEWAY_KEY}@x", "api_key": GATEWAY_KEY},
        ),
        await client.get("/channels", params={"cursor": token, "limit": OPERATOR, "state": APIKEY}),
    ]


async def test_failures_inside_say_no_secret(
    dsn: str, admin: Connection, lines: StringIO, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The database refuses, the parser stumbles: each is logged, none with what was sent."""
    async with zapwatch(dsn) as z:
        instance = Evolution()
        channel = await z.channel(api_url="http://127.0.0.1:9/evolution", api_key=CHANNEL_KEY)
        z.hooks["wapi"] = z.hooks[await z.channel("LITE-1", "wapi", api_key=WAPI_TOKEN)]
        secrets = secrets_of(z)
        z.client._transport = httpx.ASGITransport(http_app(z.app), raise_app_exceptions=False)

        refusing = "alter table {} add constraint refused check (false) not valid"
        for table in (
            "zapwatch_events",
            "zapwatch_quarantine",
            "zapwatch_channels",
            "zapwatch_unknown_instances",
        ):
            await admin.execute(refusing.format(table))
        answers = [await z.post(channel, body) for body in [*said(instance), *bad(instance)]]
        key = {"provider": "waha", "instance": "i", "api_key": CHANNEL_KEY}
        answers.append((await z.client.post("/channels", json=key)).status_code)
        change = {"api_key": CHANNEL_KEY, "name": MESSAGE}
        answers.append((await z.client.patch(f"/channels/{channel}", json=change)).status_code)

        def stumble(*_: object) -> None:
            raise RuntimeError(f"{APIKEY} zw_{CHANNEL_KEY}")

        monkeypatch.setattr("receiver.ingest.webhooks.PROVIDERS", {**_stumbling(stumble)})
        answers.append(await z.post("wapi", qr(instance)))

        assert {503, 500} & set(answers)
        rows = await dump(admin)
        assert found(secrets, rows) == set()
    said_by_us = lines.getvalue()
    assert "Traceback" in said_by_us
    assert ", in test_failures_inside_say_no_secret.<locals>.stumble" in said_by_us
    assert found(secrets, said_by_us.encode()) == set()


def _stumbling(stumble: Any) -> dict[str, Any]:
    from receiver.providers import PROVIDERS

    class Stumbling(type(PROVIDERS["wapi"])):  # type: ignore[misc]
        parse = stumble

    return {**PROVIDERS, "wapi": Stumbling()}


async def test_database_away_is_logged_without_its_password(lines: StringIO) -> None:
    dsn = "postgresql://zapwatch:p4ssw0rd-of-the-database@127.0.0.1:9/zapwatch"

    with pytest.raises((OSError, asyncpg.PostgresError)) as error:
        async with zapwatch(dsn):
            pass
    logging.getLogger("receiver.service.lifecycle").exception("%r", error.value, exc_info=error.value)

    assert "p4ssw0rd" not in lines.getvalue()


# ---- the service as a process


class Process:
    """`zapwatch serve` with a database of its own, on a free port."""

    def __init__(self, process: asyncio.subprocess.Process, port: int, folder: Path) -> None:
        self.process, self.port, self.folder = process, port, folder
        self.base = f"http://127.0.0.1:{port}"

    async def raw(self, request: bytes) -> bytes:
        """Send bytes and return whatever comes until the server closes or is silent."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        writer.write(request)
        try:
            return await asyncio.wait_for(reader.read(65536), 3)
        except (TimeoutError, ConnectionError):
            return b""
        finally:
            writer.close()


@asynccontextmanager
async def serving(**environ: str) -> AsyncIterator[Process]:
    """Run the service until it answers; end it by its own process number."""
    with reachable_folder() as folder, (folder / "out").open("wb") as out:
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        kept = {name: value for name, value in os.environ.items() if not name.startswith("ZAPWATCH_")}
        settings = {"ZAPWATCH_DATA_DIR": str(folder / "data"), "ZAPWATCH_PORT": str(port), **environ}
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "receiver", "serve", env={**kept, **settings}, stdout=out, stderr=out
        )
        try:
            async with httpx.AsyncClient() as client:

                async def is_ready() -> bool:
                    try:
                        return (await client.get(f"http://127.0.0.1:{port}/readyz")).status_code == 200
                    except httpx.TransportError:
                        assert process.returncode is None, (folder / "out").read_text()
                        return False

                await eventually(is_ready, within=60)
            yield Process(process, port, folder)
        finally:
            if process.returncode is None:
                process.send_signal(signal.SIGTERM)
                await asyncio.wait_for(process.wait(), 30)


async def test_running_service_tells_no_secret_to_its_logs_files_or_database() -> None:
    async with serving(ZAPWATCH_OPERATOR_TOKEN=OPERATOR, ZAPWATCH_LOG_FORMAT="json") as served:
        headers = {"Authorization": f"Bearer {OPERATOR}"}
        async with httpx.AsyncClient(base_url=served.base, headers=headers) as client:
            body = {"provider": "evolution_api", "instance": "loja-01", "api_key": CHANNEL_KEY}
            hook = (await client.post("/channels", json=body)).json()["webhook_url"]
            token, path = hook.rpartition("/")[2], httpx.URL(hook).path
            instance = Evolution()
            for content in [*(json.dumps(body).encode() for body in said(instance)), *bad(instance)]:
                assert (await client.post(path, content=content)).status_code in {202, 204, 413}

        for line in (
            f"POST {path} HTTP/9",
            f"POST {path}",
            f"{token}",
            f"POST {path} x HTTP/1.1\r\nHost: x",
            f"POST http://x{path} HTTP/1.1\r\nContent-Length: 5x",
            f"POST {path} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz",
            f"POST {path} HTTP/1.1\r\nHost: x\r\nbad header {APIKEY}",
            f"GET {path.replace('/webhooks', '/webhooks%2F', 1)} HTTP/1.1\r\nHost: x\r\nConnection: close",
            f"GET /x{path}?token={token} HTTP/1.1\r\nHost: x\r\nConnection: close",
            f"GET /evolution_api{token} HTTP/1.1\r\nHost: x\r\nConnection: close",
            f"GET /webhooks/evolution_api{token} HTTP/1.1\r\nHost: x\r\nConnection: close",
            f"GET /{token.upper()} HTTP/1.1\r\nHost: x\r\nConnection: close",
            f"GET / HTTP/1.1\r\nHost: {token}\r\nUpgrade: websocket\r\nConnection: Upgrade",
            f"OPTIONS {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {OPERATOR}",
        ):
            await served.raw(line.encode() + b"\r\n\r\n")
        async with embedded_or_running(served.folder / "data") as dsn, connected(dsn) as connection:
            rows = await dump(connection)
            with pytest.raises(asyncpg.PostgresError):
                await connection.execute("select $1::text::int", token)
            with pytest.raises(asyncpg.PostgresError):
                await connection.execute(f"select '{token}'::int")

        secrets = [*GIVEN, token, token.removeprefix("zw_")]
        assert found(secrets, rows) == set()
        logged = (served.folder / "out").read_bytes()
        assert b"Invalid HTTP request" in logged
        assert found(secrets, logged) == set()
        assert token.upper().encode() not in logged
        for file in (served.folder / "data").iterdir():
            if file.is_file():
                assert found(secrets, file.read_bytes()) == set(), file.name
        modes = {
            file.name: file.stat().st_mode & 0o077
            for file in (served.folder / "data").glob("*")
            if file.is_file()
        }
        assert {name for name, mode in modes.items() if mode and re.search("key|password", name)} == set()


async def test_operator_token_is_said_once_and_kept_nowhere() -> None:
    async with serving() as served:
        out = (served.folder / "out").read_text()
        (token,) = re.findall(r"zw_[\w-]{20,}", out)
        async with httpx.AsyncClient(base_url=served.base) as client:
            answer = await client.get("/channels", headers={"Authorization": f"Bearer {token}"})
            assert answer.status_code == 200
            for wrong in (token[:-1], token + "x", token.upper()):
                answer = await client.get(f"/x/{wrong}", headers={"Authorization": f"Bearer {wrong}"})
                assert answer.status_code == 404

        async with embedded_or_running(served.folder / "data") as dsn, connected(dsn) as connection:
            rows = await dump(connection)

        assert found([token], rows) == set()
        assert (served.folder / "out").read_text().count(token) == 1
        for file in (served.folder / "data").iterdir():
            if file.is_file():
                assert token.encode() not in file.read_bytes(), file.name
