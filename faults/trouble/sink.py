"""Where everybody is told: a server on loopback that keeps what it got, and when. It answers 204."""

import asyncio
import contextlib
import socket
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

import orjson
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route


class Told(NamedTuple):
    """One message: its destination, when it came (seconds since the epoch), its id, its body."""

    destination: str
    at: float
    id: str
    body: Any

    @property
    def text(self) -> str:
        """What people read of it, as Slack shows it."""
        if "blocks" not in self.body:
            return ""
        return "\n".join(block["text"]["text"] for block in self.body["blocks"])

    @property
    def news(self) -> tuple[str, str]:
        """What a program is told of which incident or gateway."""
        data = self.body["data"]
        return self.body["type"], str(data.get("incident_id"))


class Sink:
    """What arrived, destination by destination, each message once: a repetition has the same id."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.got: list[Told] = []
        self.repeated: Counter[str] = Counter()
        self._seen: set[str] = set()

    def told(self, destination: str, type: str | None = None) -> list[Told]:
        """Return what a destination was told, in order; of a program's only this type."""
        return [
            it for it in self.got if it.destination == destination and type in (None, it.body.get("type"))
        ]

    def twice(self) -> list[str]:
        """Return what programs were told more than once, under different ids."""
        counts = Counter((it.destination, *it.news) for it in self.got if "type" in it.body)
        once = ("incident.opened", "incident.resolved", "gateway.opened", "gateway.resolved")
        return [" ".join(key) for key, count in counts.items() if count > 1 and key[1] in once]

    async def take(self, request: Request) -> Response:
        """Keep a message."""
        body, id = await request.body(), request.headers.get("webhook-id", "")
        if id and id in self._seen:
            self.repeated[id] += 1
        else:
            self._seen.add(id)
            told = Told(request.url.path.removeprefix("/"), time.time(), id, orjson.loads(body))
            self.got.append(told)
        return Response(status_code=204)


@asynccontextmanager
async def open_sink() -> AsyncIterator[Sink]:
    """Yield a sink that serves."""
    with contextlib.closing(socket.create_server(("127.0.0.1", 0), backlog=512)) as listener:
        sink = Sink(f"http://127.0.0.1:{listener.getsockname()[1]}")
        app = Starlette(routes=[Route("/{path:path}", sink.take, methods=["POST"])])
        server = uvicorn.Server(uvicorn.Config(app, log_config=None, access_log=False, lifespan="off"))
        server.install_signal_handlers = lambda: None  # type: ignore[attr-defined]
        task = asyncio.create_task(server._serve(sockets=[listener]))
        try:
            yield sink
        finally:
            server.should_exit = True
            await task
