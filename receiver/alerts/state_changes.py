"""Decides which destinations are told of changes of channels that are no incidents, in a round of routing.

A change of state is told only where somebody wishes it, and then whatever else holds: programs go by it.
That a subscription ends soon is an alert like any other.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import datetime
from uuid import UUID

import orjson

from db.alerts.alerts import AlertDestination, Decision
from db.alerts.state_changes import DueStateChange, forget_changes, put_off_changes, supersede_changes
from db.connection.types import Connection
from receiver.alerts.batching import MessagePlanner
from receiver.alerts.message import Event
from receiver.alerts.rules import DecisionReason, Recipient, SubjectState, of_change, of_expiry, of_state


class StateChangeDecisions:
    """The decisions about changes of one round, and what follows from them."""

    def __init__(
        self,
        now: datetime,
        planner: MessagePlanner,
        destinations: Iterable[AlertDestination],
        places: Mapping[UUID, Recipient],
        is_grouped: Callable[[AlertDestination], bool],
    ) -> None:
        self._now = now
        self._planner = planner
        self._destinations = list(destinations)
        self._places = places
        self._is_grouped = is_grouped
        self._routed: set[int] = set()
        self._held: dict[int, datetime] = {}
        self.decided: list[Decision] = []

    def decide(self, changes: Iterable[DueStateChange]) -> None:
        """Decide about changes that came about in this order; of several of a channel the newest is told."""
        newest: dict[tuple[UUID, str], DueStateChange] = {}
        for change in changes:
            self._routed.add(change.id)
            subject = change.channel_id, change.event
            first = newest.get(subject, change)
            newest[subject] = change._replace(previous_state=first.previous_state)
        for change in newest.values():
            self._decide(change)

    async def keep(self, connection: Connection) -> None:
        """Do what follows, once the decisions are kept."""
        await forget_changes(connection, self._routed)
        if self._held:
            await put_off_changes(connection, self._held)
        told = [
            (one.channel_id, one.destination_id, one.event)
            for one in self.decided
            if one.is_sent and one.channel_id is not None and one.destination_id is not None
        ]
        if told:
            await supersede_changes(connection, told, self._now)

    def _decide(self, change: DueStateChange) -> None:
        why, against = _why(change)
        if against is DecisionReason.MAINTENANCE and change.status.quiet_until is not None:
            self._held[change.id] = change.status.quiet_until
            self._routed.discard(change.id)
        if against is not None:
            self.decided.append(self._decided(change, None, against))
            return
        told = [self._decided(change, one, whether) for one, whether in self._asked(change, why)]
        if not any(one.is_sent for one in told):
            told.append(self._decided(change, None, DecisionReason.NOBODY))
        self.decided += told

    def _asked(
        self, change: DueStateChange, why: DecisionReason
    ) -> Iterator[tuple[AlertDestination, DecisionReason]]:
        """Yield the destinations that may be told, each with why it is or not."""
        for one in self._destinations:
            if one.tenant_id is None or one.tenant_id == change.tenant_id:
                whether = of_change(change.event, self._places[one.id], why)
                # There are many changes of states: of who never asked for them nothing is noted.
                if whether is not DecisionReason.NOT_WANTED or why is DecisionReason.EXPIRING:
                    yield one, whether

    def _decided(
        self, change: DueStateChange, destination: AlertDestination | None, why: DecisionReason
    ) -> Decision:
        message_id = None
        if why.sends:
            assert destination is not None
            message_id = self._planner.place(destination, "news", self._is_grouped(destination))
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
    """Return why a change is told, and why it isn't to anybody just now; None: each is to be asked."""
    if change.event == Event.EXPIRING:
        return DecisionReason.EXPIRING, of_expiry(SubjectState(*change.status))
    is_back = change.state == change.previous_state
    return DecisionReason.STATE_CHANGED, of_state(change.status.removed, is_back)


def _details(change: DueStateChange) -> str:
    if change.event == Event.EXPIRING:
        return orjson.dumps({"expires_at": change.expires_at, "since": change.created_at}).decode()
    told = {
        "state": change.state,
        "previous_state": change.previous_state,
        "sequence": change.version,
        "reason": change.reason,
        "since": change.since,
    }
    return orjson.dumps(told).decode()
