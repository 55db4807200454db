"""A real PostgreSQL for the tests, started once, and a database of its own for each test that asks for one.

The databases belong to the service's ordinary role, as in production. Only this file makes databases, as
superuser.
"""

import asyncio
import os
import shutil
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from urllib.parse import quote, urlsplit

import asyncpg
import pytest
from hypothesis import settings

from db.connection.types import Connection
from db.embedded.server import run_embedded
from db.migrate import migrate

# Noisy machines make single examples slow; CI tries the same ones each time, a developer new ones.
settings.register_profile("zapwatch", deadline=None, derandomize="CI" in os.environ, max_examples=200)
settings.load_profile("zapwatch")


@dataclass(frozen=True, slots=True)
class Server:
    """A running server: the owner's and the superuser's way into each of its databases."""

    owner: str = field(repr=False)
    superuser: str = field(repr=False)
    numbers: "count[int]" = field(default_factory=count)
    drops: "set[asyncio.Task[None]]" = field(default_factory=set)

    def dsn(self, database: str) -> str:
        """Return the DSN of the service's role."""
        return urlsplit(self.owner)._replace(path=f"/{database}").geturl()

    def admin_dsn(self, database: str) -> str:
        """Return the superuser's DSN."""
        return urlsplit(self.superuser)._replace(path=f"/{database}").geturl()

    @asynccontextmanager
    async def database(self, template: str = "template1", owner: str = "zapwatch") -> AsyncIterator[str]:
        """Yield the name of a new database; it's dropped afterwards, with whoever is still in it."""
        name = await self.create(template, owner)
        try:
            yield name
        finally:
            self.drop(name)

    async def create(self, template: str, owner: str = "zapwatch") -> str:
        """Make a database and return its name."""
        name = f"test_{next(self.numbers)}"
        async with connected(self.admin_dsn("postgres")) as admin:
            # In memory copying files takes half the work of copying blocks through the log.
            await admin.execute(
                f"create database {name} template {template} owner {owner} strategy file_copy"
            )
        return name

    def drop(self, name: str) -> None:
        """Have a database dropped, while the next test runs already."""
        task = asyncio.create_task(self._drop(name))
        self.drops.add(task)
        task.add_done_callback(self.drops.discard)

    async def _drop(self, name: str) -> None:
        async with connected(self.admin_dsn("postgres")) as admin:
            await admin.execute(f"drop database {name} with (force)")


@asynccontextmanager
async def connected(dsn: str) -> AsyncIterator[Connection]:
    """Yield a connection that is closed afterwards."""
    connection = await asyncpg.connect(dsn)
    try:
        yield connection
    finally:
        await connection.close(timeout=5)


MEMORY = Path("/dev/shm")
ROOM = 4 * 1024**3
"""Bytes that must be free there. A test's database is made and dropped ten times as fast as on a disk."""


@contextmanager
def reachable_folder() -> Iterator[Path]:
    """Yield a temporary folder that PostgreSQL may enter: as root it runs as another account."""
    in_memory = MEMORY.is_dir() and shutil.disk_usage(MEMORY).free > ROOM
    with tempfile.TemporaryDirectory(prefix="zapwatch-test-", dir=MEMORY if in_memory else None) as folder:
        path = Path(folder)
        path.chmod(0o755)
        yield path


def superuser_dsn(dsn: str, data_dir: Path) -> str:
    """Return the superuser's way into the server that `dsn` leads to."""
    password = quote((data_dir / "postgres.password").read_text().strip())
    return urlsplit(dsn)._replace(netloc=f"postgres:{password}@").geturl()


@asynccontextmanager
async def running_server() -> AsyncIterator[Server]:
    """Yield a server of its own, in a folder that is removed afterwards."""
    with reachable_folder() as folder:
        async with run_embedded(folder / "data") as embedded:
            server = Server(embedded.dsn, superuser_dsn(embedded.dsn, folder / "data"))
            async with connected(server.superuser) as admin:
                # Databases that live for a second need no cleaning.
                await admin.execute("alter system set autovacuum = off")
                await admin.execute("select pg_reload_conf()")
            yield server
            await asyncio.gather(*server.drops)


@pytest.fixture(scope="session")
async def server() -> AsyncIterator[Server]:
    """The server of all tests."""
    async with running_server() as running:
        yield running


@pytest.fixture(scope="session")
async def template(server: Server) -> AsyncIterator[str]:
    """The name of a migrated database, from which the tests' are copied."""
    async with server.database() as name:
        async with connected(server.dsn(name)) as connection:
            await migrate(connection)
        yield name


@pytest.fixture(scope="session")
async def spare(server: Server, template: str) -> AsyncIterator["asyncio.Queue[str]"]:
    """A migrated database, made while the test before runs: making one takes longer than most tests."""
    queue: asyncio.Queue[str] = asyncio.Queue(1)

    async def fill() -> None:
        while True:
            await queue.put(await server.create(template))

    task = asyncio.create_task(fill())
    yield queue
    task.cancel()


@pytest.fixture
async def dsn(server: Server, spare: "asyncio.Queue[str]") -> AsyncIterator[str]:
    """A migrated database without rows."""
    name = await spare.get()
    yield server.dsn(name)
    server.drop(name)


@pytest.fixture
async def empty_dsn(server: Server) -> AsyncIterator[str]:
    """A database that was never migrated."""
    async with server.database() as name:
        yield server.dsn(name)


@pytest.fixture
async def connection(dsn: str) -> AsyncIterator[Connection]:
    """A connection to `dsn` as the service's role."""
    async with connected(dsn) as opened:
        yield opened


@pytest.fixture
async def admin(server: Server, dsn: str) -> AsyncIterator[Connection]:
    """A connection to `dsn` as superuser, for tests that have to become other roles."""
    async with connected(server.admin_dsn(urlsplit(dsn).path.removeprefix("/"))) as opened:
        yield opened
