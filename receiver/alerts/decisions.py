"""The decisions of one round of routing about alerts and reminders; reads no row, and writes once."""

from collections.abc import Callable, Collection, Iterable, Mapping
from datetime import datetime, timedelta
from typing import Final
from uuid import UUID

from db.alerts import alerts as alert_rows
from db.alerts.alerts import (
    AlertDestination,
    Decision,
    DueAlert,
    DueReminder,
    GroupEnd,
    IncidentStatus,
    Link,
    NotifiedOpening,
)
from db.connection.types import Connection
from db.ingest.apply import note_notified
from receiver.alerts.grouping.batching import MessagePlanner
from receiver.alerts.grouping.causes import (
    OFFLINE_AGAIN,
    Hold,
    OfflineOpenings,
    Sent,
    group_opening,
    is_named_at_the_end,
    reason_to_wait,
)
from receiver.alerts.message import Event
from receiver.alerts.rules import (
    REMINDED_LATER,
    AlertFacts,
    DecisionReason,
    OpeningDelivery,
    Recipient,
    SubjectState,
    reason_for_all,
    reason_for_one,
    reason_for_reminder,
)


class DecisionRound:
    """Collects the decisions of one round, to be written with `keep`."""

    def __init__(
        self,
        now: datetime,
        planner: MessagePlanner,
        destinations: Iterable[AlertDestination],
        recipients: Mapping[UUID, Recipient],
        openings: Mapping[tuple[UUID, UUID], NotifiedOpening],
        is_grouped: Callable[[AlertDestination], bool],
        pending: Mapping[UUID, DueAlert],
        offline: OfflineOpenings,
        doubt: timedelta,
    ) -> None:
        """`pending`: openings of gateways' incidents that are not due, by incident; `offline`: those sent."""
        self._now = now
        self._planner = planner
        self._destinations = {one.id: one for one in destinations}
        self._recipients = recipients
        self._notified = openings
        self._is_grouped = is_grouped
        self._new: dict[tuple[object, UUID | None], Decision] = {}
        """By alert (or reminder) and destination."""
        self._openings: dict[tuple[UUID, UUID], tuple[object, UUID | None]] = {}
        """Openings decided in this round, by incident and destination: keys of `_new`."""
        self._pending = dict(pending)
        self._doubt = doubt
        self._offline = dict(offline)
        self._groups: dict[tuple[UUID, UUID], Decision] = {}
        """Decisions of this round about messages that stand for many incidents: begun, or ended."""
        self._ended: list[int] = []
        self._links: list[Link] = []
        self._named: list[int] = []
        """Alerts of channels that the message of a gateway's end names."""
        self._taken_back: dict[int, str] = {}
        self._settled: list[int] = []
        self._held: dict[int, datetime] = {}
        self._reminded: list[tuple[int, datetime | None, int]] = []

    @property
    def all_decided(self) -> Iterable[Decision]:
        """All decisions of this round."""
        return [*self._new.values(), *self._groups.values()]

    def decide(self, alert: DueAlert) -> None:
        """Decide an alert for all destinations of its tenant and of operators."""
        facts = _facts(alert, self._now)
        against = reason_for_all(facts)
        if against is not None:
            self._add(alert, None, facts.event, against)
            until = alert.status.quiet_until if against is DecisionReason.MAINTENANCE else None
        else:
            hold = reason_to_wait(alert, self._now, self._doubt)
            until = self._decide_each(alert, facts, hold)
        if until is None:
            self._settled.append(alert.id)
        else:
            self._held[alert.id] = until

    def _decide_each(self, alert: DueAlert, facts: AlertFacts, hold: Hold | None) -> datetime | None:
        """Decide an alert for each destination; return until when it is held, None: it is settled."""
        whys = [self._decide_one(alert, facts, one, hold) for one in self._destinations_of(alert)]
        if hold is not None:
            return hold.until
        decided = [why for why in whys if why is not None]
        is_told = any(map(_reaches, decided)) or bool(alert.sent_to)
        # An end that no destination gets, because none got the opening, is recorded for each already.
        if (decided and not is_told and not facts.resolved) or (not whys and alert.kind != "changed"):
            self._add(alert, None, facts.event, DecisionReason.NOBODY)
        return self._now + OFFLINE_AGAIN if DecisionReason.PERHAPS_OFFLINE in decided else None

    def remind(self, reminder: DueReminder) -> None:
        """Decide whether a destination gets a reminder, and when the next one is due."""
        destination = self._destinations.get(reminder.destination_id)
        if destination is None or destination.reminder_minutes is None:
            self._reminded.append((reminder.id, None, reminder.reminders))
            return
        recipient = self._recipients[destination.id]
        subject = _subject(reminder.status)
        opening = _opening(reminder.outcome, held=False)
        why = reason_for_reminder(subject, recipient, opening, reminder.acknowledged)
        gap = timedelta(minutes=destination.reminder_minutes)
        times, next_at = reminder.reminders, None
        if why.sends:
            times += 1
            next_at = self._now + gap * 2**times
        elif why in REMINDED_LATER:
            next_at = max(self._now + gap, subject.quiet_until or self._now)
        self._reminded.append((reminder.id, next_at, times))
        if why is not DecisionReason.NOT_YET_TOLD:
            self._add(reminder, destination, reminder.event, why, purpose="reminder")

    async def keep(self, connection: Connection, others: Collection[Decision]) -> None:
        """Write all decisions of the round, with `others` that share its messages."""
        decided = [*self.all_decided, *others]
        used = {one.message_id for one in decided}
        new = [message for id, message in self._planner.new.items() if id in used]
        await alert_rows.keep_decisions(connection, self._now, new, decided)
        if self._taken_back:
            await alert_rows.withdraw_openings(connection, self._taken_back, self._now)
        await alert_rows.link_caused(connection, self._links)
        if self._named:
            await alert_rows.link_named(connection, self._named)
        await alert_rows.end_groups(connection, self._ended)
        await note_notified(connection, self._told_already(), self._now)
        await alert_rows.settle_alerts(connection, self._settled, self._now)
        if self._held:
            await alert_rows.put_off_alerts(connection, self._held)
        if self._reminded:
            await alert_rows.put_off_reminders(connection, self._reminded)

    def end(self, group: GroupEnd) -> None:
        """Decide the end of a message that stands for all of a tenant's incidents with one cause."""
        self._ended.append(group.id)
        destination = self._destinations.get(group.destination_id)
        if destination is None:
            return
        is_held = self._planner.is_held(group.message_id)
        facts = AlertFacts(Event.INCIDENT_RESOLVED.value, True, SubjectState(is_over=True))
        why = reason_for_one(facts, self._recipients[destination.id], _opening(group.outcome, is_held))
        if why is DecisionReason.OVER_BEFORE_TOLD:
            self._taken_back[group.id] = why.value
        self._group(group.gateway_incident_id, group.tenant_id, destination, facts.event, why)

    def _told_already(self) -> list[UUID]:
        """Return the incidents of this round for which a message stands that was delivered before."""
        delivered = {one.message_id for one in self._notified.values() if one.outcome == "delivered"}
        return sorted(
            {
                one.incident_id
                for one in self._new.values()
                if one.incident_id is not None
                and one.event == Event.INCIDENT_OPENED
                and one.why == DecisionReason.CAUSED_BY_GATEWAY
                and one.message_id in delivered
            }
        )

    def _destinations_of(self, alert: DueAlert) -> Iterable[AlertDestination]:
        for one in self._destinations.values():
            if one.tenant_id is None or one.tenant_id == alert.tenant_id:
                yield one

    def _decide_one(
        self,
        alert: DueAlert,
        facts: AlertFacts,
        destination: AlertDestination,
        hold: Hold | None,
    ) -> DecisionReason | None:
        """Decide an alert for one destination; None: there is nothing to decide."""
        if destination.id in alert.sent_to:
            return None
        key = alert.subject_id, destination.id
        recipient = self._recipients[destination.id]
        if alert.kind == "changed":
            is_held = hold is not None and recipient.is_for_people
            return None if is_held else self._decide_change(alert, facts, destination)
        if alert.kind == "opened" and self._opening(key) is not OpeningDelivery.NONE:
            return None
        why = reason_for_one(facts, recipient, self._opening(key))
        if hold is not None and why.sends and (recipient.is_for_people or alert.incident_id is None):
            self._add(alert, destination, facts.event, hold.why)
            return hold.why
        if why is DecisionReason.OVER_BEFORE_TOLD:
            self._take_back(key, why)
        elif recipient.is_for_people and why.sends and not facts.resolved:
            return self._open_for_people(alert, facts, destination)
        elif recipient.is_for_people and facts.resolved and self._stands_for(alert, destination):
            why = DecisionReason.CAUSED_BY_GATEWAY
        self._add(alert, destination, facts.event, why)
        return why

    def _open_for_people(
        self, alert: DueAlert, facts: AlertFacts, destination: AlertDestination
    ) -> DecisionReason:
        """Decide an opening that people are to be told of, by itself or with others of its cause."""
        cause, message_id, why = alert.caused_by, None, DecisionReason.OPENED
        if cause is not None:
            group = self._sent((cause.id, destination.id))
            recipient = self._recipients[destination.id]
            why, message_id, begins = group_opening(cause, alert, destination, recipient, group)
            if begins:
                assert alert.tenant_id is not None
                message_id = self._group(
                    cause.id, alert.tenant_id, destination, facts.event, DecisionReason.OPENED
                )
                self._tell_operators(cause.id)
        elif alert.incident_id is None and alert.gateway is not None and alert.gateway.perhaps_offline:
            told = self._offline.setdefault(destination.id, (alert.gateway.id, None))
            if told[0] != alert.gateway.id:
                why, message_id = DecisionReason.PERHAPS_OFFLINE, told[1]
        self._add(alert, destination, facts.event, why, message_id=message_id)
        return why

    def _decide_change(
        self, alert: DueAlert, facts: AlertFacts, destination: AlertDestination
    ) -> DecisionReason | None:
        """Tell programs of a change; people only when an incident that was told in a group lost its cause."""
        key = alert.subject_id, destination.id
        opening, recipient = self._sent(key), self._recipients[destination.id]
        opened = facts._replace(event=Event.INCIDENT_OPENED.value, resolved=False)
        why = reason_for_one(opened, recipient, OpeningDelivery.NONE)
        if not why.sends:
            return None
        if not recipient.is_for_people:
            # What is not tried yet says what is true when it is.
            if not opening.was_tried:
                return None
            self._add(alert, destination, Event.INCIDENT_CHANGED.value, DecisionReason.CHANGED)
            return DecisionReason.CHANGED
        if alert.has_cause and opening.is_waiting:
            self._take_back(key, DecisionReason.CAUSED_BY_GATEWAY)
            return self._open_for_people(alert, opened, destination)
        if alert.has_cause or not alert.was_caused or opening.is_sent:
            return None
        group = Sent() if alert.gateway is None else self._sent((alert.gateway.id, destination.id))
        if is_named_at_the_end(alert, destination, recipient, group):
            self._named.append(alert.id)
            self._add(alert, destination, opened.event, DecisionReason.CAUSED_BY_GATEWAY, details=STILL_DOWN)
            return DecisionReason.CAUSED_BY_GATEWAY
        details = STILL_DOWN if group.is_sent and not alert.is_terminal else None
        self._add(alert, destination, opened.event, DecisionReason.OPENED, details=details)
        return DecisionReason.OPENED

    def _stands_for(self, alert: DueAlert, destination: AlertDestination) -> bool:
        """Return whether what was told of an incident's cause stands for its end, too."""
        cause = alert.caused_by
        return cause is not None and self._sent((cause.id, destination.id)).is_sent

    def _tell_operators(self, gateway_incident_id: UUID) -> None:
        """Decide the opening of a gateway's incident now, because its first tenant is told."""
        pending = self._pending.pop(gateway_incident_id, None)
        if pending is not None:
            self.decide(pending)

    def _group(
        self,
        gateway_incident_id: UUID,
        tenant_id: UUID,
        destination: AlertDestination,
        event: str,
        why: DecisionReason,
    ) -> UUID | None:
        """Add the decision about a message that stands for a tenant's incidents with one cause."""
        message_id = remind_at = None
        is_end = event == Event.INCIDENT_RESOLVED
        if why.sends:
            message_id = self._planner.assign(destination, "news", True)
            self._links.append(Link(gateway_incident_id, destination.id, message_id, is_end))
            if not is_end and destination.reminder_minutes is not None:
                remind_at = self._now + timedelta(minutes=destination.reminder_minutes)
        self._groups[gateway_incident_id, destination.id] = Decision(
            alert_id=None,
            incident_id=None,
            gateway_incident_id=gateway_incident_id,
            tenant_id=tenant_id,
            destination_id=destination.id,
            event=event,
            is_sent=why.sends,
            why=why.value,
            message_id=message_id,
            remind_at=remind_at,
            end_awaited=why.sends and not is_end,
        )
        return message_id

    def _sent(self, key: tuple[UUID, UUID]) -> Sent:
        """Return what was sent, or is to be, of an opening or a group, to one destination."""
        decided_key = self._openings.get(key)
        decided = self._new[decided_key] if decided_key is not None else self._groups.get(key)
        if decided is not None and decided.message_id is not None:
            return Sent(True, self._planner.is_held(decided.message_id), decided.message_id)
        before = self._notified.get(key)
        if before is None or before.outcome not in (None, "delivered"):
            return Sent()
        is_waiting = before.outcome is None and self._planner.is_held(before.message_id)
        return Sent(True, is_waiting, before.message_id, before.was_tried)

    def _opening(self, key: tuple[UUID, UUID]) -> OpeningDelivery:
        decided_key = self._openings.get(key)
        if decided_key is not None:
            message_id = self._new[decided_key].message_id
            return _opening(None, held=message_id is not None and self._planner.is_held(message_id))
        sent = self._notified.get(key)
        if sent is None:
            return OpeningDelivery.NONE
        return _opening(sent.outcome, self._planner.is_held(sent.message_id))

    def _take_back(self, key: tuple[UUID, UUID], why: DecisionReason) -> None:
        """Take back an opening whose message still waits."""
        decided_key = self._openings.pop(key, None)
        if decided_key is not None:
            decided = self._new[decided_key]
            self._new[decided_key] = decided._replace(
                is_sent=False, why=why.value, message_id=None, remind_at=None
            )
        else:
            self._taken_back[self._notified[key].decision_id] = why.value

    def _add(
        self,
        subject: DueAlert | DueReminder,
        destination: AlertDestination | None,
        event: str,
        why: DecisionReason,
        purpose: str = "news",
        message_id: UUID | None = None,
        details: str | None = None,
    ) -> None:
        """`message_id`: the message that stands for the subject where `why` sends none of its own."""
        if why.sends:
            assert destination is not None
            message_id = self._planner.assign(destination, purpose, self._is_grouped(destination))
        remind_at = None
        is_opening = why is DecisionReason.OPENED or details == STILL_DOWN
        if is_opening and destination is not None and destination.reminder_minutes is not None:
            remind_at = self._now + timedelta(minutes=destination.reminder_minutes)
        is_alert = isinstance(subject, DueAlert)
        key = (subject.id if is_alert else (purpose, subject.id)), destination and destination.id
        self._new[key] = Decision(
            subject.id if is_alert else None,
            subject.incident_id,
            _gateway_incident(subject),
            subject.tenant_id,
            destination and destination.id,
            event,
            why.sends,
            why.value,
            message_id,
            remind_at,
            details=details,
        )
        if isinstance(subject, DueAlert) and why is DecisionReason.OPENED and destination is not None:
            self._openings[subject.subject_id, destination.id] = key
            self._note_cause_told(subject, destination, message_id)
        elif why is DecisionReason.PERHAPS_OFFLINE and destination is not None and message_id is not None:
            self._link(subject, destination, message_id, is_end=False)
        elif (
            is_alert and why is DecisionReason.RESOLVED and destination is not None and message_id is not None
        ):
            self._link(subject, destination, message_id, is_end=True)

    def _note_cause_told(
        self, alert: DueAlert, destination: AlertDestination, message_id: UUID | None
    ) -> None:
        if message_id is None or alert.incident_id is not None:
            return
        self._link(alert, destination, message_id, is_end=False)
        is_offline = alert.gateway is not None and alert.gateway.perhaps_offline
        if is_offline and self._recipients[destination.id].is_for_people:
            self._offline[destination.id] = alert.subject_id, message_id

    def _link(
        self,
        subject: DueAlert | DueReminder,
        destination: AlertDestination,
        message_id: UUID,
        is_end: bool,
    ) -> None:
        """Link what the gateway's incident caused to the message about it, where it is for people."""
        if subject.incident_id is None and subject.gateway_incident_id is not None:
            self._links.append(Link(subject.gateway_incident_id, destination.id, message_id, is_end))


