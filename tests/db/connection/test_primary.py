"""Several hosts in a DSN: all are asked at once, and the one to write to is taken, whatever the others do."""

import asyncio
import shutil
import signal
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import parse_qs, urlencode, urlsplit

import asyncpg
import pytest

from db.connection.pool import connect, connect_writer, open_pool
from db.connection.primary import each_host
from db.connection.types import Connection
from db.embedded.binaries import bring_within_reach, choose_account, find_binaries, launch
from db.embedded.server import run_embedded
from receiver.cli.command import with_connection
from receiver.settings import Settings
from tests.conftest import connected, reachable_folder, superuser_dsn
from tests.support.eventually import eventually


def several(dsn: str, *hosts: str) -> str:
    """Return the DSN with these hosts instead of its own: folders of sockets, or addresses with ports."""
    ports = ",".join(host.rpartition(":")[2] if ":" in host else "5432" for host in hosts)
    query = {"host": ",".join(host.partition(":")[0] for host in hosts), "port": ports, "sslmode": "disable"}
    return urlsplit(dsn)._replace(query=urlencode(query)).geturl()


@pytest.mark.parametrize(
    ("dsn", "hosts"),
    [
        ("postgresql://u:p@one/db", ["postgresql://u:p@one/db"]),
        ("postgresql://one,two/db", ["postgresql://one/db", "postgresql://two/db"]),
        (
            "postgresql://u:p@one:1,[::2]:2,%2Ftmp%2Fthree/db?sslmode=disable",
            [
                "postgresql://u:p@one:1/db?sslmode=disable",
                "postgresql://u:p@[::2]:2/db?sslmode=disable",
                "postgresql://u:p@%2Ftmp%2Fthree/db?sslmode=disable",
            ],
        ),
        (
            "postgresql://u@/db?host=one,two&port=1,2",
            ["postgresql://u@/db?host=one&port=1", "postgresql://u@/db?host=two&port=2"],
        ),
        (
            "postgresql://u@/db?host=one,two&port=3",
            ["postgresql://u@/db?host=one&port=3", "postgresql://u@/db?host=two&port=3"],
        ),
        ("postgresql://u@/db?host=%2Ftmp%2Fa&port=5432", ["postgresql://u@/db?host=%2Ftmp%2Fa&port=5432"]),
        ("postgresql://u@/db", ["postgresql://u@/db"]),
    ],
)
def test_each_host_has_a_dsn_of_its_own(dsn: str, hosts: list[str]) -> None:
    assert list(each_host(dsn)) == hosts


@pytest.fixture
def silent() -> Iterator[str]:
    """The address of a host that takes connections and never says a word."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield f"127.0.0.1:{listener.getsockname()[1]}"


@pytest.fixture
def refusing() -> str:
    """An address where nobody listens."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return f"127.0.0.1:{listener.getsockname()[1]}"


@dataclass(frozen=True)
class Pair:
    """A primary and its copy, as their owner and as superuser; the copy follows until it is promoted."""

    primary: str
    copy: str
    dsn: str = field(repr=False)
    superuser: str = field(repr=False)

    def of(self, *hosts: str) -> str:
        """Return the owner's DSN with these hosts."""
        return several(self.dsn, *hosts)


@pytest.fixture(scope="module")
async def pair() -> AsyncIterator[Pair]:
    with reachable_folder() as folder:
        data = folder / "data"
        async with run_embedded(data) as embedded:
            dsn = embedded.dsn
        copying = await asyncio.create_subprocess_exec("cp", "-a", data / "postgres", folder / "copy")
        assert await copying.wait() == 0
        async with run_embedded(data), following(folder / "copy") as sockets:
            primary = parse_qs(urlsplit(dsn).query)["host"][0]
            yield Pair(primary, str(sockets), dsn, superuser_dsn(dsn, data))


