"""Asks gateways about all their channels at once, where one call tells, in place of many probes.

A sweep changes no state. It confirms what is known, or has a channel's own probe made at once. Of a channel
that it doesn't name it says nothing, and no probe waits for a sweep: one that fails leaves every channel due
when it was.
"""

import asyncio
import contextlib
import logging
import random
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Final
from uuid import UUID

from db.connection.retry import TRANSIENT
from db.connection.types import Pool
from db.ingest.apply import BulkProbeAnswer, confirm
from db.ingest.entry import Entry, Source
from db.ingest.queue import COMMIT_TIMEOUT, NotCommitted
from db.ingest.writer import Writer
from db.reconcile.bulk_probes import (
    BulkProbeTarget,
    DueBulkProbe,
    bulk_probe_channels,
    claim_bulk_probes,
    hasten_probes,
    hold_concurrency_slots,
    settle_bulk_probe,
)
from db.reconcile.claims import release_probes
from db.registry.gateways import gateway_identity
from db.vault import Vault, VaultError
from receiver.jobs.loop import Loop
from receiver.outbound.client import Client, Unanswered
from receiver.providers import MANAGED
from receiver.providers.report import BulkAnswer, ProbeAnswer, Question
from receiver.reconcile.probe import JITTER
from statemachine.machine import TABLE, Ignored
from statemachine.model import Rules, State
from statemachine.policy import OPEN_SHARE_OF_JITTER
from statemachine.signals import Answered

PAUSE: Final = 0.75
"""Share of STALE_AFTER from one sweep of a gateway to the next, so that no channel falls due between."""
SOON: Final = 0.1
"""Share of STALE_AFTER until a gateway is swept again whose answer the database did not take."""
REACH: Final = 0.9
"""Share of STALE_AFTER within which a probe must be due to be spared: the others heard something just now."""
ROUNDS: Final = 100
"""Rounds of looking for due sweeps within one STALE_AFTER."""
SHORTEST: Final = timedelta(seconds=0.1)
"""Shortest pause between rounds, however short STALE_AFTER is."""
FEWEST: Final = 5
"""Channels with a probe that a sweep may spare, below which it is not worth a call."""
AT_ONCE: Final = 200
"""Gateways that one process sweeps at the same time: those that wait are probed channel by channel."""
WRITING: Final = 2
"""Sweeps that are written at the same time: the pool's other connections are for others."""
CHUNK: Final = 500
"""Channels that are written in one transaction."""
LIMIT: Final = 16 * 1024 * 1024
"""Bytes of an answer that are read: Evolution tells some 220 bytes of each instance, W-API 700 on pages."""
MOST_PAGES: Final = 100
AGAIN: Final = timedelta(hours=1)
"""Pause after a gateway that never told and now fails, or that told before and now refuses."""
DAILY: Final = timedelta(days=1)
"""Pause after a gateway that doesn't tell; and about how often each channel is asked itself all the same."""

log = logging.getLogger(__name__)


class BulkProbeUnsupported(Exception):
    """A gateway doesn't tell us of all its channels at once."""


