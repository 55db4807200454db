"""Checks registered channels and gateways, and reads them for the doctor. Decrypts no key."""

import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Final, NamedTuple
from uuid import UUID

from db.codec.channel import clock_of
from db.connection.types import Connection
from db.diagnosis.finding import SLOW, Finding, about, note, problem
from db.queries import sql
from statemachine.clock import QUARTER, Clock

LONG: Final = timedelta(days=7)
"""A pause that is longer may have been forgotten."""
EXPIRES_IN: Final = (1, 3, 7)
"""How many days before the end of a subscription it is reported."""
CLOCK_TOLERANCE: Final = timedelta(minutes=2)
"""How far from a whole quarter of an hour a gateway's clock may be: deliveries take time, too."""
WIPING: Final = re.compile(r"v?2\.4\.0-?rc")
"""Evolution API 2.4.0-rc1 and -rc2: docs/provider-facts.md#evolution-close."""


class WatchedChannel(NamedTuple):
    """A channel with its gateway's address; both keys are sealed."""

    channel_id: UUID
    name: str | None
    instance: str | None
    provider: str
    gateway_id: UUID | None
    base_url: str
    channel_key: bytes | None
    gateway_key: bytes | None
    paused_at: datetime | None
    reason: str | None
    last_event_at: datetime | None
    expires_at: datetime | None = None
    put_by: str | None = None
    """`operator` or `tenant`; None: registered before that was kept."""

    @property
    def configured(self) -> bool:
        """Whether there are an address, an instance and a key to probe it with."""
        return bool(self.base_url and self.instance) and (self.channel_key or self.gateway_key) is not None

    def __str__(self) -> str:
        words = ", ".join(word for word in (self.name, self.instance) if word)
        where = f" at {self.base_url}" if self.base_url else ""
        return f"{self.channel_id} ({words or self.provider}{where})"


class WatchedGateway(NamedTuple):
    """A gateway with what was learnt of it; its own key is sealed."""

    id: UUID
    provider: str
    base_url: str
    api_key: bytes | None
    version: str | None
    clock: Clock
    has_webhook: bool
    """Whether there is a webhook address for all channels on it."""
    cause: str | None = None
    """Of its open incident."""


class TokenOwner(NamedTuple):
    """The owner of a webhook token: a channel or a gateway."""

    channel_id: UUID | None
    gateway_id: UUID | None


async def read_channels(connection: Connection) -> list[WatchedChannel]:
    """Return every channel that is watched, first those whose last event is oldest."""
    rows = await connection.fetch(sql.diagnosed_channels, timeout=SLOW)
    return [WatchedChannel(**row) for row in rows]


async def read_gateways(connection: Connection) -> list[WatchedGateway]:
    """Return every gateway that has an address."""
    rows = await connection.fetch(sql.diagnosed_gateways)
    return [WatchedGateway(**{**row, "clock": clock_of(row["clock"])}) for row in rows]


async def token_owners(connection: Connection, hashes: Sequence[bytes]) -> dict[bytes, TokenOwner]:
    """Return the owners of tokens, by their hashes; unknown and revoked ones are left out."""
    rows = await connection.fetch(sql.webhook_owners, hashes)
    return {row["hash"]: TokenOwner(row["channel_id"], row["gateway_id"]) for row in rows}


def check_channels(channels: Sequence[WatchedChannel], now: datetime) -> list[Finding]:
    """Find channels that can't be probed, or that were paused long ago."""
    nameless = [channel for channel in channels if channel.instance is None]
    bare = [channel for channel in channels if channel.instance and not channel.configured]
    paused = [channel for channel in channels if channel.paused_at and now - channel.paused_at > LONG]
    name = "Correct api_url, api_key and instance_name there; two must not name the same instance."
    give = "Give them: PATCH /channels/{id} with api_url and api_key."
    return [
        *about(problem, "unreadable", "The credentials name no instance of their own", nameless, name),
        *about(problem, "unconfigured", "No address or no key, so never probed", bare, give),
        *about(note, "paused", f"Paused for over {LONG.days} days", paused, "POST /channels/{id}/resume"),
        *_check_subscriptions(channels, now),
        *_check_put_by(channels),
    ]