@asynccontextmanager
async def following(cluster: Path) -> AsyncIterator[Path]:
    """Yield the folder of the socket of a server that only follows."""
    (cluster / "standby.signal").touch()
    account = choose_account(cluster)
    binaries = bring_within_reach(find_binaries(None), account, cluster.parent / "binaries")
    sockets = cluster.parent / "sockets"
    sockets.mkdir()
    if account is not None:
        shutil.chown(sockets, account.uid, account.gid)
    child = launch(
        [
            str(binaries.folder / "postgres"),
            *("-D", str(cluster), "--hot_standby=on", "--port=5432", "--cluster_name=copy"),
            *(f"--unix_socket_directories={sockets}", "--listen_addresses="),
        ],
        account=account,
        log=cluster.parent / "copy.log",
        death=signal.SIGQUIT,
        variables={},
    )
    try:
        await eventually((sockets / ".s.PGSQL.5432").exists)
        yield sockets
    finally:
        child.process.send_signal(signal.SIGQUIT)
        await child.ends_within(20)


async def by_the_pool(dsn: str) -> str:
    async with await open_pool(dsn) as pool:
        return await where(pool.fetchval)


async def by_the_writer(dsn: str) -> str:
    connection = await connect_writer(dsn)
    try:
        return await where(connection.fetchval)
    finally:
        connection.terminate()


async def by_a_command(dsn: str) -> str:
    return await with_connection(Settings(database_url=dsn), lambda it: where(it.fetchval))


async def where(fetchval: Callable[[str], Awaitable[str]]) -> str:
    """Return the name of the server that answers."""
    return await fetchval("select coalesce(nullif(current_setting('cluster_name'), ''), 'primary')")


WAYS: list[Callable[[str], Awaitable[str]]] = [by_the_pool, by_the_writer, by_a_command]


@pytest.mark.parametrize("way", WAYS)
async def test_silent_dead_and_following_hosts_named_first_keep_nobody_from_the_primary(
    pair: Pair, silent: str, refusing: str, way: Callable[[str], Awaitable[str]]
) -> None:
    async with asyncio.timeout(15):
        assert await way(pair.of(silent, refusing, pair.copy, pair.primary)) == "primary"


async def test_host_that_is_set_to_take_no_writes_is_passed_over(pair: Pair) -> None:
    async with connected(pair.superuser) as admin:
        await admin.execute("alter role zapwatch set default_transaction_read_only = on")
        try:
            with pytest.raises(asyncpg.TargetServerAttributeNotMatched):
                await connect_writer(pair.of(pair.copy, pair.primary))
        finally:
            await admin.execute("alter role zapwatch reset default_transaction_read_only")


async def test_whoever_wants_to_read_only_is_sent_to_the_primary_too(pair: Pair) -> None:
    reads_only = {"default_transaction_read_only": "on"}

    connection = await connect(pair.of(pair.copy, pair.primary), settings=reads_only)

    try:
        assert await where(connection.fetchval) == "primary"
        with pytest.raises(asyncpg.ReadOnlySQLTransactionError):
            await connection.execute("create table t (a int)")
    finally:
        connection.terminate()


async def test_wrong_password_everywhere_is_told(pair: Pair) -> None:
    wrong = urlsplit(pair.of(pair.copy, pair.primary))._replace(netloc="zapwatch:wrong@").geturl()

    with pytest.raises(asyncpg.InvalidPasswordError):
        await connect(wrong)


async def test_service_that_gives_up_connecting_leaves_no_connection(pair: Pair, silent: str) -> None:
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.3):
            await connect(pair.of(silent, pair.primary), "gave up")

    async with connected(pair.dsn) as connection:
        await until_none(connection, "gave up")


async def test_of_two_that_take_writes_the_one_on_the_newest_timeline_is_taken(pair: Pair) -> None:
    """The copy is promoted (so this test is the last), and nobody has told the primary of before."""
    async with connected(several(pair.superuser, pair.copy)) as admin:
        await admin.execute("select pg_promote()")

    for hosts in [(pair.copy, pair.primary), (pair.primary, pair.copy)]:
        chosen = await connect(pair.of(*hosts), "chooses")
        try:
            assert await where(chosen.fetchval) == "copy"
            async with connected(pair.dsn) as connection:
                await until_none(connection, "chooses")
        finally:
            chosen.terminate()


async def until_none(connection: Connection, name: str) -> None:
    """Wait until no session of this name is left on the server."""
    count = "select count(*) from pg_stat_activity where application_name = $1"
    await eventually(lambda: connection.fetchval(count, name), lambda left: left == 0)
