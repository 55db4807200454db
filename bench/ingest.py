"""Webhooks and reads a second over HTTP, and what they cost, against a bare Starlette route.

All loads are made in turn, on one machine, from a process beside the servers. After each a checker reads the
database: every acknowledged event is stored once, and each channel stands where its newest event says.
"""

import asyncio
import tempfile
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Final

from bench.database import GIGABYTE, open_database
from bench.load import Kind, Load, Outcome
from bench.load import run as make
from bench.population import BYTES_EACH, open_to_webhooks, populate
from bench.service import Service, serving
from bench.table import Figure, at_least, at_most, at_most_times
from db.connection.pool import connect
from db.connection.types import Connection

CHANNELS: Final = 100_000
GATEWAYS: Final = 100
FLOODED: Final = 200
CONNECTIONS: Final = 256
FEW_CONNECTIONS: Final = 64
ROUNDS, QUICK_ROUNDS = 3, 1
SECONDS, QUICK_SECONDS = 8.0, 3.0
WARM_UP, QUICK_WARM_UP = 45.0, 5.0
"""Seconds in which most of `CHANNELS` are heard of: their tokens are known then, and their rules told."""
FLEETS: Final = (1_000, 1_000_000)
QUICK_FLEETS: Final = (1_000, 20_000)
ENDURANCE, QUICK_ENDURANCE = 300.0, 10.0
"""Seconds over which memory is watched, after a warm-up of a fifth."""
WRITTEN_WITHIN: Final = 6.0
"""Seconds until live traffic is written: 5, and the writing."""
AIMS: Final[Mapping[Kind, float]] = {"traffic": 0.9, "reads": 0.4, "states": 0.7, "flood": 0.8}
"""What share of the bare route's requests the service must answer; traffic while all channels are open."""
SUBJECTS: Final[Mapping[Kind, str]] = {
    "traffic": f"live traffic of 2 kB, some of 500 kB, {CHANNELS:,} channels",
    "reads": "GET /channels/{id}/state",
    "states": f"state-changing events, {CHANNELS:,} channels",
    "flood": f"flood: {FLOODED} instances repeat connecting",
}

TARGETS: Final = """
select '/webhooks/evolution_api/zw_' || channel_id || ' ' || instance as hook,
  '/channels/' || channel_id || '/state ' || instance as state
from zapwatch_channels order by channel_id limit $1
"""
STATES: Final = """
select c.instance, s.state, s.last_event_at > $2 as fresh
from zapwatch_channels c join zapwatch_states s using (channel_id) where c.instance = any ($1::text[])
"""
DISK: Final = (
    "select pg_total_relation_size('zapwatch_events') as events, pg_current_wal_lsn() - '0/0' as log"
)
WORDS: Final = {"close": "disconnected/dropped"}
"""The gateway's words whose state has another name."""


class Broken(Exception):
    """A law that must hold didn't, so the figures mean nothing."""


