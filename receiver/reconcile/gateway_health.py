"""Evaluates gateways by the observations of probes, and makes recovery probes of those that are down.

Verdicts are made by `statemachine.gateway`, and the states of channels by the machine alone.
"""

import asyncio
import logging
from datetime import UTC, datetime, timedelta
from typing import Final
from uuid import UUID

from db.connection.retry import TRANSIENT, passes
from db.connection.types import Pool
from db.ingest.entry import Entry, Source
from db.ingest.queue import COMMIT_TIMEOUT, NotCommitted
from db.ingest.writer import Writer
from db.reconcile import gateway_health
from db.reconcile.gateway_health import GatewayObservation, GatewayVerdict, RecoveryProbe
from receiver.jobs.leased_tasks import to_the_end
from receiver.jobs.loop import Loop
from receiver.outbound.credentials import Unaskable
from receiver.reconcile.gateway_answers import GatewayAnswers, is_silence
from receiver.reconcile.gateways.offline_guard import OfflineGuard
from receiver.reconcile.gateways.refused_keys import RefusedKeys
from receiver.reconcile.probe import Prober, ProbeResult
from receiver.settings import Settings
from receiver.timings import Timings
from statemachine.gateway import Calm, Down, Limits, Removed, Up
from statemachine.signals import LeftTogether

EVERY: Final = timedelta(seconds=1)
"""Longest pause between two rounds; observations are written no more often."""
OFTENEST: Final = timedelta(seconds=0.1)
"""Shortest pause between two rounds."""
ROUNDS: Final = 4
"""Rounds, at least, within the time in which losses count as one."""
ASIDE: Final = timedelta(minutes=1)
"""Delay of a gateway whose evaluation failed."""
PATIENCE: Final = 8
"""How many times as long as an evaluation took the next one waits: all channels are counted each time."""
LONGEST_EVALUATION: Final = 0.5
"""Seconds that count of it: channels that left open together are to be told within ten."""
AT_ONCE: Final = 100
"""Recovery probes of one process at the same time."""

log = logging.getLogger(__name__)


