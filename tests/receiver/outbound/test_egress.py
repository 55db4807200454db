"""Where destinations may be: what is refused is never connected to; what is reached is real."""

import asyncio
import socket
from collections.abc import Sequence
from datetime import timedelta
from ipaddress import ip_network
from pathlib import Path

import pytest

from receiver.outbound.client import Unanswered
from receiver.outbound.egress import ANSWER_LIMIT, Egress, EgressForbidden, EgressPolicy
from tests.receiver.alerts.certificates import certified
from tests.receiver.alerts.sink import TENANT, Sink, open_rude, open_sink
from tests.support.serving import listening

TENANTS = EgressPolicy()
OPERATORS = EgressPolicy(None)


class Names:
    """A name server: each question gets the next answer, the last one for ever."""

    def __init__(self, *answers: Sequence[str]) -> None:
        self.answers = list(answers)
        self.asked: list[str] = []

    async def resolve(self, host: str, port: int) -> Sequence[str]:
        self.asked.append(host)
        return self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1", "localhost", "[::1]", "[::]", "0.0.0.0", "10.1.2.3", "172.16.0.1", "192.168.0.1",
        "169.254.169.254", "100.64.0.1", "224.0.0.1", "255.255.255.255", "[fe80::1]", "[fd00::1]",
        "[fec0::1]", "[ff02::1]", "[::ffff:127.0.0.1]", "[::ffff:10.0.0.1]", "[64:ff9b::7f00:1]", 
        "[2002:7f00:1::]", "[2001:db8::1]", "2130706433", "0x7f.1", "127.1",
    ],
)  # fmt: skip
async def test_tenants_destination_may_not_be_inside(host: str) -> None:
    with pytest.raises(EgressForbidden):
        await TENANTS.post(f"http://{host}/", b"", {})


@pytest.mark.parametrize("address", ["8.8.8.8", "2606:4700:4700::1111", "64:ff9b::808:808", "::ffff:8.8.8.8"])
def test_public_addresses_are_open(address: str) -> None:
    assert TENANTS.is_open(address)


@pytest.mark.parametrize("inside", ["127.0.0.1", "::1", "10.0.0.1", "169.254.169.254", "::ffff:127.0.0.1"])
async def test_name_that_means_the_inside_is_refused(inside: str) -> None:
    outgoing = EgressPolicy(resolve=Names([inside]).resolve)

    with pytest.raises(EgressForbidden):
        await outgoing.post("https://hooks.example/", b"", {})
    with pytest.raises(EgressForbidden):
        await outgoing.connect("smtp.example", 25)


async def test_of_a_names_addresses_only_open_ones_are_connected_to(sink: Sink) -> None:
    port = sink.url.rpartition(":")[2]
    names = Names(["10.9.9.9", "127.0.0.1"])
    outgoing = EgressPolicy([ip_network("127.0.0.0/8")], resolve=names.resolve)

    reply = await outgoing.post(f"http://hooks.example:{port}/in", b"hello", {"X-A": "b"})

    assert reply.status == 200
    assert sink.only.body == b"hello"
    assert sink.only.headers["host"] == f"hooks.example:{port}"


async def test_name_that_means_something_else_a_moment_later_is_asked_only_once(sink: Sink) -> None:
    port = sink.url.rpartition(":")[2]
    names = Names(["127.0.0.1"], ["10.0.0.1"])
    outgoing = EgressPolicy([ip_network("127.0.0.1/32")], resolve=names.resolve)

    await outgoing.post(f"http://hooks.example:{port}/", b"", {})

    assert names.asked == ["hooks.example"]
    assert len(sink.got) == 1
    with pytest.raises(EgressForbidden):
        await outgoing.post(f"http://hooks.example:{port}/", b"", {})


async def test_allowed_network_opens_itself_and_no_other(sink: Sink) -> None:
    outgoing = EgressPolicy([ip_network("127.0.0.1/32"), ip_network("fd00::/8")])

    assert (await outgoing.post(sink.url, b"", {})).status == 200
    assert outgoing.is_open("fd12::1")
    assert not outgoing.is_open("127.0.0.2")
    assert not outgoing.is_open("::1")