class BulkProber:
    """The sweeps of one process; `loop` in one task."""

    def __init__(
        self,
        pool: Pool,
        vault: Vault,
        client: Client,
        writer: Writer,
        installation: Rules,
        on_bulk_probe: Callable[[str, str], None] = lambda provider, outcome: None,
        on_answer: Callable[[UUID, datetime], None] = lambda gateway_id, at: None,
    ) -> None:
        """`on_bulk_probe` is told each sweep's provider, and whether it was `told`, `refused` or `failed`.

        `on_answer` is told which gateway has answered, and when.
        """
        self._pool = pool
        self._vault = vault
        self._client = client
        self._writer = writer
        self._installation = installation
        self._on_bulk_probe = on_bulk_probe
        self._on_answer = on_answer
        self._under_way: set[asyncio.Task[None]] = set()
        self._writing = asyncio.Semaphore(WRITING)

    def loop(self) -> Loop:
        """Return the loop that sweeps."""
        pause = max(self._installation.stale_after / ROUNDS, SHORTEST)
        return Loop("bulk_probes", self.begin_due, pause, self._end)

    async def begin_due(self) -> bool:
        """Begin the sweeps that are due and have a place; return whether more may be due."""
        free = AT_ONCE - len(self._under_way)
        if free <= 0:
            return False
        now, stale_after = datetime.now(UTC), self._installation.stale_after
        async with self._pool.acquire() as connection:
            due, looked_at = await claim_bulk_probes(
                connection,
                list(MANAGED),
                now,
                now + PAUSE * stale_after,
                now + REACH * stale_after,
                FEWEST,
                free,
            )
        for gateway in due:
            sweep = asyncio.create_task(self._probe_gateway(gateway))
            self._under_way.add(sweep)
            sweep.add_done_callback(self._under_way.discard)
        return looked_at == free and len(due) < free

    async def _end(self) -> None:
        """End the sweeps under way: the channels' own probes are due as before."""
        under_way = list(self._under_way)
        for sweep in under_way:
            sweep.cancel()
        await asyncio.gather(*under_way, return_exceptions=True)

    async def _probe_gateway(self, gateway: DueBulkProbe) -> None:
        try:
            outcome = await self._told(gateway)
            self._on_bulk_probe(gateway.provider, outcome)
        except (NotCommitted, *TRANSIENT) as error:
            log.warning("a sweep of gateway %s was not kept: %r", gateway.id, error)
            with contextlib.suppress(*TRANSIENT):
                await self._settle(
                    gateway, bool(gateway.supports_bulk), SOON * self._installation.stale_after
                )
        except Exception:
            # Whatever one gateway answers must not end the sweeps of all.
            log.exception("a sweep of gateway %s failed", gateway.id)

    async def _told(self, gateway: DueBulkProbe) -> str:
        """Sweep one gateway and return what became of it; one that is known to tell is spared its backlog."""
        now = datetime.now(UTC)
        until = now + 2 * timedelta(seconds=self._client.seconds) + 2 * COMMIT_TIMEOUT
        async with self._pool.acquire() as connection:
            channels = await bulk_probe_channels(connection, gateway.id)
            held = (
                await hold_concurrency_slots(connection, gateway.id, now, until)
                if gateway.supports_bulk
                else []
            )
        try:
            return await self._asked(gateway, channels, until)
        finally:
            if held:
                async with self._pool.acquire() as connection:
                    await release_probes(connection, held)

    async def _asked(
        self, gateway: DueBulkProbe, channels: Sequence[BulkProbeTarget], held_until: datetime
    ) -> str:
        """Ask, write what is told, and learn whether the gateway can be swept."""
        began_at = datetime.now(UTC)
        try:
            answers = await self._ask(gateway)
        except Unanswered as reason:
            log.info("gateway %s did not answer about all its channels: %s", gateway.id, reason)
            # What takes too long may be our own haste: everything is due after a stop.
            if not gateway.supports_bulk and not reason.timed_out:
                await self._settle(gateway, False, AGAIN)
            return "failed"
        except BulkProbeUnsupported as reason:
            log.info("gateway %s: %s", gateway.id, reason)
            await self._settle(gateway, False, AGAIN if gateway.supports_bulk else DAILY)
            return "refused"
        ended_at, stale_after = datetime.now(UTC), self._installation.stale_after
        if not gateway.supports_bulk:
            log.info("gateway %s tells of all its channels at once", gateway.id)
            await self._settle(gateway, True, PAUSE * stale_after)
        stretch = JITTER * OPEN_SHARE_OF_JITTER
        asked = BulkProbeAnswer(began_at, ended_at, ended_at + REACH * stale_after, stretch, held_until)
        async with self._writing:
            await self._take(gateway, channels, answers, asked)
        return "told"

    async def _ask(self, gateway: DueBulkProbe) -> dict[str, ProbeAnswer]:
        """Return what the gateway says of its instances, by their names."""
        provider, key = MANAGED[gateway.provider], self._key_of(gateway)
        answers: dict[str, ProbeAnswer] = {}
        page, pages = 1, 1
        while page <= min(pages, MOST_PAGES):
            question = provider.ask_all(key, page)
            if question is None:
                raise BulkProbeUnsupported("it has no key of its own")
            sweep = await self._read(gateway, question)
            answers.update(sweep.answers)
            page, pages = page + 1, sweep.pages
        return answers

    async def _read(self, gateway: DueBulkProbe, question: Question) -> BulkAnswer:
        reply = await self._client.get(gateway.base_url + question.path, question.headers, LIMIT)
        if reply.status == 429 or reply.status >= 500:
            raise Unanswered(f"HTTP {reply.status}")
        self._on_answer(gateway.id, datetime.now(UTC))
        # Beside the event loop: it may be millions of bytes.
        read = MANAGED[gateway.provider].read_all
        sweep = await asyncio.to_thread(read, reply.status, reply.body)
        if sweep is None:
            raise BulkProbeUnsupported(f"it doesn't tell of all its channels at once (HTTP {reply.status})")
        return sweep

    def _key_of(self, gateway: DueBulkProbe) -> str | None:
        if gateway.api_key is None:
            return None
        try:
            return self._vault.open(gateway.api_key, gateway_identity(gateway.id)).decode()
        except VaultError:
            return None

    async def _settle(self, gateway: DueBulkProbe, sweeps: bool, pause: timedelta) -> None:
        async with self._pool.acquire() as connection:
            await settle_bulk_probe(connection, gateway.id, sweeps, datetime.now(UTC) + pause)

    async def _take(
        self,
        gateway: DueBulkProbe,
        channels: Sequence[BulkProbeTarget],
        answers: dict[str, ProbeAnswer],
        asked: BulkProbeAnswer,
    ) -> None:
        """Write what is confirmed, and have those channels probed of which something else is said."""
        told = [
            (it, answer)
            for it in channels
            if it.instance is not None and (answer := answers.get(it.instance)) is not None
        ]
        is_hint = MANAGED[gateway.provider].bulk_answer_is_hint
        await self._hasten([it for it, answer in told if _contradicts(it, answer, is_hint)], asked.ended_at)
        if is_hint:
            return
        spared = [
            (it, answer)
            for it, answer in told
            if it.probe_due_at <= asked.reach
            and says_nothing_new(it.state, answer)
            and not self._is_its_turn()
        ]
        await self._confirm(gateway.id, [it for it, _ in spared if it.state is State.OPEN], asked)
        await self._answer(gateway.id, [it for it in spared if it[0].state is not State.OPEN], asked)

    async def _hasten(self, channels: Sequence[BulkProbeTarget], now: datetime) -> None:
        if channels:
            async with self._pool.acquire() as connection:
                await hasten_probes(connection, channels, now)

    async def _confirm(
        self, gateway_id: UUID, channels: Sequence[BulkProbeTarget], asked: BulkProbeAnswer
    ) -> None:
        for first in range(0, len(channels), CHUNK):
            versions = {it.channel_id: it.version for it in channels[first : first + CHUNK]}
            async with self._pool.acquire() as connection:
                await confirm(connection, gateway_id, versions, asked, self._installation)

    async def _answer(
        self, gateway_id: UUID, told: Sequence[tuple[BulkProbeTarget, ProbeAnswer]], asked: BulkProbeAnswer
    ) -> None:
        """Hand in answers that leave channels as they are, each as its own probe's."""
        entries = [_entry(gateway_id, channel, answer, asked) for channel, answer in told]
        for first in range(0, len(entries), CHUNK):
            await self._writer.submit_each(entries[first : first + CHUNK])

    def _is_its_turn(self) -> bool:
        """Leave a channel to a probe of its own about once a day: a sweep asks with nobody's key."""
        return random.random() < PAUSE * self._installation.stale_after / DAILY


def says_nothing_new(state: State, answer: ProbeAnswer) -> bool:
    """True when by the table this answer leaves a channel in this state."""
    return isinstance(TABLE[state, answer.trigger], Ignored)


def _contradicts(channel: BulkProbeTarget, answer: ProbeAnswer, is_hint: bool) -> bool:
    """True when a channel should be asked itself; a hint counts only against a channel that is open."""
    return not says_nothing_new(channel.state, answer) and (channel.state is State.OPEN or not is_hint)


def _entry(gateway_id: UUID, channel: BulkProbeTarget, answer: ProbeAnswer, asked: BulkProbeAnswer) -> Entry:
    said = Answered(
        received_at=asked.ended_at,
        began_at=asked.began_at,
        version=channel.version,
        trigger=answer.trigger,
        reason=answer.reason,
        status=answer.status,
        jitter=random.uniform(1, 1 + JITTER),
    )
    return Entry(channel.channel_id, Source.PROBE, "probe", asked.ended_at, said, gateway_id=gateway_id)
