"""Thousands of callers who send a byte now and then, beside gateways that mean well."""

import asyncio
from asyncio import TimerHandle
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Final, cast

from bench import load
from faults.gateway import Instance
from faults.line import Line
from faults.postgres import postgres
from faults.service import Service, serving
from faults.wire import LOCAL

LIMIT: Final = 200.0
CALLERS: Final = 2000
EVERY: Final = 5.0
"""Seconds between two bytes of a slow caller."""
CLOSED_WITHIN: Final = 15.0
ROUNDS: Final = 5
SECONDS: Final = 4.0
"""How long good traffic is measured, in turn without and with slow callers."""
CHANNELS: Final = 200
CONNECTIONS: Final = 16
"""Of good traffic, with one request under way each."""
AT_ONCE: Final = 100
"""Slow callers that connect at the same time."""
WORSE: Final = 2.0


class _Slow(asyncio.Protocol):
    """A caller who says a byte every few seconds for as long as the service listens."""

    def __init__(self, beginning: bytes) -> None:
        loop = asyncio.get_running_loop()
        self._beginning = beginning
        self._now = loop.time
        self._next: TimerHandle | None = None
        self.lasted: asyncio.Future[float] = loop.create_future()
        """Seconds from connecting to the end."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._began = self._now()
        self._transport.write(self._beginning)
        self._wait()

    def connection_lost(self, error: Exception | None) -> None:
        if self._next is not None:
            self._next.cancel()
        if not self.lasted.done():
            self.lasted.set_result(self._now() - self._began)

    def _wait(self) -> None:
        self._next = asyncio.get_running_loop().call_later(EVERY, self._say)

    def _say(self) -> None:
        self._transport.write(b"a")
        self._wait()


async def run(folder: Path) -> list[Line]:
    """Measure good traffic without and with slow callers, in turn, and how long those are kept."""
    async with postgres(folder) as server, serving(server.dsn, folder) as service:
        instances = await service.register([f"good-{n}" for n in range(CHANNELS)])
        targets = folder / "targets"
        targets.write_text("\n".join(f"{it.path} {it.name}" for it in instances))
        alone: list[float] = []
        beside: list[float] = []
        lasted: list[float] = []
        for turn in range(ROUNDS):
            alone.append(await _good(service, targets, 2 * turn))
            slow = await _connect(service, instances)
            beside.append(await _good(service, targets, 2 * turn + 1))
            lasted += await asyncio.gather(*(caller.lasted for caller in slow))
    return [_line(alone, beside, lasted)]


async def _good(service: Service, targets: Path, seed: int) -> float:
    """Return the p99 of good traffic in milliseconds; every answer must be 204."""
    wanted = load.Load(service.port, "drops", str(targets), CONNECTIONS, SECONDS, seed)
    outcome = await load.run(wanted)
    if outcome.codes.keys() != {"204"}:
        raise RuntimeError(f"good traffic was answered with {outcome.codes}")
    return outcome.p99


async def _connect(service: Service, instances: Sequence[Instance]) -> list[_Slow]:
    """Return slow callers, half of them in their headers and half in their bodies."""
    loop = asyncio.get_running_loop()
    callers: list[_Slow] = []
    for first in range(0, CALLERS, AT_ONCE):
        new = [_Slow(_beginning(n, instances)) for n in range(first, first + AT_ONCE)]
        ways = (loop.create_connection(lambda it=it: it, LOCAL, service.port) for it in new)  # type: ignore[misc]
        await asyncio.gather(*ways)
        callers += new
    return callers


def _beginning(number: int, instances: Sequence[Instance]) -> bytes:
    head = f"POST {instances[number % len(instances)].path} HTTP/1.1\r\nHost: zapwatch\r\n"
    rest = "X-Slow: " if number % 2 else f"Content-Length: {1000 + number}\r\n\r\n{{"
    return (head + rest).encode()


def _line(alone: Sequence[float], beside: Sequence[float], lasted: Sequence[float]) -> Line:
    ratio = median(beside) / median(alone)
    measured = (
        f"p99 {median(beside):.1f} ms, without them {median(alone):.1f} ms: {ratio:.2f}x "
        f"(medians of {ROUNDS}); "
        f"{len(lasted):,} sockets closed after {min(lasted):.1f} to {max(lasted):.1f} s"
    )
    return Line(
        f"slow clients: {CALLERS:,} sockets send a byte every {EVERY:.0f} s, half in headers, half in bodies",
        f"good traffic's p99 under {WORSE:.0f}x; sockets closed within {CLOSED_WITHIN:.0f} s",
        measured,
        ratio < WORSE and max(lasted) <= CLOSED_WITHIN,
    )