class GatewayHealth:
    """Evaluates gateways in one process; `loop` runs in one task."""

    def __init__(
        self,
        pool: Pool,
        writer: Writer,
        prober: Prober,
        guard: OfflineGuard,
        answers: GatewayAnswers,
        keys: RefusedKeys,
        settings: Settings,
        timings: Timings,
    ) -> None:
        self._pool, self._writer, self._prober, self._guard = pool, writer, prober, guard
        self._answers, self._keys = answers, keys
        self._limits = limits_of(settings, timings)
        # A probe, a question elsewhere where it is unanswered, and the wait for the commit.
        self._lease = 2 * settings.probe_timeout + 2 * COMMIT_TIMEOUT
        self._every = max(OFTENEST, min(EVERY, self._limits.window / ROUNDS))
        self._recovery_probes: dict[asyncio.Task[None], RecoveryProbe] = {}
        self._delayed_until: dict[UUID, datetime] = {}
        self._patient_until: dict[UUID, float] = {}

    def loop(self) -> Loop:
        """Return the loop that evaluates gateways."""
        return Loop("gateway_health", self.evaluate_due, self._every, self._give_back)

    async def evaluate_due(self) -> bool:
        """Hand in observations, evaluate the gateways in question, and begin due recovery probes."""
        now = datetime.now(UTC)
        await self._guard.settle(now)
        observations = self._keys.take(now, self._answers.take(now, await self._unproven()))
        async with self._pool.acquire() as connection:
            await gateway_health.settle(connection, now)
            wanted = await gateway_health.gateways_to_evaluate(connection, now, observations, self._limits)
        self._delayed_until = {id: until for id, until in self._delayed_until.items() if until > now}
        try:
            for gateway_id, patient in wanted.items():
                observation = observations.pop(gateway_id, GatewayObservation())
                if not (patient and self._was_costly(gateway_id)):
                    await self._evaluate_or_delay(gateway_id, now, observation)
        except Exception:
            for gateway_id, observation in observations.items():
                self._give_back_observation(gateway_id, observation)
            raise
        # A claimed recovery probe without its task would wait for the end of its lease.
        await to_the_end(self._begin_recovery_probes())
        return False

    def _was_costly(self, gateway_id: UUID) -> bool:
        """Return whether the last evaluation took so long that it is too early for another one."""
        return asyncio.get_running_loop().time() < self._patient_until.get(gateway_id, 0.0)

    async def _evaluate_or_delay(
        self, gateway_id: UUID, now: datetime, observation: GatewayObservation
    ) -> None:
        """Evaluate a gateway; after an error it is delayed by `ASIDE`, and the others go on."""
        if gateway_id in self._delayed_until:
            self._give_back_observation(gateway_id, observation)
            return
        began = asyncio.get_running_loop().time()
        try:
            async with self._pool.acquire() as connection:
                verdict = await gateway_health.evaluate(
                    connection, gateway_id, now, observation, self._limits
                )
        except Exception as error:
            self._give_back_observation(gateway_id, observation)
            if passes(error):
                raise
            log.exception("gateway %s can't be evaluated, and is delayed", gateway_id)
            self._delayed_until[gateway_id] = now + ASIDE
            return
        if verdict is None:
            self._give_back_observation(gateway_id, observation)
            return
        ended = asyncio.get_running_loop().time()
        self._patient_until = {id: until for id, until in self._patient_until.items() if until > ended}
        self._patient_until[gateway_id] = ended + PATIENCE * min(ended - began, LONGEST_EVALUATION)
        _log_change(gateway_id, verdict)
        await self._ask_others(gateway_id, now, verdict)
        await self._tell_together(gateway_id, now, verdict)

    def _give_back_observation(self, gateway_id: UUID, observation: GatewayObservation) -> None:
        self._answers.give_back(gateway_id, observation)
        self._keys.give_back(gateway_id, observation)

    async def _tell_together(self, gateway_id: UUID, now: datetime, verdict: GatewayVerdict) -> None:
        """Give each channel that left open with many others the signal that says so."""
        together = verdict.left_together
        if together is None:
            return
        signal = LeftTogether(now, together.since, together.until)
        entries = [Entry(id, Source.PROBE, "left_together", now, signal) for id in together.channel_ids]
        try:
            await self._writer.submit_each(entries)
            async with self._pool.acquire() as connection:
                await gateway_health.note_left_together(connection, gateway_id, together.until)
        except (NotCommitted, *TRANSIENT) as error:
            log.warning(
                "channels of gateway %s are told later that they left together: %r", gateway_id, error
            )

    async def _ask_others(self, gateway_id: UUID, now: datetime, verdict: GatewayVerdict) -> None:
        """Have other channels of a gateway probed that begins to fail; the verdict is committed already."""
        if not verdict.newly_blamed_by:
            return
        try:
            async with self._pool.acquire() as connection:
                await gateway_health.hasten_other_probes(connection, gateway_id, now, verdict.newly_blamed_by)
        except Exception as error:
            if passes(error):
                log.warning("no other channels of gateway %s are probed at once: %r", gateway_id, error)
            else:
                log.exception("no other channels of gateway %s are probed at once", gateway_id)

    async def _unproven(self) -> list[UUID]:
        """Return the gateways whose silence may be our own."""
        failing = self._answers.failing
        if not failing or not await self._guard.is_guarding(failing[0]):
            return []
        # Not before the await: failures that come meanwhile are unproven, too.
        return self._answers.unproven()

    async def _begin_recovery_probes(self) -> None:
        free = AT_ONCE - len(self._recovery_probes)
        if free <= 0:
            return
        async with self._pool.acquire() as connection:
            recovery_probes = await gateway_health.claim_recovery_probes(
                connection, datetime.now(UTC), self._lease, free
            )
        for recovery_probe in recovery_probes:
            task = asyncio.create_task(self._probe_gateway(recovery_probe))
            self._recovery_probes[task] = recovery_probe
            task.add_done_callback(self._recovery_probes.pop)

    async def _probe_gateway(self, recovery_probe: RecoveryProbe) -> None:
        try:
            probed = await self._prober.probe(recovery_probe.target)
            if await self._guard.submit(probed):
                await self._note_trial(recovery_probe.gateway_id, probed)
        except (Unaskable, NotCommitted) as reason:
            log.warning(
                "the recovery probe of gateway %s was not completed: %s", recovery_probe.gateway_id, reason
            )
        except Exception:
            # An unforeseen answer of one gateway must not end the recovery probes of the others.
            log.exception("the recovery probe of gateway %s failed", recovery_probe.gateway_id)
        await self._end(recovery_probe)

    async def _note_trial(self, gateway_id: UUID, probed: ProbeResult) -> None:
        async with self._pool.acquire() as connection:
            await gateway_health.note_trial(connection, gateway_id, probed.began_at, is_silence(probed))

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
        for task in under_way:
            task.cancel()
        await asyncio.gather(*under_way, return_exceptions=True)
        for recovery_probe in under_way.values():
            await self._end(recovery_probe)


def limits_of(settings: Settings, timings: Timings) -> Limits:
    """Return the installation's times for gateways."""
    return Limits(
        settle=settings.gateway_settle,
        breaker_max=settings.breaker_max,
        tell_after=settings.gateway_tell_after,
        away=timings.away_for,
        window=timings.verdict_within,
        flaps_within=timings.gateway_flaps_within,
        stable=timings.gateway_stable_for,
    )


def _log_change(gateway_id: UUID, verdict: GatewayVerdict) -> None:
    match verdict.effect:
        case Down(cause, started_at):
            log.warning("gateway %s is in trouble since %s: %s", gateway_id, started_at, cause)
        case Calm():
            log.warning("gateway %s is up again; its incident stays open, for it flaps", gateway_id)
        case Removed():
            log.warning("no channel of gateway %s is watched any more", gateway_id)
        case Up():
            log.warning("the incident of gateway %s is over", gateway_id)
        case None:
            pass
