"""Notes live traffic of open channels in memory and writes it within seconds; losing it costs one probe."""

import contextlib
from datetime import datetime, timedelta
from typing import Final
from uuid import UUID

from db.connection.retry import TRANSIENT
from db.connection.types import Pool
from db.ingest.apply import freshen
from db.ingest.entry import Entry, Source
from db.ingest.queue import Unavailable
from db.ingest.writer import Writer
from receiver.jobs.loop import Loop
from statemachine.model import Rules
from statemachine.signals import Alive

WRITTEN_EVERY: Final = timedelta(seconds=3)
"""Traffic is written within 5 s; the rest is for the writing itself."""
AT_ONCE: Final = 500


class Freshness:
    """The newest traffic of each channel since it was last written."""

    def __init__(self, pool: Pool, writer: Writer, installation: Rules) -> None:
        self._pool = pool
        self._writer = writer
        self._installation = installation
        self._noted: dict[UUID, datetime] = {}

    def note(self, channel_id: UUID, at: datetime) -> None:
        """Note that a channel is alive."""
        self._noted[channel_id] = at

    async def flush(self) -> None:
        """Write what is noted; what could not be written is forgotten, traffic goes on."""
        noted, self._noted = list(self._noted.items()), {}
        for start in range(0, len(noted), AT_ONCE):
            with contextlib.suppress(Unavailable, *TRANSIENT):
                await self._write(dict(noted[start : start + AT_ONCE]))

    async def _write(self, noted: dict[UUID, datetime]) -> None:
        async with self._pool.acquire() as connection:
            written = await freshen(connection, noted, self._installation)
        others = [(id, at) for id, at in noted.items() if id not in written]
        entries = [Entry(id, Source.WEBHOOK, "alive", at, Alive(at)) for id, at in others]
        await self._writer.submit_each(entries)

    def loop(self) -> Loop:
        """Return the loop that writes."""
        return Loop("freshness", self._round, WRITTEN_EVERY)

    async def _round(self) -> bool:
        await self.flush()
        return False
