"""PostgreSQL dies, is stopped at once, is away for a minute and for ten, while gateways go on telling."""

import asyncio
import signal
from asyncio import Task
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from faults.gateway import FINAL, Gateway, Instance
from faults.ledger import audit, wrong_states
from faults.line import Line
from faults.postgres import Postgres, postgres
from faults.service import Service, serving
from faults.wire import ask
from receiver.sandbox.stage import Stage

LIMIT: Final = 200.0
CHANNELS: Final = 60
FLOODING: Final = 10
"""Of them, those that repeat `connecting` again and again; their events share rows."""
PACE: Final = 0.5
"""Real seconds between two events of a channel, on average."""
AROUND: Final = 1.5
"""Real seconds of load before and after an outage."""
BACK_WITHIN: Final = 5.0
"""Seconds after the database's return within which a gateway must hear 204 again."""
LAW: Final = f"lost: 0 end to end; none of {', '.join(map(str, sorted(FINAL)))} sent"


@dataclass(frozen=True, slots=True)
class Outage:
    """How the database goes, for how long by the gateways' clock, and how fast that runs."""

    fault: str
    how: signal.Signals
    away: float
    speed: float


OUTAGES: Final = (
    Outage("PostgreSQL: kill -9, started again at once", signal.SIGKILL, 0, 3),
    Outage("PostgreSQL: immediate stop, started again at once", signal.SIGQUIT, 0, 3),
    Outage(
        "PostgreSQL: away for 60 s (in 20 s: the gateway's clock runs 3 times as fast)", signal.SIGINT, 60, 3
    ),
    Outage("PostgreSQL: away for 10 min (in 20 s: 30 times as fast)", signal.SIGINT, 600, 30),
)


async def run(folder: Path) -> list[Line]:
    """Go through all outages with one service."""
    async with postgres(folder) as server, serving(server.dsn, folder) as service:
        return [await _go_through(outage, server, service) for outage in OUTAGES]


async def _go_through(outage: Outage, server: Postgres, service: Service) -> Line:
    stage = Stage(outage.speed, seed=3)
    try:
        names = [f"{outage.how.name}-{outage.away:.0f}-{n}" for n in range(CHANNELS)]
        caller, *instances = await service.register(names)
        gateway = Gateway(stage, service.port)
        load = [stage.spawn(_tell(stage, gateway, it, n < FLOODING)) for n, it in enumerate(instances)]
        await asyncio.sleep(AROUND)
        await server.stop(outage.how)
        ready = await _away(service, outage.away / outage.speed)
        await server.start()
        back_after = await _back(service, caller)
        await asyncio.sleep(AROUND)
        await _end(load)
        await gateway.said()
        return await _line(outage, server, service, gateway, instances, ready, back_after)
    finally:
        await stage.end()


async def _tell(stage: Stage, gateway: Gateway, instance: Instance, floods: bool) -> None:
    """Tell of one event after the other, waiting for none to be heard."""
    turn = 0
    while True:
        await asyncio.sleep(stage.random.uniform(0, 2 * PACE))
        turn += not floods
        gateway.send(instance.update(("connecting", "open")[turn % 2]))


async def _end(tasks: Iterable[Task[None]]) -> None:
    tasks = list(tasks)
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)


async def _away(service: Service, seconds: float) -> list[int]:
    """Let the outage last, and return what `/healthz` and `/readyz` say towards its end."""
    await asyncio.sleep(seconds)
    if not seconds:
        return []
    return [(await service.api.get(path)).status_code for path in ("/healthz", "/readyz")]


async def _back(service: Service, instance: Instance) -> float:
    """Return the seconds until somebody who sends again and again is heard."""
    loop = asyncio.get_running_loop()
    began = loop.time()
    while await ask(service.port, instance.update("connecting").request, 30) != 204:  # noqa: ASYNC110
        await asyncio.sleep(0.05)  # nobody tells when the database is back
    return loop.time() - began


async def _line(
    outage: Outage,
    server: Postgres,
    service: Service,
    gateway: Gateway,
    instances: Sequence[Instance],
    ready: Sequence[int],
    back_after: float,
) -> Line:
    async with server.connected() as connection:
        found = await audit(connection, gateway.acknowledged)
    wrong = wrong_states(instances, await service.states())
    told = sum(len(it.said) for it in instances)
    measured = (
        f"{told:,} told, {told - found.acknowledged + found.lost} lost, {found.redelivered:,} redeliveries "
        f"recognised; answers: {gateway.told()}; {wrong} of {len(instances)} states wrong; "
        f"204 again after {back_after:.1f} s"
    )
    held = found.acknowledged == told and not (
        found.lost or wrong or gateway.dropped or gateway.final_answers
    )
    return Line(outage.fault, LAW, measured, held and back_after < BACK_WITHIN and ready in ([], [200, 503]))
