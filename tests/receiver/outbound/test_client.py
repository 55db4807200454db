"""Calls to gateways that answer badly, slowly, for ever or not at all; the gateways here are bare sockets."""

import asyncio
import gc
import gzip
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import pytest

from receiver.outbound.client import ANSWER_LIMIT, ORIGINS_KEPT, Client, Reply, Unanswered, open_client
from tests.support.eventually import eventually, let_tasks_run

Answering = Callable[["Exchange"], Awaitable[None]]
PATIENT = timedelta(seconds=20)
SHORT = timedelta(seconds=0.3)
KEY = "B1C2D3E4-KEY"


@dataclass
class Exchange:
    """One request as a gateway sees it."""

    head: str
    number: int
    """Which one it is of its connection, from 1 on."""
    connection: int
    """Which connection it came on, from 1 on."""
    writer: asyncio.StreamWriter

    async def send(self, data: bytes) -> None:
        """Send raw bytes."""
        self.writer.write(data)
        await self.writer.drain()

    def close(self) -> None:
        """Close the connection."""
        self.writer.close()


@dataclass
class Gateway:
    """A server on loopback, and what it was asked."""

    port: int = 0
    exchanges: list[Exchange] = field(default_factory=list)
    connections: int = 0
    left: int = 0
    """Connections that were ended."""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def until(self, is_so: Callable[["Gateway"], Any]) -> None:
        """Wait until it is so."""
        await eventually(lambda: is_so(self))


@asynccontextmanager
async def gateway(answering: Answering) -> AsyncIterator[Gateway]:
    """Yield a gateway that answers each request so; its connections end with the body."""
    told = Gateway()
    tasks: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        told.connections += 1
        connection, number = told.connections, 0
        try:
            while head := (await reader.readuntil(b"\r\n\r\n")).decode("latin-1"):
                number += 1
                exchange = Exchange(head, number, connection, writer)
                told.exchanges.append(exchange)
                await answering(exchange)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            told.left += 1
            writer.close()

    def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(serve(reader, writer))
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    server = await asyncio.start_server(accept, "127.0.0.1", 0)
    told.port = server.sockets[0].getsockname()[1]
    try:
        yield told
    finally:
        server.close()
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)


@pytest.fixture
async def client() -> AsyncIterator[Client]:
    async with open_client(PATIENT) as opened:
        yield opened


def written(body: bytes = b"{}", *headers: str) -> bytes:
    """Return an answer as it goes over the wire."""
    head = ["HTTP/1.1 200 OK", f"Content-Length: {len(body)}", *headers]
    return "\r\n".join(head).encode("latin-1") + b"\r\n\r\n" + body


async def well(exchange: Exchange) -> None:
    """Answer as a gateway should."""
    await exchange.send(written())


async def never(exchange: Exchange) -> None:
    """Answer nothing."""
    await asyncio.Event().wait()


async def test_answer_is_status_and_body(client: Client) -> None:
    async def moved(exchange: Exchange) -> None:
        await exchange.send(
            b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:9/\r\nContent-Length: 2\r\n\r\nno"
        )

    async with gateway(moved) as there:
        reply = await client.get(f"{there.url}/instance/x?y=z", {"apikey": KEY})

    assert reply == Reply(302, b"no")
    head = there.exchanges[0].head
    assert head.startswith("GET /instance/x?y=z HTTP/1.1\r\n")
    assert f"apikey: {KEY}\r\n" in head


async def test_connection_is_kept_between_calls(client: Client) -> None:
    async with gateway(well) as there:
        for _ in range(3):
            await client.get(there.url)

        assert there.connections == 1
        assert len(there.exchanges) == 3


async def test_calls_that_hang_hold_up_no_other_origin(client: Client) -> None:
    async with gateway(never) as hanging, gateway(well) as healthy:
        calls = [asyncio.create_task(client.get(hanging.url)) for _ in range(200)]
        await hanging.until(lambda there: len(there.exchanges) == 200)

        replies = [await client.get(healthy.url) for _ in range(3)]

        assert {reply.status for reply in replies} == {200}
        assert healthy.connections == 1
        assert not any(call.done() for call in calls)
        for call in calls:
            call.cancel()
        await asyncio.wait(calls)


