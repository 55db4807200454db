"""Finds out about channels that may be open but dead, by a question that WhatsApp itself must answer.

Asks only on suspicion, never because of silence, and judges nothing: what came back goes through the writer.
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
from receiver.reconcile.probe import JITTER, Prober
from statemachine.model import Reason, Trigger
from statemachine.signals import Answered

EVERY: Final = timedelta(seconds=1)
AT_ONCE: Final = 20
PATIENCE: Final = 2
"""A deep probe waits so many times as long as a probe: docs/provider-facts.md#evolution-look-up."""

OnProbe = Callable[[str, DeepProbeResult], None]
"""Told of each deep probe: whose provider, and what it showed."""

log = logging.getLogger(__name__)


class DeepProber:
    """The deep probes of one process; `client` has the patience that they need."""

    def __init__(
        self, pool: Pool, vault: Vault, writer: Writer, prober: Prober, client: Client, on_probe: OnProbe
    ) -> None:
        self._pool = pool
        self._vault = vault
        self._writer = writer
        self._prober = prober
        self._client = client
        self._on_probe = on_probe

    def loop(self) -> Loop:
        """Return the loop that makes deep probes."""
        return Loop("deep_probes", self.confirm_due, EVERY)

    async def confirm_due(self) -> bool:
        """Probe the channels that are due, side by side; return whether more may be due."""
        async with self._pool.acquire() as connection:
            due = await claim_deep_probes(connection, datetime.now(UTC), AT_ONCE)
        await asyncio.gather(*(self._confirm(suspect) for suspect in due))
        return len(due) > 0

    async def _confirm(self, suspect: DeepProbeCandidate) -> None:
        """Probe a channel; whatever fails, the next time is after the budget's."""
        target = suspect.target
        try:
            if await self._is_said_open(target):
                await self._probe(suspect)
        except Unaskable as reason:
            log.info("channel %s is not probed deeply: %s", target.channel_id, reason)
        except (NotCommitted, *TRANSIENT) as error:
            log.warning("the deep probe of channel %s was not kept: %r", target.channel_id, error)
        except Exception:
            # Whatever one gateway answers must not end the probing of all.
            log.exception("the deep probe of channel %s failed", target.channel_id)

    async def _is_said_open(self, target: ProbeTarget) -> bool:
        """Return whether its gateway answers, and still says open; any other answer is evidence by itself."""
        probed = await self._prober.probe(target)
        await self._writer.submit([probed.entry])
        return probed.answer.trigger is Trigger.OPENED

    async def _probe(self, suspect: DeepProbeCandidate) -> None:
        target, began_at = suspect.target, datetime.now(UTC)
        pulse, status = await self._ask(target)
        self._on_probe(target.provider, pulse)
        doubted_at = suspect.doubted_at
        match pulse:
            case DeepProbeResult.ALIVE:
                doubted_at = None
                await self._submit(target, began_at, Trigger.OPENED)
            case DeepProbeResult.DOUBTFUL if doubted_at is None:
                doubted_at = began_at
            case DeepProbeResult.DEAD | DeepProbeResult.DOUBTFUL:
                # As of now: what memory was asked while this one waited is no newer word on the connection.
                await self._submit(target, datetime.now(UTC), Trigger.DEAF, status, doubted_at)
            case DeepProbeResult.UNANSWERED:
                pass
            case _:
                assert_never(pulse)
        async with self._pool.acquire() as connection:
            await settle_deep_probe(connection, target.channel_id, pulse, doubted_at)

    async def _ask(self, target: ProbeTarget) -> tuple[DeepProbeResult, int | None]:
        """Return what the deep probe shows, and the HTTP status if there was an answer."""
        deep = DEEP.get(target.provider)
        if deep is None or target.instance is None:
            raise Unaskable(f"nothing tells a dead connection of {target.provider} apart")
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
        said = Answered(
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
        entry = Entry(target.channel_id, Source.PROBE, "deep_probe", now, said, gateway_id=target.gateway_id)
        await self._writer.submit([entry])
