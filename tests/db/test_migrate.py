"""The runner: order, repetition, two at once, failure, other versions' files."""

import asyncio
import logging
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from db.connection.types import Connection
from db.migrate import MIGRATIONS, MigrationError, migrate, pending
from tests.conftest import Server, connected, running_server

OURS = [
    "0001_public.sql",
    "0002_zapwatch.sql",
    "0003_incidents.sql",
    "0004_validate.sql",
    "0005_probes.sql",
    "0006_gateways_of_states.sql",
    "0007_snapshots.sql",
    "0008_batches.sql",
    "0009_imports.sql",
    "0010_slots.sql",
    "0011_gateway_incidents.sql",
    "0012_recovery.sql",
    "0013_qr.sql",
    "0014_suspicions.sql",
    "0015_sweeps.sql",
    "0016_telling.sql",
    "0017_changes.sql",
    "0018_acknowledged_gateways.sql",
    "0019_quiet_until.sql",
    "0020_message_facts.sql",
    "0021_failing_loops.sql",
    "0022_comments.sql",
    "0023_gateway_evidence.sql",
    "0024_grouped_telling.sql",
    "0026_gateway_trouble.sql",
    "0027_reads.sql",
    "0028_settled_changes.sql",
    "0029_verdicts.sql",
    "0030_witnesses.sql",
]


async def count_table(connection: Connection, name: str) -> int:
    return int(await connection.fetchval("select count(*) from pg_class where relname = $1", name))


async def test_a_fresh_database_gets_every_file_in_order(empty_dsn: str) -> None:
    async with connected(empty_dsn) as connection:
        awaited = await pending(connection)

        applied = await migrate(connection)

        assert applied == awaited == OURS
        assert (
            await connection.fetchval("select array_agg(name order by applied_at) from zapwatch_migrations")
            == OURS
        )


async def test_a_migrated_database_is_up_to_date(connection: Connection) -> None:
    assert await pending(connection) == []
    assert await migrate(connection) == []


async def test_looking_for_pending_files_writes_nothing(empty_dsn: str) -> None:
    async with connected(empty_dsn) as connection, connection.transaction(readonly=True):
        assert await pending(connection) == OURS


async def test_the_files_run_a_second_time_by_hand_change_nothing(connection: Connection) -> None:
    catalog = "select array_agg(oid::regclass::text || coalesce(relacl::text, '') order by oid) from pg_class"
    functions = (
        "select array_agg(oid::regprocedure::text || coalesce(proacl::text, '') order by oid) from pg_proc"
    )
    before = [await connection.fetchval(query) for query in (catalog, functions)]

    for name in OURS:
        await connection.execute(MIGRATIONS.joinpath(name).read_text(encoding="utf-8"))

    assert [await connection.fetchval(query) for query in (catalog, functions)] == before


async def test_an_applied_file_that_was_changed_is_named(empty_dsn: str, tmp_path: Path) -> None:
    file = tmp_path / "0001_one.sql"
    file.write_text("create table one ();")
    async with connected(empty_dsn) as connection:
        await migrate(connection, tmp_path)
        file.write_text("create table one (id int);")

        with pytest.raises(MigrationError, match=r"0001_one\.sql was changed"):
            await pending(connection, tmp_path)
        with pytest.raises(MigrationError, match=r"0001_one\.sql was changed"):
            await migrate(connection, tmp_path)


async def test_nothing_is_applied_once_a_changed_file_is_seen(empty_dsn: str, tmp_path: Path) -> None:
    file = tmp_path / "0002_two.sql"
    file.write_text("create table two ();")
    async with connected(empty_dsn) as connection:
        await migrate(connection, tmp_path)
        file.write_text("create table two (id int);")
        (tmp_path / "0001_one.sql").write_text("create table one ();")

        with pytest.raises(MigrationError):
            await migrate(connection, tmp_path)

        assert await count_table(connection, "one") == 0


async def test_a_newer_versions_migrations_are_left_alone(empty_dsn: str, tmp_path: Path) -> None:
    newer = tmp_path / "0002_newer.sql"
    (tmp_path / "0001_one.sql").write_text("create table one ();")
    newer.write_text("create table newer ();")
    async with connected(empty_dsn) as connection:
        await migrate(connection, tmp_path)
        newer.unlink()

        assert await pending(connection, tmp_path) == []
        assert await migrate(connection, tmp_path) == []
        assert await count_table(connection, "newer") == 1


async def test_line_ends_are_no_change(empty_dsn: str, tmp_path: Path) -> None:
    file = tmp_path / "0001_one.sql"
    file.write_bytes(b"create table one\n();\n")
    async with connected(empty_dsn) as connection:
        await migrate(connection, tmp_path)
        file.write_bytes(b"create table one\r\n();\r\n")

        assert await pending(connection, tmp_path) == []


