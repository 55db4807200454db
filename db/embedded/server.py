"""The embedded PostgreSQL: used when no database URL is given, it starts and ends with the service.

It owns one data folder and runs a server there that only a Unix socket reaches. It never hands out the
superuser, opens a port, turns fsync off or changes the mode of a folder that it has not made.
docs/postgresql-facts.md#embedded
"""

import asyncio
import contextlib
import fcntl
import os
import secrets
import shutil
import signal
import tempfile
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from subprocess import SubprocessError
from urllib.parse import quote

import asyncpg

from db.embedded.binaries import (
    Account,
    Binaries,
    Child,
    EmbeddedError,
    bring_within_reach,
    choose_account,
    find_binaries,
    launch,
)

__all__ = ["Embedded", "EmbeddedError", "run_embedded"]

_OWNER = "zapwatch"  # the role, and the database that it owns
_SUPERUSER = "postgres"
_PORT = 5432  # only a part of the socket's file name
_LONGEST_SOCKET = 107  # bytes of a Unix socket's path that Linux takes
_KEPT_LOG = 4_000_000  # bytes after which a start begins a new log

_POLL = 0.01  # s between checks of a starting server
_PREDECESSOR = 20.0  # s for the server of a killed service to end: it grants its own children 5 s
# What PostgreSQL logs meanwhile.
_SURVIVORS = "pre-existing shared memory block"
# Each signal's timeout in s: fast shutdown, immediate shutdown, kill.
_STOP = ((signal.SIGINT, 20.0), (signal.SIGQUIT, 7.0), (signal.SIGKILL, 5.0))

_INITDB = ("--data-checksums", "-E", "UTF8", "--locale", "C.UTF-8", "-A", "scram-sha-256", "-U", _SUPERUSER)
_OPTIONS = {
    "listen_addresses": "",
    "unix_socket_permissions": "0700",
    "port": str(_PORT),
    "fsync": "on",
    "synchronous_commit": "on",
    "full_page_writes": "on",
    "shared_buffers": "128MB",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "log_destination": "stderr",
    "logging_collector": "off",
    "log_checkpoints": "off",
    # Rows, statements and the values that errors quote hold personal data: they stay out of the log.
    # What matters to the server's own life is LOG, FATAL and PANIC, which rank above ERROR here.
    "log_min_messages": "log",
    "log_error_verbosity": "terse",
    "log_min_error_statement": "panic",
}


@dataclass(frozen=True, slots=True)
class Embedded:
    """A running server: the DSN for asyncpg (it holds the password), its process and its log."""

    dsn: str = field(repr=False)
    pid: int
    log: Path
    _exit: asyncio.Future[int] = field(repr=False)

    async def died(self) -> int:
        """Wait for the server's end and return its exit code (negative: the signal that ended it)."""
        return await asyncio.shield(self._exit)