def _check_put_by(channels: Sequence[WatchedChannel]) -> list[Finding]:
    """Find channels of which it isn't known whether an operator or a tenant put them there, by gateway."""
    unknown = Counter(channel.base_url or "no address" for channel in channels if channel.put_by is None)
    if not unknown:
        return []
    what = (
        f"{unknown.total():,} channels were registered before Zapwatch kept whether an operator or a tenant "
        "registers a channel. They count as an operator's: their losses are evidence against their gateway "
        "for all its tenants. By gateway"
    )
    gateways = [f"{url}: {count:,}" for url, count in unknown.most_common()]
    do = (
        "Nothing, if operators registered them. For those of tenants: "
        "update zapwatch_channels set put_by = 'tenant' where channel_id in (...);"
    )
    return about(note, "put_by_unknown", what, gateways, do)


def _check_subscriptions(channels: Sequence[WatchedChannel], now: datetime) -> list[Finding]:
    """Find subscriptions that have ended, and those that soon will, by the days that are left."""
    left = [(channel.expires_at - now, channel) for channel in channels if channel.expires_at is not None]
    renew = "Renew it at the gateway's provider."
    found = about(
        problem, "expired", "No longer paid for", [it for time, it in left if time <= timedelta(0)], renew
    )
    since = timedelta(0)
    for days in EXPIRES_IN:
        soon = [channel for time, channel in left if since < time <= timedelta(days=days)]
        since = timedelta(days=days)
        what = f"Paid for {days} more {'day' if days == 1 else 'days'} at most"
        found += about(problem if days == 1 else note, f"expires_in_{days}", what, soon, renew)
    return found


def check_clocks(gateways: Sequence[WatchedGateway]) -> list[Finding]:
    """Find gateways' clocks that are wrong, and those that show local time."""
    wrong, zones = [], defaultdict(list)
    for gateway in gateways:
        offset = gateway.clock.offset or timedelta(0)
        zone = round(offset / QUARTER) * QUARTER
        if abs(offset - zone) > CLOCK_TOLERANCE:
            wrong.append(f"{gateway.base_url} by {(offset - zone).total_seconds():+.0f} s")
        elif zone:
            zones[_hours(zone)].append(gateway.base_url)
    do = "Set that machine's clock (NTP); if it is right, its webhooks reach us that late."
    found = about(problem, "clock", "The gateway's clock is wrong", wrong, do)
    for hours, urls in zones.items():
        what = f"The gateway's times say Z and mean UTC{hours}"
        found += about(note, "zone", what, urls, "Nothing: it is learnt, and harmless.")
    return found


def check_gateways(gateways: Sequence[WatchedGateway]) -> list[Finding]:
    """Find gateways that have an incident."""
    down = [f"{gateway.base_url} ({gateway.cause})" for gateway in gateways if gateway.cause is not None]
    do = "See to the gateway, or to the way there. Incidents of its channels name it as their cause."
    return list(about(problem, "gateway_down", "The gateway is in trouble", down, do))


def _hours(zone: timedelta) -> str:
    minutes = round(abs(zone) / timedelta(minutes=1))
    return f"{'-' if zone < timedelta(0) else '+'}{minutes // 60:02}:{minutes % 60:02}"


def check_versions(gateways: Sequence[WatchedGateway]) -> list[Finding]:
    """Find gateways of an unknown version, or of one that is known to be bad."""
    silent = [gateway.base_url for gateway in gateways if gateway.version is None]
    wiping = [gateway.base_url for gateway in gateways if WIPING.match(gateway.version or "")]
    ask = "Let GET / through to it: what a lost connection means depends on the version."
    what = (
        "A 2.4.0-rc, where a lost connection (408) wipes the session, a logout by API sends no webhook, "
        "and the same instance can't be paired again"
    )
    return [
        *about(note, "unknown_version", "The gateway's version is unknown", silent, ask),
        *about(note, "release_candidate", what, wiping, "Stay with 2.3.7 until 2.4.0 is released."),
    ]
