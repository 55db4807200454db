"""Sandbox gateways in a process of their own, so that what is measured doesn't answer itself.

`python -m bench.gateways HOSTS CHANNELS` prints what it serves as one line of JSON, then for each line of its
input how often it was asked, and ends with its input.
"""

import asyncio
import sys
from asyncio.subprocess import Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Final, NamedTuple

import orjson
import uvloop

from receiver.sandbox import HostMetrics, open_fleet

LINE: Final = 16 * 1024 * 1024
"""Bytes of the line that a process may print."""


@dataclass(frozen=True, slots=True)
class Gateway:
    """One gateway: its address, and the keys of its instances by name."""

    url: str
    key: str = field(repr=False)
    """That of all its instances."""
    keys: dict[str, str] = field(repr=False)


class Calls(NamedTuple):
    """How often gateways were asked: about one instance, and about all of theirs."""

    probes: int
    sweeps: int


class Served:
    """Gateways that are served, and what they count."""

    def __init__(self, process: Process, gateways: list[Gateway]) -> None:
        self.gateways: Final = gateways
        self._process = process

    async def calls(self) -> Calls:
        """Return how often they were asked until now."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(b"\n")
        return Calls(*orjson.loads(await self._process.stdout.readline()))


@asynccontextmanager
async def open_gateways(hosts: int, channels: int) -> AsyncIterator[list[Gateway]]:
    """Yield so many Evolution servers, each with so many instances that are open."""
    async with open_served(hosts, channels) as served:
        yield served.gateways


@asynccontextmanager
async def open_served(hosts: int, channels: int) -> AsyncIterator[Served]:
    """Yield so many Evolution servers, which count how often they are asked."""
    command = (sys.executable, "-m", "bench.gateways", str(hosts), str(channels))
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(*command, stdin=pipe, stdout=pipe, limit=LINE)
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        line = await process.stdout.readline()
        yield Served(process, [Gateway(**gateway) for gateway in orjson.loads(line)])
    finally:
        process.stdin.close()
        await process.wait()


async def _serve(hosts: int, channels: int) -> None:
    async with open_fleet() as fleet:
        gateways, served = [], []
        for _ in range(hosts):
            host = await fleet.evolution("2.3.7")
            host.metrics = HostMetrics.ON
            served.append(host)
            names = [f"loja-{number:05}" for number in range(channels)]
            keys = {name: host.add(name).key for name in names}
            gateways.append({"url": host.url, "key": host.key, "keys": keys})
        sys.stdout.buffer.write(orjson.dumps(gateways) + b"\n")
        sys.stdout.buffer.flush()
        while await asyncio.to_thread(sys.stdin.buffer.readline):
            probes = sum(len(it.probed) for host in served for it in host.channels.values())
            sweeps = sum(len(host.swept) for host in served)
            sys.stdout.buffer.write(orjson.dumps([probes, sweeps]) + b"\n")
            sys.stdout.buffer.flush()


if __name__ == "__main__":
    uvloop.run(_serve(int(sys.argv[1]), int(sys.argv[2])))