async def test_operators_may_go_where_their_tenants_may_not(sink: Sink) -> None:
    ways = Egress.allowing([ip_network("10.0.0.0/8")])

    assert (await ways.of(None).post(sink.url, b"", {})).status == 200
    assert ways.of(TENANT).is_open("10.1.1.1")
    with pytest.raises(EgressForbidden):
        await ways.of(TENANT).post(sink.url, b"", {})


async def test_redirect_is_not_followed(sink: Sink) -> None:
    async with open_sink() as other:
        sink.status, sink.headers = 307, {"Location": other.url}

        reply = await OPERATORS.post(sink.url, b"", {})

    assert (reply.status, other.got) == (307, [])


async def test_a_proxy_of_the_environment_is_not_asked(sink: Sink, monkeypatch: pytest.MonkeyPatch) -> None:
    async with open_sink() as proxy:
        monkeypatch.setenv("HTTP_PROXY", proxy.url)
        monkeypatch.setenv("ALL_PROXY", proxy.url)

        await OPERATORS.post(sink.url, b"", {})

    assert (len(sink.got), proxy.got) == (1, [])


async def test_only_the_beginning_of_an_answer_is_read(sink: Sink) -> None:
    sink.body = b"x" * 1_000_000

    assert (await OPERATORS.post(sink.url, b"", {})).body == b"x" * ANSWER_LIMIT


async def test_compressed_answer_is_not_unpacked(sink: Sink) -> None:
    sink.headers = {"Content-Encoding": "gzip"}

    reply = await OPERATORS.post(sink.url, b"", {})

    assert (reply.status, reply.body) == (200, b"")


async def test_the_next_address_is_tried_where_nobody_listens(sink: Sink) -> None:
    names = Names(["127.0.0.9", "127.0.0.1"])
    port = sink.url.rpartition(":")[2]

    reply = await EgressPolicy(None, resolve=names.resolve).post(f"http://hooks.example:{port}", b"", {})

    assert reply.status == 200


async def test_silence_ends_with_the_time_that_one_try_has() -> None:
    async with open_rude(is_reset=False) as url:
        with pytest.raises(Unanswered) as caught:
            await EgressPolicy(None, timeout=timedelta(seconds=0.3)).post(url, b"", {})

    assert caught.value.timed_out


@pytest.mark.parametrize(
    "url", ["ftp://x/", "file:///etc/passwd", "http://", "http://[::1", "gopher://x", "x"]
)
async def test_only_http_goes_out(url: str) -> None:
    with pytest.raises(EgressForbidden):
        await OPERATORS.post(url, b"", {})


async def test_unknown_name_is_no_answer() -> None:
    with pytest.raises(Unanswered, match="name"):
        await OPERATORS.post("http://nobody.invalid/", b"", {})


async def test_error_names_neither_address_nor_secret() -> None:
    with listening() as listener:
        port = listener.getsockname()[1]
    with pytest.raises(Unanswered) as caught:
        await OPERATORS.post(f"http://127.0.0.1:{port}/s3cret?k=s3cret", b"s3cret", {"X": "s3cret"})

    assert "s3cret" not in str(caught.value)
    assert "127.0.0.1" not in str(caught.value)


async def test_socket_is_connected_to_the_address_that_was_looked_at() -> None:
    with listening() as listener:
        names = Names(["127.0.0.1"])
        outgoing = EgressPolicy([ip_network("127.0.0.0/8")], resolve=names.resolve)

        opened = await outgoing.connect("smtp.example", listener.getsockname()[1])

        with opened:
            assert opened.getpeername() == listener.getsockname()
            assert opened.type == socket.SOCK_STREAM


async def test_certificate_must_be_for_the_name_and_not_for_the_address(tmp_path: Path) -> None:
    ours, theirs = certified("hooks.example", tmp_path)
    asked: list[str | None] = []
    ours.sni_callback = lambda _socket, name, _context: asked.append(name)
    outgoing = EgressPolicy(None, resolve=Names(["127.0.0.1"]).resolve, tls=theirs)

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0, ssl=ours) as server:
        port = server.sockets[0].getsockname()[1]
        reply = await outgoing.post(f"https://hooks.example:{port}/", b"", {})
        with pytest.raises(Unanswered):
            await outgoing.post(f"https://other.example:{port}/", b"", {})

    assert (reply.status, reply.body) == (200, b"ok")
    assert asked == ["hooks.example", "other.example"]
