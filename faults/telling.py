"""kill -9 of the service while it tells people of incidents: who hears nothing, and who hears it twice."""

import asyncio
import os
import random
import signal
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final
from uuid import UUID

import httptools

from faults.line import Line
from faults.postgres import Postgres, postgres
from faults.service import Service, free_port, serving
from faults.wire import LOCAL

LIMIT: Final = 150.0
DEATHS: Final = 5
"""Each with an incident of its own."""
DESTINATIONS: Final = 20
TOLD_WITHIN: Final = 60.0
"""Seconds after the last start: what the dead had claimed waits for half a minute."""
LAW: Final = "each destination hears of each incident, once, or twice where a death came between"
OPEN: Final = "select whatsapp_heartbeat_open_incident($1, 'disconnected')"


class _Receiver:
    """Answers 204 to webhooks, and kills who sends them at the `fatal` one, before or after its answer."""

    def __init__(self) -> None:
        self.lives: list[Counter[str]] = []
        """How often each message came, life by life."""
        self._victim = self._fatal = 0
        self._answers_first = False

    def begin(self, victim: int, fatal: int = 0, answers_first: bool = False) -> None:
        """Count for another life."""
        self._victim, self._fatal, self._answers_first = victim, fatal, answers_first
        self.lives.append(Counter())

    async def plan_recovery(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Take one webhook."""
        request = _Request()
        while not request.is_whole and (data := await reader.read(65536)):
            request.parser.feed_data(data)
        if request.is_whole:
            life = self.lives[-1]
            life[request.message] += 1
            is_last = life.total() == self._fatal
            if is_last and not self._answers_first:
                os.kill(self._victim, signal.SIGKILL)
            writer.write(b"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n")
            if is_last and self._answers_first:
                await writer.drain()
                os.kill(self._victim, signal.SIGKILL)
        writer.close()


class _Request:
    def __init__(self) -> None:
        self.message, self.is_whole = "", False
        self.parser: Any = httptools.HttpRequestParser(self)

    def on_header(self, name: bytes, value: bytes) -> None:
        if name.lower() == b"webhook-id":
            self.message = value.decode()

    def on_message_complete(self) -> None:
        self.is_whole = True


@asynccontextmanager
async def _listening(receiver: _Receiver) -> AsyncIterator[str]:
    server = await asyncio.start_server(receiver.plan_recovery, LOCAL, 0)
    async with server:
        yield f"http://{LOCAL}:{server.sockets[0].getsockname()[1]}"


async def run(folder: Path) -> list[Line]:
    """Kill the service while it tells of one incident after the other, then let it end its work."""
    receiver, port, chance = _Receiver(), free_port(), random.Random(6)
    channels: list[UUID] = []
    async with postgres(folder) as server, _listening(receiver) as url:
        for death in range(DEATHS):
            async with serving(server.dsn, folder, port=port) as service:
                channels = channels or await _settle(service, url)
                receiver.begin(service.process.pid, chance.randint(1, DESTINATIONS), bool(death % 2))
                await _open(server, channels[death])
                await service.process.wait()
        async with serving(server.dsn, folder, port=port) as service:
            receiver.begin(service.process.pid)
            return [_line(receiver, await _told(service))]


async def _settle(service: Service, url: str) -> list[UUID]:
    """Make a channel for each death, and the operators' destinations."""
    for n in range(DESTINATIONS):
        body = {"kind": "webhook", "config": {"url": f"{url}/{n}"}}
        (await service.api.post("/destinations", json=body)).raise_for_status()
    return [it.channel for it in await service.register([f"told-{n}" for n in range(DEATHS)])]


async def _open(server: Postgres, channel: UUID) -> None:
    async with server.connected() as connection:
        await connection.execute(OPEN, channel)


async def _told(service: Service) -> list[int]:
    """Return how often each incident counts as told, once that is as often as it should be, or too late."""
    end = asyncio.get_running_loop().time() + TOLD_WITHIN
    while True:
        incidents = await service.items("/incidents", subject="channel")
        counts = [incident["notification_count"] for incident in incidents]
        if counts == [DESTINATIONS] * DEATHS or asyncio.get_running_loop().time() > end:
            return counts
        await asyncio.sleep(0.5)  # the service tells nobody that it has told everybody


def _line(receiver: _Receiver, counts: list[int]) -> Line:
    arrived = sum(receiver.lives, Counter[str]())
    wanted = DEATHS * DESTINATIONS
    twice = sum(times == 2 for times in arrived.values())
    oftener = sum(times > 2 for times in arrived.values())
    repeated = sum(max(life.values(), default=0) > 1 for life in receiver.lives)
    lost = wanted - len(arrived)
    measured = (
        f"{wanted} messages, {lost} never came, {twice} came twice, {oftener} oftener, "
        f"{repeated} of {len(receiver.lives)} processes repeated one; counted as told {sum(counts)} times"
    )
    held = not (lost or oftener or repeated) and counts == [DESTINATIONS] * DEATHS
    return Line(f"kill -9 while people are told, {DEATHS} times", LAW, measured, held)
