"""One HTTP connection: uvicorn's, with limits that close it to clients that are slow or send too much.

uvicorn waits for a request as long as its sender likes, keeps headers of any size, and answers 400 to what it
can't read, which gateways take for final. Knows nothing of routes.
"""

import asyncio
from asyncio import TimerHandle
from datetime import timedelta
from typing import Final

from uvicorn import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

ARRIVED_WITHIN: Final = timedelta(seconds=12)
"""How long a request may take to arrive, headers and body; with a slow event loop at most 15 s."""
STOPPING: Final = timedelta(seconds=4)
"""The same from SIGTERM on."""
UNHEARD_LIMIT: Final = 64 * 1024
"""Bytes that may come without any of a body among them: headers, the margins of chunks, trailers."""
PIPELINED: Final = 16
"""Requests of one connection that may wait for the answer to the one before them."""
RETRY: Final = (
    b"HTTP/1.1 503 Service Unavailable\r\nretry-after: 2\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"
)


class _Unread(list[tuple[bytes, bytes]]):
    """A list of headers that keeps none."""

    def append(self, _header: tuple[bytes, bytes]) -> None:
        pass


UNREAD: Final = _Unread()


class Connection(HttpToolsProtocol):
    """uvicorn's connection, with limits on the time and memory that a client can use.

    `Config.limit_concurrency` is the number of connections; those above it get 503.
    """

    arrived_within = ARRIVED_WITHIN
    stopping = STOPPING

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, object],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self._at_most, self.limit_concurrency = config.limit_concurrency, None
        self._too_late: TimerHandle | None = None
        self._arriving = self._in_headers = True
        self._unheard = 0
        self.url = b""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn has it
        super().connection_made(transport)
        if self._at_most is not None and len(self.connections) > self._at_most:
            self._refuse()
        else:
            self._await(self.arrived_within)

    def connection_lost(self, exc: Exception | None) -> None:
        self._await_nothing()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        self._unheard += len(data)
        super().data_received(data)
        # Most requests come whole, in one piece: for them there is no timer to begin or end.
        if not self._arriving:
            self._await_nothing()
        elif self._unheard > UNHEARD_LIMIT:
            self.transport.close()
        elif self._too_late is None and not self.transport.is_closing():
            self._await(self.arrived_within)

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._arriving = self._in_headers = True

    def on_headers_complete(self) -> None:
        self._in_headers = False
        if len(self.pipeline) >= PIPELINED:
            raise OverflowError("too many requests at once")
        super().on_headers_complete()
        # Trailers after the body may be of any size and are not used.
        self.headers = UNREAD

    def on_body(self, body: bytes) -> None:
        self._unheard = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._arriving = False
        self._unheard = 0
        super().on_message_complete()

    def send_400_response(self, msg: str) -> None:
        """Close a connection with unreadable input, after the answer to an earlier request if any."""
        self._arriving = False
        if self.cycle is not None and not self.cycle.response_complete and not self.cycle.more_body:
            self.flow.pause_reading()
            self.pipeline.clear()
            self.cycle.keep_alive = False
        elif self.url.startswith(b"/webhooks/"):
            self._refuse()
        else:
            super().send_400_response(msg)

    def shutdown(self) -> None:
        super().shutdown()
        if self._too_late is not None and not self.transport.is_closing():
            self._await(self.stopping)

    def _await(self, within: timedelta) -> None:
        self._await_nothing()
        self._too_late = self.loop.call_later(within.total_seconds(), self._give_up)

    def _await_nothing(self) -> None:
        if self._too_late is not None:
            self._too_late.cancel()
            self._too_late = None

    def _give_up(self) -> None:
        """Close a connection that is too slow, with an answer if there is a request to answer."""
        if self._in_headers or self.pipeline or self.cycle.response_started:
            self.transport.close()
        else:
            self._refuse()

    def _refuse(self) -> None:
        self.transport.write(RETRY)
        self.transport.close()
