"""Connections: one whose statement was given up is gone, on both sides, and nobody waits for ever for one."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import asyncpg
import pytest

from db.connection.pool import connect_writer, open_pool
from db.connection.session import Session
from db.connection.types import Connection, Pool
from tests.support.eventually import eventually

HANGS = "select pg_sleep(600)"


@pytest.fixture
async def pool(dsn: str) -> AsyncIterator[Pool]:
    async with await open_pool(dsn) as opened:
        yield opened


async def by_the_statements_own_limit(work: Callable[..., Awaitable[Any]]) -> None:
    """Wait no longer than the statement itself may take."""
    await work(timeout=0.1)


async def by_a_limit_around_it(work: Callable[..., Awaitable[Any]]) -> None:
    """Wait no longer than somebody around the statement allows."""
    async with asyncio.timeout(0.1):
        await work()


async def by_its_caller_going_away(work: Callable[..., Awaitable[Any]]) -> None:
    """Be cancelled from outside, as a request is whose client has gone."""
    task = asyncio.ensure_future(work())
    await asyncio.wait([task], timeout=0.1)
    task.cancel()
    await task


GIVEN_UP: list[tuple[Callable[[Callable[..., Awaitable[Any]]], Awaitable[None]], type[BaseException]]] = [
    (by_the_statements_own_limit, TimeoutError),
    (by_a_limit_around_it, TimeoutError),
    (by_its_caller_going_away, asyncio.CancelledError),
]


async def until_gone(connection: Connection, pid: int) -> None:
    """Wait until the server has ended the process behind a connection."""
    there = "select count(*) from pg_stat_activity where pid = $1"
    await eventually(lambda: connection.fetchval(there, pid), lambda left: left == 0)


@contextmanager
def hanging(pid: int) -> Iterator[None]:
    """Have a process of the server hang for as long as the block lasts."""
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


@pytest.mark.parametrize(("give_up", "error"), GIVEN_UP)
async def test_connection_whose_statement_was_given_up_is_never_used_again(
    pool: Pool, connection: Connection, give_up: Any, error: type[BaseException]
) -> None:
    pid = await pool.fetchval("select pg_backend_pid()")

    with pytest.raises(error):
        await give_up(lambda **limit: pool.fetchval(HANGS, **limit))

    assert await pool.fetchval("select pg_backend_pid()") != pid
    await until_gone(connection, pid)


@pytest.mark.parametrize(("give_up", "error"), GIVEN_UP)
async def test_what_ended_a_transaction_is_told_although_it_can_not_be_rolled_back(
    pool: Pool, connection: Connection, give_up: Any, error: type[BaseException]
) -> None:
    pids: list[int] = []

    async def work(**limit: float) -> None:
        async with pool.acquire() as acquired, acquired.transaction():
            pids.append(await acquired.fetchval("select pg_backend_pid()"))
            await acquired.execute("insert into tenants (name) values ('Loja')")
            await acquired.execute(HANGS, **limit)

    with pytest.raises(error):
        await give_up(work)

    assert await pool.fetchval("select pg_backend_pid()") not in pids
    assert await connection.fetchval("select count(*) from tenants") == 0


@pytest.mark.parametrize(("give_up", "error"), GIVEN_UP)
async def test_the_writers_own_connection_ends_likewise(
    dsn: str, connection: Connection, give_up: Any, error: type[BaseException]
) -> None:
    opened = await connect_writer(dsn)
    pid = await opened.fetchval("select pg_backend_pid()")

    with pytest.raises(error):
        await give_up(lambda **limit: opened.execute(HANGS, **limit))

    await until_gone(connection, pid)
    assert opened.is_closed()


async def test_statement_that_was_given_up_waits_for_no_lock_any_more(
    pool: Pool, connection: Connection
) -> None:
    async with connection.transaction():
        await connection.execute("lock table zapwatch_states")
        with pytest.raises(TimeoutError):
            await pool.execute("select 1 from zapwatch_states", timeout=0.1)

        waiting = "select count(*) from pg_locks where not granted"
        await eventually(lambda: connection.fetchval(waiting), lambda left: left == 0)


async def test_failed_commit_is_told(pool: Pool, connection: Connection) -> None:
    await connection.execute("create table parents (id int primary key)")
    await connection.execute(
        "create table children (id int references parents deferrable initially deferred)"
    )

    with pytest.raises(asyncpg.ForeignKeyViolationError):
        async with pool.acquire() as acquired, acquired.transaction():
            await acquired.execute("insert into children values (1)")


async def test_exhausted_pool_is_waited_for_no_longer_than_a_limit_and_serves_again(dsn: str) -> None:
    async with await open_pool(dsn, size=1, acquire_timeout=timedelta(seconds=0.3)) as pool:
        async with pool.acquire():
            with pytest.raises(TimeoutError):
                await pool.fetchval("select 1")

        assert await pool.fetchval("select 1") == 1


async def test_connection_that_can_not_be_given_back_is_dropped_and_what_it_did_is_told(dsn: str) -> None:
    async with await open_pool(dsn, size=1, acquire_timeout=timedelta(seconds=0.3)) as pool:
        async with pool.acquire() as acquired:
            pid = await acquired.fetchval("select pg_backend_pid()")
            os.kill(pid, signal.SIGSTOP)
        try:
            assert await pool.fetchval("select pg_backend_pid()") != pid
        finally:
            os.kill(pid, signal.SIGCONT)


async def test_pool_closes_although_its_server_hangs(dsn: str) -> None:
    pool = await open_pool(dsn)

    with hanging(await pool.fetchval("select pg_backend_pid()")):
        async with asyncio.timeout(15):
            await pool.close()

    assert pool.get_size() == 0


def test_asyncpg_still_gives_up_statements_where_session_expects_it() -> None:
    assert hasattr(asyncpg.Connection, Session._cancel_current_command.__name__)
