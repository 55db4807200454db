"""kill -9 of the service's processes under load: at any moment, and at named points of a commit."""

import asyncio
import os
import signal
from asyncio.subprocess import Process
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from faults.doomed import POINTS, Point
from faults.gateway import Gateway, Instance
from faults.ledger import audit, wrong_states
from faults.line import Line
from faults.postgres import Postgres, postgres
from faults.service import Service, free_port, serving
from receiver.sandbox.stage import Stage

LIMIT: Final = 240.0
SPEED: Final = 20.0
"""How much faster than Evolution's the gateway's retries come: it goes on for a minute, not for twenty."""
CHANNELS: Final = 120
PACE: Final = 3.0
"""Seconds of the gateway between two events of a channel, on average."""
WORKERS: Final = 5
KILLS: Final = 50
DEATHS: Final = 6
"""At each of the named points."""
BATCHES: Final = 40
"""A process dies within its first so many."""
LAW: Final = "acknowledged events lost: 0; final states equal an oracle's"
NAMES: Final[dict[Point, str]] = {
    "before": "before COMMIT",
    "during": "while COMMIT is under way",
    "after": "after COMMIT, before the answer",
}


class Load:
    """Channels that tell of open and connecting in turn, one event at a time, until they are stopped."""

    def __init__(self, stage: Stage, gateway: Gateway, instances: Sequence[Instance]) -> None:
        self.instances = instances
        self.gateway = gateway
        self._stage = stage
        self._is_over = False
        self._lanes = [stage.spawn(self._lane(instance)) for instance in instances]

    async def stop(self) -> None:
        """Say no more, and wait until everything said is settled."""
        self._is_over = True
        await asyncio.wait(self._lanes)

    async def _lane(self, instance: Instance) -> None:
        turn = 0
        while not self._is_over:
            await self._stage.pause(self._stage.random.uniform(0, 2 * PACE))
            turn += 1
            await self.gateway.deliver(instance.update(("connecting", "open")[turn % 2]))


async def run(folder: Path) -> list[Line]:
    """Kill workers at any moment, then whole services at each named point."""
    async with postgres(folder) as server:
        lines = [await _at_any_moment(server, folder)]
        for point in POINTS:
            lines.append(await _at(point, server, folder))
        return lines


async def _at_any_moment(server: Postgres, folder: Path) -> Line:
    stage = Stage(SPEED, seed=1)
    try:
        async with serving(server.dsn, folder, workers=str(WORKERS)) as service:
            instances = await service.register([f"any-{n}" for n in range(CHANNELS)])
            load = Load(stage, Gateway(stage, service.port), instances)
            killed: set[int] = set()
            while len(killed) < KILLS:
                await _kill_one(service, stage, killed)
            await load.stop()
            return await _line(f"kill -9 of a worker, {KILLS} times", server, service, load)
    finally:
        await stage.end()


async def _kill_one(service: Service, stage: Stage, killed: set[int]) -> None:
    """Kill a serving worker, at some moment, once there are two; one killed a moment ago may look alive."""
    await asyncio.sleep(stage.random.uniform(0, 0.5))
    while len(alive := sorted(set(service.workers()) - killed)) < 2:  # noqa: ASYNC110
        await asyncio.sleep(0.05)  # a worker's log line is all there is to wait for
    chosen = stage.random.choice(alive)
    os.kill(chosen, signal.SIGKILL)
    killed.add(chosen)


async def _at(point: Point, server: Postgres, folder: Path) -> Line:
    stage, port = Stage(SPEED, seed=2), free_port()
    try:
        async with serving(server.dsn, folder, port=port) as service:
            instances = await service.register([f"{point}-{n}" for n in range(CHANNELS)])
        load = Load(stage, Gateway(stage, port), instances)
        for _ in range(DEATHS):
            module = ("faults.doomed", point, str(stage.random.randint(1, BATCHES)))
            async with serving(server.dsn, folder, port=port, module=module) as service:
                await _died(service.process)
        async with serving(server.dsn, folder, port=port) as service:
            await load.stop()
            return await _line(f"kill -9 {NAMES[point]}, {DEATHS} times", server, service, load)
    finally:
        await stage.end()


async def _died(process: Process) -> None:
    code = await process.wait()
    if code != -signal.SIGKILL:
        raise RuntimeError(f"the service ended by itself, with {code}")


async def _line(fault: str, server: Postgres, service: Service, load: Load) -> Line:
    gateway = load.gateway
    async with server.connected() as connection:
        found = await audit(connection, gateway.acknowledged)
    wrong = wrong_states(load.instances, await service.states())
    measured = (
        f"{found.acknowledged:,} acknowledged, {found.lost} lost, {found.twice} stored twice, "
        f"{found.redelivered:,} redeliveries recognised, {gateway.answers[None]:,} attempts cut off, "
        f"{len(gateway.dropped)} given up; {wrong} of {len(load.instances)} states wrong"
    )
    held = not (
        found.lost or found.twice or found.shared or wrong or gateway.dropped or gateway.final_answers
    )
    return Line(fault, LAW, measured, held)
