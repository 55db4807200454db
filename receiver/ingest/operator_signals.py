"""Submits signals of operators, and notes of reconnect pages, to a channel."""

from datetime import UTC, datetime
from uuid import UUID

from db.connection.types import Pool
from db.ingest.apply import acknowledge
from db.ingest.entry import Entry, HistoryNote, Source
from db.ingest.queue import NotCommitted
from db.ingest.writer import Writer
from db.reconcile.claims import ProbeTarget
from receiver.http.problems import Unavailable
from receiver.reconcile.gateways.offline_guard import OfflineGuard
from receiver.reconcile.probe import Prober, ProbeResult
from statemachine.signals import Deadline


class OperatorSignals:
    """Submits operators' signals; each call returns once its transaction is committed.

    All raise `receiver.http.problems.Unavailable` when the database does not take the signal in time.
    """

    def __init__(self, pool: Pool, writer: Writer, prober: Prober, guard: OfflineGuard) -> None:
        self._pool, self._writer, self._prober, self._guard = pool, writer, prober, guard

    async def apply_now(self, channel_id: UUID) -> None:
        """Apply what is due on a channel at once: its rules changed."""
        now = datetime.now(UTC)
        await self._submit(Entry(channel_id, Source.DEADLINE, "deadline", now, Deadline(now)))

    async def note(self, channel_id: UUID, name: str, noted: HistoryNote) -> None:
        """Store a note in a channel's history; it changes no state."""
        await self._submit(Entry(channel_id, Source.OPERATOR, name, datetime.now(UTC), noted))

    async def check_now(self, target: ProbeTarget) -> ProbeResult:
        """Probe a channel and submit the answer, but no silence that may be ours; raises `Unaskable`, too."""
        probed = await self._prober.probe(target)
        try:
            await self._guard.submit_at_hand(probed)
        except NotCommitted as error:
            raise Unavailable(str(error)) from None
        return probed

    async def acknowledge(self, incident_id: UUID) -> None:
        """Acknowledge an incident; the first time counts."""
        async with self._pool.acquire() as connection:
            await acknowledge(connection, incident_id)

    async def _submit(self, entry: Entry) -> None:
        try:
            await self._writer.submit([entry])
        except NotCommitted as error:
            raise Unavailable(str(error)) from None
