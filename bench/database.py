"""A PostgreSQL of the benchmark's own: the service's embedded one, in a temporary folder that is removed."""

import shutil
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Final

from db.connection.pool import connect
from db.embedded.server import run_embedded
from db.migrate import migrate

GIGABYTE: Final = 10**9


class NoSpace(Exception):
    """The temporary folder's disk hasn't got the room that the rows need."""


@asynccontextmanager
async def open_database(needed: int) -> AsyncIterator[str]:
    """Yield the DSN of a migrated database; raise `NoSpace` unless so many bytes are free."""
    with _folder() as folder:
        free = shutil.disk_usage(folder).free
        if free < needed:
            raise NoSpace(
                f"{needed / GIGABYTE:.1f} GB are needed in {folder}, {free / GIGABYTE:.1f} are free"
            )
        async with run_embedded(folder / "data") as embedded:
            connection = await connect(embedded.dsn, command_timeout=None)
            try:
                await migrate(connection)
            finally:
                await connection.close()
            yield embedded.dsn


@contextmanager
def _folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="zapwatch-bench-") as name:
        folder = Path(name)
        folder.chmod(0o755)  # as root PostgreSQL runs as another account
        yield folder
