"""A receiver on loopback that treats requests by a script: answers, refuses, hangs, resets, or does worse."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from tests.receiver.alerts.sink import Got, reset

Manner = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
"""What is done to a request that has arrived whole."""


def answering(status: int, body: bytes = b"ok", **headers: str) -> Manner:
    """Return a manner that answers; `_` in a header's name stands for `-`."""
    given = {name.replace("_", "-"): value for name, value in headers.items()}
    lines = [f"{name}: {value}" for name, value in {"Content-Length": str(len(body)), **given}.items()]
    answer = "\r\n".join([f"HTTP/1.1 {status} As-Told", *lines, "", ""]).encode() + body

    async def plan_recovery(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(answer)
        await writer.drain()

    return plan_recovery


async def hang(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Say nothing until the other side has had enough."""
    await reader.read()


async def break_off(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Say half of an answer that would have been good, and reset the connection."""
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf of")
    await writer.drain()
    reset(writer)


@dataclass
class Inbox:
    """What arrived, and how what comes next is treated; with 200 when nothing is said of it."""

    url: str = ""
    manners: list[Manner] = field(default_factory=list)
    got: list[Got] = field(default_factory=list)
    _came: asyncio.Condition = field(default_factory=asyncio.Condition)

    async def reached(self, times: int, within: float = 30) -> None:
        """Wait until so many requests have arrived."""
        async with asyncio.timeout(within), self._came:
            await self._came.wait_for(lambda: len(self.got) >= times)

    async def plan_recovery(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Take one request, as the only one of its connection, and do with it what is next."""
        try:
            self.got.append(await _request(reader))
            manner = self.manners.pop(0) if self.manners else answering(200)
            async with self._came:
                self._came.notify_all()
            await manner(reader, writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass  # whoever asked is gone
        finally:
            writer.close()


async def _request(reader: asyncio.StreamReader) -> Got:
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    first, *lines = head.strip().split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    return Got(first.split(" ")[1], headers, await reader.readexactly(int(headers["content-length"])))


@asynccontextmanager
async def open_inbox(*manners: Manner) -> AsyncIterator[Inbox]:
    """Yield an inbox that treats the first requests in these manners."""
    inbox = Inbox(manners=list(manners))
    server = await asyncio.start_server(inbox.plan_recovery, "127.0.0.1", 0)
    async with server:
        inbox.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        yield inbox
