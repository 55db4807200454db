"""How soon people are told: the service, 10,000 incidents within a minute, and one destination that hangs.

Incidents are opened by the public SQL function. Each of the tenants has a signed webhook; the time of each is
from when its incident opened until its POST has arrived, over HTTP, at a sink in this process.
"""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final
from uuid import UUID, uuid4

import httptools
import orjson

from bench.database import GIGABYTE, open_database
from bench.service import KEY, serving
from bench.table import Figure, percentile
from db.alerts.destinations import seal_config
from db.connection.pool import connect
from db.connection.types import Connection
from db.vault import Vault

TENANTS: Final = 200
INCIDENTS: Final = 10_000
QUICK_INCIDENTS: Final = 1000
A_SECOND: Final = INCIDENTS / 60
OPENERS: Final = 4
"""Connections that open incidents side by side."""
SOON: Final = 5.0
"""Seconds within which 95 % of the news must have arrived."""
LATEST: Final = 300.0
"""Seconds within which 99.9 % must."""
SECRET: Final = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
CHANNELS: Final = """
with channel as (
  insert into notification_channels (tenant_id, provider, metadata)
  select ($1::uuid[])[1 + n % cardinality($1)], 'wapi', '{}' from generate_series(1, $2::int) as n
  returning id, tenant_id
), known as (
  insert into zapwatch_channels (channel_id, tenant_id, provider, instance, name)
  select id, tenant_id, 'wapi', id::text, 'Loja' from channel
)
insert into zapwatch_states (channel_id, tenant_id) select id, tenant_id from channel returning channel_id
"""
SHOPS: Final = (
    "insert into tenants (name) select 'Loja ' || n from generate_series(1, $1::int) as n returning id"
)
DESTINATION: Final = """
insert into zapwatch_destinations (id, tenant_id, kind, config) values ($1, $2, 'webhook', $3)
"""
OPEN: Final = "select whatsapp_heartbeat_open_incident($1, 'disconnected')"


class _Sink:
    """Takes POSTs, and notes when each incident arrived; knows no more of HTTP than it needs."""

    def __init__(self) -> None:
        self.arrived: dict[str, float] = {}

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Read one request, note what it brings, and answer 204."""
        request = _Request()
        while not request.complete and (data := await reader.read(65536)):
            request.parser.feed_data(data)
        if request.complete:
            self.arrived.setdefault(orjson.loads(request.body)["data"]["incident_id"], time.time())
            writer.write(b"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n")
        writer.close()

    async def hang(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Take what comes and never answer."""
        while await reader.read(65536):
            pass
        writer.close()


class _Request:
    def __init__(self) -> None:
        self.body, self.complete = b"", False
        self.parser: Any = httptools.HttpRequestParser(self)

    def on_body(self, body: bytes) -> None:
        self.body += body

    def on_message_complete(self) -> None:
        self.complete = True


async def run(quick: bool) -> AsyncIterator[Figure]:
    """Yield how soon the news arrived."""
    count = QUICK_INCIDENTS if quick else INCIDENTS
    sink = _Sink()
    async with (
        open_database(GIGABYTE) as dsn,
        _listening(sink.answer) as well,
        _listening(sink.hang) as hanging,
    ):
        connection = await connect(dsn, command_timeout=None)
        tenants = await _tenants(connection, well, hanging)
        channels = [row["channel_id"] for row in await connection.fetch(CHANNELS, tenants, count)]
        await connection.close()
        async with serving("zapwatch", dsn):
            opened = await _open_all(dsn, channels)
            await _wait(sink, opened)
    waits = sorted(sink.arrived[incident] - at for incident, at in opened.items() if incident in sink.arrived)
    subject = f"{count:,} incidents in {count / A_SECOND:.0f} s, {TENANTS} tenants, one destination hangs"
    lost = len(opened) - len(waits)
    yield Figure(subject, "never arrived", str(lost), "", "0", lost == 0)
    spread = f"p50 {1000 * percentile(waits, 50):.0f} ms"
    for what, at, bound in (
        ("95 % have arrived after", 0.95, SOON),
        ("99.9 % have arrived after", 0.999, LATEST),
    ):
        took = waits[min(len(waits) - 1, int(len(waits) * at))]
        yield Figure(subject, what, f"{took:.2f} s", spread, f"at most {bound:g} s", took <= bound)


async def _tenants(connection: Connection, well: str, hanging: str) -> list[UUID]:
    """Make tenants with a webhook each, and one more for the first that hangs; return their ids."""
    tenants = [row["id"] for row in await connection.fetch(SHOPS, TENANTS)]
    vault = Vault((KEY,))
    for tenant, url in (*((tenant, well) for tenant in tenants), (tenants[0], hanging)):
        destination = uuid4()
        config = seal_config(vault, destination, {"url": url, "secret": SECRET})
        await connection.execute(DESTINATION, destination, tenant, config)
    return tenants


async def _open_all(dsn: str, channels: list[UUID]) -> dict[str, float]:
    """Open an incident for each channel at an even pace; return when each was committed."""
    opened: dict[str, float] = {}
    began = time.time()

    async def work(connection: Connection, nth: int) -> None:
        for place in range(nth, len(channels), OPENERS):
            await asyncio.sleep(max(0.0, began + place / A_SECOND - time.time()))
            incident = await connection.fetchval(OPEN, channels[place])
            opened[str(incident)] = time.time()

    connections = [await connect(dsn) for _ in range(OPENERS)]
    await asyncio.gather(*(work(connection, n) for n, connection in enumerate(connections)))
    for connection in connections:
        await connection.close()
    return opened


async def _wait(sink: _Sink, opened: dict[str, float]) -> None:
    """Wait until all have arrived, or for as long as the latest may take."""
    until = time.time() + LATEST
    while len(sink.arrived) < len(opened) and time.time() < until:  # noqa: ASYNC110
        await asyncio.sleep(0.1)  # the sink has no more to say than this


@asynccontextmanager
async def _listening(answer: Any) -> AsyncIterator[str]:
    """Yield the address of a server on loopback."""
    server = await asyncio.start_server(answer, "127.0.0.1", 0, backlog=1024)
    async with server:
        port = server.sockets[0].getsockname()[1]
        yield f"http://127.0.0.1:{port}/news"
