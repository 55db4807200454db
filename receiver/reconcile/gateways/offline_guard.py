"""Submits what probes brought, but no silence that may be our own: the door from every probe to the writer.

An unanswered probe is submitted once something has come back since it began, or `offline_for` is over. Until
then it is held here, in memory, without a claim on its channel, and the channel is asked again. What a late
proof shows to have been our own silence is forgotten. With fewer than three gateways and no CONNECTIVITY_URL
nothing is held: there is nothing else to ask.
"""

import asyncio
import logging
from collections.abc import Coroutine
from datetime import UTC, datetime, timedelta
from typing import Final
from uuid import UUID

from db.connection.retry import TRANSIENT
from db.connection.types import Pool
from db.ingest.queue import NotCommitted
from db.ingest.writer import Writer
from db.reconcile import gateway_health
from db.reconcile.claims import ProbeTarget, put_off_probes
from receiver.outbound.client import Client, Unanswered
from receiver.outbound.credentials import Unaskable
from receiver.providers import PROVIDERS
from receiver.reconcile.gateway_answers import GatewayAnswers
from receiver.reconcile.probe import Prober, ProbeResult
from receiver.settings import Settings

ELSEWHERE: Final = 2
"""How many other gateways are asked whether we are online; with fewer silence is never our own."""
OFTENEST: Final = timedelta(seconds=1)
"""Shortest pause between two such questions."""
AT_HAND: Final = 1.0
"""Seconds for which an operator's answer waits for the proof."""

log = logging.getLogger(__name__)


class OfflineGuard:
    """The door of one process; `settle` is to be called about every second."""

    def __init__(
        self,
        pool: Pool,
        writer: Writer,
        prober: Prober,
        client: Client,
        answers: GatewayAnswers,
        settings: Settings,
    ) -> None:
        self._pool, self._writer, self._prober, self._client = pool, writer, prober, client
        self._answers, self._line = answers, answers.line
        self._url, self.again_after = settings.connectivity_url, settings.retry_after
        self._held: dict[UUID, list[ProbeResult]] = {}
        self._asking: asyncio.Task[None] | None = None
        self._asked_at: datetime | None = None
        self._under_way: set[asyncio.Task[bool]] = set()

    async def aclose(self) -> None:
        """Cancel what is under way; what is held is forgotten, and no channel is claimed for it."""
        tasks: list[asyncio.Task[bool] | asyncio.Task[None]] = [*self._under_way]
        if self._asking is not None:
            tasks.append(self._asking)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def submit(self, probed: ProbeResult) -> bool:
        """Submit a probe's answer; False: it may be our own silence, and the channel is to be asked again.

        Takes as long as a question elsewhere while nothing proves that we are online. Raises `NotCommitted`.
        """
        channel_id = probed.target.channel_id
        if not await self.admits(probed):
            if not self._line.is_ours(probed.began_at):
                self._held.setdefault(channel_id, []).append(probed)
            return False
        await self._writer.submit([it.entry for it in (*self._release(channel_id), probed)])
        return True

    async def submit_at_hand(self, probed: ProbeResult) -> None:
        """The same for somebody who waits for the answer: while nothing is proven, it is done later."""
        task = asyncio.create_task(self.submit(probed))
        self._under_way.add(task)
        task.add_done_callback(self._under_way.discard)
        await asyncio.wait([task], timeout=AT_HAND)
        if task.done():
            task.result()

    async def admits(self, probed: ProbeResult) -> bool:
        """Return whether a probe was answered, or its silence isn't our own."""
        return probed.reached or await self.is_online(probed.began_at, probed.target.gateway_id)

    async def is_online(self, began_at: datetime, gateway_id: UUID | None) -> bool:
        """Return whether silence of a gateway since then isn't our own; ask elsewhere where that is open."""
        line = self._line
        if line.is_ours(began_at):
            return False
        if line.is_proven(began_at) or not await self.is_guarding(gateway_id):
            return True
        line.note_silence(datetime.now(UTC))
        if not line.is_over(datetime.now(UTC)):
            await self._ask_elsewhere()
        return not line.is_ours(began_at) and (line.is_proven(began_at) or line.is_over(datetime.now(UTC)))

    async def is_guarding(self, gateway_id: UUID | None) -> bool:
        """Return whether there is anything besides this gateway that can prove that we are online."""
        if self._url is not None:
            return True
        but = [] if gateway_id is None else [gateway_id]
        async with self._pool.acquire() as connection:
            others = await gateway_health.gateways_elsewhere(connection, PROVIDERS, but, ELSEWHERE)
        return len(others) >= ELSEWHERE

    async def settle(self, now: datetime) -> None:
        """Submit what is held and was not our own silence, and have those asked again of whom it was."""
        ours = [id for id, held in self._held.items() if self._line.is_ours(held[-1].began_at)]
        for id in ours:
            del self._held[id]
        over = self._line.is_over(now)
        proven = [id for id, held in self._held.items() if over or self._line.is_proven(held[-1].began_at)]
        entries = [probed.entry for id in proven for probed in self._release(id)]
        try:
            if ours:
                async with self._pool.acquire() as connection:
                    await put_off_probes(connection, ours, now)
            await self._writer.submit_each(entries)
        except (NotCommitted, *TRANSIENT) as error:
            log.warning("held probes are made again: %r", error)

    def _release(self, channel_id: UUID) -> list[ProbeResult]:
        """Return a channel's held probes that were not our own silence, and hold none of it any more.

        They are in their order: the machine counts no answer that is older than one it has.
        """
        return [it for it in self._held.pop(channel_id, ()) if not self._line.is_ours(it.began_at)]

    async def _ask_elsewhere(self) -> None:
        """Ask elsewhere, or wait for such a question that is under way."""
        now = datetime.now(UTC)
        if self._asking is None or self._asking.done():
            if self._asked_at is not None and now < self._asked_at + OFTENEST:
                return
            self._asked_at = now
            self._asking = asyncio.create_task(self._prove(now))
        await asyncio.wait([self._asking])

    async def _prove(self, since: datetime) -> None:
        """Ask other gateways and the configured address, until anything comes back."""
        questions: list[Coroutine[object, None, object]] = []
        try:
            async with self._pool.acquire() as connection:
                others = await gateway_health.gateways_elsewhere(
                    connection, PROVIDERS, self._answers.failing, ELSEWHERE
                )
                questions += map(self._ask, await gateway_health.pick_targets(connection, others))
        except TRANSIENT as error:
            log.warning("no other gateway is asked whether we are online: %r", error)
        if self._url is not None:
            questions.append(self._ask_url(self._url))
        tasks = [asyncio.ensure_future(question) for question in questions]
        try:
            for answer in asyncio.as_completed(tasks):
                await answer
                if self._line.is_proven(since):
                    return
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _ask_url(self, url: str) -> None:
        asked_at = datetime.now(UTC)
        try:
            await self._client.get(url)
        except Unanswered as reason:
            if not reason.reached:
                log.warning("the address that proves whether we are online gave no answer: %s", reason)
                return
        self._answers.prove(datetime.now(UTC), asked_at)

    async def _ask(self, target: ProbeTarget) -> None:
        """Probe a channel; `GatewayAnswers` counts the answer."""
        try:
            await self._prober.probe(target)
        except Unaskable as reason:
            log.info("channel %s can't be asked: %s", target.channel_id, reason)
