"""Whether a destination is told of an alert, and by which named reason; pure: reads no row and no clock."""

from collections.abc import Collection
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final, NamedTuple

LATE: Final = timedelta(hours=1)
"""An incident that is over is told of no longer after that: nobody is helped by last week's outages."""


class DecisionReason(StrEnum):
    """Why somebody is told, or nobody: public, in the log, the metric and the delivery log."""

    OPENED = "opened"
    RESOLVED = "resolved"
    REMINDER = "reminder"
    DESTINATION_DISABLED = "destination_disabled"
    STATE_CHANGED = "state_changed"
    EXPIRING = "expiring"

    ALERTS_DISABLED = "alerts_disabled"
    PAUSED = "paused"
    REMOVED = "removed"
    MAINTENANCE = "maintenance"
    """Held until the window ends, and decided then."""
    OVER_BEFORE_TOLD = "over_before_told"
    """The incident ended before anybody could be told that it had begun; the state was again what it had
    been, the subscription was renewed or had ended."""
    SUPERSEDED = "superseded"
    """A newer change of the same channel takes its place."""

    DISABLED = "disabled"
    NOT_WANTED = "not_wanted"
    UNKNOWN_KIND = "unknown_kind"
    NO_RECIPIENTS = "no_recipients"
    OPENING_NOT_TOLD = "opening_not_told"
    """It was not told that the incident began, so it need not know that it is over."""
    NOBODY = "nobody"
    """No destination is to be told, whatever the reason of each."""

    ACKNOWLEDGED = "acknowledged"
    NO_REMINDERS = "no_reminders"
    NOT_YET_TOLD = "not_yet_told"
    """The opening is still on its way; what comes after it waits."""

    @property
    def sends(self) -> bool:
        """Whether somebody is told."""
        return self in _SENDING


_SENDING: Final = {
    DecisionReason.OPENED,
    DecisionReason.RESOLVED,
    DecisionReason.REMINDER,
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
    """How the incident and its channel stand when it is decided."""

    is_over: bool = False
    alerts_enabled: bool = True
    paused: bool = False
    removed: bool = False
    quiet_until: datetime | None = None
    """When the maintenance ends in which it stands; None: it stands in none."""


class AlertFacts(NamedTuple):
    """An alert: of the opening of an incident or, when `resolved`, of its end."""

    event: str
    resolved: bool
    standing: SubjectState
    waited: timedelta = timedelta(0)
    """How old it is."""
    was_held: bool = False
    """Whether maintenance has held it back before."""


class Recipient(NamedTuple):
    """A destination as far as deciding goes."""

    events: Collection[str] = ("incident.opened", "incident.resolved")
    disabled: bool = False
    known: bool = True
    """Whether there is a notifier of its kind."""
    has_recipients: bool = True
    reminds: bool = False
    is_for_people: bool = True


class OpeningDelivery(StrEnum):
    """What became of telling a destination that the incident began."""

    NONE = "none"
    """It was not told, or telling it failed for good."""
    WAITING = "waiting"
    """We still hold it back, and nothing has left."""
    LEFT = "left"
    """It was told, or may have been: it is on its way."""
    TOLD = "told"


def of_all(news: AlertFacts) -> DecisionReason | None:
    """Return why no destination is told just now; None: each is to be asked."""
    against = _against(news.standing)
    if against is not None:
        return against
    if not news.resolved and news.standing.is_over and (news.was_held or news.waited > LATE):
        return DecisionReason.OVER_BEFORE_TOLD
    return None


def of_one(news: AlertFacts, place: Recipient, opening: OpeningDelivery) -> DecisionReason:
    """Return why one destination is told, or not, of what nothing speaks against."""
    if place.disabled:
        return DecisionReason.DISABLED
    if not place.known:
        return DecisionReason.UNKNOWN_KIND
    if news.resolved:
        if opening is OpeningDelivery.WAITING:
            return DecisionReason.OVER_BEFORE_TOLD
        if opening is OpeningDelivery.NONE:
            return DecisionReason.OPENING_NOT_TOLD
    if not wants(place.events, news.event):
        return DecisionReason.NOT_WANTED
    if not place.has_recipients:
        return DecisionReason.NO_RECIPIENTS
    return DecisionReason.RESOLVED if news.resolved else DecisionReason.OPENED


def of_reminder(
    standing: SubjectState, place: Recipient, opening: OpeningDelivery, acknowledged: bool
) -> DecisionReason:
    """Return why a destination is reminded of an open incident, or not."""
    if standing.is_over:
        return DecisionReason.OVER_BEFORE_TOLD
    if acknowledged:
        return DecisionReason.ACKNOWLEDGED
    if place.disabled:
        return DecisionReason.DISABLED
    if not place.known:
        return DecisionReason.UNKNOWN_KIND
    if not place.reminds:
        return DecisionReason.NO_REMINDERS
    if opening is OpeningDelivery.NONE:
        return DecisionReason.OPENING_NOT_TOLD
    if opening is not OpeningDelivery.TOLD:
        return DecisionReason.NOT_YET_TOLD
    if not place.has_recipients:
        return DecisionReason.NO_RECIPIENTS
    return _against(standing) or DecisionReason.REMINDER


def of_state(removed: bool, is_back: bool) -> DecisionReason | None:
    """Return why no destination is told that a channel's state changed; None: each that wishes to be is.

    Nothing else speaks against it: it isn't an alert, and whoever goes by it needs what is true.
    """
    if removed:
        return DecisionReason.REMOVED
    return DecisionReason.OVER_BEFORE_TOLD if is_back else None


def of_expiry(standing: SubjectState) -> DecisionReason | None:
    """Return why no destination is told just now that a subscription ends soon; None: each is to be asked."""
    if standing.is_over:
        return DecisionReason.OVER_BEFORE_TOLD
    return _against(standing)


def of_change(event: str, place: Recipient, why: DecisionReason) -> DecisionReason:
    """Return why one destination is told of a change of a channel (that is `why`), or not.

    Whatever tells people of incidents tells them, too, that a subscription ends soon.
    """
    is_warned = (
        why is DecisionReason.EXPIRING and place.is_for_people and wants(place.events, "incident.opened")
    )
    if not (is_warned or wants(place.events, event)):
        return DecisionReason.NOT_WANTED
    if place.disabled:
        return DecisionReason.DISABLED
    if not place.known:
        return DecisionReason.UNKNOWN_KIND
    return why if place.has_recipients else DecisionReason.NO_RECIPIENTS


def wants(events: Collection[str], event: str) -> bool:
    """Tell whether an event is among these names, of which `gateway.*` is every event of gateways."""
    return event in events or f"{event.partition('.')[0]}.*" in events


def _against(standing: SubjectState) -> DecisionReason | None:
    if standing.removed:
        return DecisionReason.REMOVED
    if standing.paused:
        return DecisionReason.PAUSED
    if not standing.alerts_enabled:
        return DecisionReason.ALERTS_DISABLED
    if standing.quiet_until is not None:
        return DecisionReason.MAINTENANCE
    return None
