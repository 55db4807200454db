"""Limits of the reconnect page: requests per time, and open streams; counted in each process by itself."""

import asyncio
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Final
from uuid import UUID

from receiver.http.rate_limit import RateLimit

STREAMS: Final = 200
"""Open pages of one process that are kept up to date."""
STREAMS_OF_LINK: Final = 5
"""Of those, for one channel."""
BY_LINK: Final = 40
"""Requests a minute with links to one channel."""
BY_ADDRESS: Final = 80
"""Requests a minute from one address; a household or an office may share one."""
CODES: Final = 6
"""Pairing codes in ten minutes for one channel: WhatsApp refuses a number that asks too often."""
MINUTE: Final = timedelta(minutes=1)


class VisitorLimits:
    """Counts requests and streams, in memory, for no longer than a limit's period."""

    def __init__(self, stopping: asyncio.Event) -> None:
        """`stopping`: set when the process stops; browsers then come back to another."""
        self._links, self._addresses = RateLimit(BY_LINK, MINUTE), RateLimit(BY_ADDRESS, MINUTE)
        self._codes = RateLimit(CODES, 10 * MINUTE)
        self._open: Counter[UUID] = Counter()
        self._stopping = stopping

    def wait_for_address(self, address: str) -> int:
        """Count a request from an address; return 0, or the seconds until it may come again."""
        return self._addresses.take(address, time.monotonic())

    def wait_for_link(self, channel_id: UUID) -> int:
        """Count a request with a link to a channel; return 0, or the seconds until it may come again."""
        return self._links.take(channel_id, time.monotonic())

    def wait_for_code(self, channel_id: UUID) -> int:
        """Count a pairing code of a channel; return 0, or the seconds until there may be another."""
        return self._codes.take(channel_id, time.monotonic())

    def allows_stream(self, channel_id: UUID) -> bool:
        """Return whether one more stream of a channel may open."""
        return self._open.total() < STREAMS and self._open[channel_id] < STREAMS_OF_LINK

    @contextmanager
    def counting_stream(self, channel_id: UUID) -> Iterator[None]:
        """Count a stream of a channel while the body runs."""
        self._open[channel_id] += 1
        try:
            yield
        finally:
            self._open[channel_id] -= 1
            if not self._open[channel_id]:
                del self._open[channel_id]

    async def pause(self, seconds: float) -> bool:
        """Wait this many seconds; return False if the process stops."""
        try:
            await asyncio.wait_for(self._stopping.wait(), seconds)
        except TimeoutError:
            return True
        return False