async def test_a_failing_file_leaves_nothing_and_the_ones_before_stay(empty_dsn: str, tmp_path: Path) -> None:
    (tmp_path / "0001_one.sql").write_text("create table one ();")
    (tmp_path / "0002_two.sql").write_text("create table two (); select 1 / 0;")
    (tmp_path / "0003_three.sql").write_text("create table three ();")
    async with connected(empty_dsn) as connection:
        with pytest.raises(MigrationError, match=r"0002_two\.sql: division by zero"):
            await migrate(connection, tmp_path)

        assert [await count_table(connection, name) for name in ("one", "two", "three")] == [1, 0, 0]
        assert await pending(connection, tmp_path) == ["0002_two.sql", "0003_three.sql"]
        assert not connection.is_in_transaction()


async def test_the_hint_of_a_failing_file_reaches_the_reader(empty_dsn: str, tmp_path: Path) -> None:
    text = "do $$ begin raise exception 'doubled' using hint = 'Run this.'; end $$;"
    (tmp_path / "0001_one.sql").write_text(text)
    async with connected(empty_dsn) as connection:
        with pytest.raises(MigrationError, match=r"(?s)0001_one\.sql: doubled.*Run this\."):
            await migrate(connection, tmp_path)


async def test_services_that_start_at_once_apply_each_file_once(empty_dsn: str) -> None:
    async with (
        connected(empty_dsn) as first,
        connected(empty_dsn) as second,
        connected(empty_dsn) as third,
    ):
        applied = await asyncio.gather(migrate(first), migrate(second), migrate(third))

        assert sorted(name for names in applied for name in names) == OURS


async def test_the_callers_session_keeps_its_settings(connection: Connection, tmp_path: Path) -> None:
    (tmp_path / "0001_one.sql").write_text("create table one ();")
    await connection.execute("set lock_timeout = '7s'; set search_path = pg_catalog")

    await migrate(connection, tmp_path)

    assert await connection.fetchval("show lock_timeout") == "7s"
    assert await connection.fetchval("show search_path") == "pg_catalog"
    assert await connection.fetchval("select to_regclass('public.one')") is not None


class SecondTry(logging.Handler):
    """Knows when the migration has told twice that it waits."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.seen = 0
        self.reached = asyncio.Event()

    def emit(self, record: logging.LogRecord) -> None:
        self.seen += 1
        if self.seen == 2:
            self.reached.set()


@pytest.fixture
def second_try() -> Iterator[asyncio.Event]:
    handler = SecondTry()
    logging.getLogger("db.migrate").addHandler(handler)
    yield handler.reached
    logging.getLogger("db.migrate").removeHandler(handler)


async def test_a_lock_held_by_another_session_for_a_while_is_survived(
    empty_dsn: str, tmp_path: Path, second_try: asyncio.Event
) -> None:
    (tmp_path / "0001_one.sql").write_text("alter table tenants add column if not exists more int;")
    async with connected(empty_dsn) as connection, connected(empty_dsn) as other:
        await other.execute("create table tenants ()")
        async with other.transaction():
            await other.execute("lock table tenants in access share mode")
            patience = timedelta(milliseconds=20)
            migration = asyncio.create_task(migrate(connection, tmp_path, lock_timeout=patience))
            told = asyncio.create_task(second_try.wait())
            await asyncio.wait({migration, told}, return_when=asyncio.FIRST_COMPLETED)
            assert told.done()

        assert await migration == ["0001_one.sql"]


async def test_a_lock_that_is_never_released_ends_in_words(empty_dsn: str, tmp_path: Path) -> None:
    (tmp_path / "0001_one.sql").write_text("alter table tenants add column if not exists more int;")
    async with connected(empty_dsn) as connection, connected(empty_dsn) as other:
        await other.execute("create table tenants ()")
        async with other.transaction():
            await other.execute("lock table tenants in access share mode")

            with pytest.raises(MigrationError, match=r"0001_one\.sql: another session holds a table"):
                await migrate(connection, tmp_path, lock_timeout=timedelta(milliseconds=5))


async def test_missing_roles_are_asked_of_a_superuser_by_command() -> None:
    async with running_server() as bare:
        async with connected(bare.admin_dsn("postgres")) as admin:
            await admin.execute("alter role zapwatch nocreaterole")
        async with bare.database() as name, connected(bare.dsn(name)) as connection:
            commands = "CREATE ROLE authenticated NOLOGIN; CREATE ROLE service_role NOLOGIN;"
            with pytest.raises(
                MigrationError, match=f"0001_public.sql: .*superuser must run once: {commands}"
            ):
                await migrate(connection)

            async with connected(bare.admin_dsn("postgres")) as admin:
                await admin.execute(commands)

            assert await migrate(connection) == OURS


async def test_a_missing_schema_is_asked_of_a_superuser_by_command(server: Server, template: str) -> None:
    async with server.database(owner="postgres") as name, connected(server.admin_dsn(name)) as admin:
        await admin.execute("grant create on schema public to zapwatch")
        async with connected(server.dsn(name)) as connection:
            command = "CREATE SCHEMA auth AUTHORIZATION zapwatch;"
            with pytest.raises(MigrationError, match=f"superuser must run once: {command}"):
                await migrate(connection)

            await admin.execute(command)

            assert await migrate(connection) == OURS
