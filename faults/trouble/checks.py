"""What a scenario found: every judgement with its figure, so that one failure hides no other."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from inspect import isawaitable
from typing import Any, Final

from faults.line import Line

PAUSE: Final = 0.1
"""Seconds between two looks; the service tells nobody that it has done something."""

PATIENT_UNTIL: Final = 3
"""A scenario that has so many failures isn't waited for any longer."""


class Checks:
    """Judgements of one scenario."""

    def __init__(self) -> None:
        self._measured: list[str] = []
        self._failed: list[str] = []

    def that(self, holds: object, words: str) -> None:
        """Judge; `words` say what was found."""
        (self._measured if holds else self._failed).append(words)

    def within(self, what: str, seconds: float, limit: float, least: float = 0.0) -> None:
        """Judge a time."""
        found = f"{what} after {seconds:.1f} s"
        self.that(least <= seconds <= limit, f"{found} (at most {limit:.1f})" if seconds > limit else found)

    async def until(
        self,
        what: str,
        ask: Callable[[], Any],
        holds: Callable[[Any], object] = bool,
        within: float = 30.0,
    ) -> Any:
        """Ask until it holds, judge how long that took, and return the last answer, whatever it is."""
        began = time.monotonic()
        while True:
            answer = ask()
            if isawaitable(answer):
                answer = await answer
            took = time.monotonic() - began
            if holds(answer):
                self._measured.append(f"{what} after {took:.1f} s")
                return answer
            if took > (within if len(self._failed) < PATIENT_UNTIL else 1.0):
                self._failed.append(f"{what}: not within {within:.1f} s, found {_short(answer)}")
                return answer
            await asyncio.sleep(PAUSE)

    def line(self, fault: str, law: str) -> Line:
        """Return the row of the table: what failed first, then the figures."""
        failed = [f"BROKEN: {words}" for words in self._failed]
        return Line(fault, law, "; ".join([*failed, *self._measured]), not self._failed)


def _short(answer: object) -> str:
    text = repr(answer)
    return text if len(text) <= 200 else f"{text[:200]}…"


Ask = Callable[[], Awaitable[Any]]
