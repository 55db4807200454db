"""Findings: facts about an installation, as texts for operators."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

NAMED: Final = 5
"""How many of the things that share a finding are named in it."""
SLOW: Final = 60
"""Seconds that a statement over all channels or events may take."""


class Severity(StrEnum):
    """A problem has to be corrected; a note is for information."""

    PROBLEM = "problem"
    NOTE = "note"


@dataclass(frozen=True, slots=True)
class Finding:
    """One fact: what it is, where, and what to do about it."""

    severity: Severity
    code: str
    what: str
    do: str


def problem(code: str, what: str, do: str) -> Finding:
    """Return a finding that has to be corrected."""
    return Finding(Severity.PROBLEM, code, what, do)


def note(code: str, what: str, do: str) -> Finding:
    """Return a finding for information."""
    return Finding(Severity.NOTE, code, what, do)


Report = Callable[[str, str, str], Finding]


def listed(what: str, things: Sequence[object]) -> str:
    """Return the text with the number of things that it applies to, and the first of these."""
    first = ", ".join(str(thing) for thing in things[:NAMED])
    more = f" and {len(things) - NAMED:,} more" if len(things) > NAMED else ""
    return f"{what} ({len(things):,}): {first}{more}."


def about(report: Report, code: str, what: str, things: Sequence[object], do: str) -> list[Finding]:
    """Return one finding about all these things, none when there are none."""
    return [report(code, listed(what, things), do)] if things else []


def size(count: float) -> str:
    """Return a number of bytes with a decimal unit."""
    for unit in ("bytes", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.{0 if count >= 10 else 1}f} {unit}"
        count /= 1000
    return f"{count:,.1f} TB"