@dataclass(frozen=True, slots=True)
class _Fleet:
    """So many channels in a database, and files of the addresses that they are reached at."""

    dsn: str
    connection: Connection
    folder: Path

    async def targets(self, kind: Kind, channels: int) -> str:
        """Return the name of a file of addresses for this kind of load."""
        column = "state" if kind == "reads" else "hook"
        path = self.folder / f"{column}-{channels}"
        if not path.exists():
            rows = await self.connection.fetch(TARGETS, channels)
            path.write_text("\n".join(row[column] for row in rows))
        return str(path)

    async def load(
        self,
        service: Service,
        kind: Kind,
        seconds: float,
        connections: int = CONNECTIONS,
        seed: int = 1,
        in_turn: bool = False,
    ) -> Outcome:
        """Make a load and return what came of it."""
        channels = FLOODED if kind == "flood" else CHANNELS
        targets = await self.targets(kind, channels)
        return await make(Load(service.port, kind, targets, connections, seconds, seed, in_turn))

    async def warm_up(self, service: Service, kind: Kind, quick: bool) -> Outcome:
        """Have the service hear of as many channels as it can, as it has in a life that lasts for days."""
        return await self.load(service, kind, QUICK_WARM_UP if quick else WARM_UP, in_turn=True)

    async def checked(
        self, service: Service, kind: Kind, seconds: float, connections: int = CONNECTIONS, seed: int = 1
    ) -> Outcome:
        """Make a load on the service itself, and raise `Broken` unless the laws hold for what came of it."""
        before, began_at = await self._counted(), await self.connection.fetchval("select now()")
        outcome = await self.load(service, kind, seconds, connections, seed)
        wanted = {"200"} if kind == "reads" else {"204"}
        if set(outcome.codes) != wanted:
            raise Broken(f"{kind}: answers were {outcome.codes}")
        if kind in ("states", "drops", "flood") and await self._counted() - before != outcome.total:
            raise Broken(f"{kind}: {outcome.total} acknowledged, {await self._counted() - before} stored")
        if kind == "traffic":
            await asyncio.sleep(WRITTEN_WITHIN)
        if kind != "reads":
            await self._stand(kind, outcome, began_at)
        return outcome

    async def _counted(self) -> int:
        counted = "select coalesce(sum(count), 0) from zapwatch_events where name = 'connection.update'"
        return int(await self.connection.fetchval(counted))

    async def _stand(self, kind: Kind, outcome: Outcome, began_at: object) -> None:
        rows = await self.connection.fetch(STATES, list(outcome.last), began_at)
        told = {row["instance"]: "alive" if row["fresh"] else "silent" for row in rows}
        if kind != "traffic":
            told = {row["instance"]: row["state"] for row in rows}
        wrong = [name for name, word in outcome.last.items() if told.get(name) != WORDS.get(word, word)]
        if wrong:
            raise Broken(f"{kind}: {len(wrong)} of {len(outcome.last)} channels stand elsewhere")


async def run(quick: bool) -> AsyncIterator[Figure]:
    """Yield rates beside the bare route's, times, and what an event costs; raise `Broken`."""
    async with _fleet(CHANNELS, GATEWAYS) as fleet:
        async with serving("bare", fleet.dsn) as bare, serving("zapwatch", fleet.dsn) as ours:
            for kind in AIMS:
                for figure in await _compare(fleet, kind, bare, ours, quick):
                    yield figure
            yield await _quickness(fleet, ours, quick)
            for figure in await _endurance(fleet, ours, quick):
                yield figure
        for figure in await _apart(fleet, quick):
            yield figure
    for figure in await _scale(quick):
        yield figure


async def _compare(fleet: _Fleet, kind: Kind, bare: Service, ours: Service, quick: bool) -> list[Figure]:
    rounds, seconds = (QUICK_ROUNDS, QUICK_SECONDS) if quick else (ROUNDS, SECONDS)
    await fleet.warm_up(ours, kind, quick)
    theirs, mine = [], []
    for seed in range(rounds):
        theirs.append(await fleet.load(bare, kind, seconds, seed=seed))
        mine.append(await fleet.checked(ours, kind, seconds, seed=seed))
    ratios = [one.rate / other.rate for one, other in zip(mine, theirs, strict=True)]
    subject = SUBJECTS[kind]
    return [
        Figure(subject, "bare Starlette route", *_rates(theirs)),
        Figure(subject, "Zapwatch", *_rates(mine)),
        at_least(subject, "ratio", median(ratios), AIMS[kind], f"{min(ratios):.2f} to {max(ratios):.2f}"),
    ]


def _rates(outcomes: list[Outcome]) -> tuple[str, str]:
    p50, p99 = (median(getattr(outcome, name) for outcome in outcomes) for name in ("p50", "p99"))
    return f"{median(outcome.rate for outcome in outcomes):,.0f}/s", f"p50 {p50:.1f} ms, p99 {p99:.1f} ms"


async def _quickness(fleet: _Fleet, ours: Service, quick: bool) -> Figure:
    outcome = await fleet.checked(ours, "states", QUICK_SECONDS if quick else SECONDS, FEW_CONNECTIONS)
    subject = f"state-changing events, {FEW_CONNECTIONS} connections"
    return at_most(subject, "p99", outcome.p99, 40, f"p50 {outcome.p50:.1f} ms, {outcome.rate:,.0f}/s")


