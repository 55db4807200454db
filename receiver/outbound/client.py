"""The HTTP client for gateways and destinations: the only module of the service that imports httpx.

Each call of an origin that is under way has a pool of its own with one connection, which is kept open for the
next: httpx looks through the whole of a pool twice with each request, and forgets connections where a call
is cut short that was about to close several.
"""

import asyncio
import ssl
from collections import OrderedDict
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from functools import cache
from http.cookiejar import CookieJar, DefaultCookiePolicy
from typing import Final, NamedTuple

import httpx

ANSWER_LIMIT: Final = 256 * 1024
"""Bytes of an answer that are read, lists excepted; a gateway's own are a few hundred."""
LISTED_WITHIN: Final = timedelta(seconds=60)
"""How long a gateway may take to list its instances: Evolution counts every instance's messages for it."""
LIST_LIMIT: Final = 64 * 1024 * 1024
"""Bytes of one page of a list: Evolution sends some 1.3 kB for each instance, and has no pages."""
ORIGINS_KEPT: Final = 4096
"""Origins whose connections are kept; beyond, those of the least recently called are closed."""
KEPT_FOR: Final = timedelta(seconds=4)
"""How long an idle connection is kept, less than Node's 5 s: docs/provider-facts.md#evolution-http."""
NO_HEADERS: Final[Mapping[str, str]] = {}
PLAIN: Final = {"User-Agent": "zapwatch", "Accept": "application/json", "Accept-Encoding": "identity"}
"""Sent with each call; uncompressed, for what looks small may be gigabytes."""


@dataclass(frozen=True, slots=True)
class Reply:
    """What a gateway or a destination answered."""

    status: int
    body: bytes
    retry_after: str | None = None
    """The header of this name, as it came."""


class Unanswered(Exception):
    """No answer: refused, timed out, cut off, or not HTTP. Says which, never with what credentials."""

    def __init__(self, kind: str, *, timed_out: bool = False, reached: bool = True) -> None:
        super().__init__(kind)
        self.timed_out: Final = timed_out
        self.reached: Final = reached
        """Whether anything came back from the other side, and be it a refusal."""


class Unconnected(Unanswered):
    """Not even a connection: nothing was sent."""


@dataclass(slots=True)
class _ConnectionPool:
    http: httpx.AsyncClient
    taken: bool = False


class _PooledRequest(NamedTuple):
    method: str
    url: httpx.URL
    headers: Mapping[str, str]
    limit: int
    body: Mapping[str, object] | None
    once: bool


class OutgoingPost(NamedTuple):
    """What is posted to a destination, and how much of its answer is read."""

    url: str
    headers: Mapping[str, str]
    body: bytes
    limit: int
    connect_within: float
    """Seconds."""


Origin = tuple[str, str, int | None]
"""Scheme, host and port."""


class Client:
    """Calls gateways; made by `open_client`."""

    def __init__(self, timeout: timedelta, localhost: str) -> None:
        self.seconds: Final = timeout.total_seconds()
        self._localhost = localhost
        self._tls = system_tls()
        self._origins: OrderedDict[Origin, list[_ConnectionPool]] = OrderedDict()

    async def get(
        self, url: str, headers: Mapping[str, str] = NO_HEADERS, limit: int = ANSWER_LIMIT
    ) -> Reply:
        """Return the answer to a GET, its body cut at `limit` bytes; raise `Unanswered`."""
        return await self._call("GET", url, headers, limit)

    async def send(
        self, method: str, url: str, headers: Mapping[str, str], body: Mapping[str, object] | None = None
    ) -> Reply:
        """Return the answer to a call that changes something, with a JSON body or none; raise `Unanswered`.

        It is made once, whatever its method: that no answer came doesn't say that nothing was done.
        """
        return await self._call(method, url, headers, ANSWER_LIMIT, body, once=True)

    async def _call(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str],
        limit: int,
        body: Mapping[str, object] | None = None,
        once: bool = False,
    ) -> Reply:
        try:
            async with asyncio.timeout(self.seconds):
                request = _PooledRequest(method, self._reachable(httpx.URL(url)), headers, limit, body, once)
                return await self._make(request)
        except (TimeoutError, httpx.TimeoutException) as error:
            raise Unanswered(type(error).__name__, timed_out=True, reached=False) from None
        # ValueError: a host that IDNA refuses, in the address or in a redirect, escapes httpx's own errors.
        except (httpx.HTTPError, httpx.InvalidURL, httpx.StreamError, ValueError) as error:
            raise Unanswered(type(error).__name__, reached=_is_reached(error)) from None

    async def close(self) -> None:
        """Close all connections."""
        for pools in self._origins.values():
            await _close(pools)

    async def _make(self, request: _PooledRequest) -> Reply:
        pool = self._pool((request.url.scheme, request.url.host, request.url.port))
        pool.taken = True
        try:
            await self._close_oldest()
            try:
                return await _exchange(pool.http, request)
            except (httpx.RemoteProtocolError, httpx.ReadError, httpx.WriteError):
                if request.once:
                    raise
                # The gateway may have closed a kept connection just now, which says nothing about it.
                return await _exchange(pool.http, request)
        finally:
            pool.taken = False

    def _reachable(self, url: httpx.URL) -> httpx.URL:
        return url.copy_with(host=self._localhost) if url.host == "localhost" else url

    def _pool(self, origin: Origin) -> _ConnectionPool:
        pools = self._origins.setdefault(origin, [])
        self._origins.move_to_end(origin)
        pool = next((pool for pool in pools if not pool.taken), None)
        if pool is None:
            pool = _ConnectionPool(_http(self._tls, self.seconds))
            pools.append(pool)
        return pool

    async def _close_oldest(self) -> None:
        while len(self._origins) > ORIGINS_KEPT:
            idle = next(
                (key for key, pools in self._origins.items() if not any(pool.taken for pool in pools)), None
            )
            if idle is None:
                return
            await _close(self._origins.pop(idle))


