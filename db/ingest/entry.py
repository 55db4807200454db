"""What is handed to the writer: one signal on its way into one channel, with what its event row needs."""

from collections.abc import Mapping
from datetime import datetime
from enum import StrEnum
from types import MappingProxyType
from typing import Final, NamedTuple
from uuid import UUID

from statemachine.model import Reason, Trigger
from statemachine.signals import Signal

RECOVERY: Final = "recovery"
"""The name of the event that says what recovery did; whoever asked for it is its source."""


class Source(StrEnum):
    """Which door a signal came through. Kept for people; the machine can't tell."""

    WEBHOOK = "webhook"
    PROBE = "probe"
    DEADLINE = "deadline"
    OPERATOR = "operator"


class ParsedEvent(NamedTuple):
    """What a webhook said; it becomes a `Heard` once its gateway's clock is known."""

    trigger: Trigger | None
    reason: Reason | None = None
    status: int | None = None
    at: datetime | None = None
    """The gateway's own time; None when it gave none."""
    needs_probe: bool = False
    """The gateway is known to send this by mistake: a probe has to confirm it at once."""


class OwnerProfile(NamedTuple):
    """Whose number a session is: its digits, and the name that the owner gave it."""

    phone: str | None
    profile: str | None = None


class HistoryNote(NamedTuple):
    """What somebody did, kept in the channel's history: no signal, so no state and no replay knows it."""

    details: Mapping[str, object] = MappingProxyType({})


class Entry(NamedTuple):
    """One signal for one channel. `key` recognises a redelivery; `name` is the gateway's word for it."""

    channel_id: UUID
    source: Source
    name: str
    received_at: datetime
    said: ParsedEvent | Signal | HistoryNote
    key: bytes | None = None
    gateway_id: UUID | None = None
    """Which gateway answered a probe: the channel may have been moved to another one meanwhile."""
    details: Mapping[str, object] = MappingProxyType({})
    """What a probe's answer adds for people; it goes into the details of an incident."""
    qr: bytes | None = None
    """Sealed: the QR that the gateway shows; kept while it can be scanned, and never in an event."""
    owner: OwnerProfile | None = None
    """The session's owner, where the webhook names one."""
