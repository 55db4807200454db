"""Probes from the command line, made in this process, whether or not a service runs beside it."""

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import aclosing, asynccontextmanager, suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from typing import Final, NoReturn
from uuid import UUID

from db.connection.pool import connect_writer, open_pool
from db.connection.types import Pool
from db.ingest.writer import Writer
from db.reconcile.check_jobs import Check, advance_check, read_check, start_check
from db.reconcile.claims import probe_target
from db.vault import Vault
from receiver.jobs.loop import LoopRunner
from receiver.outbound.client import open_client
from receiver.outbound.container import localhost
from receiver.outbound.credentials import Unaskable
from receiver.providers import RECOVERABLE
from receiver.reconcile.gateway_answers import GatewayAnswers
from receiver.reconcile.gateways.offline_guard import OfflineGuard
from receiver.reconcile.probe import Prober, ProbeResult
from receiver.reconcile.reconciler import Reconciler
from receiver.service.composition import installation_rules
from receiver.settings import Settings
from receiver.timings import NORMAL

SHOWN_EVERY: Final = 0.25


@dataclass(frozen=True, slots=True)
class _CheckServices:
    pool: Pool
    writer: Writer
    prober: Prober
    guard: OfflineGuard
    reconciler: Reconciler


async def check_channel(dsn: str, vault: Vault, settings: Settings, channel_id: UUID) -> ProbeResult | None:
    """Probe one channel and submit the answer; None: there is no such channel. Raises `Unaskable`."""
    async with _parts(dsn, vault, settings) as parts:
        async with parts.pool.acquire() as connection:
            found = await probe_target(connection, channel_id, None)
        if found is None:
            return None
        target, paused = found
        if paused:
            raise Unaskable("it is paused or inactive")
        probed = await parts.prober.probe(target)
        async with _running(parts.writer.run()):
            await parts.guard.submit(probed)
        return probed


async def check_all(dsn: str, vault: Vault, settings: Settings, show: Callable[[Check], None]) -> Check:
    """Probe all channels, reporting progress repeatedly; return the finished check."""
    async with _parts(dsn, vault, settings) as parts, parts.pool.acquire() as connection:
        check = await start_check(connection, datetime.now(UTC), None, None)
        async with _running(parts.writer.run()) as writer, _running(_probing(parts.reconciler)) as reconciler:
            while check.finished_at is None and not (writer.done() or reconciler.done()):
                show(check)
                while await advance_check(connection, datetime.now(UTC)):
                    pass
                await asyncio.sleep(SHOWN_EVERY)
                check = await read_check(connection, check.id, None) or check
        show(check)
        return check


def _probing(reconciler: Reconciler) -> Coroutine[object, None, NoReturn]:
    """Return the reconciler's loop, which here ends when it fails."""
    return LoopRunner().run(replace(reconciler.loop(), critical=True))


@asynccontextmanager
async def _parts(dsn: str, vault: Vault, settings: Settings) -> AsyncIterator[_CheckServices]:
    answers = GatewayAnswers(NORMAL.offline_for)
    async with (
        await open_pool(dsn, "zapwatch check") as pool,
        open_client(settings.probe_timeout, localhost()) as client,
        aclosing(Prober(pool, vault, client, settings.retry_after / 2, answers.note)) as prober,
    ):
        writer = Writer(partial(connect_writer, dsn), installation_rules(settings), recoverable=RECOVERABLE)
        async with aclosing(OfflineGuard(pool, writer, prober, client, answers, settings)) as guard:
            reconciler = Reconciler(pool, writer, prober, guard, settings.probe_timeout)
            yield _CheckServices(pool, writer, prober, guard, reconciler)


@asynccontextmanager
async def _running(loop: Coroutine[object, None, None]) -> AsyncIterator["asyncio.Task[None]"]:
    """Yield the running loop; what it failed with is raised at the end."""
    task = asyncio.create_task(loop)
    try:
        yield task
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
