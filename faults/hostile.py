"""Bodies that are large, packed, odd or not as long as they say, hundreds at once beside good traffic."""

import asyncio
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import chain, count
from pathlib import Path
from typing import Final

from db.connection.types import Connection
from db.registry.tokens import hash_token
from faults.bodies import CLOSED, Kind, groups
from faults.gateway import Event, Gateway, Instance
from faults.ledger import audit
from faults.line import Line
from faults.memory import MIB, Memory
from faults.postgres import postgres
from faults.service import Service, serving
from faults.wire import ask
from receiver.ingest.webhooks import BODY_LIMIT, LARGE_AT_ONCE, SMALL
from receiver.sandbox.stage import Stage
from receiver.service.server import UNREAD_BYTES

LIMIT: Final = 200.0
ROUNDS: Final = 3
AT_ONCE: Final = 16
"""Of each kind, and all kinds together."""
EACH: Final = ROUNDS * AT_ONCE
WITHIN: Final = 40.0
"""Seconds after which an answer is missing; the service parts from everybody sooner."""
ATTEMPTS: Final = 5
"""Of who is told to send again and means it."""
AGAIN_AFTER: Final = 2.0
GOOD: Final = 40
"""Channels of gateways that mean well."""
PACE: Final = 0.2
"""Seconds between two events of such a channel, on average."""
READ: Final = 2 * UNREAD_BYTES
"""Bytes that one read may bring: the kernel takes the double of what it is told."""
GROWTH: Final = 1.1
"""How many times the first round's memory a later one may take."""
STORED: Final = """
select coalesce(sum(count), 0) from zapwatch_events where source = 'webhook' and channel_id = any ($1::uuid[])
"""
KEPT: Final = "select count(*) from zapwatch_quarantine where token_hash = any ($1::bytea[])"
HEARD: Final = (
    "select count(*) from zapwatch_states where channel_id = any ($1::uuid[]) and last_event_at >= $2"
)
LAW: Final = "as docs/gateways.md says; what was answered with 204 or 202 is stored, and nothing else"


@dataclass(slots=True)
class Senders:
    """Those who send one kind of request, on a channel of their own, and what became of it."""

    kind: Kind
    instance: Instance
    answers: Counter[str] = field(default_factory=Counter)
    acknowledged: list[Event] = field(default_factory=list)

    async def send(self, port: int) -> None:
        """Send one; like a gateway, send it again when asked to."""
        event = self.instance.update(("connecting", "open")[len(self.instance.said) % 2])
        body = event.request.partition(b"\r\n\r\n")[2]
        head, *rest = self.kind.make(self.instance.path, body)
        for _ in range(ATTEMPTS):
            answer = await self._ask(port, head, rest)
            self.answers[answer] += 1
            if answer == self.kind.answer or answer != "503":
                break
            await asyncio.sleep(AGAIN_AFTER)
        if answer == "204" and not self.kind.is_traffic:
            self.acknowledged.append(event)

    async def _ask(self, port: int, head: bytes, rest: Sequence[bytes]) -> str:
        now = asyncio.get_running_loop().time
        began = now()
        status = await ask(port, head, WITHIN, self.kind.then_ends, rest)
        if status is None:
            return CLOSED if now() - began < WITHIN else "none"
        return str(status)

    @property
    def are_answered(self) -> bool:
        """Whether each was answered as it must be, and before that with nothing but a wish to come again."""
        wanted = self.kind.answer
        return self.answers[wanted] == EACH and self.answers.keys() <= {wanted, "503"}

    @property
    def are_large(self) -> bool:
        """Whether their bodies have to wait for a place."""
        return sum(map(len, self.kind.make("/", b"{}"))) > SMALL


async def run(folder: Path) -> list[Line]:
    """Send everything at once, several times, beside good traffic; then ask the database what was kept."""
    stage = Stage(1, seed=5)
    try:
        async with (
            postgres(folder) as server,
            server.connected() as connection,
            serving(server.dsn, folder) as service,
        ):
            senders = {fault: await _senders(service, fault, kinds) for fault, kinds in groups().items()}
            everyone = list(chain.from_iterable(senders.values()))
            gateway = Gateway(stage, service.port)
            good = await service.register([f"good-{n}" for n in range(GOOD)])
            telling = [stage.spawn(_tell(stage, gateway, instance)) for instance in good]
            memory, last_began = await _attack(service, everyone)
            for lane in telling:
                lane.cancel()
            await gateway.said()
            lines = [await _line(connection, fault, group, last_began) for fault, group in senders.items()]
            return [*lines, await _whole(connection, gateway, memory, everyone)]
    finally:
        await stage.end()


