"""A submission returns after its COMMIT or says that it did not; failures that pass are waited out."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import timedelta
from functools import partial
from typing import Any
from urllib.parse import urlsplit
from uuid import UUID

import asyncpg
import pytest

from db.connection.pool import connect_writer
from db.connection.types import Connection
from db.embedded.server import run_embedded
from db.ingest.entry import Entry, Source
from db.ingest.queue import BATCH, HIGH_WATER, SECOND_BATCH_FROM, NotCommitted
from db.ingest.writer import Writer
from db.migrate import migrate
from statemachine.model import Reason, State, Trigger
from tests.conftest import Server, connected, reachable_folder
from tests.db.entries import RULES, Of, at, register
from tests.support.eventually import eventually, let_tasks_run


@asynccontextmanager
async def running(
    database: str | Callable[[], Awaitable[Connection]], **options: Any
) -> AsyncIterator[Writer]:
    """Yield a writer whose loop runs, on a DSN or with a way to connect of its own."""
    connect = partial(connect_writer, database) if isinstance(database, str) else database
    writer = Writer(connect, RULES, **options)
    task = asyncio.create_task(writer.run())
    try:
        yield writer
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def states(connection: Connection) -> dict[UUID, str]:
    """Return every channel's state as stored."""
    found = await connection.fetch("select channel_id, state from zapwatch_states")
    return {row["channel_id"]: row["state"] for row in found}


async def test_submission_is_committed_when_it_returns(dsn: str, connection: Connection) -> None:
    of = Of(await register(connection))
    async with running(dsn) as writer:
        await writer.submit([of.told(0, Trigger.OPENED)])

        assert await states(connection) == {of.channel_id: "open"}
        assert writer.state_of(of.channel_id) is State.OPEN


async def test_concurrent_submissions_share_transactions(dsn: str, connection: Connection) -> None:
    channels = [Of(await register(connection, f"loja-{number}")) for number in range(50)]
    batches: list[int] = []
    async with running(dsn, on_commit=lambda applied, entries, seconds: batches.append(entries)) as writer:
        await asyncio.gather(*(writer.submit([of.told(0, Trigger.OPENED)]) for of in channels))

    assert sum(batches) == 50
    assert len(batches) <= 3
    assert set((await states(connection)).values()) == {"open"}


async def test_slow_batch_holds_up_no_other(dsn: str, connection: Connection) -> None:
    slow = Of(await register(connection, "slow"))
    others = [Of(await register(connection, f"loja-{number}")) for number in range(SECOND_BATCH_FROM)]
    await connection.execute(
        """create function dawdle() returns trigger language plpgsql as
        'begin perform pg_sleep(3); return new; end'"""
    )
    await connection.execute(
        "create trigger dawdle before update on notification_channels for each row "
        f"when (old.id = '{slow.channel_id}') execute function dawdle()"
    )
    async with running(dsn) as writer:
        waits = writer.submit([slow.told(0, Trigger.OPENED)])
        again = writer.submit([slow.told(1, Trigger.CONNECTING)])
        await eventually(lambda: not writer.depth)

        await asyncio.gather(*(writer.submit([of.told(0, Trigger.OPENED)]) for of in others))

        assert not waits.done()
        await again
        assert waits.done()
    stored = await states(connection)
    assert stored.pop(slow.channel_id) == "connecting"
    assert set(stored.values()) == {"open"}


