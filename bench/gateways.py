"""Sandbox gateways in a process of their own, so that what is measured doesn't answer itself.

`python -m bench.gateways HOSTS CHANNELS` prints what it serves as one line of JSON, and ends with its input.
"""

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Final

import orjson
import uvloop

from receiver.sandbox import open_fleet

LINE: Final = 16 * 1024 * 1024
"""Bytes of the line that a process may print."""


@dataclass(frozen=True, slots=True)
class Gateway:
    """One gateway: its address, and the keys of its instances by name."""

    url: str
    keys: dict[str, str] = field(repr=False)


@asynccontextmanager
async def open_gateways(hosts: int, channels: int) -> AsyncIterator[list[Gateway]]:
    """Yield so many Evolution servers, each with so many instances that are open."""
    command = (sys.executable, "-m", "bench.gateways", str(hosts), str(channels))
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(*command, stdin=pipe, stdout=pipe, limit=LINE)
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        line = await process.stdout.readline()
        yield [Gateway(**gateway) for gateway in orjson.loads(line)]
    finally:
        process.stdin.close()
        await process.wait()


async def _serve(hosts: int, channels: int) -> None:
    async with open_fleet() as fleet:
        gateways = []
        for _ in range(hosts):
            host = await fleet.evolution()
            names = [f"loja-{number:05}" for number in range(channels)]
            gateways.append({"url": host.url, "keys": {name: host.add(name).key for name in names}})
        sys.stdout.buffer.write(orjson.dumps(gateways) + b"\n")
        sys.stdout.buffer.flush()
        await asyncio.to_thread(sys.stdin.buffer.read)


if __name__ == "__main__":
    uvloop.run(_serve(int(sys.argv[1]), int(sys.argv[2])))