async def _senders(service: Service, fault: str, kinds: Sequence[Kind]) -> list[Senders]:
    instances = await service.register([f"{fault}: {kind.name}" for kind in kinds])
    return [Senders(kind, instance) for kind, instance in zip(kinds, instances, strict=True)]


async def _tell(stage: Stage, gateway: Gateway, instance: Instance) -> None:
    """Tell of one event after the other, waiting for none to be heard."""
    for turn in count():
        gateway.send(instance.update(("connecting", "open")[turn % 2]))
        await asyncio.sleep(stage.random.uniform(0, 2 * PACE))


async def _attack(service: Service, everyone: Sequence[Senders]) -> tuple[Memory, datetime]:
    """Go through all rounds, and return what they took of memory, and when the last of them began."""
    memory = Memory(service.memory())
    # Who keeps a place for long comes first: so every round is as crowded as the others.
    everyone = sorted(everyone, key=lambda it: it.kind.answer != "503")
    for _ in range(ROUNDS):
        began = datetime.now(UTC)
        async with memory.watched(service):
            await asyncio.gather(*(it.send(service.port) for it in everyone for _ in range(AT_ONCE)))
    return memory, began


async def _line(connection: Connection, fault: str, group: Sequence[Senders], last_began: datetime) -> Line:
    """Tell whether each kind got its answer, and what was acknowledged, and no more, is stored."""
    channels = [it.instance.channel for it in group]
    tokens = [hash_token(it.instance.path.rpartition("/")[2]) for it in group]
    traffic = [it.instance.channel for it in group if it.kind.is_traffic]
    found = await audit(connection, chain.from_iterable(it.acknowledged for it in group))
    stored = {
        "states": (await connection.fetchval(STORED, channels), found.acknowledged),
        "unreadable bodies": (
            await connection.fetchval(KEPT, tokens),
            sum(it.answers["202"] for it in group),
        ),
        "channels' traffic": (await connection.fetchval(HEARD, traffic, last_began), len(traffic)),
    }
    told = ", ".join(
        f"{is_there} of {due} {what}" for what, (is_there, due) in stored.items() if is_there or due
    )
    is_kept = not found.lost and all(is_there == due for is_there, due in stored.values())
    return Line(
        fault,
        LAW,
        f"{EACH} of each. {_told(group)}. Stored: {told}; {found.lost} lost",
        is_kept and all(it.are_answered for it in group),
    )


def _told(group: Sequence[Senders]) -> str:
    """Return which answer was given to which kinds, in words."""
    given = defaultdict(list)
    for senders in group:
        for answer, times in senders.answers.items():
            given[answer].append(senders.kind.name + f" ({times})" * (times != EACH))
    return "; ".join(f"{answer}: {', '.join(names)}" for answer, names in sorted(given.items()))


async def _whole(
    connection: Connection, gateway: Gateway, memory: Memory, everyone: Sequence[Senders]
) -> Line:
    """Tell whether memory stayed flat, and nobody who means well noticed anything."""
    large = AT_ONCE * sum(it.are_large for it in everyone)
    allowed = _allowed(large)
    first, *later = memory.peaks
    found = await audit(connection, gateway.acknowledged)
    is_unnoticed = gateway.answers.keys() == {204} and not found.lost
    return Line(
        f"all of these at once: {AT_ONCE * len(everyone)} senders, {large} of them with more than 64 kB, "
        f"{ROUNDS} times",
        f"memory flat: at most {allowed / MIB:.0f} MiB more than before, later rounds at most "
        f"{GROWTH - 1:.0%} above the first; good events all 204, lost: 0",
        f"{memory.told()}; {found.acknowledged:,} good events: {gateway.told()}, {found.lost} lost",
        is_unnoticed and memory.growth <= allowed and max(later) <= GROWTH * first,
    )


def _allowed(large: int) -> int:
    """Return what may lie in memory: bodies in pieces and put together, and two reads of each that waits."""
    taken = 2 * (BODY_LIMIT + READ)
    waiting = SMALL + 2 * READ
    return LARGE_AT_ONCE * taken + (large - LARGE_AT_ONCE) * waiting
