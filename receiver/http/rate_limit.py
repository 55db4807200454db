"""How often one caller may come, counted in memory by each process; knows no request."""

from collections import OrderedDict
from datetime import timedelta
from math import ceil
from typing import Final

KEPT: Final = 10_000
"""Callers remembered at once; of more, those who came longest ago are forgotten."""


class RateLimit:
    """So many times in a period, by each caller; what is used up comes back evenly."""

    def __init__(self, times: int, period: timedelta) -> None:
        self._times = times
        self._gap = period.total_seconds() / times
        self._full_at: OrderedDict[object, float] = OrderedDict()
        """When each caller has everything back."""

    def take(self, caller: object, now: float) -> int:
        """Return 0 and count, or after how many seconds the caller may come again; `now` is monotonic."""
        full_at = max(now, self._full_at.get(caller, now)) + self._gap
        over = full_at - now - self._times * self._gap
        # A hair of rounding must not cost the last turn.
        if over > 1e-6:
            return max(1, ceil(over))
        self._full_at[caller] = full_at
        self._full_at.move_to_end(caller)
        if len(self._full_at) > KEPT:
            self._full_at.popitem(last=False)
        return 0
