"""Notes live traffic of open channels in memory and writes it within seconds; losing it costs one probe.

Gateways name a session's owner in each message. An owner goes through the writer when this process first
sees it, and not again until it changes or an hour has passed.
"""

import asyncio
import contextlib
import time
from collections.abc import Mapping
from datetime import datetime, timedelta
from itertools import islice
from typing import Final, NamedTuple
from uuid import UUID

from db.connection.retry import TRANSIENT
from db.connection.types import Pool
from db.ingest.apply import freshen
from db.ingest.entry import Entry, OwnerProfile, Source
from db.ingest.queue import NotCommitted
from db.ingest.writer import Writer
from receiver.http.cache import Cache
from receiver.jobs.loop import Loop
from statemachine.model import Rules
from statemachine.signals import Alive

WRITTEN_EVERY: Final = timedelta(seconds=3)
"""Traffic is written within 5 s; the rest is for the writing itself."""
AT_ONCE: Final = 500
OWNERS_AT_ONCE: Final = 200
"""Owners accepted between two writes; later traffic brings the rest. Each costs as much as an event, and
after a start those of all channels are new to this process."""
OWNERS_WAIT: Final = timedelta(seconds=1)
"""How long they wait for their COMMIT: another application may hold a channel's row very long."""
OWNER_KNOWN_FOR: Final = timedelta(hours=1)
"""How long a submitted owner isn't submitted again. After that, values of other applications are corrected
and a table that refused is tried again."""
OWNERS_KNOWN: Final = 200_000
"""About 350 bytes each."""


class _OwnerReport(NamedTuple):
    owner: OwnerProfile
    alive: Alive
    """The traffic that named the owner."""


class LiveTraffic:
    """The newest traffic of each channel since it was last written."""

    def __init__(self, pool: Pool, writer: Writer, installation: Rules) -> None:
        self._pool = pool
        self._writer = writer
        self._installation = installation
        self._noted: dict[UUID, Alive] = {}
        self._new_owners: dict[UUID, _OwnerReport] = {}
        self._known: Cache[UUID, OwnerProfile] = Cache(OWNER_KNOWN_FOR, OWNERS_KNOWN, time.monotonic)

    def note(self, channel_id: UUID, alive: Alive, owner: OwnerProfile | None = None) -> None:
        """Note that a channel is alive, and the owner that its gateway names, if it names one."""
        self._noted[channel_id] = alive
        if owner is not None and owner != self._known.get(channel_id):
            self._note_owner(channel_id, _OwnerReport(owner, alive))

    def _note_owner(self, channel_id: UUID, report: _OwnerReport) -> None:
        before = self._new_owners.get(channel_id)
        is_newer = before is None or _sent_at(before.alive) <= _sent_at(report.alive)
        if is_newer and (before is not None or len(self._new_owners) < OWNERS_AT_ONCE):
            self._new_owners[channel_id] = report

    async def flush(self) -> None:
        """Write noted traffic; what can't be written is dropped, because later traffic replaces it."""
        noted, self._noted = self._noted, {}
        owners, self._new_owners = self._new_owners, {}
        # In parts: a list of all would block the event loop.
        left = iter(noted.items())
        while part := dict(islice(left, AT_ONCE)):
            with contextlib.suppress(NotCommitted, *TRANSIENT):
                await self._write({id: alive for id, alive in part.items() if id not in owners})
        await self._write_owners(owners)

    async def _write(self, noted: Mapping[UUID, Alive]) -> None:
        times = {id: alive.received_at for id, alive in noted.items()}
        async with self._pool.acquire() as connection:
            written = await freshen(connection, times, self._installation)
        await self._writer.submit_each(
            [_entry(id, alive) for id, alive in noted.items() if id not in written]
        )

    async def _write_owners(self, reports: Mapping[UUID, _OwnerReport]) -> None:
        written = await asyncio.gather(*(self._write_owner(id, report) for id, report in reports.items()))
        self._known.put(dict(owner for owner in written if owner is not None), time.monotonic())

    async def _write_owner(self, channel_id: UUID, report: _OwnerReport) -> tuple[UUID, OwnerProfile] | None:
        entry = _entry(channel_id, report.alive, report.owner)
        try:
            await self._writer.submit([entry], OWNERS_WAIT.total_seconds())
        except NotCommitted:
            return None
        return channel_id, report.owner

    def loop(self) -> Loop:
        """Return the loop that writes."""
        return Loop("live_traffic", self._round, WRITTEN_EVERY)

    async def _round(self) -> bool:
        await self.flush()
        return False


def _sent_at(alive: Alive) -> datetime:
    return alive.emitted_at or alive.received_at


def _entry(channel_id: UUID, alive: Alive, owner: OwnerProfile | None = None) -> Entry:
    return Entry(channel_id, Source.WEBHOOK, "alive", alive.received_at, alive, owner=owner)
