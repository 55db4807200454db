"""The decisions of one round of routing about alerts and reminders; reads no row, and writes once."""

from collections.abc import Callable, Collection, Iterable, Mapping
from datetime import datetime, timedelta
from uuid import UUID

from db.alerts import alerts as alert_rows
from db.alerts.alerts import (
    AlertDestination,
    Decision,
    DueAlert,
    DueReminder,
    IncidentStatus,
    NotifiedOpening,
)
from db.connection.types import Connection
from receiver.alerts.batching import MessagePlanner
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
    ) -> None:
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
        self._taken_back: list[int] = []
        self._settled: list[int] = []
        self._held: dict[int, datetime] = {}
        self._reminded: list[tuple[int, datetime | None, int]] = []

    @property
    def all_decided(self) -> Iterable[Decision]:
        """All decisions of this round."""
        return self._new.values()

    def decide(self, alert: DueAlert) -> None:
        """Decide an alert for all destinations of its tenant and of operators."""
        facts = _facts(alert, self._now)
        against = reason_for_all(facts)
        if against is not None:
            self._add(alert, None, facts.event, against)
        if against is DecisionReason.MAINTENANCE:
            assert alert.stand.quiet_until is not None
            self._held[alert.id] = alert.stand.quiet_until
            return
        self._settled.append(alert.id)
        if against is None:
            whys = [self._decide_one(alert, facts, one) for one in self._destinations_of(alert)]
            # An end that no destination gets, because none got the opening, is recorded for each already.
            if not any(why.sends for why in whys) and not (whys and facts.resolved):
                self._add(alert, None, facts.event, DecisionReason.NOBODY)

    def remind(self, reminder: DueReminder) -> None:
        """Decide whether a destination gets a reminder, and when the next one is due."""
        destination = self._destinations.get(reminder.destination_id)
        if destination is None or destination.reminder_minutes is None:
            self._reminded.append((reminder.id, None, reminder.reminders))
            return
        recipient = self._recipients[destination.id]
        subject = _subject(reminder.stand)
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
        decided = [*self._new.values(), *others]
        used = {one.message_id for one in decided}
        new = [message for id, message in self._planner.new.items() if id in used]
        await alert_rows.keep_decisions(connection, self._now, new, decided)
        if self._taken_back:
            await alert_rows.take_back(
                connection, self._taken_back, DecisionReason.OVER_BEFORE_TOLD, self._now
            )
        await alert_rows.settle_alerts(connection, self._settled, self._now)
        if self._held:
            await alert_rows.put_off_alerts(connection, self._held)
        if self._reminded:
            await alert_rows.put_off_reminders(connection, self._reminded)

    def _destinations_of(self, alert: DueAlert) -> Iterable[AlertDestination]:
        for one in self._destinations.values():
            if one.tenant_id is None or one.tenant_id == alert.tenant_id:
                yield one

    def _decide_one(
        self, alert: DueAlert, facts: AlertFacts, destination: AlertDestination
    ) -> DecisionReason:
        key = alert.subject_id, destination.id
        why = reason_for_one(facts, self._recipients[destination.id], self._opening(key))
        if why is DecisionReason.OVER_BEFORE_TOLD:
            self._take_back(key)
        self._add(alert, destination, facts.event, why)
        if why is DecisionReason.OPENED:
            self._openings[key] = alert.id, destination.id
        return why

    def _opening(self, key: tuple[UUID, UUID]) -> OpeningDelivery:
        decided_key = self._openings.get(key)
        if decided_key is not None:
            message_id = self._new[decided_key].message_id
            return _opening(None, held=message_id is not None and self._planner.is_held(message_id))
        sent = self._notified.get(key)
        if sent is None:
            return OpeningDelivery.NONE
        return _opening(sent.outcome, self._planner.is_held(sent.message_id))

    def _take_back(self, key: tuple[UUID, UUID]) -> None:
        """Take back an opening whose message still waits."""
        decided_key = self._openings.pop(key, None)
        if decided_key is not None:
            decided = self._new[decided_key]
            over = DecisionReason.OVER_BEFORE_TOLD.value
            self._new[decided_key] = decided._replace(
                is_sent=False, why=over, message_id=None, remind_at=None
            )
        else:
            self._taken_back.append(self._notified[key].decision_id)

    def _add(
        self,
        subject: DueAlert | DueReminder,
        destination: AlertDestination | None,
        event: str,
        why: DecisionReason,
        purpose: str = "news",
    ) -> None:
        message_id = remind_at = None
        if why.sends:
            assert destination is not None
            message_id = self._planner.assign(destination, purpose, self._is_grouped(destination))
            if why is DecisionReason.OPENED and destination.reminder_minutes is not None:
                remind_at = self._now + timedelta(minutes=destination.reminder_minutes)
        is_alert = isinstance(subject, DueAlert)
        key = (subject.id if is_alert else (purpose, subject.id)), destination and destination.id
        self._new[key] = Decision(
            subject.id if is_alert else None,
            subject.incident_id,
            subject.gateway_incident_id,
            subject.tenant_id,
            destination and destination.id,
            event,
            why.sends,
            why.value,
            message_id,
            remind_at,
        )


def _facts(alert: DueAlert, now: datetime) -> AlertFacts:
    of_channel = alert.incident_id is not None
    if alert.resolved:
        event = Event.INCIDENT_RESOLVED if of_channel else Event.GATEWAY_RESOLVED
    else:
        event = Event.INCIDENT_OPENED if of_channel else Event.GATEWAY_OPENED
    age = now - alert.created_at
    return AlertFacts(event.value, alert.resolved, _subject(alert.stand), age, alert.was_held)


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
