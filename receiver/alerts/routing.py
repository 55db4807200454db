"""From alerts and changes to messages: decides for each destination whether it is told, and in which message.

Sends nothing. A round is one transaction, and one at a time over all replicas: an incident's end is decided
by what was decided of its beginning, and what joins which message by what came before.
"""

import logging
from collections.abc import Callable, Collection, Iterable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Final
from uuid import UUID, uuid4

import asyncpg
import orjson

from db import telling
from db.changes import DueChange, due_changes, put_off_changes
from db.connections import Connection, Pool
from db.patience import TRANSIENT
from db.telling import IN_APP, Decided, Destination, DueAlert, DueReminder, Stand, Told
from db.vault import Vault, VaultError
from receiver.alerts.changes import Changes
from receiver.alerts.grouping import WINDOW, Book
from receiver.alerts.in_app import tells_everybody
from receiver.alerts.notice import Event, Notifier
from receiver.alerts.rules import (
    REMINDED_LATER,
    News,
    Opening,
    Place,
    Standing,
    Why,
    of_all,
    of_one,
    of_reminder,
)
from receiver.claimed import to_the_end
from receiver.rounds import go_round

EVERY: Final = timedelta(seconds=0.25)
"""Pause between rounds when nothing is due."""
AT_ONCE: Final = 500
"""Alerts decided in one transaction, and changes."""
ASIDE: Final = timedelta(minutes=1)
"""When an alert or a change is looked at again that the database refuses to have decided."""

log = logging.getLogger(__name__)


class Routing:
    """The decisions of one process; `run` in one task."""

    def __init__(
        self,
        pool: Pool,
        vault: Vault,
        notifiers: Mapping[str, Notifier],
        on_decision: Callable[[str], None] = lambda why: None,
        window: timedelta = WINDOW,
    ) -> None:
        self._pool = pool
        self._vault = vault
        self._notifiers = notifiers
        self._on_decision = on_decision
        self._window = window
        self._at_once = AT_ONCE

    async def route_due(self) -> int:
        """Decide about what is due, and return how much that was; nothing while another replica does."""
        now = datetime.now(UTC)
        async with self._pool.acquire() as connection, connection.transaction():
            if not await telling.take_turn(connection):
                return 0
            alerts, reminders, changed = await self._due(connection, now)
            if not alerts and not reminders and not changed:
                return 0
            desk, changes = await self._open_desk(connection, now, alerts, reminders, changed)
            for alert in alerts:
                desk.decide(alert)
            for reminder in reminders:
                desk.remind(reminder)
            changes.decide(changed)
            await desk.keep(connection, changes.decided)
            await changes.keep(connection)
        for one in (*desk.all_decided, *changes.decided):
            self._tell(one)
        return len(alerts) + len(reminders) + len(changed)

    async def _due(
        self, connection: Connection, now: datetime
    ) -> tuple[list[DueAlert], list[DueReminder], list[DueChange]]:
        """Return what is due; one at a time is one thing of one kind, so that it is known who is at fault."""
        limit = self._at_once
        alerts = await telling.due_alerts(connection, now, limit)
        is_one = limit == 1 and bool(alerts)
        reminders = [] if is_one else await telling.due_reminders(connection, now, limit)
        is_one = is_one or (limit == 1 and bool(reminders))
        return alerts, reminders, [] if is_one else await due_changes(connection, now, limit)

    async def run(self) -> None:
        """Decide for ever."""
        await go_round("alerts", self._round, EVERY)

    async def _round(self) -> bool:
        try:
            routed = await to_the_end(self.route_due())
        except TRANSIENT:
            raise
        except asyncpg.PostgresError as error:
            # Of many, one may be at fault: it is found one by one, and the others don't wait for it.
            if self._at_once > 1:
                self._at_once = 1
                return True
            if not await self._put_aside(type(error).__name__):
                raise
            return False
        self._at_once = min(2 * self._at_once, AT_ONCE)
        return routed > 0

    async def _put_aside(self, why: str) -> bool:
        """Have the one that is refused wait; return whether there was one."""
        now = datetime.now(UTC)
        async with self._pool.acquire() as connection, connection.transaction():
            alerts, reminders, changed = await self._due(connection, now)
            await telling.put_off_alerts(connection, {alert.id: now + ASIDE for alert in alerts})
            later = [(reminder.id, now + ASIDE, reminder.reminders) for reminder in reminders]
            await telling.put_off_reminders(connection, later)
            await put_off_changes(connection, {change.id: now + ASIDE for change in changed})
        put_aside: list[DueAlert | DueReminder | DueChange] = [*alerts, *reminders, *changed]
        for one in put_aside:
            about = (
                one.channel_id if isinstance(one, DueChange) else one.incident_id or one.gateway_incident_id
            )
            log.error("the database refuses what is decided of %s, which waits: %s", about, why)
        return bool(put_aside)

    async def _open_desk(
        self,
        connection: Connection,
        now: datetime,
        alerts: Iterable[DueAlert],
        reminders: Iterable[DueReminder],
        changed: Iterable[DueChange],
    ) -> tuple["_Desk", Changes]:
        """Read all that the decisions of a round depend on."""
        due: list[DueAlert | DueReminder | DueChange] = [*alerts, *reminders, *changed]
        tenants = {one.tenant_id for one in due if one.tenant_id is not None}
        destinations = await telling.read_destinations(connection, tenants)
        lacking = tenants - {one.tenant_id for one in destinations if one.kind == IN_APP}
        if lacking:
            await telling.add_in_app(connection, [self._in_app(tenant) for tenant in lacking])
            destinations = await telling.read_destinations(connection, tenants)
        ids = [one.id for one in destinations]
        subjects = [alert.subject_id for alert in alerts if alert.resolved]
        members = await telling.recipients(connection, tenants)
        waiting = await telling.lock_waiting(connection, ids, now)
        leavings = await telling.read_leavings(connection, ids, now - self._window)
        told = await telling.read_openings(connection, subjects)
        book = Book(now, self._window, waiting, leavings)
        places = {one.id: self._place(one, members) for one in destinations}
        desk = _Desk(now, book, destinations, places, told, self._grouped)
        return desk, Changes(now, book, destinations, places, self._grouped)

    def _in_app(self, tenant_id: UUID) -> tuple[UUID, UUID, bytes]:
        id = uuid4()
        return id, tenant_id, self._vault.seal(b'{"recipients":"admins"}', f"destination:{id}")

    def _place(self, destination: Destination, members: Mapping[UUID, bool]) -> Place:
        return Place(
            destination.events,
            destination.disabled,
            destination.kind in self._notifiers,
            destination.kind != IN_APP or self._reaches_members(destination, members),
            destination.reminder_minutes is not None,
            is_for_people=destination.kind in self._notifiers and self._grouped(destination),
        )

    def _reaches_members(self, destination: Destination, members: Mapping[UUID, bool]) -> bool:
        tenant_id = destination.tenant_id
        if tenant_id is None or tenant_id not in members:
            return False
        return members[tenant_id] or tells_everybody(self._config(destination))

    def _config(self, destination: Destination) -> Mapping[str, object]:
        try:
            config = orjson.loads(self._vault.open(destination.config, f"destination:{destination.id}"))
        except (VaultError, orjson.JSONDecodeError):
            # Whoever may be told is told: the default is the narrower choice.
            return {}
        return config if isinstance(config, dict) else {}

    def _grouped(self, destination: Destination) -> bool:
        return self._notifiers[destination.kind].is_grouped

    def _tell(self, one: Decided) -> None:
        level = logging.INFO if one.is_sent or one.why == Why.NOBODY else logging.DEBUG
        log.log(
            level,
            "%s of %s for destination %s: %s",
            one.event,
            one.incident_id or one.gateway_incident_id or one.channel_id,
            one.destination_id or "(all)",
            one.why,
        )
        self._on_decision(one.why)


