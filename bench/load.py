"""Load over HTTP on loopback, from a process of its own: connections with one request under way each.

`python -m bench.load` reads one `Load` as a line of JSON and prints one `Outcome`. Speaks just enough
HTTP/1.1 for its own server, so that little of the machine goes into making the load.
"""

import asyncio
import itertools
import random
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from statistics import quantiles
from time import perf_counter, time
from typing import Final, Literal, cast

import orjson
import uvloop

Kind = Literal["states", "drops", "flood", "traffic", "reads"]
BIG: Final = 500_000
"""Bytes of a large message; one with a media file in base64 is far larger still."""
BIG_SHARE: Final = 0.005
SMALL: Final = 2_000
NO_TIME: Final = 120.0
"""Seconds after which a load ends whatever happens: what still waits has failed."""


@dataclass(frozen=True, slots=True)
class Load:
    """What is asked of whom. `targets` is a file with a line `path instance` for each channel."""

    port: int
    kind: Kind
    targets: str
    connections: int
    seconds: float
    seed: int = 1
    in_turn: bool = False
    """Whether channels come one after the other, so that each is heard of once before any is twice."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of a load. Times are milliseconds."""

    answered: int
    seconds: float
    codes: dict[str, int]
    p50: float
    p99: float
    last: dict[str, str] = field(default_factory=dict)
    """What each instance told last."""

    @property
    def rate(self) -> float:
        """Answers a second."""
        return self.answered / self.seconds

    @property
    def total(self) -> int:
        """Answers, those included that came after the time was over."""
        return sum(self.codes.values())


