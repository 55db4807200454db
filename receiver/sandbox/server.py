"""One loopback port with uvicorn's HTTP on it, in the running loop; it can be closed and opened again.

uvicorn's own `Server` waits for its requests when it stops, and a gateway that hangs has some for ever. Here
connections are cut.
"""

import asyncio
import os
import socket
import struct
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any, Final, cast

import uvicorn
from starlette.types import ASGIApp, Scope
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

BACKLOG: Final = 1024
NO_LINGER: Final = struct.pack("ii", 1, 0)
"""SO_LINGER of zero seconds: closing sends a reset."""


class SandboxServer:
    """Holds its port from the first moment to `close`, also while it refuses connections."""

    def __init__(self, app: ASGIApp) -> None:
        config = uvicorn.Config(
            app, interface="asgi3", ws="none", lifespan="off", log_config=None, access_log=False
        )
        self._state = ServerState()
        self._protocol: Callable[[], HttpToolsProtocol] = partial(HttpToolsProtocol, config, self._state, {})
        # Bound and never listening: nobody else gets the port, and connecting to it is refused.
        self._reserved = _bound(0)
        self.port: Final[int] = self._reserved.getsockname()[1]
        self._socket: socket.socket | None = None
        self._listener: asyncio.Server | None = None

    def listen(self) -> None:
        """Let connections queue from now on; `serve` has to follow."""
        if self._socket is None:
            self._socket = _bound(self.port)
            self._socket.listen(BACKLOG)

    async def serve(self) -> None:
        """Answer those who connect, until `refuse` or `close`."""
        if self._socket is None or self._listener is not None:
            return
        ours = self._socket
        loop = asyncio.get_running_loop()
        listener = await loop.create_server(self._protocol, sock=ours, backlog=BACKLOG)
        if self._socket is ours:
            self._listener = listener
        else:  # refused meanwhile
            listener.close()

    def refuse(self) -> None:
        """Cut all connections and let nobody connect."""
        if self._socket is not None:
            with suppress(OSError):  # macOS; there closing alone has to do
                self._socket.shutdown(socket.SHUT_RDWR)
            if self._listener is not None:
                self._listener.close()
            else:
                self._socket.close()
        self._socket = self._listener = None
        for connection in self._connections():
            connection.transport.abort()

    def reset(self, scope: Scope) -> None:
        """Cut the connection of a request with a reset."""
        for connection in self._connections():
            if connection.client == scope["client"]:
                _linger_not(connection.transport.get_extra_info("socket"))
                connection.transport.abort()

    async def close(self) -> None:
        """End everything and give the port back."""
        self.refuse()
        self._reserved.close()
        while self._state.connections or self._state.tasks:  # noqa: ASYNC110
            await asyncio.sleep(0.001)  # uvicorn tells nobody

    def _connections(self) -> list[HttpToolsProtocol]:
        return cast(list[HttpToolsProtocol], list(self._state.connections))


def _bound(port: int) -> socket.socket:
    made = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    made.setblocking(False)
    made.bind(("127.0.0.1", port))
    return made


def _linger_not(connection: Any) -> None:
    with socket.socket(fileno=os.dup(connection.fileno())) as same:  # uvloop's own has no setsockopt
        same.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, NO_LINGER)
