"""How long a claim of due probes takes, committed, with a thousand and with a million channels.

Claims are made as the reconciler makes them under load: it fills its `AT_ONCE` places, and from then on
claims as many as were answered meanwhile. Time is handed to the statements, so nothing waits. The plan is
looked at, too: a claim that reads the whole table is a miss however fast it was.
"""

from collections import deque
from collections.abc import AsyncIterator, Sequence
from datetime import datetime, timedelta
from statistics import median
from time import perf_counter
from typing import Any, Final, NamedTuple
from uuid import UUID

import orjson

from bench.database import open_database
from bench.lookups import look_up
from bench.population import BYTES_EACH, CYCLE, Population, populate
from bench.table import Figure, at_most, percentile
from db.connection.pool import connect
from db.connection.types import Connection
from db.ingest.queue import COMMIT_TIMEOUT
from db.queries import sql
from db.reconcile.claims import PER_GATEWAY, claim_probes, put_off_probes
from receiver.reconcile.reconciler import AT_ONCE
from receiver.settings import Settings

FEW: Final = (1000, 100)
MANY: Final = ((1_000_000, 100), (1_000_000, 1000))
QUICK: Final = ((100_000, 100),)
"""Channels and gateways."""
LONGEST: Final = 10.0
"""Milliseconds that a claim may take with `MANY` channels."""
STEP: Final = 100
"""Channels claimed at once under load: a process gets so many answers within the pause of a round."""
CLAIMS: Final = 60
QUICK_CLAIMS: Final = 20
SHARE: Final = 0.01
"""Of channels that are due while the fleet is probed in time."""
LEASE: Final = 2 * Settings().probe_timeout + 2 * COMMIT_TIMEOUT
"""As the reconciler's."""
INDEX: Final = "idx_zapwatch_states_probe"
TABLE: Final = "zapwatch_states"
RELEASE: Final = "update zapwatch_states set probe_claimed_until = null where probe_claimed_until is not null"
HANG: Final = """
with crowd as (
  select channel_id, row_number() over (order by probe_due_at) as place from zapwatch_states
  where gateway_id = (select id from zapwatch_gateways where base_url = 'http://evo-1.example')
)
update zapwatch_states s
set probe_due_at = least(s.probe_due_at, $1::timestamptz - random() * interval '60 s') - interval '60 s',
  probe_claimed_until = case when place <= $2 then $1::timestamptz + interval '1 day' end
from crowd where crowd.channel_id = s.channel_id
"""


async def run(quick: bool) -> AsyncIterator[Figure]:
    """Yield the times of claims for each size and each mix of what is due, and of other statements."""
    claims = QUICK_CLAIMS if quick else CLAIMS
    async with open_database(BYTES_EACH * max(channels for channels, _ in (QUICK if quick else MANY))) as dsn:
        seeding, connection = await connect(dsn, command_timeout=None), await connect(dsn)
        for channels, gateways in (FEW, *(QUICK if quick else MANY)):
            population = await populate(seeding, channels, gateways)
            for figure in await _mixes(connection, population, claims):
                yield figure
            if (channels, gateways) == (QUICK if quick else MANY)[0]:
                for figure in await look_up(connection, population, claims):
                    yield figure
        await connection.close()
        await seeding.close()


async def _mixes(connection: Connection, population: Population, claims: int) -> list[Figure]:
    process = _Process(connection, population, population.began_at - timedelta(seconds=1))
    subject = f"claim of probes, {population}"
    bound = LONGEST if population.channels in {channels for channels, _ in MANY} else None

    def told(mix: str, claimed: Sequence[_Claim]) -> Figure:
        times = [claim.milliseconds for claim in claimed]
        what = f"{mix} ({median(claim.channels for claim in claimed):,.0f} claimed)"
        return at_most(subject, what, median(times), bound, f"p95 {percentile(times, 95):.1f} ms")

    figures = [told("nothing due", await process.claim_often(claims))]
    process.now, process.pace = population.began_at + SHARE * CYCLE, process.even_pace
    figures.append(told("1 % due", await process.claim_often(claims)))
    await connection.execute(HANG, process.now, PER_GATEWAY)
    figures.append(told("1 % due, one gateway hangs", await process.claim_often(claims)))
    await process.begin_anew(process.now + 10 * CYCLE)
    process.cycle, process.pace = timedelta(0), timedelta(milliseconds=1)
    figures.append(told("everything due", await process.claim_often(claims)))
    figures.append(await _plans(connection, subject, process.now))
    bound = None
    figures.append(told("everything due, all places free", await process.claim_all(claims)))
    return figures


