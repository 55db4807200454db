"""How long it takes from all channels due to all fresh, where gateways tell of all their channels at once.

The service's sweeper and its reconciler run beside each other, as in the service. A checker reads the
database: every channel must be fresh, its next probe far away, and the answer stored as its newest event.
"""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime, timedelta
from functools import partial
from statistics import median
from time import perf_counter
from typing import Final

from bench.database import GIGABYTE, open_database
from bench.gateways import Calls, Gateway, Served, open_served
from bench.table import Figure
from db.connection.pool import connect, connect_writer, open_pool
from db.connection.types import Connection, Pool
from db.ingest.apply import apply
from db.ingest.entry import Entry, Source
from db.ingest.writer import Writer
from db.registry.gateways import register_gateway
from db.registry.imports import CHUNK, ListedInstance, register_instances
from db.vault import KEY_BYTES, Vault
from receiver.jobs.loop import LoopRunner
from receiver.outbound.client import open_client
from receiver.reconcile.bulk_probe import BulkProber
from receiver.reconcile.gateway_answers import GatewayAnswers
from receiver.reconcile.gateways.offline_guard import OfflineGuard
from receiver.reconcile.probe import Prober
from receiver.reconcile.reconciler import Reconciler
from receiver.service.composition import installation_rules
from receiver.settings import Settings
from receiver.timings import NORMAL
from statemachine.model import Trigger
from statemachine.signals import Answered

PROVIDER: Final = "evolution_api"
MANY: Final = (100, 1000, 3)
QUICK: Final = (10, 1000, 1)
"""Gateways, channels of each, and rounds."""
WITHIN: Final = timedelta(seconds=60)
LONGEST: Final = timedelta(minutes=5)
"""A round that takes longer has lost a channel."""
LOOK_EVERY: Final = timedelta(seconds=0.5)
OPEN: Final = (
    """
    update zapwatch_states s
    set version = t.version, state = t.state, since = t.since, fresh_at = t.fresh_at, probed_at = t.probed_at,
      told_rules = t.told_rules, memory = t.memory
    from zapwatch_states t where t.channel_id = '{first}' and s.channel_id <> t.channel_id
    """,
    """
    insert into zapwatch_events (channel_id, tenant_id, source, name, trigger, reason, status, at, last_at,
      received_at, last_received_at, state, data)
    select s.channel_id, s.tenant_id, e.source, e.name, e.trigger, e.reason, e.status, e.at, e.last_at,
      e.received_at, e.last_received_at, e.state, e.data
    from zapwatch_events e, zapwatch_states s
    where e.channel_id = '{first}' and s.channel_id <> e.channel_id
    """,
    "update notification_channels set connection_status = 'open'",
    "update zapwatch_states set due_at = null",
)
"""Has all channels be as the first one is, which the service's own code has opened."""
DUE: Final = """
update zapwatch_states set probe_due_at = now() - random() * interval '1 s', probe_claimed_until = null;
update zapwatch_gateways set sweep_due_at = now(), sweeps = true;
"""
"""The gateways are known to tell, as they are from their first sweep on."""
STALE: Final = "select count(*) from zapwatch_states where fresh_at < $1"
SOUND: Final = """
select count(*)
from zapwatch_states s
cross join lateral (
  select last_received_at from zapwatch_events where channel_id = s.channel_id order by id desc limit 1
) e
where s.state = 'open' and s.fresh_at >= $1 and s.probed_at >= $1 and e.last_received_at >= $1
  and s.probe_due_at >= s.fresh_at + $2::interval
"""


async def measure(hosts: int, each: int, rounds: int) -> list[Figure]:
    """Return how long it took, by how many calls, and whether every channel's row is as it should be."""
    took, calls, sound = list[float](), list[Calls](), True
    async with (
        open_database(GIGABYTE) as dsn,
        open_served(hosts, each) as served,
        _open_service(dsn, served) as service,
    ):
        for _ in range(rounds):
            before = await served.calls()
            seconds, whole = await service.round()
            after = await served.calls()
            took.append(seconds)
            calls.append(Calls(after.probes - before.probes, after.sweeps - before.sweeps))
            sound = sound and whole
    return _figures(f"{hosts * each:,} channels on {hosts} gateways, all due", took, calls, sound)


