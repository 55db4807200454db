"""Probes all channels of a gateway with one call, in place of many probes.

A bulk probe changes no state. It confirms known states, or makes a channel's own probe due at once. Channels
that the answer doesn't name are left as they are, and no probe waits for a bulk probe: if one fails, every
channel stays due when it was.
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
from statemachine.policy.probing import OPEN_SHARE_OF_JITTER
from statemachine.signals import Answered

PAUSE: Final = 0.75
"""Share of STALE_AFTER between bulk probes of one gateway, so that no channel falls due meanwhile."""
SOON: Final = 0.1
"""Share of STALE_AFTER until a bulk probe whose answer could not be committed is repeated."""
SPARED_WITHIN: Final = 0.9
"""Share of STALE_AFTER within which a probe must be due to be spared: other channels have fresh evidence."""
ROUNDS: Final = 100
"""Rounds of the loop within one STALE_AFTER."""
SHORTEST: Final = timedelta(seconds=0.1)
"""Shortest pause between rounds, however short STALE_AFTER is."""
FEWEST: Final = 5
"""Probes that a bulk probe must be able to spare to be worth its call."""
AT_ONCE: Final = 200
"""Bulk probes of one process at the same time; gateways that wait are probed channel by channel."""
WRITING: Final = 2
"""Bulk probes written at the same time, so that connections of the pool are left for other work."""
CHUNK: Final = 500
"""Channels that are written in one transaction."""
LIMIT: Final = 16 * 1024 * 1024
"""Bytes of an answer that are read: about 220 for each instance of Evolution, 700 (paged) of W-API."""
MOST_PAGES: Final = 100
AGAIN: Final = timedelta(hours=1)
"""Pause after a failure of a gateway not known to support bulk probes, or a refusal of one that did."""
DAILY: Final = timedelta(days=1)
"""Pause after a gateway refused; also about how often each channel still gets a probe of its own."""

log = logging.getLogger(__name__)


class BulkProbeUnsupported(Exception):
    """A gateway does not answer bulk probes."""


class BulkProber:
    """Makes the bulk probes of one process; `loop` runs in one task."""

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
        """`on_bulk_probe` gets each bulk probe's provider and outcome: `told`, `refused` or `failed`.

        `on_answer` gets the gateway and time of each answer.
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
        """Return the loop that makes bulk probes."""
        pause = max(self._installation.stale_after / ROUNDS, SHORTEST)
        return Loop("bulk_probes", self.begin_due, pause, self._end)

    async def begin_due(self) -> bool:
        """Begin due bulk probes, `AT_ONCE` at most; return whether more may be due."""
        free = AT_ONCE - len(self._under_way)
        if free <= 0:
            return False
        now, stale_after = datetime.now(UTC), self._installation.stale_after
        async with self._pool.acquire() as connection:
            due, examined = await claim_bulk_probes(
                connection,
                list(MANAGED),
                now,
                now + PAUSE * stale_after,
                now + SPARED_WITHIN * stale_after,
                FEWEST,
                free,
            )
        for gateway in due:
            task = asyncio.create_task(self._probe_gateway(gateway))
            self._under_way.add(task)
            task.add_done_callback(self._under_way.discard)
        return examined == free and len(due) < free

    async def _end(self) -> None:
        """Cancel the bulk probes under way; the channels' own probes stay due as before."""
        under_way = list(self._under_way)
        for task in under_way:
            task.cancel()
        await asyncio.gather(*under_way, return_exceptions=True)

    async def _probe_gateway(self, gateway: DueBulkProbe) -> None:
        try:
            outcome = await self._probe_with_slots(gateway)
            self._on_bulk_probe(gateway.provider, outcome)
        except (NotCommitted, *TRANSIENT) as error:
            log.warning("the bulk probe of gateway %s was not committed: %r", gateway.id, error)
            with contextlib.suppress(*TRANSIENT):
                await self._settle(
                    gateway, bool(gateway.supports_bulk), SOON * self._installation.stale_after
                )
        except Exception:
            # An unforeseen answer of one gateway must not end the bulk probes of the others.
            log.exception("the bulk probe of gateway %s failed", gateway.id)

    async def _probe_with_slots(self, gateway: DueBulkProbe) -> str:
        """Probe one gateway and return the outcome; one known to answer gets no single probes meanwhile."""
        now = datetime.now(UTC)
        until = now + 2 * timedelta(seconds=self._client.seconds) + 2 * COMMIT_TIMEOUT
        async with self._pool.acquire() as connection:
            channels = await bulk_probe_channels(connection, gateway.id)
            slots = (
                await hold_concurrency_slots(connection, gateway.id, now, until)
                if gateway.supports_bulk
                else []
            )
        try:
            return await self._probe_and_write(gateway, channels, until)
        finally:
            if slots:
                async with self._pool.acquire() as connection:
                    await release_probes(connection, slots)

    async def _probe_and_write(
        self, gateway: DueBulkProbe, channels: Sequence[BulkProbeTarget], until: datetime
    ) -> str:
        """Ask, write the answer, and record whether the gateway supports bulk probes."""
        began_at = datetime.now(UTC)
        try:
            answers = await self._ask(gateway)
        except Unanswered as reason:
            log.info("gateway %s did not answer a bulk probe: %s", gateway.id, reason)
            # A timeout may be due to our own load: everything is due after a stop.
            if not gateway.supports_bulk and not reason.timed_out:
                await self._settle(gateway, False, AGAIN)
            return "failed"
        except BulkProbeUnsupported as reason:
            log.info("gateway %s: %s", gateway.id, reason)
            await self._settle(gateway, False, AGAIN if gateway.supports_bulk else DAILY)
            return "refused"
        ended_at, stale_after = datetime.now(UTC), self._installation.stale_after
        if not gateway.supports_bulk:
            log.info("gateway %s answers bulk probes", gateway.id)
            await self._settle(gateway, True, PAUSE * stale_after)
        stretch = JITTER * OPEN_SHARE_OF_JITTER
        answer_times = BulkProbeAnswer(
            began_at, ended_at, ended_at + SPARED_WITHIN * stale_after, stretch, until
        )
        async with self._writing:
            await self._write(gateway, channels, answers, answer_times)
        return "told"

    async def _ask(self, gateway: DueBulkProbe) -> dict[str, ProbeAnswer]:
        """Return the gateway's answers by instance name."""
        provider, key = MANAGED[gateway.provider], self._key_of(gateway)
        answers: dict[str, ProbeAnswer] = {}
        page, pages = 1, 1
        while page <= min(pages, MOST_PAGES):
            question = provider.ask_all(key, page)
            if question is None:
                raise BulkProbeUnsupported("it has no key of its own")
            found = await self._read_page(gateway, question)
            answers.update(found.answers)
            page, pages = page + 1, found.pages
        return answers

    async def _read_page(self, gateway: DueBulkProbe, question: Question) -> BulkAnswer:
        reply = await self._client.get(gateway.base_url + question.path, question.headers, LIMIT)
        if reply.status == 429 or reply.status >= 500:
            raise Unanswered(f"HTTP {reply.status}")
        self._on_answer(gateway.id, datetime.now(UTC))
        # In a thread: the body may have millions of bytes.
        read = MANAGED[gateway.provider].read_all
        found = await asyncio.to_thread(read, reply.status, reply.body)
        if found is None:
            raise BulkProbeUnsupported(f"it does not answer bulk probes (HTTP {reply.status})")
        return found

    def _key_of(self, gateway: DueBulkProbe) -> str | None:
        if gateway.api_key is None:
            return None
        try:
            return self._vault.open(gateway.api_key, gateway_identity(gateway.id)).decode()
        except VaultError:
            return None

    async def _settle(self, gateway: DueBulkProbe, supported: bool, pause: timedelta) -> None:
        async with self._pool.acquire() as connection:
            await settle_bulk_probe(connection, gateway.id, supported, datetime.now(UTC) + pause)

    async def _write(
        self,
        gateway: DueBulkProbe,
        channels: Sequence[BulkProbeTarget],
        answers: dict[str, ProbeAnswer],
        answer_times: BulkProbeAnswer,
    ) -> None:
        """Write confirmed channels, and make the probes of contradicted channels due."""
        answered = [
            (it, answer)
            for it in channels
            if it.instance is not None and (answer := answers.get(it.instance)) is not None
        ]
        is_hint = MANAGED[gateway.provider].bulk_answer_is_hint
        await self._hasten(
            [it for it, answer in answered if _contradicts(it, answer, is_hint)], answer_times.ended_at
        )
        if is_hint:
            return
        spared = [
            (it, answer)
            for it, answer in answered
            if it.probe_due_at <= answer_times.reach
            and says_nothing_new(it.state, answer)
            and not self._is_probed_itself()
        ]
        await self._confirm(gateway.id, [it for it, _ in spared if it.state is State.OPEN], answer_times)
        await self._answer(gateway.id, [it for it in spared if it[0].state is not State.OPEN], answer_times)

    async def _hasten(self, channels: Sequence[BulkProbeTarget], now: datetime) -> None:
        if channels:
            async with self._pool.acquire() as connection:
                await hasten_probes(connection, channels, now)

    async def _confirm(
        self, gateway_id: UUID, channels: Sequence[BulkProbeTarget], answer_times: BulkProbeAnswer
    ) -> None:
        for first in range(0, len(channels), CHUNK):
            versions = {it.channel_id: it.version for it in channels[first : first + CHUNK]}
            async with self._pool.acquire() as connection:
                await confirm(connection, gateway_id, versions, answer_times, self._installation)

    async def _answer(
        self,
        gateway_id: UUID,
        answered: Sequence[tuple[BulkProbeTarget, ProbeAnswer]],
        answer_times: BulkProbeAnswer,
    ) -> None:
        """Submit answers that confirm channels that aren't open, each like the answer of a probe."""
        entries = [_entry(gateway_id, channel, answer, answer_times) for channel, answer in answered]
        for first in range(0, len(entries), CHUNK):
            await self._writer.submit_each(entries[first : first + CHUNK])

    def _is_probed_itself(self) -> bool:
        """Decide at random, about once a day, to probe a channel itself: only that checks its own key."""
        return random.random() < PAUSE * self._installation.stale_after / DAILY


def says_nothing_new(state: State, answer: ProbeAnswer) -> bool:
    """Return whether by the transition table this answer leaves a channel in this state."""
    return isinstance(TABLE[state, answer.trigger], Ignored)


def _contradicts(channel: BulkProbeTarget, answer: ProbeAnswer, is_hint: bool) -> bool:
    """Return whether to probe a channel itself; a hint counts only against an open one."""
    return not says_nothing_new(channel.state, answer) and (channel.state is State.OPEN or not is_hint)


def _entry(
    gateway_id: UUID, channel: BulkProbeTarget, answer: ProbeAnswer, answer_times: BulkProbeAnswer
) -> Entry:
    signal = Answered(
        received_at=answer_times.ended_at,
        began_at=answer_times.began_at,
        version=channel.version,
        trigger=answer.trigger,
        reason=answer.reason,
        status=answer.status,
        jitter=random.uniform(1, 1 + JITTER),
    )
    return Entry(
        channel.channel_id, Source.PROBE, "probe", answer_times.ended_at, signal, gateway_id=gateway_id
    )