async def drip(exchange: Exchange, drop: bytes) -> None:
    while True:
        await exchange.send(drop)
        await asyncio.sleep(0.02)  # a gateway that is slow, but never silent


async def drip_body(exchange: Exchange) -> None:
    await exchange.send(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")
    await drip(exchange, b" ")


async def drip_head(exchange: Exchange) -> None:
    await exchange.send(b"HTTP/1.1 200 OK\r\nX: ")
    await drip(exchange, b"x")


async def only_head(exchange: Exchange) -> None:
    await exchange.send(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n")
    await never(exchange)


@pytest.mark.parametrize("answering", [never, only_head, drip_head, drip_body], ids=lambda it: it.__name__)
async def test_an_answer_that_does_not_end_is_a_timeout(answering: Answering) -> None:
    async with gateway(answering) as there, open_client(SHORT) as client, asyncio.timeout(10):
        with pytest.raises(Unanswered) as raised:
            await client.get(there.url)

    assert raised.value.timed_out


async def test_endless_answer_is_cut_and_its_connection_not_used_again(client: Client) -> None:
    async def pour(exchange: Exchange) -> None:
        await exchange.send(b"HTTP/1.1 200 OK\r\n\r\n")
        while True:
            await exchange.send(b"x" * 65536)

    async with gateway(pour) as there:
        reply = await client.get(there.url)
        await there.until(lambda there: there.left == 1)

    assert (reply.status, len(reply.body)) == (200, ANSWER_LIMIT)


async def test_packed_answer_is_never_unpacked(client: Client) -> None:
    """Unpacked, a kilobyte may be a gigabyte; nobody was asked to pack."""

    async def bomb(exchange: Exchange) -> None:
        await exchange.send(written(gzip.compress(bytes(8 * ANSWER_LIMIT)), "Content-Encoding: gzip"))

    async with gateway(bomb) as there:
        with pytest.raises(Unanswered, match="Encoded"):
            await client.get(there.url)


async def test_connection_that_closes_under_the_next_call_is_tried_again(client: Client) -> None:
    """Node closes an idle connection just when the request is on its way: not the gateway's failure."""

    async def close_second(exchange: Exchange) -> None:
        if exchange.number == 1:
            await well(exchange)
        else:
            exchange.close()

    async with gateway(close_second) as there:
        await client.get(there.url)

        reply = await client.get(there.url)

    assert reply.status == 200
    assert [(it.connection, it.number) for it in there.exchanges] == [(1, 1), (1, 2), (2, 1)]


@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_call_that_changes_something_is_made_once_whatever_its_method(
    client: Client, method: str
) -> None:
    async def close_second(exchange: Exchange) -> None:
        if exchange.number == 1:
            await well(exchange)
        else:
            exchange.close()

    async with gateway(close_second) as there:
        await client.get(there.url)

        with pytest.raises(Unanswered):
            await client.send(method, there.url, {})

    assert len(there.exchanges) == 2


async def test_connection_that_is_always_closed_is_tried_no_more_than_twice(client: Client) -> None:
    async def hang_up(exchange: Exchange) -> None:
        exchange.close()

    async with gateway(hang_up) as there:
        with pytest.raises(Unanswered) as raised:
            await client.get(there.url)

    assert not raised.value.timed_out
    assert len(there.exchanges) == 2


async def test_cookies_are_forgotten(client: Client) -> None:
    async def bake(exchange: Exchange) -> None:
        await exchange.send(written(b"{}", "Set-Cookie: session=1; Path=/", "Set-Cookie: \xff=;;=;expires=x"))

    async with gateway(bake) as there:
        for _ in range(2):
            await client.get(there.url)

    assert not any("cookie:" in exchange.head.lower() for exchange in there.exchanges)


@pytest.mark.parametrize(
    "key",
    ["chave-ção", "a\nb", "a\r\nX-Other: b", "a\0b", "\ud800"],
    ids=["latin", "lf", "crlf", "nul", "half"],
)
async def test_key_that_cannot_be_sent_is_no_answer_and_no_crash(client: Client, key: str) -> None:
    async with gateway(well) as there:
        with pytest.raises(Unanswered) as raised:
            await client.get(there.url, {"apikey": key})

    assert not raised.value.timed_out
    assert not there.exchanges


@pytest.mark.parametrize(
    "url",
    ["http://", "http://[::1", "http://a..b/", "ftp://127.0.0.1/", "x", "\0"],
)
async def test_address_that_is_none_is_no_answer_and_no_crash(client: Client, url: str) -> None:
    with pytest.raises(Unanswered) as raised:
        await client.get(url)

    assert not raised.value.timed_out


@pytest.mark.parametrize(
    "said",
    [
        b"SSH-2.0-OpenSSH_9.2\r\n\r\n",
        b"HTTP/1.1 abc\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{}",
        b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 2\r\n\r\n{}",
    ],
    ids=["ssh", "status", "short", "gzip"],
)
async def test_what_is_no_http_is_no_answer_and_told_without_the_key(client: Client, said: bytes) -> None:
    async def babble(exchange: Exchange) -> None:
        await exchange.send(said)
        exchange.close()

    async with gateway(babble) as there:
        with pytest.raises(Unanswered) as raised:
            await client.get(f"{there.url}/{KEY}", {"apikey": KEY})

    assert not raised.value.timed_out
    assert KEY not in repr(raised.value)
    assert raised.value.__cause__ is None
    assert raised.value.__context__ is None or raised.value.__suppress_context__


async def test_refused_connection_is_no_timeout(client: Client) -> None:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))  # and doesn't listen
        with pytest.raises(Unanswered) as raised:
            await client.get(f"http://127.0.0.1:{bound.getsockname()[1]}/")

    assert not raised.value.timed_out