async def test_channel_that_somebody_locks_keeps_its_order(dsn: str, connection: Connection) -> None:
    held = Of(await register(connection, "held"))
    others = [Of(await register(connection, f"loja-{number}")) for number in range(20)]
    words = [Trigger.OPENED, Trigger.CONNECTING] * (BATCH * 3 // 4)
    async with running(dsn, timeout=timedelta(minutes=1)) as writer, connected(dsn) as other:
        async with other.transaction():
            await other.execute("select from notification_channels where id = $1 for update", held.channel_id)
            waiting = [writer.submit([held.told(n, word)]) for n, word in enumerate(words)]
            # As many as make several batches, among which those that wait are passed over.
            for n in range(10):
                await asyncio.gather(*(writer.submit([of.told(n, Trigger.CONNECTING)]) for of in others))
        await asyncio.gather(*waiting)

    stored = await connection.fetch(
        "select last_at from zapwatch_events where channel_id = $1 order by id", held.channel_id
    )
    times = [row["last_at"] for row in stored]
    assert times == sorted(times)
    assert len(times) == len(words)


async def test_bad_entry_fails_alone(dsn: str, connection: Connection) -> None:
    channels = [Of(await register(connection, f"loja-{number}")) for number in range(5)]
    broken = Entry(channels[0].channel_id, Source.WEBHOOK, "nul \0", at(1), channels[0].told(1, None).said)
    async with running(dsn) as writer:
        good = [writer.submit([of.told(0, Trigger.OPENED)]) for of in channels]

        outcomes = await asyncio.gather(*good, writer.submit([broken]), return_exceptions=True)

    assert [type(outcome) for outcome in outcomes] == [type(None)] * 5 + [NotCommitted]
    assert set((await states(connection)).values()) == {"open"}


async def test_one_bad_deadline_holds_up_no_other(dsn: str, connection: Connection) -> None:
    good, bad = Of(await register(connection, "good")), Of(await register(connection, "bad"))
    await connection.execute(
        """create function refuse() returns trigger language plpgsql as 'begin raise ''not this one''; end'"""
    )
    await connection.execute(
        "create trigger refuse before update on notification_channels for each row "
        f"when (old.id = '{bad.channel_id}') execute function refuse()"
    )
    async with running(dsn) as writer:
        entries = [of.told(0, Trigger.OPENED) for of in (bad, good)]

        with pytest.raises(NotCommitted):
            await writer.submit_each(entries)

    assert await states(connection) == {good.channel_id: "open", bad.channel_id: "unknown"}


@pytest.mark.parametrize("how", ["for update", "for no key update"])
async def test_many_rows_locked_by_another_application_hold_up_no_other_channel(
    dsn: str, connection: Connection, how: str
) -> None:
    channels = [Of(await register(connection, f"loja-{number}")) for number in range(60)]
    free = Of(await register(connection, "free"))
    loop = asyncio.get_running_loop()
    async with running(dsn) as writer, connected(dsn) as other:
        async with other.transaction():
            await other.execute(
                f"select 1 from notification_channels where id = any($1) {how}",
                [of.channel_id for of in channels],
            )
            stuck = [asyncio.ensure_future(writer.submit([of.told(0, Trigger.OPENED)])) for of in channels]
            began = loop.time()

            for number in range(5):
                await writer.submit([free.told(number, Trigger.OPENED)])

            assert loop.time() - began < 2
            assert not any(task.done() for task in stuck)
        await asyncio.gather(*stuck)

    assert set((await states(connection)).values()) == {"open"}


async def test_locked_gateway_holds_up_nobody(dsn: str, connection: Connection) -> None:
    of = Of(await register(connection))
    loop = asyncio.get_running_loop()
    async with running(dsn) as writer, connected(dsn) as other, other.transaction():
        await other.execute("select 1 from zapwatch_gateways for update")
        began = loop.time()

        await writer.submit([of.told(0, Trigger.OPENED)])

        assert loop.time() - began < 1
        assert await states(connection) == {of.channel_id: "open"}


async def test_lost_connection_is_replaced_and_nothing_is_lost(dsn: str) -> None:
    async with connected(dsn) as connection, running(dsn) as writer:
        of = Of(await register(connection))
        await writer.submit([of.told(0, Trigger.OPENED)])
        pid = "select pid from pg_stat_activity where application_name = 'zapwatch writer'"
        await connection.execute(f"select pg_terminate_backend(({pid}))")

        await writer.submit([of.told(10, Trigger.UNPAIRED, Reason.LOGGED_OUT)])

        assert await states(connection) == {of.channel_id: "disconnected/unpaired"}


PASSING: list[Exception] = [
    ConnectionRefusedError(),
    TimeoutError(),
    asyncpg.PostgresConnectionError("08000"),
    asyncpg.ClientCannotConnectError("08001"),
    asyncpg.ConnectionDoesNotExistError("08003"),
    asyncpg.ConnectionRejectionError("08004"),
    asyncpg.ConnectionFailureError("08006"),
    asyncpg.TransactionResolutionUnknownError("08007"),
    asyncpg.ProtocolViolationError("08P01"),
    asyncpg.AdminShutdownError("57P01"),
    asyncpg.CrashShutdownError("57P02"),
    asyncpg.CannotConnectNowError("57P03"),
    asyncpg.IdleSessionTimeoutError("57P05"),
    asyncpg.TooManyConnectionsError("53300"),
    asyncpg.ReadOnlySQLTransactionError("25006"),
    asyncpg.TargetServerAttributeNotMatched("none of the hosts"),
    asyncpg.InternalClientError("cannot switch to state"),
    asyncpg.InterfaceError("connection is closed"),
]


@pytest.mark.parametrize("error", PASSING, ids=lambda error: type(error).__name__)
async def test_failure_that_passes_is_waited_out(dsn: str, connection: Connection, error: Exception) -> None:
    of = Of(await register(connection))
    fails = [error, error]

    async def connect() -> Connection:
        if fails:
            raise fails.pop()
        return await connect_writer(dsn)

    async with running(connect) as writer:
        await writer.submit([of.told(0, Trigger.OPENED)])

    assert await states(connection) == {of.channel_id: "open"}


async def test_server_that_takes_no_writes_is_left_and_asked_again(
    server: Server, dsn: str, connection: Connection
) -> None:
    of = Of(await register(connection))
    database = urlsplit(dsn).path.removeprefix("/")
    alter = f"alter database {database} set default_transaction_read_only ="
    async with connected(server.admin_dsn("postgres")) as admin, running(dsn) as writer:
        await admin.execute(f"{alter} on")
        submitted = asyncio.ensure_future(writer.submit([of.told(0, Trigger.OPENED)]))
        await asyncio.wait([submitted], timeout=0.3)
        assert not submitted.done()
        await admin.execute(f"{alter} off")

        await submitted

    assert await states(connection) == {of.channel_id: "open"}


async def test_hanging_database_answers_unavailable_in_time_and_serves_again(
    dsn: str, connection: Connection
) -> None:
    of = Of(await register(connection))
    async with running(dsn, timeout=timedelta(seconds=1)) as writer, connected(dsn) as other:
        loop = asyncio.get_running_loop()
        async with other.transaction():
            await other.execute("lock table zapwatch_states")
            began = loop.time()
            with pytest.raises(NotCommitted):
                await writer.submit([of.told(0, Trigger.OPENED)])
            assert loop.time() - began < 2

        await writer.submit([of.told(10, Trigger.OPENED)])

        assert await states(connection) == {of.channel_id: "open"}


async def test_too_many_waiting_are_refused_at_once(dsn: str, connection: Connection) -> None:
    of = Of(await register(connection))
    writer = Writer(partial(connect_writer, dsn), RULES)
    flood = [of.told(number, Trigger.CONNECTING) for number in range(HIGH_WATER)]
    waiting = asyncio.ensure_future(writer.submit(flood))
    await let_tasks_run()  # it queues
    assert writer.depth == HIGH_WATER

    with pytest.raises(NotCommitted, match="too many"):
        await writer.submit([of.told(1, Trigger.OPENED)])

    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)


async def test_database_that_comes_back_is_used_again() -> None:
    with reachable_folder() as folder:
        async with run_embedded(folder / "data") as embedded, connected(embedded.dsn) as connection:
            await migrate(connection)
            of = Of(await register(connection))
        async with running(embedded.dsn, timeout=timedelta(seconds=2)) as writer:
            with pytest.raises(NotCommitted):
                await writer.submit([of.told(0, Trigger.OPENED)])

            async with run_embedded(folder / "data") as again, connected(again.dsn) as connection:
                await writer.submit([of.told(10, Trigger.OPENED)])

                assert again.dsn == embedded.dsn
                assert await states(connection) == {of.channel_id: "open"}