class _Claim(NamedTuple):
    channels: int
    milliseconds: float


class _Process:
    """The claims of one process, at a time of its own; answered are those first that were claimed first."""

    def __init__(self, connection: Connection, population: Population, now: datetime) -> None:
        self.now = now
        self.cycle = CYCLE
        """When an answered channel is due again; zero: at once, behind all others."""
        self.pace = timedelta(0)
        """How much time passes between two claims."""
        self._connection = connection
        self._step = min(STEP, int(SHARE * population.channels))
        self.even_pace: Final = CYCLE * (self._step / population.channels)
        """At which as many channels fall due as are answered."""
        self._claimed: deque[UUID] = deque()

    async def claim_often(self, claims: int) -> list[_Claim]:
        """Fill all places, then return so many claims, each after a step's answers."""
        await self._claim()
        claimed = []
        for _ in range(claims):
            await self._answer(self._step)
            claimed.append(await self._claim())
        return claimed

    async def claim_all(self, claims: int) -> list[_Claim]:
        """Return so many claims that each fill all places."""
        claimed = []
        for _ in range(claims):
            await self._answer(len(self._claimed))
            claimed.append(await self._claim())
        return claimed

    async def begin_anew(self, now: datetime) -> None:
        """Forget all claims, whoever made them, and go on at this time."""
        await self._connection.execute(RELEASE)
        self._claimed.clear()
        self.now = now

    async def _claim(self) -> _Claim:
        free = AT_ONCE - len(self._claimed)
        began = perf_counter()
        targets, _ = await claim_probes(self._connection, self.now, LEASE, PER_GATEWAY, free)
        took = perf_counter() - began
        self._claimed.extend(target.channel_id for target in targets)
        return _Claim(len(targets), 1000 * took)

    async def _answer(self, channels: int) -> None:
        """Settle claims, and let time pass."""
        answered = [self._claimed.popleft() for _ in range(min(channels, len(self._claimed)))]
        if answered:
            await put_off_probes(self._connection, answered, self.now + self.cycle)
        self.now += self.pace


async def _plans(connection: Connection, subject: str, now: datetime) -> Figure:
    """Return whether the plan for these values and the one for any values use the index."""
    await connection.execute(f"prepare claim as {sql.claim_probes}")
    plans = []
    for mode in ("force_custom_plan", "force_generic_plan"):
        await connection.execute(f"set plan_cache_mode = {mode}")
        values = f"'{now}', '{now + LEASE}', {PER_GATEWAY}, {STEP}, '{{}}'"
        plans.append(await connection.fetchval(f"explain (format json) execute claim({values})"))
    await connection.execute("deallocate claim; reset plan_cache_mode")
    read = [orjson.loads(plan)[0]["Plan"] for plan in plans]
    met = all(_uses_index(plan) for plan in read)
    return Figure(subject, "plan", "by index" if met else "other", "", f"{INDEX}, no scan of the table", met)


def _uses_index(plan: dict[str, Any]) -> bool:
    nodes = _nodes(plan)
    scans = [node for node in nodes if node.get("Relation Name") == TABLE and node["Node Type"] == "Seq Scan"]
    return not scans and any(node.get("Index Name") == INDEX for node in nodes)


def _nodes(plan: dict[str, Any]) -> list[dict[str, Any]]:
    return [plan, *(node for part in plan.get("Plans", ()) for node in _nodes(part))]
