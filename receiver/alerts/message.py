"""A message to a destination and the result of its delivery; knows no kind of destination."""

from collections.abc import Collection, Mapping
from datetime import datetime, timedelta
from enum import StrEnum
from typing import NamedTuple, Protocol
from uuid import UUID

from receiver.outbound.egress import EgressPolicy
from statemachine.model import Reason


class Event(StrEnum):
    """The events that destinations can subscribe to, by their public names."""

    INCIDENT_OPENED = "incident.opened"
    INCIDENT_RESOLVED = "incident.resolved"
    INCIDENT_CHANGED = "incident.changed"
    """Sent to programs that subscribe to openings."""
    STATE_CHANGED = "channel.state_changed"
    EXPIRING = "channel.expiring"
    GATEWAY_OPENED = "gateway.opened"
    GATEWAY_RESOLVED = "gateway.resolved"
    DESTINATION_DISABLED = "destination.disabled"
    """Sent without a subscription: another destination of the same owner was switched off."""


class GroupedChannel(NamedTuple):
    """A channel that is down, of those for which one message stands."""

    name: str
    reason: Reason | None
    link: str | None = None
    """The reconnect link, where only a scan helps; a secret."""


class Group(NamedTuple):
    """What became of the channels for which one message stands."""

    total: int
    """All of the tenant's channels, or of the gateway's."""
    down: int
    back: int
    need_scan: int
    """How many of those that are down only a scan reconnects."""
    tenants: int
    gateways: int
    """How many gateways are not reached, perhaps because of our own line."""
    is_tenants: bool
    """Whether it is about one tenant's channels, for its people."""
    channels: tuple[GroupedChannel, ...]
    """Some of those that are down."""


class MessageItem(NamedTuple):
    """One alert of a message: of a channel's or gateway's incident, or of a channel without one."""

    event: Event
    incident_id: UUID | None
    """The id of a destination that was switched off; None: of no incident."""
    name: str
    """The channel's, the gateway's or the destination's; its instance or address where it has no name."""
    kind: str
    """The incident's kind, the cause of a gateway's, or why a destination was switched off; else empty."""
    reason: Reason | None
    started_at: datetime
    """When the incident or the state began; of a subscription: when its coming end was noticed."""
    resolved_at: datetime | None = None
    channel_id: UUID | None = None
    tenant_id: UUID | None = None
    link: str | None = None
    """The reconnect link, if `needs_scan`; a secret: it needs no login."""
    affected: int | None = None
    """How many channels a gateway's incident affects."""
    provider: str | None = None
    needs_scan: bool = False
    """Whether a scan reconnects the channel; then the text asks for one."""
    state: str | None = None
    """A channel's new state, by its public name."""
    previous_state: str | None = None
    sequence: int | None = None
    """Grows with each change of the channel's state."""
    expires_at: datetime | None = None
    """Until when a channel is paid for."""
    cause: str | None = None
    """`gateway`: the channel's incident is caused by its gateway's."""
    gateway_incident_id: UUID | None = None
    group: Group | None = None
    perhaps_offline: bool = False
    """Whether our own line may be why a gateway isn't reached."""
    flaps: int = 0
    """How often a channel that keeps dropping did so lately; of a gateway 1, if it does."""
    flapped_for: timedelta | None = None
    is_open: bool = False
    """Whether the channel is connected now."""
    still_down: bool = False
    """Whether the channel is down although its gateway, which was told of, is back."""
    was_removed: bool = False
    """Whether the gateway's incident ended because no watched channel is left there."""
    was_never_connected: bool = False
    """Of the end of a channel's own fault: it waits for its first scan, as before."""


class Message(NamedTuple):
    """What is sent at once to one destination: the same, with the same id, in each try."""

    id: UUID
    at: datetime
    locale: str
    time_zone: str
    items: tuple[MessageItem, ...]
    is_test: bool = False
    is_reminder: bool = False
    tenant_id: UUID | None = None
    """The destination's tenant; None: operators."""


class DeliveryResult(NamedTuple):
    """The result of one try."""

    ok: bool
    permanent: bool = False
    """Further tries would fail as well."""
    retry_after: timedelta | None = None
    status: int | None = None
    answer: str = ""
    """The destination's answer, or why there was none: short, and without secrets."""
    was_sent: bool = True
    """False: the destination was not asked, for a reason of ours, which says nothing about it."""


class InvalidConfig(Exception):
    """A configuration is invalid; `problems` by field name."""

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
        """Whether several alerts can be combined in one message; otherwise each is a message of its own."""

    @property
    def credentials(self) -> Mapping[str, Collection[str]]:
        """Configuration fields that are sent in clear, each with the fields that set where to."""

    def check(self, config: Mapping[str, object]) -> Mapping[str, object]:
        """Return a configuration in its normal form, missing secrets made; raises `InvalidConfig`."""

    def shown(self, config: Mapping[str, object]) -> Mapping[str, object]:
        """Return the configuration without secrets, for every reader of the destination."""

    async def send(
        self, config: Mapping[str, object], message: Message, outgoing: EgressPolicy
    ) -> DeliveryResult:
        """Send a message once, within seconds, through its owner's egress; errors are returned."""
