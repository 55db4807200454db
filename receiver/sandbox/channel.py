"""What channels of all gateways share: scripts, and a record of what was asked and what was sent."""

import asyncio
import time
from collections.abc import Iterator, Sequence
from typing import ClassVar, NamedTuple

from receiver.sandbox.delivery import Courier, Outbox, QueuedPost, Retry
from receiver.sandbox.fault import Fault

Script = Iterator[float]
"""What happens to a channel, yielding the seconds until its next step."""


class Ordered(NamedTuple):
    """An order that came for a channel, at the loop's monotonic time, whatever the answer."""

    what: str
    at: float


class SentMessage(NamedTuple):
    """A webhook that was emitted, at the loop's monotonic time."""

    event: str
    at: float


class SandboxChannel:
    """One channel of a gateway; a script that begins ends the one before."""

    OPEN: ClassVar[str] = "open"

    def __init__(self, courier: Courier, name: str, key: str, state: str) -> None:
        self.name = name
        self.key = key
        self.state: str | None = state
        """What its memory says, in the gateway's word; None while an Evolution boots."""
        self.exists = True
        self.webhook: str | None = None
        self.fault: Fault | None = None
        self.probed: list[float] = []
        """Monotonic times at which its state was asked, whatever the answer."""
        self.sent: list[SentMessage] = []
        self.ordered: list[Ordered] = []
        self.order_fault: Fault | None = None
        """What becomes of orders instead of what they are for."""
        self._stage = courier.stage
        self._outbox = Outbox(courier)
        self._script: asyncio.Task[None] | None = None
        self._is_brief = False

    async def said(self) -> None:
        """Wait until every webhook emitted so far is settled.

        What takes only a moment (connecting, being unlinked) is played to its end before; an outage isn't.
        """
        if self._script is not None and self._is_brief:
            await asyncio.wait([self._script])
        await self._outbox.said()

    def vanish(self) -> None:
        """Be gone without a word: 404 from now on."""
        self.stop()
        self.exists = False

    def come_back(self) -> None:
        """Be there and open, without a word."""
        self.stop()
        self.exists = True
        self.state = self.OPEN

    def stop(self) -> None:
        """End the script that plays."""
        if self._script is not None:
            self._script.cancel()
            self._script = None

    def forget(self) -> None:
        """Stop, and drop the webhooks under way."""
        self.stop()
        self._outbox.forget()

    def _play(self, script: Script, brief: bool = False) -> asyncio.Task[None]:
        """Play a script: its first step now, the others in a task that is returned."""
        self.stop()
        self._is_brief = brief
        self._script = self._stage.spawn(self._go_on(next(script, None), script))
        return self._script

    async def _go_on(self, pause: float | None, script: Script) -> None:
        while pause is not None:
            await self._stage.pause(pause)
            pause = next(script, None)

    def _send(self, event: str, posts: Sequence[QueuedPost], retry: Retry, after: float = 0.0) -> None:
        if posts:
            self.sent.append(SentMessage(event, time.monotonic()))
            self._outbox.put(posts, retry, after)