def _figures(subject: str, took: Sequence[float], calls: Sequence[Calls], sound: bool) -> list[Figure]:
    aim, spread = WITHIN.total_seconds(), f"{min(took):.1f} to {max(took):.1f} s"
    sweeps, probes = (median(one[which] for one in calls) for which in (1, 0))
    return [
        Figure(
            subject,
            "until all are fresh",
            f"{median(took):.1f} s",
            spread,
            f"at most {aim:g} s",
            max(took) <= aim,
        ),
        Figure(subject, "calls that tell of all", f"{sweeps:,.0f}"),
        Figure(subject, "probes meanwhile", f"{probes:,.0f}"),
        Figure(subject, "rows", "sound" if sound else "WRONG", "", "each fresh, and stored", sound),
    ]


class _Service:
    """The service's parts that ask gateways, composed as `receiver/service/composition.py` does."""

    def __init__(
        self, connection: Connection, bulk_prober: BulkProber, reconciler: Reconciler, channels: int
    ) -> None:
        self._connection = connection
        self._sweeper = bulk_prober
        self._reconciler = reconciler
        self._channels = channels

    async def round(self) -> tuple[float, bool]:
        """Have all channels due; return the seconds until all were fresh, and whether every row is sound."""
        await self._connection.execute(DUE)
        await self._connection.execute("vacuum analyze")
        began_at, began = datetime.now(UTC), perf_counter()
        loops = self._sweeper.loop(), self._reconciler.loop()
        asking = [asyncio.create_task(LoopRunner().run(loop)) for loop in loops]
        try:
            async with asyncio.timeout(LONGEST.total_seconds()):
                while await self._connection.fetchval(STALE, began_at):  # noqa: ASYNC110
                    await asyncio.sleep(LOOK_EVERY.total_seconds())
            took = perf_counter() - began
        finally:
            for task in asking:
                task.cancel()
            await asyncio.wait(asking)
        sound = await self._connection.fetchval(SOUND, began_at, Settings().stale_after)
        return took, sound == self._channels


@asynccontextmanager
async def _open_service(dsn: str, served: Served) -> AsyncIterator[_Service]:
    settings, vault = Settings(), Vault([bytes(KEY_BYTES)])
    rules = installation_rules(settings)
    connection = await connect(dsn, command_timeout=None)
    async with AsyncExitStack() as stack:
        stack.push_async_callback(connection.close)
        pool: Pool = await stack.enter_async_context(await open_pool(dsn))
        client = await stack.enter_async_context(open_client(settings.probe_timeout))
        channels = await _populate(connection, vault, served.gateways)
        writer = Writer(partial(connect_writer, dsn), rules)
        answers = GatewayAnswers(NORMAL.offline_for)
        prober = Prober(pool, vault, client, settings.retry_after / 2, answers.note)
        guard = OfflineGuard(pool, writer, prober, client, answers, settings)
        reconciler = Reconciler(pool, writer, prober, guard, settings.probe_timeout)
        writing = asyncio.create_task(writer.run())
        try:
            yield _Service(connection, BulkProber(pool, vault, client, writer, rules), reconciler, channels)
        finally:
            writing.cancel()
            await asyncio.wait([writing])


async def _populate(connection: Connection, vault: Vault, gateways: Sequence[Gateway]) -> int:
    """Register all instances of the gateways, as an import does, and have them all open; return how many."""
    for gateway in gateways:
        gateway_id, _ = await register_gateway(connection, vault, PROVIDER, gateway.url, gateway.key, None)
        listed = [ListedInstance(name) for name in gateway.keys]
        for first in range(0, len(listed), CHUNK):
            part = listed[first : first + CHUNK]
            await register_instances(connection, vault, PROVIDER, gateway_id, None, part)
    first_id = await connection.fetchval("select channel_id from zapwatch_states limit 1")
    now = datetime.now(UTC)
    answer = Answered(now, now, 0, Trigger.OPENED, status=200)
    rules = installation_rules(Settings())
    await apply(connection, [Entry(first_id, Source.PROBE, "probe", now, answer)], rules)
    for statement in OPEN:
        await connection.execute(statement.format(first=first_id))
    return sum(len(gateway.keys) for gateway in gateways)
