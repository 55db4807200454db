"""Decides which destinations get changes of channels that are no incidents, in a round of routing.

A change of state goes only to destinations that subscribe to it, and then even during pauses and maintenance:
programs rely on it. The warning of a subscription's end is an alert like any other.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import datetime
from uuid import UUID

import orjson

from db.alerts.alerts import AlertDestination, Decision
from db.alerts.state_changes import DueStateChange, forget_changes, put_off_changes, supersede_changes
from db.connection.types import Connection
from receiver.alerts.grouping.batching import MessagePlanner
from receiver.alerts.message import Event
from receiver.alerts.rules import (
    DecisionReason,
    Recipient,
    SubjectState,
    reason_for_change,
    reason_for_expiry,
    reason_for_state,
)


class StateChangeDecisions:
    """Collects the decisions of one round about changes, to be written with the round's."""

    def __init__(
        self,
        now: datetime,
        planner: MessagePlanner,
        destinations: Iterable[AlertDestination],
        recipients: Mapping[UUID, Recipient],
        is_grouped: Callable[[AlertDestination], bool],
    ) -> None:
        self._now = now
        self._planner = planner
        self._destinations = list(destinations)
        self._recipients = recipients
        self._is_grouped = is_grouped
        self._routed: set[int] = set()
        self._held: dict[int, datetime] = {}
        self.decided: list[Decision] = []

    def decide(self, changes: Iterable[DueStateChange]) -> None:
        """Decide about changes, oldest first; of several of one channel only the newest is sent."""
        newest: dict[tuple[UUID, str], DueStateChange] = {}
        for change in changes:
            self._routed.add(change.id)
            subject = change.channel_id, change.event
            first = newest.get(subject, change)
            newest[subject] = change._replace(previous_state=first.previous_state)
        for change in newest.values():
            self._decide(change)

    async def keep(self, connection: Connection) -> None:
        """Delete or delay the decided changes, once the decisions are written."""
        await forget_changes(connection, self._routed)
        if self._held:
            await put_off_changes(connection, self._held)
        sent = [
            (one.channel_id, one.destination_id, one.event)
            for one in self.decided
            if one.is_sent and one.channel_id is not None and one.destination_id is not None
        ]
        if sent:
            await supersede_changes(connection, sent, self._now)

    def _decide(self, change: DueStateChange) -> None:
        why, against = _why(change)
        if against is DecisionReason.MAINTENANCE and change.status.quiet_until is not None:
            self._held[change.id] = change.status.quiet_until
            self._routed.discard(change.id)
        if against is not None:
            self.decided.append(self._decision(change, None, against))
            return
        decisions = [self._decision(change, one, verdict) for one, verdict in self._decisions(change, why)]
        if not any(one.is_sent for one in decisions):
            decisions.append(self._decision(change, None, DecisionReason.NOBODY))
        self.decided += decisions

    def _decisions(
        self, change: DueStateChange, why: DecisionReason
    ) -> Iterator[tuple[AlertDestination, DecisionReason]]:
        """Yield the destinations in question, each with why it gets the change or not."""
        for one in self._destinations:
            if one.tenant_id is None or one.tenant_id == change.tenant_id:
                verdict = reason_for_change(change.event, self._recipients[one.id], why)
                # Changes of state are many: nothing is recorded for destinations without a subscription.
                if verdict is not DecisionReason.NOT_WANTED or why is DecisionReason.EXPIRING:
                    yield one, verdict

    def _decision(
        self, change: DueStateChange, destination: AlertDestination | None, why: DecisionReason
    ) -> Decision:
        message_id = None
        if why.sends:
            assert destination is not None
            message_id = self._planner.assign(destination, "news", self._is_grouped(destination))
        return Decision(
            alert_id=None,
            incident_id=None,
            gateway_incident_id=None,
            tenant_id=change.tenant_id,
            destination_id=destination and destination.id,
            event=change.event,
            is_sent=why.sends,
            why=why.value,
            message_id=message_id,
            channel_id=change.channel_id,
            details=_details(change),
        )


def _why(change: DueStateChange) -> tuple[DecisionReason, DecisionReason | None]:
    """Return why a change is sent, and why no destination gets it now; None: decide for each."""
    if change.event == Event.EXPIRING:
        return DecisionReason.EXPIRING, reason_for_expiry(SubjectState(*change.status))
    is_back = change.state == change.previous_state
    return DecisionReason.STATE_CHANGED, reason_for_state(change.status.removed, is_back)


def _details(change: DueStateChange) -> str:
    if change.event == Event.EXPIRING:
        return orjson.dumps({"expires_at": change.expires_at, "since": change.created_at}).decode()
    details = {
        "state": change.state,
        "previous_state": change.previous_state,
        "sequence": change.version,
        "reason": change.reason,
        "since": change.since,
    }
    return orjson.dumps(details).decode()
