"""The longest stall of the event loop while gateways' versions are read and very many channels are known.

The service's own loop round asks sandbox gateways over loopback, writes what they answer and tells all
processes to forget, this one included: it listens, too. Each channel is known by its token and by its
instance's name. A stall is how late a task runs that wants to run every millisecond. Whatever else runs on
the machine is in it, too; the processor time between two ticks is this process's own.
"""

import asyncio
import gc
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from statistics import median
from time import thread_time
from typing import Final
from uuid import UUID

from bench.database import GIGABYTE, open_database
from bench.gateways import Gateway, open_gateways
from bench.population import BYTES_EACH, open_to_webhooks, populate
from bench.table import Figure, at_most
from db.connection.dataloader import TOGETHER
from db.connection.invalidation import Notices
from db.connection.pool import connect, open_pool
from db.connection.retry import persist
from db.connection.types import Connection, Pool
from receiver.http.auth import Tokens
from receiver.jobs.loop import Loop, LoopRunner
from receiver.outbound.client import Client, open_client
from receiver.reconcile.gateway_versions import read_versions
from receiver.service.server import GC_THRESHOLDS
from receiver.settings import Settings

PROVIDER: Final = "evolution_api"
CHANNELS: Final = 100_000
GATEWAYS: Final = 100
ROUNDS: Final = 5
QUICK_ROUNDS: Final = 1
LONGEST_STALL: Final = 20.0
"""Milliseconds that the event loop may stand still."""
TICK: Final = 0.001
KNOWN_FOR: Final = timedelta(hours=1)
"""All channels must still be known when the last is, however slow the machine."""
MOVE: Final = "update zapwatch_gateways set base_url = $2 where base_url = $1"
LEFT: Final = (
    "select count(*) from zapwatch_gateways where version is null or version_due_at < now() + interval '1 h'"
)
DUE: Final = "update zapwatch_gateways set version_due_at = now()"
DUE_UNREAD: Final = "update zapwatch_gateways set version_due_at = now(), version = null"
CHANNELS_OF_ALL: Final = "select channel_id, gateway_id, instance from zapwatch_channels"


async def run(quick: bool) -> AsyncIterator[Figure]:
    """Yield the longest stall, of versions that are as before and of new ones; and how many were not read."""
    rounds = QUICK_ROUNDS if quick else ROUNDS
    found: dict[str, list[_Ticker]] = {}
    async with (
        open_database(GIGABYTE + CHANNELS * BYTES_EACH) as dsn,
        open_gateways(GATEWAYS, 1) as gateways,
        _open_service(dsn, gateways) as service,
    ):
        await service.round(DUE_UNREAD)  # opens connections; from now on each version is known
        for what, due in (("as before", DUE), ("new", DUE_UNREAD)):
            found[what] = [await service.round(due) for _ in range(rounds)]
        left = service.left
    subject = f"versions of {GATEWAYS} gateways read, {CHANNELS:,} known channels"
    for what, tickers in found.items():
        stalls, busy = [1000 * it.longest for it in tickers], [1000 * it.busiest for it in tickers]
        yield at_most(subject, f"longest stall, {what}", median(stalls), LONGEST_STALL, _range(stalls))
        yield at_most(subject, "most processor time in between", median(busy), None, _range(busy))
    yield Figure(subject, "gateways left unread", str(left), "", "none", left == 0)


def _range(values: Sequence[float]) -> str:
    return f"{min(values):.1f} to {max(values):.1f} ms"


@dataclass(slots=True)
class _Service:
    """The service's parts that read versions, composed as `receiver/service/composition.py` does."""

    connection: Connection
    pool: Pool
    client: Client
    tokens: Tokens
    left: int = 0
    """Gateways whose version was not read when all should have been, of all rounds."""

    async def round(self, due: str) -> "_Ticker":
        """Have every channel known and every version read, and return what stalls there were."""
        await self._know_all()
        await self.connection.execute(due)
        gc.collect()
        with _watched() as ticker:
            while await persist(partial(read_versions, self.pool, self.client, self.tokens)):
                pass
            # Its own notices arrive after what they are about.
            await self.pool.fetchval("select pg_sleep(0.2)")
        self.left += await self.connection.fetchval(LEFT)
        return ticker

    async def _know_all(self) -> None:
        rows = await self.connection.fetch(CHANNELS_OF_ALL)
        for start in range(0, len(rows), TOGETHER):
            part = rows[start : start + TOGETHER]
            await asyncio.gather(*(self._know(*row) for row in part))

    async def _know(self, channel_id: UUID, gateway_id: UUID, instance: str) -> None:
        assert await self.tokens.resolve(PROVIDER, f"zw_{channel_id}") is not None
        assert await self.tokens.channel_of(gateway_id, instance) is not None


class _Ticker:
    """Runs every `TICK`; remembers how late it was at most and the processor time between two, in seconds."""

    longest = busiest = 0.0

    async def run(self) -> None:
        """Tick for ever."""
        now = asyncio.get_running_loop().time
        while True:
            due, used = now() + TICK, thread_time()
            await asyncio.sleep(TICK)
            self.longest = max(self.longest, now() - due)
            self.busiest = max(self.busiest, thread_time() - used)


@contextmanager
def _watched() -> Iterator[_Ticker]:
    ticker = _Ticker()
    task = asyncio.create_task(ticker.run())
    try:
        yield ticker
    finally:
        task.cancel()


@asynccontextmanager
async def _open_service(dsn: str, gateways: list[Gateway]) -> AsyncIterator[_Service]:
    connection = await connect(dsn, command_timeout=None)
    await populate(connection, CHANNELS, GATEWAYS)
    await open_to_webhooks(connection)
    for number, gateway in enumerate(gateways, 1):
        await connection.execute(MOVE, f"http://evo-{number}.example", gateway.url)
    thresholds = gc.get_threshold()
    gc.set_threshold(*GC_THRESHOLDS)
    try:
        async with await open_pool(dsn) as pool, open_client(Settings().probe_timeout) as client:
            tokens = Tokens(pool, known_for=KNOWN_FOR)
            notices = Notices(partial(connect, dsn, "zapwatch notices"), tokens.on_notice, tokens.forget_all)
            hearing = Loop("invalidation", notices.listen, timedelta(seconds=1), notices.close)
            listening = asyncio.create_task(LoopRunner().run(hearing))
            try:
                yield _Service(connection, pool, client, tokens)
            finally:
                listening.cancel()
                await asyncio.wait([listening])
    finally:
        gc.set_threshold(*thresholds)
        await connection.close()
