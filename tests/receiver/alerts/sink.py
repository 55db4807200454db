"""Where messages arrive: a server on loopback that keeps what it got and answers as it's told."""

import asyncio
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple
from uuid import UUID

import orjson
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from receiver.alerts.message import Event, Message, MessageItem
from statemachine.model import Reason
from tests.support.serving import address, listening, serving

AT = datetime(2026, 3, 1, 15, 4, 5, tzinfo=UTC)
LINK = "https://watch.example/r/s3cret-way-back"
INCIDENT = UUID(int=1)
CHANNEL = UUID(int=2)
TENANT = UUID(int=3)
MESSAGE = UUID("11111111-2222-3333-4444-555555555555")


class Got(NamedTuple):
    """One request."""

    path: str
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return orjson.loads(self.body)


@dataclass
class Sink:
    """What arrived, and what is answered: the same each time."""

    url: str
    status: int = 200
    body: bytes = b"ok"
    headers: Mapping[str, str] = field(default_factory=dict)
    got: list[Got] = field(default_factory=list)
    meanwhile: Callable[[], Awaitable[object]] | None = None
    """What happens between a request and its answer."""

    @property
    def only(self) -> Got:
        """The one request that arrived."""
        (got,) = self.got
        return got

    async def answer(self, request: Request) -> Response:
        """Keep a request and answer it."""
        body = await request.body()
        self.got.append(Got(request.url.path, dict(request.headers), body))
        if self.meanwhile is not None:
            await self.meanwhile()
        return Response(self.body, self.status, dict(self.headers))


@asynccontextmanager
async def open_sink() -> AsyncIterator[Sink]:
    """Yield a sink that answers 200."""
    with listening() as listener:
        sink = Sink(address(listener))
        app = Starlette(routes=[Route("/{path:path}", sink.answer, methods=["GET", "POST"])])
        async with serving(app, listener):
            yield sink


def reset(writer: asyncio.StreamWriter) -> None:
    """End a connection by a reset: whoever waits for more gets an error, and no orderly end."""
    at_once = struct.pack("ii", 1, 0)
    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, at_once)
    writer.transport.abort()


@asynccontextmanager
async def open_rude(*, is_reset: bool, greeting: bytes = b"") -> AsyncIterator[str]:
    """Yield the address of a server that takes a request, and then resets the connection or says nothing."""

    async def plan_recovery(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(greeting)
        await reader.read(1)
        if is_reset:
            reset(writer)
        else:
            await reader.read()
            writer.close()

    server = await asyncio.start_server(plan_recovery, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"


def item(**fields: Any) -> MessageItem:
    """Return an incident that opened and needs a scan, with what is given."""
    given: dict[str, Any] = {
        "event": Event.INCIDENT_OPENED,
        "incident_id": INCIDENT,
        "name": "Loja 1",
        "kind": "disconnected",
        "reason": Reason.LOGGED_OUT,
        "started_at": AT,
        "channel_id": CHANNEL,
        "tenant_id": TENANT,
        "link": LINK,
    }
    values = {**given, **fields}
    values.setdefault("needs_scan", values["event"] is Event.INCIDENT_OPENED and values["link"] is not None)
    return MessageItem(**values)


def resolved(after: timedelta = timedelta(hours=2), **fields: Any) -> MessageItem:
    """Return an incident that is over."""
    given = {"event": Event.INCIDENT_RESOLVED, "resolved_at": AT + after, "link": None}
    return item(**{**given, **fields})


def message(*items: MessageItem, **fields: Any) -> Message:
    """Return a message of one open incident, or of these items."""
    given: dict[str, Any] = {"id": MESSAGE, "at": AT, "locale": "pt-BR", "time_zone": "America/Sao_Paulo"}
    return Message(items=items or (item(),), **{**given, **fields})
