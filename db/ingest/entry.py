"""Entries for the writer: one signal or note for one channel, with the fields of its event row."""

from collections.abc import Mapping
from datetime import datetime
from enum import StrEnum
from types import MappingProxyType
from typing import Final, NamedTuple
from uuid import UUID

from statemachine.model import Reason, Trigger
from statemachine.signals import Signal

RECOVERY: Final = "recovery"
GATEWAY_SILENCE: Final = "gateway_silence"
LEFT_TOGETHER: Final = "left_together"
"""The name of the event that records an episode of recovery; its source is the requester."""


class Source(StrEnum):
    """The origin of a signal. Stored with its event; the machine doesn't depend on it."""

    WEBHOOK = "webhook"
    PROBE = "probe"
    DEADLINE = "deadline"
    OPERATOR = "operator"


class ParsedEvent(NamedTuple):
    """A parsed webhook; it becomes a `Heard` once its gateway's clock is known."""

    trigger: Trigger | None
    reason: Reason | None = None
    status: int | None = None
    at: datetime | None = None
    """The gateway's own time; None when it gave none."""
    needs_probe: bool = False
    """The gateway is known to send this by mistake: a probe has to confirm it at once."""


class OwnerProfile(NamedTuple):
    """The owner of a session: the digits of the number, and the profile name."""

    phone: str | None
    profile: str | None = None


class HistoryNote(NamedTuple):
    """An action recorded in the channel's history: no signal, so it affects neither state nor replay."""

    details: Mapping[str, object] = MappingProxyType({})


class Entry(NamedTuple):
    """One signal or note for one channel. `key` identifies a redelivery; `name` is the gateway's own."""

    channel_id: UUID
    source: Source
    name: str
    received_at: datetime
    content: ParsedEvent | Signal | HistoryNote
    key: bytes | None = None
    gateway_id: UUID | None = None
    """The gateway that answered a probe: the channel may have been moved to another one meanwhile."""
    details: Mapping[str, object] = MappingProxyType({})
    """Further facts of a probe's answer; they go into the details of an incident."""
    qr: bytes | None = None
    """Sealed: the QR that the gateway shows; kept while it can be scanned, and never in an event."""
    owner: OwnerProfile | None = None
    """The session's owner, where the webhook names one."""
