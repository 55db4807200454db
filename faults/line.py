"""What became of a fault, and the table of it; brings about nothing."""

from collections.abc import Sequence
from dataclasses import dataclass

from rich.console import Console
from rich.table import Table


@dataclass(frozen=True, slots=True)
class Line:
    """One line of the table: a fault, the law that must hold, what was measured, and whether it held."""

    fault: str
    law: str
    measured: str
    held: bool


def show(lines: Sequence[Line], heading: str, console: Console) -> None:
    """Print the table; a line that does not hold says so."""
    table = Table(title=heading, title_justify="left", expand=False, show_lines=True)
    table.add_column("fault", max_width=40)
    table.add_column("must hold", max_width=40)
    table.add_column("measured", max_width=60)
    table.add_column("held")
    for line in lines:
        table.add_row(line.fault, line.law, line.measured, "yes" if line.held else "NO")
    console.print(table)
