"""How much memory the service takes while something goes on; judges nothing."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Final

from faults.service import Service

EVERY: Final = 0.1
"""Seconds between two looks."""
MIB: Final = 1024 * 1024


@dataclass(slots=True)
class Memory:
    """Bytes that the service keeps: before, the most in each round, and after the last."""

    before: int
    peaks: list[int] = field(default_factory=list)
    after: int = 0

    @asynccontextmanager
    async def watched(self, service: Service) -> AsyncIterator[None]:
        """Look again and again for one round."""
        self.peaks.append(0)

        async def look() -> None:
            while True:
                self.peaks[-1] = max(self.peaks[-1], service.memory())
                await asyncio.sleep(EVERY)

        looking = asyncio.create_task(look())
        try:
            yield
        finally:
            looking.cancel()
            self.after = service.memory()

    @property
    def growth(self) -> int:
        """The most that was taken above what was kept before."""
        return max(self.peaks) - self.before

    def told(self) -> str:
        """Return all of it in words."""
        before, *peaks, after = (f"{size / MIB:.0f}" for size in (self.before, *self.peaks, self.after))
        return f"{before} MiB before, at most {', '.join(peaks)} in the rounds, {after} after"
