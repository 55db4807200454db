"""When a channel is to be probed next. Derives no state, and knows no incident."""

from datetime import datetime, timedelta
from typing import Final

from statemachine.model import Channel, Monitoring, State

LONGEST_GAP: Final = timedelta(seconds=300)
"""The largest gap between probes of one unhealthy channel."""
OPEN_SHARE_OF_JITTER: Final = 0.25
"""How much of the jitter applies to an open channel, whose probe must not come much after STALE_AFTER."""


def is_probed(channel: Channel) -> bool:
    """True when the channel may be probed at all."""
    return channel.rules.configured and channel.rules.monitoring is Monitoring.WATCHED


def probe_at(channel: Channel, when: datetime) -> Channel:
    """Return the channel with its next probe no later than `when`."""
    if not is_probed(channel):
        return channel._replace(probe_due_at=None)
    if channel.probe_due_at is not None and channel.probe_due_at <= when:
        return channel
    return channel._replace(probe_due_at=when)


def probe_after_answer(channel: Channel, now: datetime, jitter: float) -> Channel:
    """Return the channel with its next probe set, after one was answered at `now`."""
    if not is_probed(channel):
        return channel._replace(probe_due_at=None)
    rules = channel.rules
    if channel.probe_streak is not None:
        gap = rules.retry_after
    elif channel.state is State.OPEN:
        gap, jitter = rules.stale_after, 1 + (jitter - 1) * OPEN_SHARE_OF_JITTER
    else:
        gap = min(rules.retry_after * 2 ** min(channel.probes, 10), LONGEST_GAP)
    return channel._replace(probe_due_at=now + gap * jitter)


def refreshed(channel: Channel, now: datetime, moved: bool = True) -> Channel:
    """Return the channel with fresh evidence: a due incident need not wait for a probe any longer.

    In an unhealthy stretch only evidence that changed the status brings the next probe nearer.
    """
    fresh_at = later(channel.fresh_at, now)
    if channel.state is State.OPEN:
        # Live traffic between two failed probes: they are no streak.
        probe_streak = (
            channel.probe_streak if channel.probe_streak and now <= channel.probe_streak.last_at else None
        )
        probe_due_at = now + channel.rules.stale_after if is_probed(channel) else None
        return channel._replace(
            fresh_at=fresh_at, awaiting_probe=None, probe_streak=probe_streak, probe_due_at=probe_due_at
        )
    after = channel._replace(fresh_at=fresh_at, awaiting_probe=None)
    if moved or channel.probe_due_at is None:
        return probe_at(after, now + channel.rules.retry_after)
    return after


def later(one: datetime | None, other: datetime) -> datetime:
    """Return the later of two times, of which the first may be unknown."""
    return other if one is None else max(one, other)