async def test_localhost_is_the_host_that_was_named() -> None:
    async with gateway(well) as there, open_client(PATIENT, "127.0.0.1") as client:
        await client.get(f"http://localhost:{there.port}/v1/x?y=z")

    (exchange,) = there.exchanges
    assert exchange.head.startswith("GET /v1/x?y=z HTTP/1.1\r\n")
    assert f"Host: 127.0.0.1:{there.port}\r\n" in exchange.head


async def test_other_hosts_are_themselves() -> None:
    async with gateway(well) as there, open_client(PATIENT, "nowhere.invalid") as client:
        await client.get(there.url)

    assert f"Host: 127.0.0.1:{there.port}\r\n" in there.exchanges[0].head


async def test_localhost_is_itself_unless_another_was_named() -> None:
    async with gateway(well) as there, open_client(PATIENT) as client:
        await client.get(f"http://localhost:{there.port}/")

    assert f"Host: localhost:{there.port}\r\n" in there.exchanges[0].head


async def test_origin_called_longest_ago_is_closed_unless_it_is_in_use() -> None:
    asked = asyncio.Event()
    go_on = asyncio.Event()

    async def wait(exchange: Exchange) -> None:
        asked.set()
        await go_on.wait()
        await well(exchange)

    async with (
        open_client(timedelta(minutes=2)) as client,
        gateway(wait) as busy,
        gateway(well) as used,
        gateway(well) as idle,
    ):
        call = asyncio.create_task(client.get(busy.url))
        await asked.wait()
        for there in (used, idle, used):
            await client.get(there.url)

        # Of three and these, the last is one too many; nobody listens there.
        for n in range(ORIGINS_KEPT - 2):
            with pytest.raises(Unanswered):
                await client.get(f"http://127.0.0.{2 + n // 1000}:{1 + n % 1000}/")

        await idle.until(lambda there: there.left == 1)
        assert used.left == 0
        go_on.set()
        assert (await call).status == 200


async def test_connections_that_idled_too_long_are_closed_though_the_next_calls_are_cut_short(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Not by the garbage collector, which would find what was forgotten."""
    monkeypatch.setattr("receiver.outbound.client.KEPT_FOR", timedelta(seconds=0.05))
    gc.disable()
    try:
        async with gateway(well) as told:
            for ticks in range(8):
                async with open_client(PATIENT) as calling:
                    await asyncio.gather(*(calling.get(told.url) for _ in range(20)))
                    await asyncio.sleep(0.06)  # it is the passing of time that they must not survive
                    tasks = [asyncio.create_task(calling.get(told.url)) for _ in range(20)]
                    await let_tasks_run(ticks)  # to another place in the call
                    for task in tasks:
                        task.cancel()
                    await asyncio.gather(*tasks, return_exceptions=True)
            await told.until(lambda it: it.left == it.connections)
    finally:
        gc.enable()
