"""Rate limits by client, counted in memory by each process; knows no request."""

from collections import OrderedDict
from datetime import timedelta
from math import ceil
from typing import Final

KEPT: Final = 10_000
"""Clients in memory at most; the least recent are dropped first."""


class RateLimit:
    """A number of requests in a period for each client, replenished evenly."""

    def __init__(self, times: int, period: timedelta) -> None:
        self._times = times
        self._gap = period.total_seconds() / times
        self._full_at: OrderedDict[object, float] = OrderedDict()
        """When each client's limit is fully replenished."""

    def take(self, caller: object, now: float) -> int:
        """Count a request and return 0, or the seconds until the next is allowed; `now` is monotonic."""
        full_at = max(now, self._full_at.get(caller, now)) + self._gap
        over = full_at - now - self._times * self._gap
        # A rounding error must not refuse the last request.
        if over > 1e-6:
            return max(1, ceil(over))
        self._full_at[caller] = full_at
        self._full_at.move_to_end(caller)
        if len(self._full_at) > KEPT:
            self._full_at.popitem(last=False)
        return 0
