"""Finds the server to write to among the hosts that a DSN names; with one host there is nothing to find.

asyncpg tries hosts one after the other within one time limit, so that one that hangs and is named first keeps
it from all others. And of two servers that both take writes, one is a primary that was replaced and doesn't
know it yet: what is written there will be lost. docs/postgresql-facts.md#hosts
"""

import asyncio
from collections.abc import Iterator, Sequence
from datetime import timedelta
from typing import Final, TypedDict, Unpack
from urllib.parse import parse_qsl, urlencode, urlsplit

import asyncpg
from asyncpg.connect_utils import SessionAttribute

from db.connection.retry import TRANSIENT
from db.connection.session import Session
from db.queries import sql

HOST_TIMEOUT: Final = timedelta(seconds=1.5)
"""How long a host may take to show that it takes writes; while one is silent, connecting takes this long."""

READ_ONLY: Final = "default_transaction_read_only"


class Options(TypedDict):
    """What asyncpg is given for each connection, apart from its address and the time limit for making it."""

    connection_class: type[Session]
    command_timeout: float | None
    """In seconds."""
    server_settings: dict[str, str]


async def connect_to_primary(dsn: str, *, timeout: float, **options: Unpack[Options]) -> Session:
    """Return a connection to the host that takes writes, of several to the one on the newest timeline.

    `timeout` (in seconds) is for a single host; of several each has `HOST_TIMEOUT`, all at the same time.
    Raises what asyncpg raises; `TargetServerAttributeNotMatched` when hosts answer and none takes writes.
    """
    hosts = list(each_host(dsn))
    if len(hosts) == 1:
        return await asyncpg.connect(dsn, timeout=timeout, **options)
    read_only = options["server_settings"].get(READ_ONLY) == "on"
    wanted = SessionAttribute.primary if read_only else SessionAttribute.read_write
    attempts = [asyncio.create_task(_try(host, wanted, options)) for host in hosts]
    chosen: Session | None = None
    try:
        await asyncio.wait(attempts)
        chosen = _newest(attempts)
        return chosen
    finally:
        for attempt in attempts:
            attempt.cancel()
            attempt.add_done_callback(lambda done: _drop(done, chosen))


def each_host(dsn: str) -> Iterator[str]:
    """Yield a DSN for each of the hosts that this one names."""
    parts = urlsplit(dsn)
    login, at, hosts = parts.netloc.rpartition("@")
    if hosts:
        for host in hosts.split(","):
            yield parts._replace(netloc=f"{login}{at}{host}").geturl()
        return
    query = dict(parse_qsl(parts.query))
    named, ports = query.get("host", "").split(","), query.get("port", "").split(",")
    if len(named) == 1:
        yield dsn
        return
    if len(ports) == 1:
        ports *= len(named)
    for host, port in zip(named, ports, strict=True):
        yield parts._replace(query=urlencode({**query, "host": host, "port": port})).geturl()


async def _try(dsn: str, wanted: SessionAttribute, options: Options) -> tuple[str, Session]:
    """Return a host's timeline (eight digits) and a connection to it."""
    async with asyncio.timeout(HOST_TIMEOUT.total_seconds()):
        connection = await asyncpg.connect(dsn, target_session_attrs=wanted, **options)
        try:
            return await connection.fetchval(sql.read_timeline), connection
        except BaseException:
            connection.terminate()
            raise


def _newest(attempts: "Sequence[asyncio.Task[tuple[str, Session]]]") -> Session:
    found = [attempt.result() for attempt in attempts if attempt.exception() is None]
    if found:
        return max(found, key=lambda each: each[0])[1]
    errors = [error for attempt in attempts if (error := attempt.exception()) is not None]
    # As long as one of them may be back, what is wrong with another is no reason to give up.
    raise next((error for error in errors if isinstance(error, TRANSIENT)), errors[0])


def _drop(attempt: "asyncio.Task[tuple[str, Session]]", chosen: Session | None) -> None:
    if not attempt.cancelled() and attempt.exception() is None and attempt.result()[1] is not chosen:
        attempt.result()[1].terminate()