async def run(load: Load) -> Outcome:
    """Make the load from a process of its own and return what came of it."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "bench.load", stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    answer, _ = await process.communicate(orjson.dumps(asdict(load)))
    if process.returncode:
        raise RuntimeError("the load ended with an error")
    return Outcome(**orjson.loads(answer))


class _Speaker:
    """Makes requests, no two of them the same."""

    def __init__(self, load: Load) -> None:
        lines = Path(load.targets).read_text().splitlines()
        self._targets = [(path, instance) for path, instance in (line.split() for line in lines)]
        self._chance = random.Random(load.seed)
        self._in_turn = itertools.cycle(self._targets) if load.in_turn else None
        self._turn = 0
        self._count = 0
        self._stamps: dict[str, int] = {}
        self.last: dict[str, str] = {}
        self._said: dict[str, int] = {}
        self.next: Callable[[], bytes] = getattr(self, f"_{load.kind}")
        self._small, self._big = ("x" * size for size in (SMALL - 700, BIG))

    def _states(self) -> bytes:
        return self._update(("connecting", "open"), (200, 200))

    def _drops(self) -> bytes:
        """Changes of state without a departure from open, which often repeated would be incidents."""
        return self._update(("close", "connecting"), (428, 200))

    def _update(self, states: tuple[str, str], reasons: tuple[int, int]) -> bytes:
        path, instance = self._target()
        turn = self._said[instance] = self._said.get(instance, -1) + 1
        state, reason = states[turn % 2], reasons[turn % 2]
        self.last[instance] = state
        return self._post(path, instance, state, reason)

    def _flood(self) -> bytes:
        self._turn += 1
        path, instance = self._targets[self._turn % len(self._targets)]
        self.last[instance] = "connecting"
        return self._post(path, instance, "connecting", 200)

    def _post(self, path: str, instance: str, state: str, reason: int) -> bytes:
        # Evolution's own stamp, and never the same twice for one instance.
        stamp = max(int(time() * 1000), self._stamps.get(instance, 0) + 1)
        self._stamps[instance] = stamp
        body = _UPDATE % (instance, instance, state, reason, path, _stamp(stamp), instance)
        return _request("POST", path, body)

    def _target(self) -> tuple[str, str]:
        return self._chance.choice(self._targets) if self._in_turn is None else next(self._in_turn)

    def _traffic(self) -> bytes:
        path, instance = self._target()
        self._count += 1
        self.last[instance] = "alive"
        text = self._big if self._chance.random() < BIG_SHARE else self._small
        now = time()
        body = _MESSAGE % (instance, self._count, text, int(now), _stamp(int(now * 1000)))
        return _request("POST", path, body)

    def _reads(self) -> bytes:
        path, _ = self._target()
        return b"GET %b HTTP/1.1\r\nHost: bench\r\nAuthorization: Bearer %b\r\n\r\n" % (path.encode(), TOKEN)


TOKEN: Final = b"operator-of-the-benchmark"
_UPDATE: Final = (
    '{"event":"connection.update","instance":"%s","data":{"instance":"%s","state":"%s","statusReason":%d},'
    '"destination":"http://zapwatch.example:8080%s","date_time":"%s",'
    '"sender":"5511999990000@s.whatsapp.net","server_url":"http://evolution.example:8080",'
    '"apikey":"B6D711FC-DE4D-4FD5-9365-44120E7138%s"}'
)
_MESSAGE: Final = (
    '{"event":"messages.upsert","instance":"%s","data":{"key":{"remoteJid":"5511988887777@s.whatsapp.net",'
    '"fromMe":false,"id":"3EB0%016d"},"pushName":"Maria","status":"DELIVERY_ACK","message":{"conversation":"%s"},'
    '"messageType":"conversation","messageTimestamp":%d,"instanceId":"2b9e3f0c-9b3c-4a5e-9f5c-1f3f5a6b7c8d",'
    '"source":"android"},"destination":"http://zapwatch.example:8080/webhooks","date_time":"%s",'
    '"sender":"5511999990000@s.whatsapp.net","server_url":"http://evolution.example:8080","apikey":null}'
)


def _stamp(milliseconds: int) -> str:
    text = datetime.fromtimestamp(milliseconds / 1000, UTC).isoformat(timespec="milliseconds")
    return text.replace("+00:00", "Z")


def _request(method: str, path: str, body: str) -> bytes:
    return (
        f"{method} {path} HTTP/1.1\r\nHost: bench\r\nContent-Type: application/json\r\n"
        f"User-Agent: axios/1.12.2\r\nContent-Length: {len(body)}\r\n\r\n{body}"
    ).encode()


class _Connection(asyncio.Protocol):
    """One connection: asks, waits for the answer, asks again."""

    def __init__(self, run: "_Run") -> None:
        self._run = run
        self._rest = b""
        self._began = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._ask()

    def data_received(self, data: bytes) -> None:
        data = self._rest + data if self._rest else data
        head = data.find(b"\r\n\r\n")
        if head < 0:
            self._rest = data
            return
        at = data.find(b"ontent-length: ", 0, head)  # uvicorn writes it in small letters
        length = 0 if at < 0 else int(data[at + 15 : data.find(b"\r", at)])
        if len(data) < head + 4 + length:
            self._rest = data
            return
        self._rest = b""
        self._run.note(data[9:12], perf_counter() - self._began)
        if self._run.is_over:
            self._transport.close()
        else:
            self._ask()

    def connection_lost(self, error: Exception | None) -> None:
        self._run.ended()

    def _ask(self) -> None:
        request = self._run.speaker.next()
        self._began = perf_counter()
        self._transport.write(request)


class _Run:
    """All connections of one load."""

    def __init__(self, load: Load) -> None:
        self.speaker = _Speaker(load)
        self._codes: Counter[bytes] = Counter()
        self._took: list[float] = []
        self._open = load.connections
        self._done = asyncio.Event()
        self.is_over = False
        self._load = load

    def note(self, code: bytes, took: float) -> None:
        self._codes[code] += 1
        self._took.append(took)

    def ended(self) -> None:
        self._open -= 1
        if not self._open:
            self._done.set()

    async def outcome(self) -> Outcome:
        loop = asyncio.get_running_loop()
        began = perf_counter()
        for _ in range(self._load.connections):
            await loop.create_connection(lambda: _Connection(self), "127.0.0.1", self._load.port)
        await asyncio.sleep(self._load.seconds)
        answered, seconds = len(self._took), perf_counter() - began
        cuts = quantiles(self._took, n=100)
        self.is_over = True
        async with asyncio.timeout(NO_TIME):
            await self._done.wait()
        codes = {code.decode(): count for code, count in self._codes.items()}
        return Outcome(answered, seconds, codes, 1000 * cuts[49], 1000 * cuts[98], self.speaker.last)


async def _main() -> None:
    load = Load(**orjson.loads(sys.stdin.buffer.read()))
    sys.stdout.buffer.write(orjson.dumps(asdict(await _Run(load).outcome())))


if __name__ == "__main__":
    uvloop.run(_main())
