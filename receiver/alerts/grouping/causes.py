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
"""When an opening that waits for its gateway is decided again."""
OFFLINE_AGAIN: Final = timedelta(seconds=15)
"""When a gateway's opening is decided again for which the message about our own line stands."""


class Sent(NamedTuple):
    """Whether an opening was sent to a destination, or is to be, and in which message."""

    is_sent: bool = False
    is_waiting: bool = False
    """Nothing of it was sent yet."""
    message_id: UUID | None = None
    was_tried: bool = False


class Grouped(NamedTuple):
    """A decision about an incident with a cause, at one destination."""

    why: DecisionReason
    message_id: UUID | None = None
    begins_group: bool = False
    """Whether a message that stands for all of the tenant's incidents with this cause is to be begun."""


def reason_to_wait(alert: DueAlert, now: datetime, doubt: timedelta) -> DecisionReason | None:
    """Return why people are not told of an opening or a change yet; None: they are, if at all."""
    if alert.kind == "changed":
        # What is still down when the gateway has settled is told then, as one message.
        waits = alert.was_caused and alert.is_settling and not alert.is_terminal and not alert.status.is_over
        return DecisionReason.GATEWAY_SETTLES if waits else None
    if alert.kind != "opened" or alert.status.is_over:
        return None
    if alert.gateway is not None:
        return DecisionReason.GATEWAY_NOT_TRIED if alert.gateway.is_untried else None
    in_doubt = alert.is_gateway_in_doubt and not alert.is_terminal and now < alert.created_at + doubt
    return DecisionReason.IN_DOUBT if in_doubt else None


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


def is_named_at_the_end(alert: DueAlert, destination: AlertDestination, group: Sent) -> bool:
    """Return whether the message of the end names a channel that stayed down and so lost the cause."""
    is_settled = alert.gateway is not None and alert.gateway.is_over
    return destination.tenant_id is not None and group.is_sent and is_settled and not alert.is_terminal


def newest_changes(alerts: list[DueAlert]) -> tuple[list[DueAlert], list[int]]:
    """Return the alerts with the newest change alone of each incident, and the ids of the others."""
    newest: dict[UUID, DueAlert] = {}
    older: list[int] = []
    for alert in alerts:
        if alert.kind == "changed":
            before = newest.get(alert.subject_id)
            if before is not None:
                older.append(before.id)
            was_caused = alert.was_caused or (before is not None and before.was_caused)
            newest[alert.subject_id] = alert._replace(was_caused=was_caused)
    kept = [newest[alert.subject_id] if alert.kind == "changed" else alert for alert in alerts]
    return list(dict.fromkeys(kept)), older


OfflineOpenings = Mapping[UUID, tuple[UUID, UUID | None]]
"""By destination: which gateway's incident was told as perhaps our own outage, and in which message."""
