"""HTTP requests over plain sockets, each on a connection of its own: thousands a second, and no two alike."""

import asyncio
from collections.abc import Iterable
from typing import cast

LOCAL = "127.0.0.1"


class _Request(asyncio.Protocol):
    """Sends a request, and hears the status of the answer; None when the connection ends without one."""

    def __init__(self, request: Iterable[bytes], then_ends: bool) -> None:
        self._request = request
        self._then_ends = then_ends
        self._heard = b""
        self.status: asyncio.Future[int | None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        way = cast(asyncio.Transport, transport)
        for piece in self._request:
            way.write(piece)
        if self._then_ends:
            way.write_eof()

    def data_received(self, data: bytes) -> None:
        self._heard += data
        if b"\r\n" in self._heard:
            self._tell(int(self._heard[9:12]))

    def connection_lost(self, error: Exception | None) -> None:
        self._tell(None)

    def _tell(self, status: int | None) -> None:
        if not self.status.done():
            self.status.set_result(status)


async def ask(
    port: int, request: bytes, within: float, then_ends: bool = False, rest: Iterable[bytes] = ()
) -> int | None:
    """Return the status that a request is answered with, or None when there is no answer in time.

    `rest` follows the request, in pieces that many may share. `then_ends`: nothing more will come from us,
    and the service hears so.
    """
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(within):
            transport, protocol = await loop.create_connection(
                lambda: _Request((request, *rest), then_ends), LOCAL, port
            )
            try:
                return await protocol.status
            finally:
                transport.abort()  # no port is left waiting
    except (OSError, TimeoutError):
        return None


def post(path: str, body: bytes, *headers: str) -> bytes:
    """Return a POST of JSON as a gateway makes it."""
    lines = (
        f"POST {path} HTTP/1.1",
        "Host: zapwatch",
        "Content-Type: application/json",
        "User-Agent: axios/1.12.2",
        *(headers or (f"Content-Length: {len(body)}",)),
    )
    return ("\r\n".join(lines) + "\r\n\r\n").encode() + body
