"""`python -m bench [--quick] [NAME ...]`: runs comparisons, prints one table, fails when an aim is missed."""

import argparse
import os
import platform
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Final

import uvloop
from rich.console import Console

from bench import alerts, claims, ingest, reconciler, versions
from bench.database import NoSpace
from bench.ingest import Broken
from bench.table import Figure, show
from db.postgres_binaries import find_binaries

WIDTH: Final = 140
"""Columns of the table where there is no terminal."""
COMPARISONS: Final = {
    "reconciler": reconciler,
    "claims": claims,
    "alerts": alerts,
    "versions": versions,
    "ingest": ingest,
}


async def _run(names: Sequence[str], quick: bool, notes: Console) -> tuple[list[Figure], bool]:
    """Return what was found, and whether all was: a comparison that breaks ends the run."""
    figures: list[Figure] = []
    try:
        for name in names or COMPARISONS:
            notes.print(f"measuring {name}")
            async for figure in COMPARISONS[name].run(quick):
                figures.append(figure)
    except (NoSpace, Broken) as error:
        notes.print(str(error))
        return figures, False
    return figures, True


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
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"{', '.join(COMPARISONS)} (all)")
    chosen = parser.parse_args()
    if unknown := set(chosen.names) - COMPARISONS.keys():
        parser.error(f"there is no {', '.join(sorted(unknown))}")
    notes = Console(stderr=True)
    figures, whole = uvloop.run(_run(chosen.names, chosen.quick, notes))
    show(figures, _machine(), Console(width=None if sys.stdout.isatty() else WIDTH))
    return 0 if whole and all(figure.met for figure in figures) else 1


if __name__ == "__main__":
    sys.exit(main())
