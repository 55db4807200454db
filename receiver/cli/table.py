"""How commands print: tables for people, JSON as the API gives it."""

import sys
from datetime import datetime

import click
import orjson
from rich.console import Console
from rich.table import Table

from receiver.api.endpoint import Json


def add_row(table: Table, *cells: object) -> None:
    """Add a row; None is an empty cell, a time is shown without its zone."""
    table.add_row(*(_cell(cell) for cell in cells))


def _cell(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, datetime):
        return value.strftime("%Y-%m-%d %H:%M:%S")
    # Names come from outside: control characters must not reach a terminal.
    return "".join(char if char.isprintable() else "?" for char in str(value))


def print_table(table: Table) -> None:
    """Print a table, as wide as the terminal."""
    # Piped, a table is as wide as it needs: cut cells can't be searched.
    width = None if sys.stdout.isatty() else 250
    Console(width=width, markup=False, emoji=False, highlight=False).print(table)


def print_json(value: object) -> None:
    """Print a value as the API would give it, indented."""
    click.echo(orjson.dumps(orjson.loads(Json(value).body), option=orjson.OPT_INDENT_2).decode())
