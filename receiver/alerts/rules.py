"""Decides whether a destination gets an alert, each time by a named reason; pure: no rows, no clock."""

from collections.abc import Collection
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final, NamedTuple

LATE: Final = timedelta(hours=1)
"""The opening of an incident that is over isn't sent after this: old outages are of no use."""


class DecisionReason(StrEnum):
    """Why an alert is sent or not: public, in the log, the metric and the delivery log."""

    OPENED = "opened"
    RESOLVED = "resolved"
    REMINDER = "reminder"
    CHANGED = "changed"
    """Kind, reason or cause of an open incident changed, of which programs keep account."""
    DESTINATION_DISABLED = "destination_disabled"
    STATE_CHANGED = "state_changed"
    EXPIRING = "expiring"

    ALERTS_DISABLED = "alerts_disabled"
    PAUSED = "paused"
    REMOVED = "removed"
    MAINTENANCE = "maintenance"
    """Held until the window ends, and decided then."""
    OVER_BEFORE_TOLD = "over_before_told"
    """The incident ended before its opening was sent; the state was again what it had been, or the
    subscription was renewed or had ended."""
    SUPERSEDED = "superseded"
    """A newer change of the same channel replaces it."""

    CAUSED_BY_GATEWAY = "caused_by_gateway"
    """A message about the gateway's incident, or about all that it caused, stands for this incident."""
    GATEWAY_NOT_TRIED = "gateway_not_tried"
    """Held until the gateway was tried: it may be back."""
    IN_DOUBT = "in_doubt"
    """Held for some seconds: a gateway's incident may follow that stands for this one."""
    GATEWAY_SETTLES = "gateway_settles"
    """Held until the gateway has settled: what is still down then is told as one message."""
    PERHAPS_OFFLINE = "perhaps_offline"
    """Our own line may be the fault, which one message says for all gateways."""

    DISABLED = "disabled"
    NOT_WANTED = "not_wanted"
    UNKNOWN_KIND = "unknown_kind"
    NO_RECIPIENTS = "no_recipients"
    OPENING_NOT_TOLD = "opening_not_told"
    """The opening was not sent to this destination, so its end isn't either."""
    NOBODY = "nobody"
    """No destination gets it, whatever the reason of each."""

    ACKNOWLEDGED = "acknowledged"
    NO_REMINDERS = "no_reminders"
    NOT_YET_TOLD = "not_yet_told"
    """The opening is not delivered yet; what follows it waits."""

    @property
    def sends(self) -> bool:
        """Whether the alert is sent."""
        return self in _SENDING


_SENDING: Final = {
    DecisionReason.OPENED,
    DecisionReason.RESOLVED,
    DecisionReason.REMINDER,
    DecisionReason.CHANGED,
    DecisionReason.DESTINATION_DISABLED,
    DecisionReason.STATE_CHANGED,
    DecisionReason.EXPIRING,
}
REMINDED_LATER: Final = {
    DecisionReason.MAINTENANCE,
    DecisionReason.ALERTS_DISABLED,
    DecisionReason.PAUSED,
    DecisionReason.NOT_YET_TOLD,
}
"""Reasons against a reminder that may pass while the incident is open."""


class SubjectState(NamedTuple):
    """The incident and its channel or gateway at the time of the decision."""

    is_over: bool = False
    alerts_enabled: bool = True
    paused: bool = False
    removed: bool = False
    quiet_until: datetime | None = None
    """The end of the maintenance that applies; None: there is none."""


class AlertFacts(NamedTuple):
    """An alert: of the opening of an incident or, when `resolved`, of its end."""

    event: str
    resolved: bool
    subject: SubjectState
    age: timedelta = timedelta(0)
    was_held: bool = False
    """Whether maintenance has delayed it."""


class Recipient(NamedTuple):
    """A destination as one decision considers it."""

    events: Collection[str] = ("incident.opened", "incident.resolved")
    disabled: bool = False
    known: bool = True
    """Whether there is a notifier of its kind."""
    has_recipients: bool = True
    reminds: bool = False
    is_for_people: bool = True


class OpeningDelivery(StrEnum):
    """The delivery of an incident's opening to one destination."""

    NONE = "none"
    """It was not sent, or has failed permanently."""
    WAITING = "waiting"
    """Its message still waits for others; nothing was sent."""
    SENT = "sent"
    """It is on its way, and may have been delivered."""
    DELIVERED = "delivered"


