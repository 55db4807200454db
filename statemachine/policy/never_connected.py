"""Tells channels that were never connected from those that were; derives no state.

An instance without any sign that it ever was connected waits for its first scan: it can't be lost. The first
sign sets `Channel.has_been_open`, which stays.
"""

from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Final, TypeVar

from statemachine.machine import GATEWAY_TROUBLE
from statemachine.model import GATEWAY_REASONS, Channel, Logout, Reason, State, Trigger
from statemachine.signals import Heard, Verdict

TOGETHER: Final = timedelta(seconds=10)
"""A logout within this time of an end by the API, before or after, is part of it."""
KEPT: Final = 8
"""Logouts, and ends by the API, that are kept until they are decided: the newest ones."""
BANS: Final = (Reason.BANNED, Reason.BANNED_TEMPORARILY)
BY_API: Final = (Reason.LOGGED_OUT_BY_API, Reason.INSTANCE_REMOVED)

Moment = TypeVar("Moment", datetime, Logout)


def heard(channel: Channel, heard: Heard) -> Channel:
    """Return a channel that was never connected after a webhook that may be a sign that it was.

    `opened` and a ban prove it at once. The API can log out and remove an instance that never had a session,
    and the gateway then reports a logout, too. So one with the gateway's code is a sign only if no end by the
    API is near, which `decided` finds out later.
    """
    if heard.trigger is Trigger.OPENED or heard.reason in BANS:
        return connected(channel)
    if heard.reason in BY_API:
        return channel._replace(ended_by_api=_newest((*channel.ended_by_api, heard.emitted_at)))
    if heard.reason is Reason.LOGGED_OUT and heard.status is not None:
        logout = Logout(heard.emitted_at, heard.received_at)
        return channel._replace(logouts=_newest((*channel.logouts, logout)))
    return channel


def connected(channel: Channel) -> Channel:
    """Return the channel with the sign that it was connected."""
    if channel.has_been_open:
        return channel
    return channel._replace(has_been_open=True, logouts=(), ended_by_api=(), fault_at=None)


def _newest(times: Iterable[Moment]) -> tuple[Moment, ...]:
    return tuple(sorted(set(times)))[-KEPT:]


def due_at(channel: Channel) -> datetime | None:
    """Return when the oldest undecided logout is to be decided; None without one."""
    return min((logout.received_at + TOGETHER for logout in channel.logouts), default=None)


def decided(channel: Channel, now: datetime) -> Channel:
    """Return the channel after the logouts that arrived `TOGETHER` ago or before: one by itself is a sign."""
    ready = [logout for logout in channel.logouts if now >= logout.received_at + TOGETHER]
    if any(not _is_by_api(channel, logout) for logout in ready):
        return connected(channel)
    if not ready:
        return channel
    return channel._replace(logouts=tuple(logout for logout in channel.logouts if logout not in ready))


def _is_by_api(channel: Channel, logout: Logout) -> bool:
    return any(abs(logout.emitted_at - ended_at) <= TOGETHER for ended_at in channel.ended_by_api)


def settled(channel: Channel, verdict: Verdict) -> Channel:
    """Return a channel that was never connected after a probe's verdict on it, applied to its state already.

    A wrong key and a missing instance are its fault; what says nothing about either leaves a fault as it is.
    """
    if verdict.trigger is Trigger.SESSION_MISSING or (
        verdict.trigger is Trigger.UNAUTHORIZED and channel.state is State.ERROR
    ):
        return channel._replace(fault_at=channel.fault_at or verdict.dated_at)
    return channel if verdict.trigger in GATEWAY_TROUBLE else channel._replace(fault_at=None)


def fault_since(channel: Channel) -> datetime | None:
    """Return since when there is a fault for which an incident may open; none while its gateway is silent."""
    return None if channel.status.reason in GATEWAY_REASONS else channel.fault_at


def is_over(before: Channel, after: Channel) -> bool:
    """True when the fault of a channel that was never connected has just ended, though it isn't open."""
    return before.fault_at is not None and after.fault_at is None and not after.has_been_open
