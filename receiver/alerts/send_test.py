"""Sends a test message to one destination at once; it is never sent again."""

import asyncio
import time
from collections.abc import Coroutine, Mapping
from datetime import UTC, datetime, timedelta
from typing import Final
from uuid import uuid4

from db.alerts.deliveries import TestResult, begin_test, end_test
from db.alerts.destinations import Config, Destination, tongue_of
from db.connection.types import Pool
from receiver.alerts.message import DeliveryResult, Event, Message, MessageItem, Notifier
from receiver.outbound.egress import Egress

WITHIN: Final = timedelta(seconds=12)
"""How long a test may take: a little longer than a notifier's own timeout."""


class TestTooSoon(Exception):
    """The destination was tested moments ago; `again_in`: when the next test is allowed."""

    def __init__(self, again_in: timedelta) -> None:
        super().__init__(again_in)
        self.again_in = again_in


class TestSend:
    """Sends test messages and stores the answers of destinations."""

    def __init__(self, pool: Pool, notifiers: Mapping[str, Notifier], egress: Egress) -> None:
        self._pool = pool
        self._notifiers = notifiers
        self._egress = egress

    async def send(self, destination: Destination, config: Config) -> TestResult:
        """Send one message to a destination of a known kind, and return the result.

        Raises `TestTooSoon` and `UnknownDestination`; then nothing is sent.
        """
        message = await self._message(destination)
        wait = await begin_test(self._pool, destination.tenant_id, destination.id, message.id, message.at)
        if wait is not None:
            raise TestTooSoon(wait)
        outgoing = self._egress.of(destination.tenant_id)
        began = time.monotonic()
        sent = await _within(self._notifiers[destination.kind].send(config, message, outgoing))
        tested = TestResult(
            message_id=message.id,
            destination_id=destination.id,
            tenant_id=destination.tenant_id,
            at=message.at,
            took=timedelta(seconds=time.monotonic() - began),
            ok=sent.ok,
            status=sent.status,
            answer=sent.answer,
        )
        await end_test(self._pool, tested)
        return tested

    async def _message(self, destination: Destination) -> Message:
        locale, time_zone = await tongue_of(self._pool, destination.tenant_id)
        now, message_id = datetime.now(UTC), uuid4()
        # A test looks like an alert; its id is that of no incident.
        item = MessageItem(
            event=Event.INCIDENT_OPENED,
            incident_id=message_id,
            name=destination.name or "Zapwatch",
            kind="disconnected",
            reason=None,
            started_at=now,
            tenant_id=destination.tenant_id,
        )
        return Message(
            message_id, now, locale, time_zone, (item,), is_test=True, tenant_id=destination.tenant_id
        )


async def _within(sending: Coroutine[object, object, DeliveryResult]) -> DeliveryResult:
    try:
        async with asyncio.timeout(WITHIN.total_seconds()):
            return await sending
    except TimeoutError:
        return DeliveryResult(ok=False, answer=f"no answer within {WITHIN.total_seconds():.0f} s")
