"""Counts departures from open: a channel that leaves it again and again has an incident, though it returns.

A departure is counted some time after it began, because by then it is known whether it lasted and whether
others of the gateway left with it.
"""

from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from typing import Final

from statemachine.model import Channel, Departure, Monitoring, Reason, Status

FLAPS: Final = 5
"""Departures within `FLAP_WINDOW`, each of `SHORTEST` at least, that make an incident by themselves."""
FLAP_WINDOW: Final = timedelta(minutes=30)
SHORTEST: Final = timedelta(seconds=2)
"""Evolution reconnects within 40 to 200 ms as a matter of course (docs/provider-facts.md)."""
BLINKS: Final = 20
"""Departures of any length within `BLINK_WINDOW` that do so, too: two sessions that replace each other."""
BLINK_WINDOW: Final = timedelta(minutes=10)
KEPT: Final = BLINKS + FLAPS
"""How many departures of a channel are kept."""
STABLE_AFTER: Final = timedelta(minutes=10)
"""How long a flapping channel must stay open before its incident ends."""


def departed(channel: Channel, at: datetime, status: Status) -> tuple[Departure, ...]:
    """Return the channel's departures with one more, unless the gateway says that it is its own restart."""
    if status.reason is Reason.RESTART_REQUIRED:
        return channel.departures
    recent = [one for one in channel.departures if at - one.at < FLAP_WINDOW]
    return (*recent, Departure(at, status))[-KEPT:]


def returned(channel: Channel, at: datetime) -> tuple[Departure, ...]:
    """Return the channel's departures, of which the last one ended at that time."""
    if not channel.departures or channel.departures[-1].back_at is not None:
        return channel.departures
    return (*channel.departures[:-1], channel.departures[-1]._replace(back_at=at))


def without(departures: tuple[Departure, ...], since: datetime, until: datetime) -> tuple[Departure, ...]:
    """Return the departures that began outside a span."""
    return tuple(one for one in departures if not since <= one.at <= until)


def found_at(channel: Channel) -> datetime | None:
    """Return when enough departures are counted; None: too few, or the channel is known to flap."""
    known = channel.incident is not None and channel.incident.flapping
    if known or len(channel.departures) < FLAPS or channel.rules.monitoring is not Monitoring.WATCHED:
        return None
    last = min(_found(channel.departures), default=None)
    return None if last is None else last + channel.rules.counted_after


def count(departures: Sequence[Departure]) -> int:
    """Return how many departures were too many: of the long ones, or else of all."""
    long = len(_long(departures))
    return long if long >= FLAPS else len(departures)


def _found(departures: Sequence[Departure]) -> Iterator[datetime]:
    """Yield when those departures began with which there are enough."""
    for found, needed, window in (
        (_long(departures), FLAPS, FLAP_WINDOW),
        (departures, BLINKS, BLINK_WINDOW),
    ):
        for first, last in zip(found, found[needed - 1 :], strict=False):
            if last.at - first.at < window:
                yield last.at


def _long(departures: Sequence[Departure]) -> list[Departure]:
    return [one for one in departures if one.back_at is None or one.back_at - one.at >= SHORTEST]
