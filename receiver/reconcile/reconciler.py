"""Claims channels whose probe is due, probes them, and submits the answers.

Decides nothing: the machine sets due times and makes verdicts. A channel never waits behind another gateway:
gateways take turns, and each has its own concurrency slots.
"""

import asyncio
import logging
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Final
from uuid import UUID

from db.connection.retry import TRANSIENT
from db.connection.types import Pool
from db.ingest.queue import COMMIT_TIMEOUT, NotCommitted
from db.ingest.writer import Writer
from db.reconcile.claims import PER_GATEWAY, Claim, ProbeTarget, claim_probes, put_off_probes, release_probes
from receiver.jobs.leased_tasks import LeasedTasks, to_the_end
from receiver.jobs.loop import Loop
from receiver.outbound.credentials import Unaskable
from receiver.reconcile.gateways.offline_guard import OfflineGuard
from receiver.reconcile.probe import Prober

EVERY: Final = timedelta(seconds=0.25)
"""Pause between rounds while nothing is due; a probe that is due at once begins this much late at most."""
AT_ONCE: Final = 2000
"""Probes of one process at the same time: a hundred gateways may hang before others have to wait."""
LATER: Final = timedelta(minutes=5)
"""Delay of a channel that can't be probed because of its registration."""

ASIDE: Final = timedelta(seconds=5)
"""How long a channel whose row stays locked is left out, so that it takes no concurrency slot."""

log = logging.getLogger(__name__)


class LockedChannels:
    """Channels whose rows were locked in two rounds in a row: no replica's claim takes that long."""

    def __init__(self) -> None:
        self._locked: set[UUID] = set()
        self._until: dict[UUID, datetime] = {}

    def at(self, now: datetime) -> list[UUID]:
        """Return the channels that are left aside now."""
        self._until = {channel_id: until for channel_id, until in self._until.items() if until > now}
        return list(self._until)

    def add(self, locked: set[UUID], now: datetime) -> None:
        """Add the locked channels of a round."""
        self._until.update(dict.fromkeys(self._locked & locked, now + ASIDE))
        self._locked = locked


class Reconciler:
    """Makes the probes of one process; `loop` runs in one task."""

    def __init__(
        self, pool: Pool, writer: Writer, prober: Prober, guard: OfflineGuard, timeout: timedelta
    ) -> None:
        self._pool = pool
        self._writer = writer
        self._prober = prober
        self._guard = guard
        # A probe and its control or (unanswered) a question elsewhere, and the wait for the commit.
        self._lease = 2 * timeout + 2 * COMMIT_TIMEOUT
        self._tasks = LeasedTasks(pool, writer, release_probes)
        self._locked_channels = LockedChannels()

    async def probe_due(self) -> Sequence[asyncio.Task[None]]:
        """Begin due probes in free concurrency slots; return their tasks, to be awaited or not."""
        free = AT_ONCE - len(self._tasks)
        if free <= 0:
            return []
        async with self._pool.acquire() as connection:
            now = datetime.now(UTC)
            due, locked = await claim_probes(
                connection, now, self._lease, PER_GATEWAY, free, self._locked_channels.at(now)
            )
        self._locked_channels.add(locked, now)
        return [
            self._tasks.begin(Claim(target.channel_id, now + self._lease), self._probe(target))
            for target in due
        ]

    def loop(self) -> Loop:
        """Return the loop that probes."""
        return Loop("reconciler", self._round, EVERY, self._tasks.give_back)

    async def _round(self) -> bool:
        await _until_half(await to_the_end(self.probe_due()))
        return True

    async def _probe(self, target: ProbeTarget) -> None:
        try:
            probed = await self._prober.probe(target)
            if not await self._guard.submit(probed):
                await self._put_off(target, self._guard.again_after)
        except Unaskable as reason:
            log.warning("channel %s is not probed: %s", target.channel_id, reason)
            await self._put_off(target, LATER)
        except (NotCommitted, *TRANSIENT) as error:
            log.warning("the probe of channel %s was not committed: %r", target.channel_id, error)
        except Exception:
            # An unforeseen answer of one gateway must not end the probes of the others.
            log.exception("the probe of channel %s failed", target.channel_id)

    async def _put_off(self, target: ProbeTarget, pause: timedelta) -> None:
        try:
            async with self._pool.acquire() as connection:
                await put_off_probes(connection, [target.channel_id], datetime.now(UTC) + pause)
        except TRANSIENT as error:
            log.warning("channel %s stays claimed: %r", target.channel_id, error)


async def _until_half(begun: Sequence[asyncio.Task[None]]) -> None:
    """Wait until half of these are done, so that their slots are filled again, or for the pause."""
    half = (len(begun) + 1) // 2
    try:
        async with asyncio.timeout(EVERY.total_seconds()):
            if not begun:
                await asyncio.Event().wait()
            for done in asyncio.as_completed(begun):
                await done
                half -= 1
                if half <= 0:
                    return
    except TimeoutError:
        return
