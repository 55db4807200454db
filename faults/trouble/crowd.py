"""(d) A host of 10,000 channels goes silent and is back; meanwhile another tenant's channel is logged out."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from db.connection.types import Connection
from faults.line import Line
from faults.trouble.checks import Checks
from faults.trouble.town import Channel, Town, open_row, seconds
from receiver.sandbox import Fault, HostMetrics

LIMIT: Final = 600.0
SPEED: Final = 1.0
MINUTES: Final = 1.0
LAW: Final = (
    "all in error 15 s after the verdict, incidents within 5 s of their threshold, open 90 s after the return"
)
LAW_LOGOUT: Final = "told less than 5 s after its grace"
GRACE: Final = 15.0
COUNTS: Final = """
select
  count(*) filter (where state = 'open') as open,
  count(*) filter (where state = 'error' and reason like 'gateway%') as error
from zapwatch_states s join zapwatch_channels c using (channel_id) where c.instance like 'crowd-%'
"""
ROWS: Final = """
select xact_commit as commits, tup_inserted + tup_updated + tup_deleted as rows
from pg_stat_database where datname = current_database()
"""
LATE: Final = """
select count(*) as count, extract(epoch from max(opened_at - started_at)) as late,
  count(*) filter (where details->>'cause' = 'gateway') as caused
from whatsapp_connection_incidents
"""


@dataclass
class Load:
    """What the database did for one phase."""

    seconds: float = 0.0
    rows: int = 0
    cpu: float = 0.0

    def __str__(self) -> str:
        each = self.rows / max(self.seconds, 0.1)
        return f"{self.rows:,} rows ({each:,.0f}/s), {self.cpu:.1f} s of PostgreSQL's processor time"


async def play(town: Town, connection: Connection, postgres: int, count: int = 10_000) -> list[Line]:
    """Play it; `postgres` is the server's first process. Seconds are real but for the settings'."""
    checks, logout = Checks(), Checks()
    host, other = await _settle(town, count)
    await checks.until("all open", lambda: _count(connection, "open"), lambda n: n == count, 300)
    async with _measured(connection, postgres) as load:
        host.fault = Fault.HANG
        down = await _down(town, checks, host)
        other.instance.unlink()
        task = asyncio.create_task(_logged_out(town, logout, other))
        await checks.until(
            f"{count:,} in error", lambda: _count(connection, "error"), lambda n: n == count, 15
        )
        await task
    checks.that(True, f"silence: {load}")
    async with _measured(connection, postgres) as load:
        await _opened(town, checks, connection, count, down)
    checks.that(True, f"incidents: {load}")
    async with _measured(connection, postgres) as load:
        host.fault = None
        await checks.until(
            f"{count:,} open again", lambda: _count(connection, "open"), lambda n: n == count, 90
        )
    checks.that(True, f"return: {load}")
    title = f"(d) a host of {count:,} channels is silent and returns"
    telling = f"{count:,} x channel.state_changed to one destination, another tenant's channel is logged out"
    return [checks.line(title, LAW), logout.line(telling, LAW_LOGOUT)]


async def _settle(town: Town, count: int) -> tuple[Any, Channel]:
    """Import the crowd, whose program is told each change, and watch another tenant's channel."""
    await town.tenant("Crowd", MINUTES, auto_recovery=False)
    await town.tenant("Other", MINUTES)
    url = f"{town.sink.url}/crowd/changes"
    body = {"kind": "webhook", "config": {"url": url}, "events": ["channel.state_changed"]}
    await town.post("/destinations", body | {"tenant_id": town.tenants["Crowd"]})
    host, small = await town.fleet.evolution("2.3.7"), await town.fleet.evolution()
    host.metrics = HostMetrics.ON
    for n in range(count):
        host.add(f"crowd-{n:05}")
    gateway = await town.post(
        "/gateways", {"provider": "evolution_api", "base_url": host.url, "api_key": host.key}
    )
    await town.service.api.post(
        f"/gateways/{gateway['id']}/import", params={"tenant_id": town.tenants["Crowd"]}, timeout=120
    )
    [other] = await town.watch(small, ["Other"], "Other")
    return host, other


async def _count(connection: Connection, state: str) -> int:
    row = await connection.fetchrow(COUNTS)
    assert row is not None
    return int(row[state])


async def _down(town: Town, checks: Checks, host: Any) -> float:
    async def state() -> bool:
        return bool((await town.gateway(host))["state"] == "down")

    await checks.until("the verdict", state, within=town.real(120) + 15)
    return time.time()


async def _logged_out(town: Town, checks: Checks, channel: Channel) -> None:
    told = await checks.until("told", lambda: town.people("Other"), bool, town.real(GRACE) + 15)
    for incident in await town.incidents([channel]):
        due = seconds(incident["started_at"]) + town.real(GRACE)
        if told:
            checks.within("told, past its grace,", told[0].at - due, 5)
    changes = len(town.sink.told("crowd/changes"))
    checks.that(changes, f"{changes:,} changes told by then")


async def _opened(town: Town, checks: Checks, connection: Connection, count: int, down: float) -> None:
    async def opened() -> int:
        row = await connection.fetchrow(LATE)
        assert row is not None
        return int(row["caused"])

    await checks.until(
        f"{count:,} incidents with the cause", opened, lambda n: n == count, town.real(60 * MINUTES) + 20
    )
    row = await connection.fetchrow(LATE)
    assert row is not None
    if row["late"] is not None:
        late = float(row["late"]) - town.real(60 * MINUTES)
        checks.within("the last opened, past its threshold,", late, 5)


@asynccontextmanager
async def _measured(connection: Connection, postgres: int) -> AsyncIterator[Load]:
    load, began, cpu = Load(), time.monotonic(), _cpu(postgres)
    before = await connection.fetchrow(ROWS)
    yield load
    after = await connection.fetchrow(ROWS)
    assert before is not None
    assert after is not None
    load.seconds, load.cpu = time.monotonic() - began, _cpu(postgres) - cpu
    load.rows = after["rows"] - before["rows"]


def _cpu(first: int) -> float:
    """Return the seconds of processor time of a process, its children, and those that have ended."""
    total = 0
    children = Path(f"/proc/{first}/task/{first}/children").read_text().split()
    for pid in (str(first), *children):
        try:
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        total += sum(int(fields[place]) for place in (range(11, 15) if pid == str(first) else range(11, 13)))
    return total / 100


async def run(folder: Path) -> list[Line]:
    """Play it."""
    async with open_row(folder, SPEED) as (town, server), server.connected() as connection:
        return await play(town, connection, server.pid)
