"""Learns the offset of a gateway's clock from ours; dates nothing and orders nothing itself.

Evolution stamps local wall-clock time and calls it Z (docs/provider-facts.md#evolution-time), so a gateway is
hours behind as a rule. An event reaches us after it was stamped, never before: of many differences the
largest is the best estimate.
"""

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Final

WINDOW: Final = timedelta(minutes=30)
"""The largest difference is kept for one to two of these, so that a slow drift is followed."""
QUARTER: Final = timedelta(minutes=15)
"""Time zones differ by whole quarters of an hour."""
AGREEMENT: Final = timedelta(seconds=1)
"""How near two events must show the same step back: retries of one long outage come minutes apart."""
STEP_TOLERANCE: Final = timedelta(seconds=5)
"""How far from whole quarters a step may be: deliveries take time."""
JUMP: Final = timedelta(minutes=1)
"""An event stamped ahead by more than this is believed only when the next one is, too."""
FARTHEST: Final = timedelta(hours=26)
"""Time zones reach 14 hours either way; a stamp farther off than this is invalid."""
WORTH_KEEPING: Final = timedelta(milliseconds=100)
"""A better estimate by less than this is not written down."""


@dataclass(frozen=True, slots=True)
class Clock:
    """What is known of one gateway's clock."""

    offset: timedelta | None = None
    """Its time minus ours; None before the first event."""
    best: timedelta | None = None
    """The largest difference seen in the present window."""
    window_at: datetime | None = None
    """When the present window began, by our clock."""
    pending_step: timedelta | None = None
    """A step that one event showed and another must confirm."""
    pending_step_at: datetime | None = None
    """That event's stamp: copies of one event confirm nothing."""
    epoch: int = 0
    """Counts settings of the clock, from the first event on: times of different ones can't be compared."""

    def read(self, at: datetime | None, received_at: datetime) -> tuple[datetime, datetime]:
        """Return an event's time by the gateway's clock and by ours.

        An event without a believable time counts as emitted when it arrived, and so does one stamped
        far ahead: it must not outrank all that follows.
        """
        offset = self.offset or timedelta(0)
        arrived = received_at + offset
        if at is None or not is_believable(at, received_at) or at > arrived + JUMP:
            return arrived, received_at
        return at, at - offset


def is_believable(at: datetime, received_at: datetime) -> bool:
    """True when a gateway's clock may show `at` while ours shows `received_at`."""
    return abs(at - received_at) <= FARTHEST


def learn(clock: Clock, at: datetime, received_at: datetime) -> Clock:
    """Return the clock after one event stamped `at` reached us; the same one when nothing follows from it.

    A step of whole quarters of an hour, or a jump ahead, in two events in a row is a change of the
    gateway's clock; one event delivered twice is one. A step back of another size may as well be lateness.
    """
    if not is_believable(at, received_at):
        return clock
    seen = at - received_at
    if clock.offset is None:
        return _begin(clock, seen, received_at)
    step = _step(seen - clock.offset)
    if step is None:
        if clock.pending_step is not None:
            clock = replace(clock, pending_step=None, pending_step_at=None)
        return _follow(clock, seen, received_at)
    if clock.pending_step is not None and at == clock.pending_step_at:
        return clock
    tolerance = STEP_TOLERANCE if step > timedelta(0) else AGREEMENT
    if clock.pending_step is not None and abs(step - clock.pending_step) <= tolerance:
        return _begin(clock, seen, received_at)
    return replace(clock, pending_step=step, pending_step_at=at)


def _begin(clock: Clock, seen: timedelta, received_at: datetime) -> Clock:
    return Clock(offset=seen, best=seen, window_at=received_at, epoch=clock.epoch + 1)


def _follow(clock: Clock, seen: timedelta, received_at: datetime) -> Clock:
    assert clock.offset is not None
    if clock.window_at is None or clock.best is None or received_at - clock.window_at > WINDOW:
        # The last window's best becomes the floor, so that it holds for one window more.
        offset = seen if clock.best is None else max(seen, clock.best)
        return replace(clock, offset=offset, best=seen, window_at=received_at)
    if seen > clock.offset + WORTH_KEEPING:
        return replace(clock, offset=seen, best=seen)
    if seen > clock.best + WORTH_KEEPING:
        return replace(clock, best=seen)
    return clock


def _step(difference: timedelta) -> timedelta | None:
    """Return the difference when it may be a change of clock: whole quarters either way, or a jump ahead."""
    quarters = round(difference / QUARTER) * QUARTER
    is_zone = bool(quarters) and abs(difference - quarters) <= STEP_TOLERANCE
    return difference if is_zone or difference > JUMP else None
