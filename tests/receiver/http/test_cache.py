"""What was read of channels and gateways ends by its time or by an invalidation, and leaves memory."""

from datetime import timedelta
from uuid import UUID, uuid4

from receiver.http.cache import EVICTED_AT_ONCE, Cache, Invalidations

LIFETIME = timedelta(seconds=30)
CHANNEL, GATEWAY, OTHER = uuid4(), uuid4(), uuid4()


class Clock:
    """Seconds that pass when told to."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


def cache_of(clock: Clock, at_most: int = 10_000) -> tuple[Cache[int, tuple[UUID, ...]], Invalidations]:
    """Return a cache whose entries are the identities that they are about, and its invalidations."""
    invalidations = Invalidations(LIFETIME, clock)
    return Cache(LIFETIME, at_most, clock, invalidations, lambda _, entry: entry), invalidations


def test_entries_that_have_ended_leave_without_being_asked_for_again() -> None:
    clock = Clock()
    cache, _ = cache_of(clock)
    cache.put(dict.fromkeys(range(100), (OTHER,)), clock.now)

    clock.now += 30
    cache.put({100: (OTHER,)}, clock.now)

    assert len(cache) == 1


def test_one_put_evicts_a_bounded_number() -> None:
    clock = Clock()
    cache, _ = cache_of(clock)
    cache.put(dict.fromkeys(range(3 * EVICTED_AT_ONCE), (OTHER,)), clock.now)

    clock.now += 30
    left = []
    for number in range(4):
        cache.put({-1 - number: (OTHER,)}, clock.now)
        left.append(len(cache))

    assert left == [2 * EVICTED_AT_ONCE + 1, EVICTED_AT_ONCE + 2, 3, 4]


def test_lifetime_begins_with_the_read() -> None:
    clock = Clock()
    cache, _ = cache_of(clock)
    began_at, clock.now = clock.now, 129.0

    cache.put({1: (OTHER,)}, began_at)

    assert cache.get(1) is not None
    clock.now = 130.0
    assert cache.get(1) is None


def test_invalidation_ends_what_was_read_until_then_about_the_same_alone() -> None:
    clock = Clock()
    cache, invalidations = cache_of(clock)
    cache.put({1: (GATEWAY, CHANNEL), 2: (GATEWAY, OTHER)}, clock.now)

    clock.now += 1
    invalidations.add(CHANNEL)
    one, two = cache.get(1), cache.get(2)
    cache.put({1: (GATEWAY, CHANNEL)}, clock.now - 0.5)  # a read that was under way
    under_way = cache.get(1)
    cache.put({1: (GATEWAY, CHANNEL)}, clock.now + 0.5)
    after = cache.get(1)
    clock.now += 1
    invalidations.add(GATEWAY)

    assert (one, under_way) == (None, None)
    assert two == (GATEWAY, OTHER)
    assert after == (GATEWAY, CHANNEL)
    assert (cache.get(1), cache.get(2)) == (None, None)


def test_invalidation_of_all_ends_everything_that_was_read_until_then() -> None:
    clock = Clock()
    cache, invalidations = cache_of(clock)
    cache.put({1: (OTHER,)}, clock.now)

    clock.now += 1
    invalidations.add_all()
    clock.now += 1
    cache.put({2: (OTHER,)}, clock.now)

    assert (cache.get(1), cache.get(2)) == (None, (OTHER,))


def test_old_invalidations_are_not_kept() -> None:
    clock = Clock()
    cache, invalidations = cache_of(clock)
    invalidations.add(CHANNEL)
    clock.now += 30
    invalidations.add(OTHER)

    # Nothing that was read before that is in any cache: it has ended.
    cache.put({1: (CHANNEL,)}, clock.now - 30)

    assert not invalidations.is_stale(clock.now - 30, [CHANNEL])
    assert cache.get(1) is None
