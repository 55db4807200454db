"""What is to be told to a destination, and what became of telling it; knows no destination."""

from collections.abc import Collection, Mapping
from datetime import datetime, timedelta
from enum import StrEnum
from typing import NamedTuple, Protocol
from uuid import UUID

from receiver.outbound.egress import EgressPolicy
from statemachine.model import Reason


class Event(StrEnum):
    """What destinations can be told of, by its public name."""

    INCIDENT_OPENED = "incident.opened"
    INCIDENT_RESOLVED = "incident.resolved"
    STATE_CHANGED = "channel.state_changed"
    EXPIRING = "channel.expiring"
    GATEWAY_OPENED = "gateway.opened"
    GATEWAY_RESOLVED = "gateway.resolved"
    DESTINATION_DISABLED = "destination.disabled"
    """Told without being asked for: another destination of the same owner is switched off."""


class MessageItem(NamedTuple):
    """One piece of news: of a channel's incident, of a gateway's, or of a channel without one."""

    event: Event
    incident_id: UUID | None
    """Of a destination that was switched off: its own id; None: it is of no incident."""
    name: str
    """The channel's, the gateway's or the destination's; its instance or address where nobody named it."""
    kind: str
    """The incident's kind, the cause of a gateway's, or why a destination was switched off; else empty."""
    reason: Reason | None
    started_at: datetime
    """When the incident began, or the state; of a subscription: when it was seen that it ends soon."""
    resolved_at: datetime | None = None
    channel_id: UUID | None = None
    tenant_id: UUID | None = None
    link: str | None = None
    """Where a scan brings the channel back, if `needs_scan`; it lets anybody in who has it."""
    affected: int | None = None
    """How many channels a gateway's incident stands for."""
    provider: str | None = None
    needs_scan: bool = False
    """Whether a scan brings the incident's channel back: then the text asks for one."""
    state: str | None = None
    """What a channel's state is now, by its public name."""
    previous_state: str | None = None
    sequence: int | None = None
    """Grows with each change of the channel's state."""
    expires_at: datetime | None = None
    """Until when a channel is paid for."""


class Message(NamedTuple):
    """What leaves as one: the same, with the same id, in each try."""

    id: UUID
    at: datetime
    locale: str
    time_zone: str
    items: tuple[MessageItem, ...]
    is_test: bool = False
    is_reminder: bool = False
    tenant_id: UUID | None = None
    """Whose destination it goes to; None: an operators' one."""


class DeliveryResult(NamedTuple):
    """What became of one try."""

    ok: bool
    permanent: bool = False
    """It would fail again, however often it were tried."""
    retry_after: timedelta | None = None
    status: int | None = None
    answer: str = ""
    """The destination's own words, or ours for its silence: short, and without secrets."""


class InvalidConfig(Exception):
    """A configuration that can't be: what is wrong with each field, by its name."""

    def __init__(self, problems: Mapping[str, str]) -> None:
        super().__init__(", ".join(f"{name}: {problem}" for name, problem in problems.items()))
        self.problems = problems


class Notifier(Protocol):
    """One kind of destination."""

    @property
    def kind(self) -> str:
        """Its name in rows and in the API."""

    @property
    def is_grouped(self) -> bool:
        """Whether several pieces of news leave as one message; otherwise each is one of its own."""

    @property
    def credentials(self) -> Mapping[str, Collection[str]]:
        """Fields of a configuration that leave as they are, each with those that say where it is sent."""

    def check(self, config: Mapping[str, object]) -> Mapping[str, object]:
        """Return a configuration in its normal form, missing secrets made; raises `InvalidConfig`."""

    def shown(self, config: Mapping[str, object]) -> Mapping[str, object]:
        """Return what of a configuration anybody may see who may see the destination."""

    async def send(
        self, config: Mapping[str, object], message: Message, outgoing: EgressPolicy
    ) -> DeliveryResult:
        """Tell it once, within seconds, by the ways open to its owner; whatever goes wrong is a value."""
