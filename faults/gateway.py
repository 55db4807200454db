"""An Evolution gateway: instances that tell of their connection, and deliveries by its own rules of retrying.

What it retries, when and how often is the sandbox's (`receiver.sandbox.delivery`), which has it from
Evolution's source. It keeps a record of what was acknowledged, which is what the service must never lose.
"""

import asyncio
from collections import Counter
from datetime import UTC, datetime, timedelta
from typing import Any, Final, NamedTuple
from uuid import UUID

import orjson

from faults.wire import ask, post
from receiver.sandbox.delivery import LEAST_TIMEOUT, Retry
from receiver.sandbox.evolution.version import Version
from receiver.sandbox.stage import Stage

RETRY: Final[Retry] = Version("2.3.6").retry
FINAL: Final = RETRY.final
"""Answers after which a gateway drops the event: none of them may be sent."""
SAO_PAULO: Final = timedelta(hours=-3)
MILLISECOND: Final = timedelta(milliseconds=1)


class Event(NamedTuple):
    """One webhook, unlike all others: whose it is, its gateway's stamp, the state it names, its bytes."""

    channel: UUID
    at: datetime
    state: str
    request: bytes


class Instance:
    """One instance as far as it tells of its connection; its stamps grow, whatever its clock does."""

    def __init__(self, channel: UUID, name: str, path: str) -> None:
        self.channel = channel
        self.name = name
        self.path = path
        self.said: list[Event] = []
        self._last = datetime.min.replace(tzinfo=UTC)

    def update(self, state: str, code: int = 200, at: datetime | None = None) -> Event:
        """Return a connection.update of now, or of another time by our clock."""
        if at is None:
            at = self._last = max(datetime.now(UTC), self._last + MILLISECOND)
        return self.event(
            "connection.update", {"instance": self.name, "state": state, "statusReason": code}, at
        )

    def event(self, event: str, data: object, at: datetime, **more: Any) -> Event:
        """Return a webhook of any kind; `state` is what a connection.update names."""
        stamped = at.astimezone(UTC) + SAO_PAULO
        stamped -= timedelta(microseconds=stamped.microsecond % 1000)
        body = {
            "event": event,
            "instance": self.name,
            "data": data,
            "destination": f"http://zapwatch{self.path}",
            "date_time": stamped.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "server_url": "http://evolution",
            "apikey": None,
            **more,
        }
        state = data.get("state", "") if isinstance(data, dict) else ""
        made = Event(self.channel, stamped, state, post(self.path, orjson.dumps(body)))
        self.said.append(made)
        return made


class Gateway:
    """Delivers events to one port until they are acknowledged, or given up as Evolution gives up."""

    def __init__(self, stage: Stage, port: int) -> None:
        self.port = port
        self.answers: Counter[int | None] = Counter()
        """How often which status was answered; None: no answer."""
        self.acknowledged: list[Event] = []
        self.dropped: list[Event] = []
        self._stage = stage
        self._under_way: set[asyncio.Task[None]] = set()
        self._timeout = max((RETRY.timeout or 0.0) / stage.speed, LEAST_TIMEOUT)

    def send(self, event: Event) -> None:
        """Deliver an event, waiting for nothing, as Evolution does."""
        task = self._stage.spawn(self.deliver(event))
        self._under_way.add(task)
        task.add_done_callback(self._under_way.discard)

    async def said(self) -> None:
        """Wait until everything sent is settled."""
        while self._under_way:
            await asyncio.wait(set(self._under_way))

    async def deliver(self, event: Event) -> None:
        """Deliver an event, and return when it is acknowledged or dropped."""
        for failures in range(1, RETRY.attempts + 1):
            status = await ask(self.port, event.request, self._timeout)
            self.answers[status] += 1
            if status is not None and 200 <= status < 300:
                self.acknowledged.append(event)
                return
            if status in FINAL:
                break
            if failures < RETRY.attempts:
                await self._stage.pause(RETRY.delay(failures, self._stage.random))
        self.dropped.append(event)

    @property
    def final_answers(self) -> int:
        """How many answers made it drop an event."""
        return sum(count for status, count in self.answers.items() if status in FINAL)

    def told(self) -> str:
        """Return how often which status was answered, in words."""
        counts = sorted(self.answers.items(), key=lambda item: item[0] or 0)
        return ", ".join(f"{count:,} x {status or 'none'}" for status, count in counts)
