"""A receiver of webhooks on loopback that keeps what comes and answers as it is told."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import httpx
import orjson
from starlette.types import Receive, Scope, Send

from receiver.sandbox.server import SandboxServer
from receiver.sandbox.wire import hang, read


@dataclass(frozen=True)
class Letter:
    """One request that came."""

    path: str
    headers: dict[str, str]
    body: bytes
    at: float

    @property
    def document(self) -> Any:
        """The body."""
        return orjson.loads(self.body)

    @property
    def said(self) -> tuple[str, str | None, int | None]:
        """The event, and the state and reason of a connection.update."""
        data = self.document["data"]
        told = data if isinstance(data, dict) else {}
        return self.document["event"], told.get("state"), told.get("statusReason")


class Inbox:
    """Answers with `statuses` in turn, then 204; `hangs` answers nothing."""

    def __init__(self) -> None:
        self.letters: list[Letter] = []
        self.statuses: list[int] = []
        self.hangs = False
        self.most_at_once = 0
        self._at_once = 0
        self._came = asyncio.Condition()
        self.server = SandboxServer(self)
        self.url = f"http://127.0.0.1:{self.server.port}/hook"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Take one request (ASGI)."""
        self._at_once += 1
        self.most_at_once = max(self.most_at_once, self._at_once)
        try:
            await self._take(scope, receive, send)
        finally:
            self._at_once -= 1

    async def until(self, is_so: Callable[[list[Letter]], Any]) -> list[Letter]:
        """Wait until the letters are so, and return them."""
        async with asyncio.timeout(10), self._came:
            await self._came.wait_for(lambda: is_so(self.letters))
        return self.letters

    @property
    def said(self) -> list[tuple[str, str | None, int | None]]:
        """What all letters said, in the order of their stamps."""
        return [one.said for one in sorted(self.letters, key=lambda one: str(one.document["date_time"]))]

    async def _take(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = await read(scope, receive)
        headers = {name.decode(): value.decode() for name, value in request.headers.items()}
        async with self._came:
            self.letters.append(Letter(request.raw_path, headers, request.body, time.monotonic()))
            self._came.notify_all()
        if self.hangs:
            await hang(receive)
            return
        status = self.statuses.pop(0) if self.statuses else 204
        await send({"type": "http.response.start", "status": status, "headers": []})
        await send({"type": "http.response.body", "body": b""})


@asynccontextmanager
async def open_inbox() -> AsyncIterator[Inbox]:
    """Yield a receiver."""
    inbox = Inbox()
    inbox.server.listen()
    await inbox.server.serve()
    try:
        yield inbox
    finally:
        await inbox.server.close()


@asynccontextmanager
async def caller(timeout: float = 5.0) -> AsyncIterator[httpx.AsyncClient]:
    """Yield a client for asking gateways."""
    async with httpx.AsyncClient(trust_env=False, timeout=timeout) as client:
        yield client