STILL_DOWN: Final = '{"still_down": true}'
"""Details of an opening that was told in a group before: the gateway is back, the channel isn't. Either it is
sent, or the message of the gateway's end names the channel."""


def _reaches(why: DecisionReason) -> bool:
    """Return whether the destination is told of the incident, if not by itself."""
    return why.sends or why in (DecisionReason.CAUSED_BY_GATEWAY, DecisionReason.PERHAPS_OFFLINE)


def _gateway_incident(subject: DueAlert | DueReminder) -> UUID | None:
    """Return the gateway's incident that a decision is about, or whose message stands for the channel's."""
    if isinstance(subject, DueReminder) or subject.incident_id is None:
        return subject.gateway_incident_id
    return None if subject.gateway is None else subject.gateway.id


def _facts(alert: DueAlert, now: datetime) -> AlertFacts:
    of_channel = alert.incident_id is not None
    is_over = alert.kind == "resolved"
    if is_over:
        event = Event.INCIDENT_RESOLVED if of_channel else Event.GATEWAY_RESOLVED
    else:
        event = Event.INCIDENT_OPENED if of_channel else Event.GATEWAY_OPENED
    # A gateway that is back before operators are told of it, and a change of what is over, are no news.
    was_held = alert.was_held or not of_channel or alert.kind == "changed"
    return AlertFacts(event.value, is_over, _subject(alert.status), now - alert.created_at, was_held)


def _subject(stand: IncidentStatus) -> SubjectState:
    return SubjectState(*stand)


def _opening(outcome: str | None, held: bool) -> OpeningDelivery:
    match outcome:
        case "delivered":
            return OpeningDelivery.DELIVERED
        case None:
            return OpeningDelivery.WAITING if held else OpeningDelivery.SENT
        case _:
            return OpeningDelivery.NONE
