"""A gateway's clock is learnt from when its events arrive; a time zone is a change of clock, lateness not."""

from datetime import UTC, datetime, timedelta

import pytest

from statemachine.clock import Clock, learn

T0 = datetime(2026, 11, 23, 3, 0, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
BEHIND = timedelta(hours=-3)


def after(*events: tuple[timedelta, timedelta]) -> Clock:
    """The clock after events given as (received after T0, stamped minus received)."""
    clock = Clock()
    for received, difference in events:
        clock = learn(clock, T0 + received + difference, T0 + received)
    return clock


def test_first_event_teaches_the_offset() -> None:
    clock = after((MINUTE, BEHIND))

    assert clock.read(T0 + BEHIND, T0) == (T0 + BEHIND, T0)


def test_late_event_does_not_move_the_offset() -> None:
    clock = after((MINUTE, BEHIND), (2 * MINUTE, BEHIND - timedelta(minutes=7)))

    assert clock.offset == BEHIND


def test_quicker_delivery_is_nearer_to_the_truth() -> None:
    clock = after((MINUTE, BEHIND - timedelta(seconds=4)), (2 * MINUTE, BEHIND))

    assert clock.offset == BEHIND


@pytest.mark.parametrize("step", [timedelta(hours=3), timedelta(hours=-1), timedelta(minutes=-45)], ids=str)
def test_two_events_a_time_zone_away_are_a_change_of_clock(step: timedelta) -> None:
    one = after((MINUTE, BEHIND), (2 * MINUTE, BEHIND + step))
    two = after((MINUTE, BEHIND), (2 * MINUTE, BEHIND + step), (3 * MINUTE, BEHIND + step))

    assert (one.epoch, one.offset) == (1, BEHIND)
    assert (two.epoch, two.offset) == (2, BEHIND + step)


def test_one_late_event_between_others_is_no_change_of_clock() -> None:
    quarter = BEHIND - timedelta(minutes=15)

    clock = after((MINUTE, BEHIND), (2 * MINUTE, quarter), (3 * MINUTE, BEHIND), (4 * MINUTE, quarter))

    assert (clock.epoch, clock.offset) == (1, BEHIND)


def test_one_event_stamped_ahead_counts_as_now_and_is_forgotten() -> None:
    ahead = BEHIND + timedelta(minutes=40, seconds=9)

    clock = after((MINUTE, BEHIND), (2 * MINUTE, ahead))

    assert clock.offset == BEHIND
    assert clock.read(T0 + 2 * MINUTE + ahead, T0 + 2 * MINUTE) == (T0 + 2 * MINUTE + BEHIND, T0 + 2 * MINUTE)
    assert learn(clock, T0 + 3 * MINUTE + BEHIND, T0 + 3 * MINUTE).pending_step is None


def test_two_events_stamped_ahead_are_a_change_of_clock() -> None:
    ahead = BEHIND + timedelta(minutes=40, seconds=9)

    clock = after((MINUTE, BEHIND), (2 * MINUTE, ahead), (3 * MINUTE, ahead - timedelta(seconds=2)))

    assert (clock.epoch, clock.offset) == (2, ahead - timedelta(seconds=2))


@pytest.mark.parametrize("step", [timedelta(minutes=-15), timedelta(hours=-1), timedelta(hours=3)], ids=str)
def test_one_event_told_again_and_again_is_no_change_of_clock(step: timedelta) -> None:
    moment = timedelta(milliseconds=20)

    clock = after(
        (MINUTE, BEHIND), *((2 * MINUTE + n * moment, BEHIND + step - n * moment) for n in range(10))
    )

    assert (clock.epoch, clock.offset) == (1, BEHIND)
    assert learn(clock, T0 + 3 * MINUTE + BEHIND + step, T0 + 3 * MINUTE).epoch == 2


def test_two_retries_a_quarter_late_and_seconds_apart_are_no_change_of_clock() -> None:
    quarter = BEHIND - timedelta(minutes=15)

    clock = after((MINUTE, BEHIND), (2 * MINUTE, quarter), (3 * MINUTE, quarter - timedelta(seconds=3)))

    assert (clock.epoch, clock.offset) == (1, BEHIND)


def test_slow_drift_is_followed_within_two_windows() -> None:
    slower = BEHIND - timedelta(seconds=20)
    clock = after((MINUTE, BEHIND), *((number * 10 * MINUTE, slower) for number in range(1, 12)))

    assert clock.offset == slower


def test_stamp_that_no_clock_can_show_counts_as_now() -> None:
    known = after((MINUTE, BEHIND))
    absurd = datetime(9999, 12, 31, tzinfo=UTC)

    assert learn(known, absurd, T0) is known
    assert known.read(absurd, T0) == (T0 + BEHIND, T0)
    assert known.read(None, T0) == (T0 + BEHIND, T0)
