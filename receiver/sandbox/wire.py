"""Requests and answers over ASGI, and the ways to spoil an answer. Knows no gateway."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import parse_qsl, unquote

import orjson
from starlette.types import Receive, Scope, Send

JSON: Final = b"application/json; charset=utf-8"
HTML: Final = b"text/html; charset=utf-8"
CHUNK: Final = b"x" * 65536
POURED: Final = 1024
"""Chunks of an endless body (64 MiB) before it hangs: a caller without a limit must not eat the machine."""


@dataclass(frozen=True, slots=True)
class Request:
    """What a gateway is asked; segments of the path are decoded one by one, so a name may hold a slash."""

    method: str
    path: tuple[str, ...]
    raw_path: str
    query: dict[str, str]
    headers: dict[bytes, bytes]
    body: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class HttpAnswer:
    """What a gateway answers."""

    status: int
    body: bytes
    content_type: bytes = JSON


@dataclass(frozen=True, slots=True)
class Later:
    """An answer that takes so many of the sandbox's seconds, and is what there is then."""

    seconds: float
    answer: Callable[[], HttpAnswer]


def json_answer(status: int, document: Any) -> HttpAnswer:
    """Return an answer with this document."""
    return HttpAnswer(status, orjson.dumps(document))


def page(status: int, text: str) -> HttpAnswer:
    """Return an answer with a page, as Express writes one."""
    html = (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n<title>Error</title>\n</head>\n'
        f"<body>\n<pre>{text}</pre>\n</body>\n</html>\n"
    )
    return HttpAnswer(status, html.encode(), HTML)


async def read(scope: Scope, receive: Receive) -> Request:
    """Return the whole request."""
    raw_path = scope["raw_path"].decode("latin-1")
    return Request(
        method="GET" if scope["method"] == "HEAD" else scope["method"],
        path=tuple(unquote(part) for part in raw_path.strip("/").split("/") if part),
        raw_path=raw_path,
        query=dict(parse_qsl(scope["query_string"].decode("latin-1"))) if scope["query_string"] else {},
        headers=dict(scope["headers"]),
        body=b"" if scope["method"] in ("GET", "HEAD") else await _body(receive),
    )


async def _body(receive: Receive) -> bytes:
    body = bytearray()
    while True:
        message = await receive()
        body += message.get("body", b"")
        if not message.get("more_body", False):
            return bytes(body)


async def reply(answer: HttpAnswer, send: Send) -> None:
    """Send an answer with the headers that Node's server adds."""
    await _start(answer.status, answer.content_type, len(answer.body), send)
    await send({"type": "http.response.body", "body": answer.body})


async def _start(status: int, content_type: bytes, length: int | None, send: Send) -> None:
    headers = [
        (b"content-type", content_type),
        (b"connection", b"keep-alive"),
        (b"keep-alive", b"timeout=5"),
    ]
    if length is not None:
        headers.append((b"content-length", b"%d" % length))
    await send({"type": "http.response.start", "status": status, "headers": headers})


async def hang(receive: Receive) -> None:
    """Answer nothing until the caller has gone."""
    while (await receive())["type"] != "http.disconnect":
        pass


async def hang_in_body(receive: Receive, send: Send) -> None:
    """Answer with headers that promise a body, then nothing until the caller has gone."""
    await _start(200, JSON, 81, send)
    await hang(receive)


async def is_patient(receive: Receive, seconds: float) -> bool:
    """Return whether the caller still waits after so many real seconds."""
    try:
        async with asyncio.timeout(seconds):
            await hang(receive)
    except TimeoutError:
        return True
    return False


async def pour(receive: Receive, send: Send) -> None:
    """Answer without end until the caller has gone."""
    gone = asyncio.ensure_future(hang(receive))
    try:
        await _start(200, JSON, None, send)
        for _ in range(POURED):
            if gone.done():
                return
            await send({"type": "http.response.body", "body": CHUNK, "more_body": True})
            await asyncio.sleep(0)
        await gone
    finally:
        gone.cancel()
