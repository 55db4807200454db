"""What a comparison found, and the table of it; measures nothing."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import quantiles

from rich.console import Console
from rich.table import Table


@dataclass(frozen=True, slots=True)
class Figure:
    """One line of the table; `aim` says in words what the figure must be, nothing if it is only told."""

    subject: str
    what: str
    value: str
    spread: str = ""
    aim: str = ""
    met: bool = True


def at_least(subject: str, what: str, value: float, bound: float, spread: str = "") -> Figure:
    """Return a figure that must not be below its bound."""
    return Figure(subject, what, f"{value:.2f}", spread, f"at least {bound:g}", value >= bound)


def at_most(subject: str, what: str, value: float, bound: float | None, spread: str = "") -> Figure:
    """Return a time in milliseconds that must not be above its bound, if it has one."""
    if bound is None:
        return Figure(subject, what, f"{value:.1f} ms", spread)
    return Figure(subject, what, f"{value:.1f} ms", spread, f"at most {bound:g} ms", value <= bound)


def at_most_times(subject: str, what: str, value: float, bound: float, spread: str = "") -> Figure:
    """Return a ratio that must not be above its bound."""
    return Figure(subject, what, f"{value:.2f}", spread, f"at most {bound:g}", value <= bound)


def percentile(values: Sequence[float], percent: int) -> float:
    """Return the value that so many percent of the values don't exceed."""
    return quantiles(values, n=100, method="inclusive")[percent - 1]


def show(figures: Sequence[Figure], heading: str, console: Console) -> None:
    """Print the table; a figure that misses its aim says so."""
    table = Table(title=heading, title_justify="left", expand=False)
    table.add_column("measured", max_width=32)
    table.add_column("")
    table.add_column("median", justify="right")
    table.add_column("spread", justify="right")
    table.add_column("aim")
    subject = ""
    for figure in figures:
        if subject and figure.subject != subject:
            table.add_section()
        shown = "" if figure.subject == subject else figure.subject
        subject = figure.subject
        aim = figure.aim if figure.met else f"MISSED: {figure.aim}"
        table.add_row(shown, figure.what, figure.value, figure.spread, aim)
    console.print(table)
