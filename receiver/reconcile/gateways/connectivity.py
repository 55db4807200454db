"""Whether this process is online, by what its probes bring back; pure, in memory.

While nothing comes back from anywhere, silence may be our own: for `offline_for` at most, because a real
outage of everything has to be reported, too.
"""

from datetime import UTC, datetime, timedelta
from typing import Final

PROOF_WITHIN: Final = timedelta(seconds=3)
"""An answer to a question that was asked later than this says nothing of the silence before it."""
LONG_AGO: Final = datetime.min.replace(tzinfo=UTC)


class Connectivity:
    """When something came back last, and since when nothing does."""

    def __init__(self, offline_for: timedelta) -> None:
        """`offline_for`: how long silence from everywhere may be our own."""
        self._offline_for: Final = max(offline_for, PROOF_WITHIN)
        self._proved_at = LONG_AGO
        self._silent_since: datetime | None = None
        self._ours_until = LONG_AGO

    def prove(self, at: datetime, asked_at: datetime | None = None) -> bool:
        """Note an answer to a question of `asked_at`; return whether the silence before it was ours."""
        since, asked_at = self._silent_since, asked_at or at
        was_ours = since is not None and asked_at > since + PROOF_WITHIN
        if was_ours:
            self._ours_until = max(self._ours_until, at)
        self._proved_at, self._silent_since = max(self._proved_at, at), None
        return was_ours

    def note_silence(self, at: datetime) -> None:
        """Note that a probe went unanswered, and nothing was answered since it began."""
        self._silent_since = self._silent_since or at

    def is_proven(self, began_at: datetime) -> bool:
        """Return whether something came back since then."""
        return self._proved_at > began_at

    def is_ours(self, began_at: datetime) -> bool:
        """Return whether the silence after a question of then was our own."""
        return began_at <= self._ours_until

    def is_over(self, now: datetime) -> bool:
        """Return whether nothing came back for so long that it is taken for an outage of others."""
        return self._silent_since is not None and now >= self._silent_since + self._offline_for