@cache
def system_tls() -> ssl.SSLContext:
    """Return what verifies servers by the system's authorities; made once, for that takes 20 ms."""
    return ssl.create_default_context()


def _is_reached(error: Exception) -> bool:
    """Return whether a failed exchange proves that the host answers, even by a refusal or a reset."""
    if isinstance(error, httpx.ConnectError):
        return any(isinstance(cause, ConnectionRefusedError | ssl.SSLError) for cause in _causes(error))
    return isinstance(error, httpx.NetworkError | httpx.RemoteProtocolError | httpx.StreamError)


def _causes(error: BaseException) -> Iterator[BaseException]:
    """Yield an error and all that led to it: each address of a host has an error of its own."""
    yield error
    if isinstance(error, BaseExceptionGroup):
        for one in error.exceptions:
            yield from _causes(one)
    cause = error.__cause__ or error.__context__
    if cause is not None:
        yield from _causes(cause)


async def _close(pools: Iterable[_ConnectionPool]) -> None:
    for pool in pools:
        await pool.http.aclose()


async def _exchange(http: httpx.AsyncClient, request: _PooledRequest) -> Reply:
    method, url, headers, limit, document, _ = request
    async with http.stream(method, url, headers=headers, json=document) as response:
        if _is_encoded(response):
            raise Unanswered("Encoded")
        return Reply(response.status_code, await _beginning(response, limit))


async def post(call: OutgoingPost, address: str, tls: ssl.SSLContext) -> Reply:
    """Return the answer to one POST, made to this address of the URL's host; raise `Unanswered`.

    Its whole time is the caller's to limit. The connection is its own, and goes through no proxy, which would
    choose an address itself. The name stays what is asked for, and what a certificate must be good for.
    """
    try:
        target = httpx.URL(call.url)
        headers = {"Host": target.netloc.decode(), "Connection": "close", **call.headers}
        timeout = httpx.Timeout(None, connect=call.connect_within)
        async with (
            httpx.AsyncClient(verify=tls, trust_env=False, timeout=timeout, headers=PLAIN) as http,
            http.stream(
                "POST",
                target.copy_with(host=address),
                headers=headers,
                content=call.body,
                extensions={"sni_hostname": target.raw_host.decode()},
            ) as response,
        ):
            words = b"" if _is_encoded(response) else await _beginning(response, call.limit)
            return Reply(response.status_code, words, response.headers.get("Retry-After"))
    except (httpx.ConnectError, httpx.ConnectTimeout) as error:
        raise Unconnected(type(error).__name__, reached=_is_reached(error)) from None
    except (httpx.HTTPError, httpx.InvalidURL, httpx.StreamError, ValueError) as error:
        raise Unanswered(type(error).__name__, reached=_is_reached(error)) from None


def _is_encoded(response: httpx.Response) -> bool:
    return str(response.headers.get("Content-Encoding", "identity")).lower() != "identity"


async def _beginning(response: httpx.Response, limit: int) -> bytes:
    body = bytearray()
    async for chunk in response.aiter_raw():
        body += chunk
        if len(body) > limit:
            break
    return bytes(body[:limit])


def _http(tls: ssl.SSLContext, seconds: float) -> httpx.AsyncClient:
    limits = httpx.Limits(
        max_connections=None,
        max_keepalive_connections=1,
        keepalive_expiry=KEPT_FOR.total_seconds(),
    )
    # A cookie of one gateway is none of another's on the same host, and an odd one would spoil its requests.
    no_cookies = CookieJar(DefaultCookiePolicy(allowed_domains=[]))
    return httpx.AsyncClient(
        verify=tls,
        timeout=seconds,
        limits=limits,
        headers=PLAIN,
        cookies=no_cookies,
    )


@asynccontextmanager
async def open_client(timeout: timedelta, localhost: str = "localhost") -> AsyncIterator[Client]:
    """Yield a client that waits this long for a whole exchange and follows no redirect.

    `localhost` is the host that an address's `localhost` means: not our own inside a container.
    """
    client = Client(timeout, localhost)
    try:
        yield client
    finally:
        await client.close()
