"""Notes live traffic of open channels in memory and writes it within seconds; losing it costs one probe."""

import asyncio
import contextlib
from datetime import datetime, timedelta
from typing import Final
from uuid import UUID

from db.entry import Entry, Source
from db.writer import Unavailable, Writer
from statemachine.signals import Alive

WRITTEN_EVERY: Final = timedelta(seconds=3)
"""Traffic is written within 5 s; the rest is for the writing itself."""
AT_ONCE: Final = 500


class Freshness:
    """The newest traffic of each channel since it was last written."""

    def __init__(self, writer: Writer) -> None:
        self._writer = writer
        self._noted: dict[UUID, datetime] = {}

    def note(self, channel_id: UUID, at: datetime) -> None:
        """Note that a channel is alive."""
        self._noted[channel_id] = at

    async def flush(self) -> None:
        """Write what is noted; what could not be written is forgotten, traffic goes on."""
        noted, self._noted = self._noted, {}
        entries = [Entry(id, Source.WEBHOOK, "alive", at, Alive(at)) for id, at in noted.items()]
        for start in range(0, len(entries), AT_ONCE):
            with contextlib.suppress(Unavailable):
                await self._writer.submit_each(entries[start : start + AT_ONCE])

    async def run(self) -> None:
        """Write every few seconds, for ever."""
        while True:
            await asyncio.sleep(WRITTEN_EVERY.total_seconds())
            await self.flush()
