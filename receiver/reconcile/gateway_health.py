"""Looks after whole gateways: tells what probes tell of them, has them judged, and tries those that are down.

Judges nothing: that is `statemachine.gateway`. What becomes of channels is the machine's, as always.
"""

import asyncio
import logging
from collections.abc import Coroutine, Sequence
from datetime import UTC, datetime, timedelta
from typing import Final
from uuid import UUID

from db.connection.retry import TRANSIENT, passes
from db.connection.types import Pool
from db.ingest.queue import COMMIT_TIMEOUT, NotCommitted
from db.ingest.writer import Writer
from db.reconcile import gateway_health
from db.reconcile.claims import ProbeTarget
from db.reconcile.gateway_health import GatewayObservation, GatewayVerdict, RecoveryProbe
from receiver.jobs.leased_tasks import to_the_end
from receiver.jobs.loop import Loop
from receiver.outbound.client import Client, Unanswered
from receiver.outbound.credentials import Unaskable
from receiver.providers import PROVIDERS
from receiver.reconcile.gateway_answers import GatewayAnswers
from receiver.reconcile.probe import Prober
from receiver.settings import Settings
from receiver.timings import Timings
from statemachine.gateway import OFFLINE_MARGIN, Down, Limits, Up

EVERY: Final = timedelta(seconds=1)
"""Pause between two looks, at most; a tally is written no more often."""
OFTENEST: Final = timedelta(seconds=0.1)
"""Pause at least, however soon a verdict is wanted."""
LOOKS: Final = 4
"""How many looks there are at least within the time in which losses count as one."""
ASIDE: Final = timedelta(minutes=1)
"""When a gateway is looked at again that could not be judged."""
AT_ONCE: Final = 100
"""Gateways that one process tries at the same time."""
ELSEWHERE: Final = 3
"""How many other gateways are asked whether we are online; from so many gateways on we doubt it at all."""

log = logging.getLogger(__name__)


