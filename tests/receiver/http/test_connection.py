"""Slow and hostile callers are parted from in time, and nobody else notices; over real sockets."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from receiver.http.connection import PIPELINED, UNHEARD_LIMIT, Connection
from receiver.http.load_shedding import raise_descriptor_limit
from receiver.http.problems import exception_handlers
from receiver.service.server import Server, bind, server_config
from tests.support.eventually import eventually

HEAD = b"POST /webhooks/x HTTP/1.1\r\nHost: x\r\n"
WHOLE = HEAD + b"Content-Length: 2\r\n\r\nok"


class Quick(Connection):
    """One whose time is over before a test gets bored."""

    arrived_within = timedelta(seconds=0.6)


@dataclass
class Caller:
    """One end of a connection."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    async def send(self, data: bytes) -> None:
        """Send, or not if the connection is closed by now."""
        self.writer.write(data)
        await self.writer.drain()

    async def rest(self) -> bytes:
        """Return what comes until the connection is closed; a reset is an end, too."""
        received = bytearray()
        async with asyncio.timeout(30):
            try:
                while data := await self.reader.read(65536):
                    received += data
            except ConnectionError:
                pass
        return bytes(received)

    async def status(self) -> int:
        """Return the next answer's status, having read all of it."""
        async with asyncio.timeout(30):
            head = await self.reader.readuntil(b"\r\n\r\n")
            length = next(line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length"))
            await self.reader.readexactly(int(length.split(b":")[1]))
        return int(head.split()[1])


@dataclass
class Served:
    """A server whose one route answers with the length of what it was sent."""

    port: int
    server: Server
    held: asyncio.Event = field(default_factory=asyncio.Event)

    @asynccontextmanager
    async def call(self, first: bytes = b"") -> AsyncIterator[Caller]:
        """Yield a new connection on which this was sent."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        caller = Caller(reader, writer)
        try:
            await caller.send(first)
            yield caller
        finally:
            writer.close()


@asynccontextmanager
async def serving(kind: type[Connection] = Quick, connections: int = 1000) -> AsyncIterator[Served]:
    """Yield a server of connections of this kind."""
    held = asyncio.Event()
    held.set()

    async def measure(request: Request) -> Response:
        await held.wait()
        return PlainTextResponse(str(len(await request.body())))

    routes = [Route("/webhooks/x", measure, methods=["POST"]), Route("/api", measure, methods=["POST"])]
    config = server_config(Starlette(routes=routes, exception_handlers=exception_handlers))
    config.http, config.limit_concurrency = kind, connections
    config.timeout_keep_alive = 1
    server = Server(config)
    with bind("127.0.0.1", 0) as listener:
        task = asyncio.create_task(server._serve([listener]))
        try:
            yield Served(listener.getsockname()[1], server, held)
        finally:
            held.set()
            server.should_exit = True
            await task


@pytest.mark.parametrize(
    "start",
    [b"", b"P", HEAD, HEAD + b"X-Slow: a", WHOLE + HEAD, WHOLE + b"\r\n"],
    ids=[
        "nothing",
        "a byte",
        "some headers",
        "half a header",
        "second request",
        "blank line after the first",
    ],
)
async def test_headers_that_do_not_come_close_the_connection(start: bytes) -> None:
    async with serving() as served, served.call(start) as slow:
        received = await slow.rest()

    assert received.count(b"HTTP/1.1") == start.count(b"\r\n\r\nok")
    assert b"503" not in received


@pytest.mark.parametrize(
    "start",
    [
        HEAD + b"Content-Length: 100\r\n\r\nhalf",
        HEAD + b"Transfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n",
        HEAD + b"Expect: 100-continue\r\nContent-Length: 100\r\n\r\n",
        HEAD + b"Transfer-Encoding: chunked\r\n\r\n0\r\nX-Trailer: a",
    ],
    ids=["length", "chunks", "expect", "trailer"],
)
async def test_body_that_does_not_come_is_told_to_come_again(start: bytes) -> None:
    async with serving() as served, served.call(start) as slow:
        received = (await slow.rest()).removeprefix(b"HTTP/1.1 100 Continue\r\n\r\n")

    assert received.startswith(b"HTTP/1.1 503 ")
    assert b"retry-after: " in received.lower()


@pytest.mark.parametrize("start", [HEAD + b"X-Slow: ", HEAD + b"Content-Length: 10000\r\n\r\n"])
async def test_dripping_buys_no_time(start: bytes) -> None:
    async with serving() as served, served.call(start) as slow:
        rest = asyncio.create_task(slow.rest())
        async with asyncio.timeout(30):
            while not rest.done():
                await slow.send(b"a")
                await asyncio.wait([rest], timeout=0.05)


async def test_hundreds_of_slow_callers_hold_nobody_up() -> None:
    async with serving() as served:
        slow = [served.call(HEAD if n % 2 else HEAD + b"Content-Length: 9\r\n\r\n1") for n in range(300)]
        callers = [await one.__aenter__() for one in slow]

        async with served.call() as good:
            for _ in range(50):
                await good.send(WHOLE)
                assert await good.status() == 200

        await asyncio.gather(*(caller.rest() for caller in callers))


async def test_slow_answer_is_not_a_slow_caller() -> None:
    async with serving() as served, served.call() as caller:
        served.held.clear()
        await caller.send(WHOLE)
        answered = asyncio.create_task(caller.status())

        await asyncio.wait([answered], timeout=2 * Quick.arrived_within.total_seconds())
        served.held.set()

        assert await answered == 200


@pytest.mark.parametrize(
    "flood",
    [
        HEAD + b"X-Large: " + b"a" * UNHEARD_LIMIT,
        HEAD + b"X: y\r\n" * UNHEARD_LIMIT,
        b"POST /" + b"a" * UNHEARD_LIMIT,
        HEAD + b"Transfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n" + b"X: y\r\n" * UNHEARD_LIMIT,
        HEAD + b"Transfer-Encoding: chunked\r\n\r\n1;x=" + b"a" * UNHEARD_LIMIT,
    ],
    ids=["header", "headers", "path", "trailers", "chunk extension"],
)
async def test_headers_without_end_are_not_kept(flood: bytes) -> None:
    async with serving(Connection) as served, served.call() as caller:
        rest = asyncio.create_task(caller.rest())
        for _ in range(20):
            if rest.done():
                break
            try:
                await caller.send(flood)
            except ConnectionError:
                break
            flood = b"X: y\r\n" * UNHEARD_LIMIT

        assert b" 200 " not in await rest


@pytest.mark.parametrize(
    "extra", [b"garbage\r\n\r\n", b"\0\0\0", b"}" * 100, HEAD + b"Content-Length: -1\r\n\r\n"]
)
async def test_what_follows_a_whole_request_does_not_cost_its_answer(extra: bytes) -> None:
    """A body longer than its Content-Length says: the rest can't be read as the next request."""
    async with serving() as served, served.call(WHOLE + extra) as caller:
        received = await caller.rest()

    assert received.startswith(b"HTTP/1.1 200 ")
    assert received.count(b"HTTP/1.1") == 1


@pytest.mark.parametrize(
    "framing",
    [
        b"Content-Length: -1",
        b"Content-Length: 5, 6",
        b"Content-Length: 5\r\nContent-Length: 6",
        b"Content-Length: 99999999999999999999999999",
        b"Content-Length: 5\r\nTransfer-Encoding: chunked",
        b"Transfer-Encoding: chunked\r\n\r\nnot a length\r\n",
    ],
)
async def test_webhook_that_cannot_be_read_is_never_answered_with_400(framing: bytes) -> None:
    async with serving() as served, served.call(HEAD + framing + b"\r\n\r\nhello") as caller:
        received = await caller.rest()

    assert received.startswith(b"HTTP/1.1 503 ")


async def test_call_of_the_api_that_cannot_be_read_is_wrong() -> None:
    request = b"POST /api HTTP/1.1\r\nContent-Length: -1\r\n\r\n"

    async with serving() as served, served.call(request) as caller:
        received = await caller.rest()

    assert received.startswith(b"HTTP/1.1 400 ")


async def test_pipelined_requests_are_answered_in_order_and_not_without_end() -> None:
    async with serving() as served:
        async with served.call(WHOLE * PIPELINED) as caller:
            assert [await caller.status() for _ in range(PIPELINED)] == [200] * PIPELINED
        async with served.call(WHOLE * 2000) as flood:
            received = await flood.rest()

    assert received.count(b"HTTP/1.1") <= 1


async def test_connections_above_the_limit_are_told_to_come_again() -> None:
    async with serving(connections=3) as served:
        kept = [served.call() for _ in range(3)]
        callers = [await one.__aenter__() for one in kept]
        for caller in callers:
            await caller.send(WHOLE)
            assert await caller.status() == 200

        async with served.call(WHOLE) as fourth:
            refused = await fourth.rest()
        await callers[0].send(WHOLE)

        assert b" 200 " not in refused
        assert await callers[0].status() == 200


async def test_stopping_closes_idle_connections_at_once_and_answers_the_others() -> None:
    async with serving(Connection) as served, served.call() as idle, served.call() as busy:
        await idle.send(WHOLE)
        assert await idle.status() == 200
        served.held.clear()
        await busy.send(WHOLE)
        await eventually(lambda: served.server.server_state.tasks)

        served.server.should_exit = True

        assert await idle.rest() == b""
        served.held.set()
        assert await busy.status() == 200


async def test_stopping_leaves_a_request_that_still_arrives_little_time() -> None:
    class Stopping(Connection):
        stopping = timedelta(seconds=0.2)

    async with serving(Stopping) as served:
        half = HEAD + b"Content-Length: 4\r\n\r\nha"
        async with served.call(half) as quick, served.call(half) as slow:
            await eventually(lambda: len(served.server.server_state.tasks) == 2)

            served.server.should_exit = True
            await quick.send(b"lf")

            assert await quick.status() == 200
            assert (await slow.rest()).startswith(b"HTTP/1.1 503 ")


async def test_as_many_may_wait_to_be_accepted_as_the_kernel_allows() -> None:
    raise_descriptor_limit()
    allowed = int(Path("/proc/sys/net/core/somaxconn").read_text())
    loop = asyncio.get_running_loop()

    with bind("127.0.0.1", 0) as listener, ExitStack() as callers:
        for _ in range(min(allowed, 4000)):
            caller = callers.enter_context(socket.socket())
            caller.setblocking(False)
            async with asyncio.timeout(20):
                await loop.sock_connect(caller, listener.getsockname())
