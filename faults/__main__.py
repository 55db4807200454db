"""`python -m faults [NAME ...]`: brings about the faults, prints a table, fails when a row does not hold."""

import argparse
import asyncio
import os
import platform
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from time import perf_counter
from types import ModuleType
from typing import Final

import uvloop
from rich.console import Console

from db.embedded.binaries import find_binaries
from faults import disorder, hostile, killed, outage, slow, storm, telling
from faults.line import Line, show
from faults.trouble import blinks, crowd, losses, neighbours, own_line, reborn, silence, unpaired
from receiver.http.load_shedding import raise_descriptor_limit

WIDTH: Final = 160
"""Columns of the table where there is no terminal."""
TROUBLE: Final = (neighbours, silence, losses, crowd, unpaired, blinks, own_line, reborn)
"""Of gateways."""
ROWS: Final[tuple[ModuleType, ...]] = (killed, telling, outage, storm, disorder, slow, hostile, *TROUBLE)
LAST_WORDS: Final = 3000
"""Characters of the service's log, told when a row does not hold."""


def _name(row: ModuleType) -> str:
    return row.__name__.rpartition(".")[2]


@contextmanager
def _folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="zapwatch-faults-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        folder.chmod(0o755)  # as root PostgreSQL runs as another account
        yield folder


async def _run(rows: list[ModuleType], notes: Console) -> list[Line]:
    lines: list[Line] = []
    for row in rows:
        began = perf_counter()
        with _folder() as folder:
            new = await _bring_about(row, folder, notes)
            if not all(line.held for line in new):
                notes.print(_last_words(folder), highlight=False, markup=False)
        lines += new
        notes.print(f"{_name(row)}: {perf_counter() - began:.0f} s", highlight=False)
    return lines


async def _bring_about(row: ModuleType, folder: Path, notes: Console) -> list[Line]:
    try:
        async with asyncio.timeout(row.LIMIT):
            return list(await row.run(folder))
    except Exception as error:
        notes.print_exception()
        return [Line(_name(row), "it comes to an end", f"{type(error).__name__}: {error}", held=False)]


def _last_words(folder: Path) -> str:
    lines = [line for log in folder.glob("*.log") for line in log.read_text().splitlines()]
    return "\n".join(line for line in lines if " INFO " not in line[:40])[-LAST_WORDS:]


def _machine() -> str:
    cores = os.cpu_count()
    python, version = platform.python_version(), find_binaries(None).version
    return f"{datetime.now(UTC):%Y-%m-%d}, {cores} cores, Python {python}, PostgreSQL {version}"


def main() -> int:
    """Print the table and return 0, or 1 when a row does not hold."""
    known = {_name(row): row for row in ROWS}
    parser = argparse.ArgumentParser(prog="python -m faults")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"only these rows: {', '.join(known)}")
    names = parser.parse_args().names
    if unknown := set(names) - known.keys():
        parser.error(f"no such row: {', '.join(sorted(unknown))}")
    raise_descriptor_limit()
    lines = uvloop.run(_run([known[name] for name in names or known], Console(stderr=True)))
    show(lines, _machine(), Console(width=None if sys.stdout.isatty() else WIDTH))
    return 0 if all(line.held for line in lines) else 1


if __name__ == "__main__":
    sys.exit(main())