async def _endurance(fleet: _Fleet, ours: Service, quick: bool) -> list[Figure]:
    seconds = QUICK_ENDURANCE if quick else ENDURANCE
    await fleet.checked(ours, "states", seconds / 5)
    memory, disk = ours.memory(), await fleet.connection.fetchrow(DISK)
    outcome = await fleet.checked(ours, "states", seconds)
    grown, taken = ours.memory() / memory, await fleet.connection.fetchrow(DISK)
    assert disk is not None
    assert taken is not None
    rows, log = ((taken[of] - disk[of]) / outcome.total for of in ("events", "log"))
    told = f"{memory / 1e6:.0f} MB, {outcome.total:,} events"
    return [
        at_most_times(f"memory after {seconds:.0f} s of full load", "growth", grown, 1.05, told),
        Figure("disk of an event, its row and indexes", "Zapwatch", f"{rows:.0f} bytes"),
        Figure("write-ahead log of an event", "Zapwatch", f"{log:.0f} bytes"),
    ]


async def _apart(fleet: _Fleet, quick: bool) -> list[Figure]:
    """Compare with the same statements in a transaction for each event."""
    seconds = QUICK_SECONDS if quick else SECONDS
    apart, together = [], []
    async with serving("apart", fleet.dsn) as one, serving("zapwatch", fleet.dsn) as ours:
        await fleet.warm_up(ours, "states", quick)
        for seed in range(QUICK_ROUNDS if quick else ROUNDS):
            apart.append(await fleet.checked(one, "states", seconds, seed=seed))
            together.append(await fleet.checked(ours, "states", seconds, seed=seed))
    ratio = median(outcome.rate for outcome in together) / median(outcome.rate for outcome in apart)
    subject = "the same, against a transaction for each event"
    return [
        Figure(subject, "a transaction each", *_rates(apart)),
        Figure(subject, "Zapwatch", *_rates(together)),
        at_least(subject, "ratio", ratio, 5),
    ]


async def _scale(quick: bool) -> list[Figure]:
    """Compare what an event costs with few channels and with very many, service and database apart."""
    fleets = QUICK_FLEETS if quick else FLEETS
    seconds, warm_up = (QUICK_SECONDS, QUICK_WARM_UP) if quick else (2 * SECONDS, WARM_UP)
    subject = "processor time of an event, service + its writer in PostgreSQL"
    figures, costs = [], []
    for channels in fleets:
        async with _fleet(channels, channels // 1000) as fleet, serving("zapwatch", fleet.dsn) as ours:
            each = await fleet.connection.fetchval("select pg_database_size(current_database())") / channels
            targets = await fleet.targets("drops", channels)
            await make(Load(ours.port, "drops", targets, CONNECTIONS, warm_up, in_turn=True))
            servers = [ours, *(Service(0, row["pid"]) for row in await fleet.connection.fetch(WRITERS))]
            before = [it.cpu() for it in servers]
            outcome = await make(Load(ours.port, "drops", targets, CONNECTIONS, seconds, seed=2))
            python, *database = (
                1e6 * (it.cpu() - was) / outcome.total for it, was in zip(servers, before, strict=True)
            )
            costs.append(python + sum(database))
            told = f"{python:.0f} + {sum(database):.0f} µs, {each:,.0f} bytes a channel"
            figures.append(Figure(subject, f"{channels:,} channels", f"{costs[-1]:.0f} µs", told))
    return [*figures, at_most_times(subject, "ratio", costs[1] / costs[0], 1.25)]


WRITERS: Final = "select pid from pg_stat_activity where application_name = 'zapwatch writer'"


@asynccontextmanager
async def _fleet(channels: int, gateways: int) -> AsyncIterator[_Fleet]:
    async with open_database(max(GIGABYTE, channels * BYTES_EACH)) as dsn:
        connection = await connect(dsn, command_timeout=None)
        try:
            await populate(connection, channels, gateways)
            await open_to_webhooks(connection)
            with tempfile.TemporaryDirectory() as folder:
                yield _Fleet(dsn, connection, Path(folder))
        finally:
            await connection.close()
