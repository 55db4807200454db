"""Requests that no gateway means to send, each kind with the answer that it must get; sends none.

The answers are those of docs/gateways.md, "Answers to webhooks".
"""

import gzip
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

from faults.wire import post

PART: Final = b"A" * 64 * 1024
PADDING: Final = (PART,) * 160
"""10 MB in pieces, so that many senders share them."""
MEBIBYTE: Final = (PART,) * 16
MEMBERS: Final = 16
"""Of a bomb of 1 GB, which is 1 MB as it comes: just within the limit."""
DEPTH: Final = 100_000
CLOSED: Final = "closed"
"""The end of a connection without an answer: who ended first, or sent no request, is owed none."""

Pieces = Sequence[bytes]


class Kind(NamedTuple):
    """A kind of request, made of an event of a gateway: its address, and its body, a connection.update."""

    name: str
    answer: str
    make: Callable[[str, bytes], Pieces]
    then_ends: bool = False
    """The sender ends instead of waiting for more to be asked of it."""
    is_traffic: bool = False
    """What is acknowledged is that something came, not a state."""


def groups() -> dict[str, list[Kind]]:
    """Return all kinds, by the fault that they are."""
    return {
        "10 MB bodies": _large(),
        "chunked, without Content-Length": _chunked(),
        "lying Content-Length": _lying(),
        "gzip bombs, and gzip": _compressed(),
        "JSON and heads that hurt": _odd(),
    }


def _large() -> list[Kind]:
    return [
        Kind("traffic", "204", lambda path, body: _post(path, *_padded(_traffic(body))), is_traffic=True),
        Kind("a state", "413", lambda path, body: _post(path, *_padded(body))),
        Kind("names at the end", "413", lambda path, body: _post(path, b'{"a":"', *PADDING, b'",', body[1:])),
        Kind("junk", "413", lambda path, _: _post(path, *PADDING)),
        Kind("an unknown token", "401", lambda path, body: _post(f"{path}x", *_padded(_traffic(body)))),
    ]


def _chunked() -> list[Kind]:
    return [
        Kind("a state byte by byte", "204", lambda path, body: _chunks(path, *_bytes(body))),
        Kind(
            "10 MB of traffic",
            "204",
            lambda path, body: _chunks(path, *_padded(_traffic(body))),
            is_traffic=True,
        ),
        Kind("10 MB of junk", "413", lambda path, _: _chunks(path, *PADDING)),
        Kind("a size that is no number", "503", lambda path, body: [*_chunks(path, body)[:-1], b"size\r\n"]),
        Kind("a negative size", "503", lambda path, body: [*_chunks(path)[:-1], b"-5\r\n", body]),
        Kind("no end", "503", lambda path, body: _chunks(path, body)[:-1]),
        Kind("no end after 1 MB", "503", lambda path, body: _chunks(path, *_start(body))[:-1]),
        Kind("cut off", CLOSED, lambda path, body: _chunks(path, body)[:-1], then_ends=True),
    ]


def _lying() -> list[Kind]:
    return [
        Kind("too long and waiting", "503", lambda path, body: _said(path, len(body) + 1, body)),
        Kind(
            "too long and ending", CLOSED, lambda path, body: _said(path, len(body) + 1, body), then_ends=True
        ),
        Kind("10 MB that stop after 1", "503", lambda path, body: _said(path, 10**7, *_start(body))),
        Kind("10**15 that stop after 1 MB", "503", lambda path, body: _said(path, 10**15, *_start(body))),
        Kind(
            "too short for the junk behind",
            "204",
            lambda path, body: _said(path, len(body), body, b"}" * 1000),
        ),
        Kind("too short for all", "202", lambda path, body: _said(path, len(body) - 5, body)),
        Kind("negative", "503", lambda path, body: _said(path, -1, body)),
        Kind("10**30", "503", lambda path, body: _said(path, 10**30, body)),
        Kind(
            "two that differ",
            "503",
            lambda path, body: _said(path, len(body), body, beside="Content-Length: 5"),
        ),
        Kind(
            "beside chunks",
            "503",
            lambda path, body: _said(path, len(body), body, beside="Transfer-Encoding: chunked"),
        ),
    ]


def _compressed() -> list[Kind]:
    bomb = gzip.compress(bytes(2**30 // MEMBERS)) * MEMBERS
    return [
        Kind("1 GB of zeros", "202", lambda path, _: _packed(path, bomb)),
        Kind("2 GB", "413", lambda path, _: _packed(path, bomb, bomb)),
        Kind(
            "2 GB chunked",
            "413",
            lambda path, _: _chunks(path, bomb, bomb, beside="Content-Encoding: gzip"),
        ),
        Kind("a state", "202", lambda path, body: _packed(path, gzip.compress(body))),
    ]


def _odd() -> list[Kind]:
    deep = b"[" * DEPTH + b"]" * DEPTH
    some = b"".join(b'"%d":0,' % n for n in range(90_000))
    million = b"".join(b'"%d":0,' % n for n in range(1_000_000))
    return [
        Kind(f"{DEPTH:,} levels", "202", lambda path, body: _post(path, body[:-1], b',"a":', deep, b"}")),
        Kind("90,000 keys", "204", lambda path, body: _post(path, b"{", some, body[1:])),
        Kind("1,000,000 keys", "413", lambda path, body: _post(path, body[:-1], b",", million, b'"a":0}')),
        Kind("a number of 400 digits", "204", lambda path, body: _post(path, _number(body, 400))),
        Kind("5,000 digits", "202", lambda path, body: _post(path, _number(body, 5000))),
        Kind(
            "bytes that aren't UTF-8",
            "204",
            lambda path, body: _post(path, body[:-1], b',"a":"\xff\xc0\x80"}'),
        ),
        Kind("NUL in names", "204", lambda path, body: _post(path, body.replace(b'e":"', b'e":"\\u0000', 1))),
        Kind("1 MB of header", CLOSED, lambda path, body: [post(path, body, "X-Large: " + "A" * 10**6)]),
    ]


def _number(body: bytes, digits: int) -> bytes:
    return body.replace(b'"statusReason":200', b'"statusReason":' + b"9" * digits)


def _traffic(body: bytes) -> bytes:
    return body.replace(b"connection.update", b"messages.upsert")


def _padded(body: bytes) -> Pieces:
    return body[:-1], b',"base64":"', *PADDING, b'"}'


def _start(body: bytes) -> Pieces:
    return _traffic(body)[:-1], b',"base64":"', *MEBIBYTE


def _bytes(body: bytes) -> Pieces:
    return [body[n : n + 1] for n in range(len(body))]


def _said(path: str, length: int, *pieces: bytes, beside: str = "") -> Pieces:
    headers = filter(None, (f"Content-Length: {length}", beside))
    return post(path, b"", *headers), *pieces


def _post(path: str, *pieces: bytes) -> Pieces:
    return _said(path, sum(map(len, pieces)), *pieces)


def _packed(path: str, *pieces: bytes) -> Pieces:
    return _said(path, sum(map(len, pieces)), *pieces, beside="Content-Encoding: gzip")


def _chunks(path: str, *pieces: bytes, beside: str = "") -> Pieces:
    headers = filter(None, ("Transfer-Encoding: chunked", beside))
    chunks = [part for piece in pieces for part in (b"%x\r\n" % len(piece), piece, b"\r\n")]
    return post(path, b"", *headers), *chunks, b"0\r\n\r\n"
