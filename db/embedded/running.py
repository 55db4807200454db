"""Finds the embedded PostgreSQL that another process runs on a data folder; starts and stops nothing."""

import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from urllib.parse import quote

import asyncpg

from db.embedded.server import EmbeddedError, run_embedded


@contextlib.asynccontextmanager
async def embedded_or_running(data_dir: Path) -> AsyncIterator[str]:
    """Yield the DSN of the folder's database: of the server that runs there, else of one run for the block.

    Raises `EmbeddedError` when neither can be had.
    """
    dsn = _running_dsn(data_dir)
    if dsn is not None and await _answers(dsn):
        yield dsn
        return
    async with run_embedded(data_dir) as embedded:
        yield embedded.dsn


def _running_dsn(data_dir: Path) -> str | None:
    """Return the DSN from the server's pid file (line 4: port, 5: socket folder), if there is one."""
    try:
        lines = (data_dir / "postgres" / "postmaster.pid").read_text().splitlines()
        password = (data_dir / "zapwatch.password").read_text().strip()
        port, socket = int(lines[3]), lines[4].strip()
    except FileNotFoundError:
        return None
    except PermissionError as error:
        raise EmbeddedError(f"{data_dir} belongs to another account: {error.strerror}") from error
    except (IndexError, ValueError):
        return None
    parameters = f"host={quote(socket)}&port={port}&sslmode=disable"
    return f"postgresql://zapwatch:{quote(password)}@/zapwatch?{parameters}"


async def _answers(dsn: str) -> bool:
    try:
        connection = await asyncpg.connect(dsn, timeout=2)
    except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError):
        return False
    await connection.close()
    return True