@dataclass(frozen=True, slots=True)
class _Home:
    folder: Path
    binaries: Binaries
    account: Account | None

    @property
    def cluster(self) -> Path:
        return self.folder / "postgres"

    @property
    def log(self) -> Path:
        return self.folder / "postgres.log"

    def give(self, path: Path) -> None:
        if self.account is not None:
            os.chown(path, self.account.uid, self.account.gid)

    def password_file(self, role: str) -> Path:
        """Return the file of the role's password, made with a random one when missing."""
        path = self.folder / f"{role}.password"
        if not path.exists():
            unfinished = self.folder / f"{role}.password.new"
            with open(os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
                file.write(secrets.token_urlsafe(24))
                file.flush()
                os.fsync(file.fileno())
            unfinished.rename(path)
        return path

    def launch(self, program: str, *arguments: str, death: signal.Signals, **variables: str) -> Child:
        command = (str(self.binaries.folder / program), *arguments)
        return launch(command, account=self.account, log=self.log, death=death, variables=variables)


@contextlib.asynccontextmanager
async def run_embedded(
    data_dir: Path, *, bin_dir: Path | None = None, connections: int = 50
) -> AsyncIterator[Embedded]:
    """Run a PostgreSQL on the data folder, made at the first start, for as long as the block lasts.

    The DSN's role owns the database `zapwatch`, is no superuser and is bound by row-level security. A start
    takes as long as recovery needs. Enter it on a thread that outlives the block, as the event loop's does:
    the kernel ends the server with that thread. Raises EmbeddedError in words for the user.
    """
    with contextlib.ExitStack() as held:
        with _in_plain_words(data_dir):
            lock = held.enter_context(_locked(data_dir))
            home = _prepare(data_dir, bin_dir)
            await _ensure_cluster(home, lock)
            socket = held.enter_context(_socket_folder(home))
            child = await _start(home, socket, connections)
        try:
            with _in_plain_words(data_dir):
                password = await _ensure_owner(home, socket)
            yield Embedded(_dsn(_OWNER, password, socket), child.process.pid, home.log, child.exit)
        finally:
            await _stop(child)


@contextlib.contextmanager
def _in_plain_words(data_dir: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, SubprocessError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
        raise EmbeddedError(f"PostgreSQL can't be started in {data_dir}: {error}") from error


@contextlib.contextmanager
def _locked(data_dir: Path) -> Iterator[int]:
    """Lock the data folder, made when missing, and yield its descriptor; the kernel unlocks it at our end."""
    if not data_dir.exists():
        data_dir.mkdir(parents=True)
        data_dir.chmod(0o711 if os.geteuid() == 0 else 0o700)
    with contextlib.ExitStack() as opened:
        descriptor = os.open(data_dir, os.O_RDONLY | os.O_DIRECTORY)
        opened.callback(os.close, descriptor)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise EmbeddedError(
                f"Another Zapwatch already runs on the data folder {data_dir}. "
                "Stop it first, or give this one another folder in ZAPWATCH_DATA_DIR."
            ) from None
        yield descriptor


def _prepare(data_dir: Path, bin_dir: Path | None) -> _Home:
    folder = data_dir.resolve()
    account = choose_account(folder / "postgres")
    if account is not None and not account.can("-x", folder):
        barred = next(path for path in (*reversed(folder.parents), folder) if not account.can("-x", path))
        raise EmbeddedError(
            f"PostgreSQL refuses to run as root, so it runs as the account {account.name}, "
            f"which may not enter {barred}. Put the data where it may, for example "
            "ZAPWATCH_DATA_DIR=/var/lib/zapwatch, or name a database in ZAPWATCH_DATABASE_URL."
        )
    version = folder / "postgres" / "PG_VERSION"
    binaries = find_binaries(version.read_text().strip() if version.exists() else None, bin_dir)
    home = _Home(folder, bring_within_reach(binaries, account, folder / "binaries"), account)
    if home.log.exists() and home.log.stat().st_size > _KEPT_LOG:
        home.log.rename(home.log.with_suffix(".log.1"))
    return home


async def _ensure_cluster(home: _Home, lock: int) -> None:
    """Make the cluster unless it is there. It is renamed when complete: a crash before leaves none."""
    if (home.cluster / "PG_VERSION").exists():
        return
    unfinished, password_file = home.folder / "postgres.new", home.password_file(_SUPERUSER)
    if unfinished.exists():
        shutil.rmtree(unfinished)
    unfinished.mkdir(mode=0o700)
    for path in (unfinished, password_file):
        home.give(path)
    where = ("--pwfile", str(password_file), "-D", str(unfinished))
    child = home.launch("initdb", *_INITDB, *where, death=signal.SIGKILL)
    try:
        await child.ends_within(None)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.process.pid, signal.SIGKILL)
    if child.exit.result() != 0:
        raise EmbeddedError(f"PostgreSQL could not create its files in {home.folder}. {child.last_words()}")
    unfinished.rename(home.cluster)
    os.fsync(lock)


@contextlib.contextmanager
def _socket_folder(home: _Home) -> Iterator[Path]:
    """Yield an empty folder for the socket: in the data folder, or a short one if that path won't do."""
    folder = home.folder / "socket"
    shutil.rmtree(folder, ignore_errors=True)
    # PostgreSQL and asyncpg read lists of folders, which a comma or a quote divides.
    if len(os.fsencode(folder / f".s.PGSQL.{_PORT}")) > _LONGEST_SOCKET or set(str(folder)) & set(',"'):
        folder = Path(tempfile.mkdtemp(prefix="zapwatch-", dir="/tmp"))
    folder.mkdir(mode=0o700, exist_ok=True)
    home.give(folder)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


async def _start(home: _Home, socket: Path, connections: int) -> Child:
    """Return a server that is ready; one that a killed service has left gets time to end first."""
    options = {**_OPTIONS, "unix_socket_directories": str(socket), "max_connections": str(connections)}
    arguments = ("-D", str(home.cluster), *(f"--{name}={value}" for name, value in options.items()))
    now = asyncio.get_running_loop().time
    deadline = now() + _PREDECESSOR
    while True:
        stale = _pid_file(home)
        if _serves(stale, home):
            words = f"The server with process number {stale[0]} still runs on it and must be stopped first."
        else:
            pid = "".join(stale[:1])  # perhaps reused by another process: PostgreSQL is told to ignore it
            child = home.launch("postgres", *arguments, death=signal.SIGQUIT, PG_GRANDPARENT_PID=pid)
            if await _is_ready(child, home, stale):
                return child
            words = child.last_words()
        if now() > deadline or not (_serves(stale, home) or _SURVIVORS in words):
            raise EmbeddedError(f"PostgreSQL did not start in {home.folder}. {words}")
        await asyncio.sleep(_POLL)


async def _is_ready(child: Child, home: _Home, stale: list[str]) -> bool:
    """Wait, however long recovery takes, until the child is ready (True) or has ended (False)."""
    try:
        while not await child.ends_within(_POLL):
            lines = _pid_file(home)
            # In a container the child can have its predecessor's pid: the old file is not the child's.
            if lines != stale and lines[:1] == [str(child.process.pid)] and lines[7:8] == ["ready"]:
                return True
    except BaseException:
        await _stop(child)
        raise
    return False


def _pid_file(home: _Home) -> list[str]:
    try:
        return [line.strip() for line in (home.cluster / "postmaster.pid").read_text().splitlines()]
    except FileNotFoundError:
        return []


def _serves(pid_file: list[str], home: _Home) -> bool:
    """Return whether the pid file's process is a server on this cluster, and no later one with its number."""
    try:
        command = Path("/proc", pid_file[0], "cmdline").read_bytes().split(b"\0")
    except (IndexError, OSError):
        return False
    return os.fsencode(home.cluster) in command


async def _ensure_owner(home: _Home, socket: Path) -> str:
    """Make the ordinary role and its database, or set right what is there; return the role's password."""
    admin = await asyncpg.connect(_dsn(_SUPERUSER, home.password_file(_SUPERUSER).read_text(), socket))
    try:
        password = home.password_file(_OWNER).read_text()
        if not await admin.fetchval("SELECT true FROM pg_roles WHERE rolname = $1", _OWNER):
            await admin.execute(f"CREATE ROLE {_OWNER}")
        rights = "LOGIN CREATEROLE NOSUPERUSER NOCREATEDB NOREPLICATION NOBYPASSRLS"
        quoted = await admin.fetchval("SELECT quote_literal($1)", password)
        await admin.execute(f"ALTER ROLE {_OWNER} {rights} PASSWORD {quoted}")
        if not await admin.fetchval("SELECT true FROM pg_database WHERE datname = $1", _OWNER):
            await admin.execute(f"CREATE DATABASE {_OWNER} OWNER {_OWNER}")
    finally:
        await admin.close()
    return password


def _dsn(role: str, password: str, socket: Path) -> str:
    """Return the DSN of the database named like the role, with no parameter left to PG* variables."""
    parameters = f"host={quote(str(socket))}&port={_PORT}&sslmode=disable"
    return f"postgresql://{role}:{quote(password)}@/{role}?{parameters}"


async def _stop(child: Child) -> None:
    """Stop the server with one signal after the other; commits survive each. When cancelled, kill it."""
    try:
        for sent, timeout in _STOP:
            child.process.send_signal(sent)
            if await child.ends_within(timeout):
                return
    finally:
        if not child.exit.done():
            child.process.kill()
