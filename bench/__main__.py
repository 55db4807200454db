"""`python -m bench [--quick]`: runs every comparison, prints one table, and fails when an aim is missed."""

import argparse
import os
import platform
import sys
from datetime import UTC, datetime
from typing import Final

import uvloop
from rich.console import Console

from bench import claims, reconciler
from bench.database import NoSpace
from bench.table import Figure, show
from db.postgres_binaries import find_binaries

WIDTH: Final = 140
"""Columns of the table where there is no terminal."""
COMPARISONS: Final = (reconciler, claims)


async def _run(quick: bool, notes: Console) -> list[Figure]:
    figures = []
    for comparison in COMPARISONS:
        notes.print(f"measuring with {comparison.__name__}")
        figures += await comparison.run(quick)
    return figures


def _machine() -> str:
    cores = os.cpu_count()
    python, postgres = platform.python_version(), find_binaries(None).version
    return f"{datetime.now(UTC):%Y-%m-%d}, {cores} cores, Python {python}, PostgreSQL {postgres}"


def main() -> int:
    """Print the table and return 0, or 1 when an aim is missed."""
    parser = argparse.ArgumentParser(prog="python -m bench")
    parser.add_argument(
        "--quick", action="store_true", help="fewer rounds and rows: a look, no figure to state"
    )
    quick = parser.parse_args().quick
    notes = Console(stderr=True)
    try:
        figures = uvloop.run(_run(quick, notes))
    except NoSpace as error:
        notes.print(str(error))
        return 1
    show(figures, _machine(), Console(width=None if sys.stdout.isatty() else WIDTH))
    return 0 if all(figure.met for figure in figures) else 1


if __name__ == "__main__":
    sys.exit(main())
