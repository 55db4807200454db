"""Groups incidents by their cause: one message stands for all that a gateway's incident caused. Pure.

For operators that is the message about the gateway's incident; for a tenant's people one that counts the
tenant's channels, with one for their return. Programs get each incident and are not grouped.
"""

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Final, NamedTuple
from uuid import UUID

from db.alerts.alerts import AlertDestination, DueAlert, GatewayCause
from receiver.alerts.message import Event
from receiver.alerts.rules import DecisionReason, Recipient, wants

REFUSED_KEY: Final = "unauthorized"
"""The cause of a gateway's incident by which it answers, and refuses the key."""
DOUBT: Final = timedelta(seconds=15)
"""How long an opening waits at most for the incident of its gateway that may follow."""
AGAIN: Final = timedelta(seconds=1)
"""When an opening that waits for its gateway is decided again, at the earliest."""
CAUSED_AGAIN: Final = timedelta(seconds=5)
"""When an opening is decided again of a channel whose gateway is tried first: there may be very many."""
SETTLED_AGAIN: Final = timedelta(seconds=0.3)
"""When a change is decided again that waited until its gateway had settled, if that is still to be noted."""
OFFLINE_AGAIN: Final = timedelta(seconds=15)
"""When a gateway's opening is decided again for which the message about our own line stands."""


class Sent(NamedTuple):
    """Whether an opening was sent to a destination, or is to be, and in which message."""

    is_sent: bool = False
    is_waiting: bool = False
    """Nothing of it was sent yet."""
    message_id: UUID | None = None
    was_tried: bool = False


class Hold(NamedTuple):
    """Why people are not told of an alert yet, and when that is decided again."""

    why: DecisionReason
    until: datetime


class Grouped(NamedTuple):
    """A decision about an incident with a cause, at one destination."""

    why: DecisionReason
    message_id: UUID | None = None
    begins_group: bool = False
    """Whether a message that stands for all of the tenant's incidents with this cause is to be begun."""


def reason_to_wait(alert: DueAlert, now: datetime, doubt: timedelta) -> Hold | None:
    """Return why people are not told of an opening or a change yet; None: they are, if at all."""
    if alert.status.is_over:
        return None
    match alert.kind:
        case "changed":
            return _until_settled(alert, now)
        case "opened" if alert.gateway is not None:
            again = AGAIN if alert.incident_id is None else CAUSED_AGAIN
            is_untried = alert.gateway.is_untried
            return Hold(DecisionReason.GATEWAY_NOT_TRIED, now + again) if is_untried else None
        case "opened":
            return _until_certain(alert, now, doubt)
        case _:
            return None


def _until_settled(alert: DueAlert, now: datetime) -> Hold | None:
    """What is still down when the gateway has settled is told then, as one message."""
    is_kept = alert.was_caused and not alert.has_cause and not alert.is_terminal
    if not is_kept or alert.settles_until is None:
        return None
    return Hold(DecisionReason.GATEWAY_SETTLES, max(alert.settles_until, now + SETTLED_AGAIN))


def _until_certain(alert: DueAlert, now: datetime, doubt: timedelta) -> Hold | None:
    """The doubt is looked at again after as long as it has lasted: a large host has very many openings."""
    ends_at = alert.created_at + doubt
    if not alert.is_gateway_in_doubt or alert.is_terminal or now >= ends_at:
        return None
    return Hold(DecisionReason.IN_DOUBT, min(ends_at, now + max(AGAIN, now - alert.created_at)))


def group_opening(
    cause: GatewayCause, alert: DueAlert, destination: AlertDestination, recipient: Recipient, group: Sent
) -> Grouped:
    """Return whether an incident with a cause is told people by itself, in a group, or by what was sent."""
    if destination.tenant_id is None:
        if not wants(recipient.events, Event.GATEWAY_OPENED):
            return Grouped(DecisionReason.OPENED)
        return Grouped(DecisionReason.CAUSED_BY_GATEWAY, group.message_id)
    if cause.cause == REFUSED_KEY:
        # The key is the operators' to repair, unless the tenant gave it.
        return Grouped(DecisionReason.OPENED if alert.has_own_key else DecisionReason.CAUSED_BY_GATEWAY)
    if group.is_sent:
        return Grouped(DecisionReason.CAUSED_BY_GATEWAY, group.message_id)
    if alert.status.is_over:
        return Grouped(DecisionReason.OVER_BEFORE_TOLD)
    return Grouped(DecisionReason.CAUSED_BY_GATEWAY, begins_group=True)


def is_named_at_the_end(
    alert: DueAlert, destination: AlertDestination, recipient: Recipient, group: Sent
) -> bool:
    """Return whether the message of the end names a channel that stayed down and so lost the cause."""
    is_settled = alert.gateway is not None and alert.gateway.is_over
    gets_end = destination.tenant_id is not None and wants(recipient.events, Event.INCIDENT_RESOLVED)
    return gets_end and group.is_sent and is_settled and not alert.is_terminal


OfflineOpenings = Mapping[UUID, tuple[UUID, UUID | None]]
"""By destination: which gateway's incident was told as perhaps our own outage, and in which message."""
