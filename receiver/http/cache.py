"""A bounded cache of database reads, and the invalidation of all that was read about a channel or a gateway.

No operation scans the entries, however many there are: an entry keeps the time at which its read began, and
`get` compares that with the time at which its channel and its gateway were last invalidated. So an entry that
was being read during an invalidation is stale, too.
"""

from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from datetime import timedelta
from math import inf
from typing import Final, Generic, TypeVar
from uuid import UUID

Key = TypeVar("Key")
Entry = TypeVar("Entry")

EVICTED_AT_ONCE: Final = 1000
"""Entries that one `put` evicts at most (or as many as it adds): some 0.5 ms of the event loop."""


class Invalidations:
    """When channels and gateways were last invalidated, by a monotonic clock in seconds."""

    def __init__(self, kept_for: timedelta, clock: Callable[[], float]) -> None:
        """`kept_for`: the lifetime of the longest-lived entry; older invalidations concern none."""
        self._kept_for = kept_for.total_seconds()
        self._clock = clock
        self._at: OrderedDict[UUID, float] = OrderedDict()
        self._all_at = self._newest_at = -inf

    def add(self, identity: UUID) -> None:
        """Invalidate everything that was read about a channel or a gateway until now."""
        now = self._newest_at = self._clock()
        self._at[identity] = now
        self._at.move_to_end(identity)
        while self._at and next(iter(self._at.values())) <= now - self._kept_for:
            self._at.popitem(last=False)

    def add_all(self) -> None:
        """Invalidate everything that was read until now."""
        self._all_at = self._newest_at = self._clock()
        self._at.clear()

    def is_stale(self, read_at: float, identities: Iterable[UUID | None]) -> bool:
        """Return whether one of these was invalidated after a read about them began at `read_at`."""
        if read_at > self._newest_at:
            return False
        return read_at <= self._all_at or any(
            read_at <= self._at.get(identity, -inf) for identity in identities if identity is not None
        )


class Cache(Generic[Key, Entry]):
    """A mapping whose entries end some time after their read began, or by an invalidation.

    `identities` returns the channels and gateways that an entry is about. An entry that has ended and isn't
    asked for again is evicted by later `put`s. When the cache is full, the oldest entries go first.
    """

    def __init__(
        self,
        lifetime: timedelta,
        max_entries: int,
        clock: Callable[[], float],
        invalidations: Invalidations | None = None,
        identities: Callable[[Key, Entry], Iterable[UUID | None]] = lambda key, entry: (),
    ) -> None:
        self._lifetime = lifetime.total_seconds()
        self._max_entries = max_entries
        self._clock = clock
        self._invalidations = invalidations
        self._identities = identities
        self._entries: OrderedDict[Key, tuple[float, Entry]] = OrderedDict()

    def __len__(self) -> int:
        """Return how many entries are in memory, those included that have ended."""
        return len(self._entries)

    def get(self, key: Key) -> Entry | None:
        """Return the entry, unless it has ended."""
        found = self._entries.get(key)
        if found is None:
            return None
        read_at, entry = found
        if read_at + self._lifetime <= self._clock() or self._is_stale(read_at, key, entry):
            del self._entries[key]
            return None
        return entry

    def put(self, entries: Mapping[Key, Entry], read_at: float) -> None:
        """Add what a read that began at `read_at` found; reads are put in the order in which they began."""
        for key, entry in entries.items():
            self._entries[key] = read_at, entry
            self._entries.move_to_end(key)
        self._evict(max(EVICTED_AT_ONCE, len(entries)))

    def _is_stale(self, read_at: float, key: Key, entry: Entry) -> bool:
        invalidations = self._invalidations
        return invalidations is not None and invalidations.is_stale(read_at, self._identities(key, entry))

    def _evict(self, at_most: int) -> None:
        ended_before = self._clock() - self._lifetime
        for _ in range(min(at_most, len(self._entries))):
            read_at, _entry = next(iter(self._entries.values()))
            if read_at > ended_before and len(self._entries) <= self._max_entries:
                return
            self._entries.popitem(last=False)
