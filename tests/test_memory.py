"""What callers send stays out of the service's memory, however much it is."""

import asyncio
import re
from asyncio.subprocess import Process
from pathlib import Path

import httpx

from tests.conftest import reachable_folder
from tests.factories import Evolution
from tests.support.hostile import MIB
from tests.test_kill import free_port, serving

CALLERS = 300
GROWTH = 230 * MIB
"""Far below a mebibyte for each caller."""


def resident(service: Process) -> int:
    """Return the bytes of memory that a process has now."""
    status = Path(f"/proc/{service.pid}/status").read_text()
    return int(re.findall(r"VmRSS:\s+(\d+) kB", status)[0]) * 1024


async def send_half(port: int, path: str) -> asyncio.StreamWriter:
    """Announce ten megabytes and send the first of them, or as much as is taken."""
    _, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: {10 * MIB}\r\n\r\n".encode())
    writer.write(b"x" * MIB)
    return writer


async def test_hundreds_of_half_sent_large_bodies_are_not_kept_in_memory() -> None:
    with reachable_folder() as folder:
        port = free_port()
        async with serving(folder / "data", port) as (service, client):
            made = await client.post("/channels", json={"provider": "evolution_api", "instance": "a"})
            hook, instance = made.json()["webhook_url"], Evolution("a")
            assert (await client.post(hook, json=instance.update("open"))).status_code == 204
            before = resident(service)

            path = httpx.URL(hook).path
            writers = [await send_half(port, path) for _ in range(CALLERS)]
            for _ in range(20):
                assert (await client.post(hook, json=instance.update("connecting"))).status_code == 204
                await asyncio.sleep(0.1)  # for the halves to arrive as far as they do

            assert resident(service) - before < GROWTH
            for writer in writers:
                writer.close()