class GatewayHealth:
    """The gateways as one process looks after them; `loop` in one task."""

    def __init__(
        self,
        pool: Pool,
        writer: Writer,
        prober: Prober,
        client: Client,
        answers: GatewayAnswers,
        settings: Settings,
        timings: Timings,
    ) -> None:
        self._pool, self._writer, self._prober, self._client = pool, writer, prober, client
        self._answers = answers
        self._url = settings.connectivity_url
        self._window = timings.verdict_within
        self._limits = Limits(settings.gateway_settle, settings.breaker_max)
        self._lease = 2 * settings.probe_timeout + 2 * COMMIT_TIMEOUT
        self._every = max(OFTENEST, min(EVERY, self._window / LOOKS))
        self._recovery_probes: dict[asyncio.Task[None], RecoveryProbe] = {}
        self._proving: set[asyncio.Task[None]] = set()
        self._aside: dict[UUID, datetime] = {}

    def loop(self) -> Loop:
        """Return the loop that looks after gateways."""
        return Loop("gateway_health", self.look, self._every, self._give_back)

    async def look(self) -> bool:
        """Tell what was noted, judge every gateway in question, and try those that are down."""
        now = datetime.now(UTC)
        unproven = await self._doubt(now) if self._answers.failing else []
        noted = self._answers.take(now, unproven)
        async with self._pool.acquire() as connection:
            wanted = await gateway_health.gateways_to_evaluate(
                connection, now, noted, self._window, self._limits
            )
        self._aside = {id: until for id, until in self._aside.items() if until > now}
        for gateway_id in wanted:
            await self._try_to_judge(gateway_id, now, noted.get(gateway_id, GatewayObservation()))
        # A trial cut short would belong to nobody until its lease ends.
        await to_the_end(self._try())
        return False

    async def _try_to_judge(self, gateway_id: UUID, now: datetime, noted: GatewayObservation) -> None:
        """Judge a gateway; one that can't be judged waits, and keeps no other from it."""
        if gateway_id in self._aside:
            self._answers.put_back(gateway_id, noted)
            return
        try:
            await self._judge(gateway_id, now, noted)
        except Exception as error:
            self._answers.put_back(gateway_id, noted)
            if passes(error):
                raise
            log.exception("gateway %s can't be judged, and waits", gateway_id)
            self._aside[gateway_id] = now + ASIDE

    async def _judge(self, gateway_id: UUID, now: datetime, noted: GatewayObservation) -> None:
        async with self._pool.acquire() as connection:
            judged = await gateway_health.evaluate(
                connection, gateway_id, now, noted, self._window, self._limits
            )
            if judged is None:
                self._answers.put_back(gateway_id, noted)
                return
            failing = judged.gateway.failing
            if judged.newly_failing and failing is not None:
                await gateway_health.hasten_other_probes(connection, gateway_id, now, failing.channels)
        _tell(gateway_id, judged)

    async def _doubt(self, now: datetime) -> list[UUID]:
        """Return the gateways whose silence may be our own, and see to it that nobody is blamed for it."""
        failing = self._answers.failing
        async with self._pool.acquire() as connection:
            if self._url is None:
                others = await gateway_health.gateways_elsewhere(
                    connection, PROVIDERS, failing[:1], ELSEWHERE - 1
                )
                if len(others) < ELSEWHERE - 1:
                    return []
            unproven = self._answers.unproven(now)
            doubt = self._answers.doubt(now)
            if doubt is not None:
                since, until = doubt
                await gateway_health.doubt(connection, unproven, since, until + OFFLINE_MARGIN)
        if unproven and not self._proving:
            self._begin_proving(failing)
        return unproven

    def _begin_proving(self, failing: Sequence[UUID]) -> None:
        task = asyncio.create_task(self._prove(failing))
        self._proving.add(task)
        task.add_done_callback(self._proving.discard)

    async def _prove(self, failing: Sequence[UUID]) -> None:
        """Ask elsewhere; whatever comes back proves that we are online."""
        questions: list[Coroutine[object, None, object]] = []
        try:
            async with self._pool.acquire() as connection:
                others = await gateway_health.gateways_elsewhere(connection, PROVIDERS, failing, ELSEWHERE)
                questions += map(self._ask, await gateway_health.pick_targets(connection, others))
        except TRANSIENT as error:
            log.warning("nobody is asked whether we are online: %r", error)
        if self._url is not None:
            questions.append(self._ask_url(self._url))
        await asyncio.gather(*questions)

    async def _ask_url(self, url: str) -> None:
        try:
            await self._client.get(url)
        except Unanswered as reason:
            if not reason.reached:
                log.warning("the address that tells whether we are online gave no answer: %s", reason)
                return
        self._answers.prove(datetime.now(UTC))

    async def _ask(self, target: ProbeTarget) -> None:
        """Ask about a channel; the tally notes what comes of it."""
        try:
            await self._prober.probe(target)
        except Unaskable as reason:
            log.info("channel %s can't be asked: %s", target.channel_id, reason)

    async def _try(self) -> None:
        free = AT_ONCE - len(self._recovery_probes)
        if free <= 0:
            return
        async with self._pool.acquire() as connection:
            recovery_probes = await gateway_health.claim_recovery_probes(
                connection, datetime.now(UTC), self._lease, free
            )
        for recovery_probe in recovery_probes:
            task = asyncio.create_task(self._try_one(recovery_probe))
            self._recovery_probes[task] = recovery_probe
            task.add_done_callback(self._recovery_probes.pop)

    async def _try_one(self, recovery_probe: RecoveryProbe) -> None:
        try:
            probed = await self._prober.probe(recovery_probe.target)
            await self._writer.submit([probed.entry])
        except (Unaskable, NotCommitted) as reason:
            log.warning("the trial of gateway %s came to nothing: %s", recovery_probe.gateway_id, reason)
        except Exception:
            # Whatever one gateway answers must not end the trying of all.
            log.exception("the trial of gateway %s failed", recovery_probe.gateway_id)
        await self._end(recovery_probe)

    async def _end(self, recovery_probe: RecoveryProbe) -> None:
        try:
            async with self._pool.acquire() as connection:
                await gateway_health.end_recovery_probe(
                    connection, recovery_probe, datetime.now(UTC), self._limits
                )
        except TRANSIENT as error:
            log.warning("gateway %s stays claimed: %r", recovery_probe.gateway_id, error)

    async def _give_back(self) -> None:
        under_way = dict(self._recovery_probes)
        for task in (*under_way, *self._proving):
            task.cancel()
        await asyncio.gather(*under_way, *self._proving, return_exceptions=True)
        for recovery_probe in under_way.values():
            await self._end(recovery_probe)


def _tell(gateway_id: UUID, judged: GatewayVerdict) -> None:
    match judged.effect:
        case Down(cause, started_at):
            log.warning("gateway %s is down since %s: %s", gateway_id, started_at, cause)
        case Up():
            log.warning("gateway %s is up again", gateway_id)
        case None:
            pass
