"""The one place that imports httpx: how Zapwatch calls gateways."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from http.cookiejar import CookieJar, DefaultCookiePolicy
from typing import Final

import httpx

ANSWER_LIMIT: Final = 256 * 1024
"""Bytes of an answer that are read; a gateway's own are a few hundred."""


@dataclass(frozen=True, slots=True)
class Reply:
    """What a gateway answered."""

    status: int
    body: bytes


class Unanswered(Exception):
    """No answer: refused, timed out, cut off, or not HTTP. Says which, never with what credentials."""


class Client:
    """Calls gateways; made by `open_client`."""

    def __init__(self, http: httpx.AsyncClient, timeout: timedelta) -> None:
        self._http = http
        self._seconds = timeout.total_seconds()

    async def get(self, url: str) -> Reply:
        """Return the answer to a GET, its body cut at `ANSWER_LIMIT`; raise `Unanswered`."""
        try:
            async with asyncio.timeout(self._seconds), self._http.stream("GET", url) as response:
                body = b""
                async for chunk in response.aiter_bytes():
                    body += chunk
                    if len(body) > ANSWER_LIMIT:
                        break
                return Reply(response.status_code, body[:ANSWER_LIMIT])
        # ValueError: a host that IDNA refuses, in the address or in a redirect, escapes httpx's own errors.
        except (httpx.HTTPError, httpx.InvalidURL, httpx.StreamError, ValueError, TimeoutError) as error:
            raise Unanswered(type(error).__name__) from None


@asynccontextmanager
async def open_client(timeout: timedelta) -> AsyncIterator[Client]:
    """Yield a client that waits this long for a whole exchange and follows no redirect."""
    seconds = timeout.total_seconds()
    # A cookie of one gateway is none of another's on the same host, and an odd one would spoil its requests.
    no_cookies = CookieJar(DefaultCookiePolicy(allowed_domains=[]))
    headers = {"User-Agent": "zapwatch"}
    async with httpx.AsyncClient(timeout=seconds, headers=headers, cookies=no_cookies) as http:
        yield Client(http, timeout)