class _Desk:
    """The decisions of one round, and what follows from them."""

    def __init__(
        self,
        now: datetime,
        book: Book,
        destinations: Iterable[Destination],
        places: Mapping[UUID, Place],
        told: Mapping[tuple[UUID, UUID], Told],
        is_grouped: Callable[[Destination], bool],
    ) -> None:
        self._now = now
        self._book = book
        self._destinations = {one.id: one for one in destinations}
        self._places = places
        self._told = told
        self._is_grouped = is_grouped
        self._new: dict[tuple[object, UUID | None], Decided] = {}
        """By alert (or reminder) and destination."""
        self._openings: dict[tuple[UUID, UUID], tuple[object, UUID | None]] = {}
        """Openings told in this round, by incident and destination."""
        self._taken_back: list[int] = []
        self._settled: list[int] = []
        self._held: dict[int, datetime] = {}
        self._reminded: list[tuple[int, datetime | None, int]] = []

    @property
    def all_decided(self) -> Iterable[Decided]:
        """What was decided."""
        return self._new.values()

    def decide(self, alert: DueAlert) -> None:
        """Decide about an alert, for all destinations that may be told of it."""
        news = _news(alert, self._now)
        against = of_all(news)
        if against is not None:
            self._add(alert, None, news.event, against)
        if against is Why.MAINTENANCE:
            assert alert.stand.quiet_until is not None
            self._held[alert.id] = alert.stand.quiet_until
            return
        self._settled.append(alert.id)
        if against is None:
            whys = [self._decide_one(alert, news, one) for one in self._destinations_of(alert)]
            # That an end is told to nobody who was not told of the beginning needs no further word.
            if not any(why.sends for why in whys) and not (whys and news.resolved):
                self._add(alert, None, news.event, Why.NOBODY)

    def remind(self, reminder: DueReminder) -> None:
        """Decide whether a destination is reminded of an open incident, and when it is next."""
        destination = self._destinations.get(reminder.destination_id)
        if destination is None or destination.reminder_minutes is None:
            self._reminded.append((reminder.id, None, reminder.reminders))
            return
        place = self._places[destination.id]
        standing = _standing(reminder.stand)
        opening = _opening(reminder.outcome, held=False)
        why = of_reminder(standing, place, opening, reminder.acknowledged)
        gap = timedelta(minutes=destination.reminder_minutes)
        times, next_at = reminder.reminders, None
        if why.sends:
            times += 1
            next_at = self._now + gap * 2**times
        elif why in REMINDED_LATER:
            next_at = max(self._now + gap, standing.quiet_until or self._now)
        self._reminded.append((reminder.id, next_at, times))
        if why is not Why.NOT_YET_TOLD:
            self._add(reminder, destination, reminder.event, why, purpose="reminder")

    async def keep(self, connection: Connection, others: Collection[Decided]) -> None:
        """Write everything that was decided, and what was by others whose news leave with ours."""
        decided = [*self._new.values(), *others]
        used = {one.message_id for one in decided}
        new = [message for id, message in self._book.new.items() if id in used]
        await telling.keep_decisions(connection, self._now, new, decided)
        if self._taken_back:
            await telling.take_back(connection, self._taken_back, Why.OVER_BEFORE_TOLD, self._now)
        await telling.settle_alerts(connection, self._settled, self._now)
        if self._held:
            await telling.put_off_alerts(connection, self._held)
        if self._reminded:
            await telling.put_off_reminders(connection, self._reminded)

    def _destinations_of(self, alert: DueAlert) -> Iterable[Destination]:
        for one in self._destinations.values():
            if one.tenant_id is None or one.tenant_id == alert.tenant_id:
                yield one

    def _decide_one(self, alert: DueAlert, news: News, destination: Destination) -> Why:
        key = alert.subject_id, destination.id
        why = of_one(news, self._places[destination.id], self._opening(key))
        if why is Why.OVER_BEFORE_TOLD:
            self._take_back(key)
        self._add(alert, destination, news.event, why)
        if why is Why.OPENED:
            self._openings[key] = alert.id, destination.id
        return why

    def _opening(self, key: tuple[UUID, UUID]) -> Opening:
        fresh = self._openings.get(key)
        if fresh is not None:
            message_id = self._new[fresh].message_id
            return _opening(None, held=message_id is not None and self._book.is_held(message_id))
        told = self._told.get(key)
        return Opening.NONE if told is None else _opening(told.outcome, self._book.is_held(told.message_id))

    def _take_back(self, key: tuple[UUID, UUID]) -> None:
        """Have an opening not leave that still waits."""
        fresh = self._openings.pop(key, None)
        if fresh is not None:
            decided = self._new[fresh]
            over = Why.OVER_BEFORE_TOLD.value
            self._new[fresh] = decided._replace(is_sent=False, why=over, message_id=None, remind_at=None)
        else:
            self._taken_back.append(self._told[key].decision_id)

    def _add(
        self,
        what: DueAlert | DueReminder,
        destination: Destination | None,
        event: str,
        why: Why,
        purpose: str = "news",
    ) -> None:
        message_id = remind_at = None
        if why.sends:
            assert destination is not None
            message_id = self._book.place(destination, purpose, self._is_grouped(destination))
            if why is Why.OPENED and destination.reminder_minutes is not None:
                remind_at = self._now + timedelta(minutes=destination.reminder_minutes)
        is_alert = isinstance(what, DueAlert)
        place = (what.id if is_alert else (purpose, what.id)), destination and destination.id
        self._new[place] = Decided(
            what.id if is_alert else None,
            what.incident_id,
            what.gateway_incident_id,
            what.tenant_id,
            destination and destination.id,
            event,
            why.sends,
            why.value,
            message_id,
            remind_at,
        )


def _news(alert: DueAlert, now: datetime) -> News:
    of_channel = alert.incident_id is not None
    if alert.resolved:
        event = Event.INCIDENT_RESOLVED if of_channel else Event.GATEWAY_RESOLVED
    else:
        event = Event.INCIDENT_OPENED if of_channel else Event.GATEWAY_OPENED
    waited = now - alert.created_at
    return News(event.value, alert.resolved, _standing(alert.stand), waited, alert.was_held)


def _standing(stand: Stand) -> Standing:
    return Standing(*stand)


def _opening(outcome: str | None, held: bool) -> Opening:
    match outcome:
        case "delivered":
            return Opening.TOLD
        case None:
            return Opening.WAITING if held else Opening.LEFT
        case _:
            return Opening.NONE
