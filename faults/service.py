"""The service as a process of its own: started as an operator starts it, watched through /proc, ended."""

import asyncio
import os
import re
import signal
import socket
import sys
from asyncio.subprocess import PIPE, Process
from base64 import urlsafe_b64encode
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final
from uuid import UUID

import httpx

from faults.gateway import Instance
from faults.wire import LOCAL

OPERATOR: Final = "operator-of-the-fault-table"
KEY: Final = bytes(32)
STARTS_WITHIN: Final = 60.0
ENDS_WITHIN: Final = 30.0
AT_ONCE: Final = 8
"""Channels that are registered at the same time."""
SERVE: Final = ("receiver", "serve")


@dataclass(frozen=True, slots=True)
class Service:
    """A running service: its port, its process, what it logs, and the ops API."""

    port: int
    process: Process
    log: Path
    api: httpx.AsyncClient = field(repr=False)

    async def get(self, path: str, **params: str) -> Any:
        """Return what an operator gets."""
        answer = await self.api.get(path, params=params)
        answer.raise_for_status()
        return answer.json()

    async def items(self, path: str, **params: str) -> list[dict[str, Any]]:
        """Return the whole of a list, page by page."""
        page = await self.get(path, limit="500", **params)
        items: list[dict[str, Any]] = page["items"]
        while page["next"] is not None:
            page = await self.get(path, limit="500", cursor=page["next"], **params)
            items += page["items"]
        return items

    async def states(self) -> dict[UUID, str]:
        """Return the state of every channel."""
        return {UUID(item["channel_id"]): item["state"] for item in await self.items("/channels")}

    async def register(self, names: Sequence[str], **more: Any) -> list[Instance]:
        """Register channels, and return their instances."""
        places = asyncio.Semaphore(AT_ONCE)

        async def registered(name: str) -> Instance:
            async with places:
                body = {"provider": "evolution_api", "instance": name, **more}
                answer = await self.api.post("/channels", json=body)
            answer.raise_for_status()
            made = answer.json()
            return Instance(UUID(made["id"]), name, httpx.URL(made["webhook_url"]).path)

        return await asyncio.gather(*map(registered, names))

    def workers(self) -> list[int]:
        """Return the worker processes that have begun to serve and still live."""
        pid = self.process.pid
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        served = re.findall(r"serves as process (\d+)", self.log.read_text())
        return [int(child) for child in children if child in served and _is_alive(child)]

    def memory(self) -> int:
        """Return the bytes that the process keeps in memory."""
        return int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1]) * 4096


def _is_alive(pid: str) -> bool:
    try:
        return bool(Path(f"/proc/{pid}/cmdline").read_bytes())  # a zombie's is empty
    except OSError:
        return False


def free_port() -> int:
    """Return a port that is free now."""
    with socket.create_server((LOCAL, 0)) as listener:
        return int(listener.getsockname()[1])


@asynccontextmanager
async def serving(
    dsn: str, folder: Path, *, port: int = 0, module: Sequence[str] = SERVE, **settings: str
) -> AsyncIterator[Service]:
    """Yield the service once it serves; it drains and ends afterwards. `settings` are its variables."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("ZAPWATCH_")}
    ours = {"database_url": dsn, "secret_keys": urlsafe_b64encode(KEY).decode(), "operator_token": OPERATOR}
    for name, value in (ours | {"port": str(port)} | settings).items():
        environment[f"ZAPWATCH_{name.upper()}"] = value
    log = folder / "service.log"
    with log.open("ab") as stderr:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", *module, env=environment, stdout=PIPE, stderr=stderr
        )
    try:
        url = await _greeting(process)
        headers = {"Authorization": f"Bearer {OPERATOR}"}
        async with httpx.AsyncClient(base_url=url, headers=headers, timeout=30, trust_env=False) as api:
            yield Service(int(url.rpartition(":")[2]), process, log, api)
    finally:
        await _end(process)


async def _greeting(process: Process) -> str:
    assert process.stdout is not None
    async with asyncio.timeout(STARTS_WITHIN):
        line = await process.stdout.readline()
    found = re.search(r"http://[\d.]+:\d+", line.decode())
    if found is None:
        raise RuntimeError("the service did not start")
    return found[0]


async def _end(process: Process) -> None:
    if process.returncode is None:
        process.send_signal(signal.SIGTERM)
    try:
        async with asyncio.timeout(ENDS_WITHIN):
            await process.wait()
    except TimeoutError:
        process.kill()
        await process.wait()
