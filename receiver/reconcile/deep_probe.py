"""Deep probes: tests channels that may be open but dead with a question that WhatsApp itself must answer.

Only candidates are probed, never a channel that is merely silent. Results go through the writer; no verdict
is made here.
"""

import asyncio
import logging
import random
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Final, assert_never

from db.connection.retry import TRANSIENT
from db.connection.types import Pool
from db.ingest.entry import Entry, Source
from db.ingest.queue import NotCommitted
from db.ingest.writer import Writer
from db.reconcile.claims import ProbeTarget
from db.reconcile.deep_probes import DeepProbeCandidate, claim_deep_probes, settle_deep_probe
from db.vault import Vault
from receiver.jobs.loop import Loop
from receiver.outbound.client import Client, Unanswered
from receiver.outbound.credentials import Unaskable, key_of
from receiver.providers import DEEP
from receiver.providers.report import DeepProbeResult
from receiver.reconcile.gateways.offline_guard import OfflineGuard
from receiver.reconcile.probe import JITTER, Prober
from statemachine.model import Reason, Trigger
from statemachine.signals import Answered

EVERY: Final = timedelta(seconds=1)
AT_ONCE: Final = 20
TIMEOUT_FACTOR: Final = 2
"""How many times as long as a probe a deep probe waits: docs/provider-facts.md#evolution-look-up."""

OnProbe = Callable[[str, DeepProbeResult], None]
"""Called with the provider and the result of each deep probe."""

log = logging.getLogger(__name__)


class DeepProber:
    """Makes the deep probes of one process; `client` needs `TIMEOUT_FACTOR` times a probe's timeout."""

    def __init__(
        self,
        pool: Pool,
        vault: Vault,
        writer: Writer,
        prober: Prober,
        guard: OfflineGuard,
        client: Client,
        on_probe: OnProbe,
    ) -> None:
        self._pool = pool
        self._vault = vault
        self._writer = writer
        self._prober = prober
        self._guard = guard
        self._client = client
        self._on_probe = on_probe

    def loop(self) -> Loop:
        """Return the loop that makes deep probes."""
        return Loop("deep_probes", self.confirm_due, EVERY)

    async def confirm_due(self) -> bool:
        """Probe the channels that are due, concurrently; return whether more may be due."""
        async with self._pool.acquire() as connection:
            due = await claim_deep_probes(connection, datetime.now(UTC), AT_ONCE)
        await asyncio.gather(*(self._confirm(candidate) for candidate in due))
        return len(due) > 0

    async def _confirm(self, candidate: DeepProbeCandidate) -> None:
        """Probe a channel; after a failure, too, the next time is the budget's."""
        target = candidate.target
        try:
            if await self._is_reported_open(target):
                await self._probe(candidate)
        except Unaskable as reason:
            log.info("channel %s gets no deep probe: %s", target.channel_id, reason)
        except (NotCommitted, *TRANSIENT) as error:
            log.warning("the deep probe of channel %s was not committed: %r", target.channel_id, error)
        except Exception:
            # An unforeseen answer of one gateway must not end the deep probes of the others.
            log.exception("the deep probe of channel %s failed", target.channel_id)

    async def _is_reported_open(self, target: ProbeTarget) -> bool:
        """Probe the channel and submit the answer; return whether its gateway still reports it open."""
        probed = await self._prober.probe(target)
        await self._guard.submit(probed)
        return probed.answer.trigger is Trigger.OPENED

    async def _probe(self, candidate: DeepProbeCandidate) -> None:
        target, began_at = candidate.target, datetime.now(UTC)
        result, status = await self._ask(target)
        if result is DeepProbeResult.DOUBTFUL:
            online = await self._guard.is_online(began_at, target.gateway_id)
            result = result if online else DeepProbeResult.UNANSWERED
        self._on_probe(target.provider, result)
        doubted_at = candidate.doubted_at
        match result:
            case DeepProbeResult.ALIVE:
                doubted_at = None
                await self._submit(target, began_at, Trigger.OPENED)
            case DeepProbeResult.DOUBTFUL if doubted_at is None:
                doubted_at = began_at
            case DeepProbeResult.DEAD | DeepProbeResult.DOUBTFUL:
                # As of now: probes answered from the gateway's memory meanwhile are no newer evidence.
                await self._submit(target, datetime.now(UTC), Trigger.DEAF, status, doubted_at)
            case DeepProbeResult.UNANSWERED:
                pass
            case _:
                assert_never(result)
        async with self._pool.acquire() as connection:
            await settle_deep_probe(connection, target.channel_id, result, doubted_at)

    async def _ask(self, target: ProbeTarget) -> tuple[DeepProbeResult, int | None]:
        """Return the result of a deep probe, and the HTTP status if there was an answer."""
        deep = DEEP.get(target.provider)
        if deep is None or target.instance is None:
            raise Unaskable(f"{target.provider} supports no deep probes")
        order = deep.ask(target.instance, key_of(self._vault, target))
        try:
            reply = await self._client.send(
                order.method, target.base_url + order.path, order.headers, order.body
            )
        except Unanswered as reason:
            return DeepProbeResult.DOUBTFUL if reason.timed_out else DeepProbeResult.UNANSWERED, None
        return deep.read(reply.status, reply.body), reply.status

    async def _submit(
        self,
        target: ProbeTarget,
        began_at: datetime,
        trigger: Trigger,
        status: int | None = None,
        counted_from: datetime | None = None,
    ) -> None:
        now = datetime.now(UTC)
        signal = Answered(
            received_at=now,
            began_at=began_at,
            version=target.version,
            trigger=trigger,
            reason=Reason.OPEN_BUT_DEAD if trigger is Trigger.DEAF else None,
            status=status,
            certain=True,
            counted_from=counted_from,
            jitter=random.uniform(1, 1 + JITTER),
        )
        entry = Entry(
            target.channel_id, Source.PROBE, "deep_probe", now, signal, gateway_id=target.gateway_id
        )
        await self._writer.submit([entry])