def reason_for_all(alert: AlertFacts) -> DecisionReason | None:
    """Return why no destination gets an alert now; None: decide for each."""
    against = _against(alert.subject)
    if against is not None:
        return against
    if not alert.resolved and alert.subject.is_over and (alert.was_held or alert.age > LATE):
        return DecisionReason.OVER_BEFORE_TOLD
    return None


def reason_for_one(alert: AlertFacts, recipient: Recipient, opening: OpeningDelivery) -> DecisionReason:
    """Return why one destination gets, or not, an alert that `reason_for_all` allows."""
    if recipient.disabled:
        return DecisionReason.DISABLED
    if not recipient.known:
        return DecisionReason.UNKNOWN_KIND
    if alert.resolved:
        if opening is OpeningDelivery.WAITING:
            return DecisionReason.OVER_BEFORE_TOLD
        if opening is OpeningDelivery.NONE:
            return DecisionReason.OPENING_NOT_TOLD
    if not wants(recipient.events, alert.event):
        return DecisionReason.NOT_WANTED
    if not recipient.has_recipients:
        return DecisionReason.NO_RECIPIENTS
    return DecisionReason.RESOLVED if alert.resolved else DecisionReason.OPENED


def reason_for_reminder(
    subject: SubjectState, recipient: Recipient, opening: OpeningDelivery, acknowledged: bool
) -> DecisionReason:
    """Return why a destination gets a reminder of an open incident, or not."""
    if subject.is_over:
        return DecisionReason.OVER_BEFORE_TOLD
    if acknowledged:
        return DecisionReason.ACKNOWLEDGED
    if recipient.disabled:
        return DecisionReason.DISABLED
    if not recipient.known:
        return DecisionReason.UNKNOWN_KIND
    if not recipient.reminds:
        return DecisionReason.NO_REMINDERS
    if opening is OpeningDelivery.NONE:
        return DecisionReason.OPENING_NOT_TOLD
    if opening is not OpeningDelivery.DELIVERED:
        return DecisionReason.NOT_YET_TOLD
    if not recipient.has_recipients:
        return DecisionReason.NO_RECIPIENTS
    return _against(subject) or DecisionReason.REMINDER


def reason_for_state(removed: bool, is_back: bool) -> DecisionReason | None:
    """Return why no destination gets a change of state; None: each one subscribed to it does.

    Pauses and maintenance don't apply: it isn't an alert, and programs need the true state.
    """
    if removed:
        return DecisionReason.REMOVED
    return DecisionReason.OVER_BEFORE_TOLD if is_back else None


def reason_for_expiry(subject: SubjectState) -> DecisionReason | None:
    """Return why no destination gets the warning of a subscription's end now; None: decide for each."""
    if subject.is_over:
        return DecisionReason.OVER_BEFORE_TOLD
    return _against(subject)


def reason_for_change(event: str, recipient: Recipient, why: DecisionReason) -> DecisionReason:
    """Return why one destination gets a change of a channel (then `why`), or not.

    Destinations for people that get incidents also get the warning of a subscription's end.
    """
    is_warned = (
        why is DecisionReason.EXPIRING
        and recipient.is_for_people
        and wants(recipient.events, "incident.opened")
    )
    if not (is_warned or wants(recipient.events, event)):
        return DecisionReason.NOT_WANTED
    if recipient.disabled:
        return DecisionReason.DISABLED
    if not recipient.known:
        return DecisionReason.UNKNOWN_KIND
    return why if recipient.has_recipients else DecisionReason.NO_RECIPIENTS


def wants(events: Collection[str], event: str) -> bool:
    """Return whether an event is among these names, of which `gateway.*` is every event of gateways."""
    return event in events or f"{event.partition('.')[0]}.*" in events


def _against(subject: SubjectState) -> DecisionReason | None:
    if subject.removed:
        return DecisionReason.REMOVED
    if subject.paused:
        return DecisionReason.PAUSED
    if not subject.alerts_enabled:
        return DecisionReason.ALERTS_DISABLED
    if subject.quiet_until is not None:
        return DecisionReason.MAINTENANCE
    return None
