"""From alerts and changes to messages: decides for each destination whether it is told, and in which message.

Sends nothing. A round is one transaction, and one at a time over all replicas: an incident's end is decided
by what was decided of its beginning, and what joins which message by what came before.
"""

import logging
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Final
from uuid import UUID, uuid4

import orjson

from db.alerts import alerts as alert_rows
from db.alerts.alerts import IN_APP, AlertDestination, Decision, DueAlert, DueReminder
from db.alerts.state_changes import DueStateChange, due_changes, put_off_changes
from db.connection.retry import passes
from db.connection.types import Connection, Pool
from db.vault import Vault, VaultError
from receiver.alerts.batching import WINDOW, MessagePlanner
from receiver.alerts.decisions import DecisionRound
from receiver.alerts.message import Notifier
from receiver.alerts.notifiers.in_app import tells_everybody
from receiver.alerts.rules import (
    DecisionReason,
    Recipient,
)
from receiver.alerts.state_changes import StateChangeDecisions
from receiver.jobs.leased_tasks import to_the_end
from receiver.jobs.loop import Loop

EVERY: Final = timedelta(seconds=0.25)
"""Pause between rounds when nothing is due."""
AT_ONCE: Final = 500
"""Alerts decided in one transaction, and changes."""
ASIDE: Final = timedelta(minutes=1)
"""When an alert or a change is looked at again that could not be decided."""

log = logging.getLogger(__name__)


class Routing:
    """The decisions of one process; `loop` in one task."""

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
            if not await alert_rows.lock_routing(connection):
                return 0
            alerts, reminders, changed = await self._due(connection, now)
            if not alerts and not reminders and not changed:
                return 0
            decision_round, changes = await self._open_desk(connection, now, alerts, reminders, changed)
            for alert in alerts:
                decision_round.decide(alert)
            for reminder in reminders:
                decision_round.remind(reminder)
            changes.decide(changed)
            await decision_round.keep(connection, changes.decided)
            await changes.keep(connection)
        for one in (*decision_round.all_decided, *changes.decided):
            self._tell(one)
        return len(alerts) + len(reminders) + len(changed)

    async def _due(
        self, connection: Connection, now: datetime
    ) -> tuple[list[DueAlert], list[DueReminder], list[DueStateChange]]:
        """Return what is due; one at a time is one thing of one kind, so that it is known who is at fault."""
        limit = self._at_once
        alerts = await alert_rows.due_alerts(connection, now, limit)
        is_one = limit == 1 and bool(alerts)
        reminders = [] if is_one else await alert_rows.due_reminders(connection, now, limit)
        is_one = is_one or (limit == 1 and bool(reminders))
        return alerts, reminders, [] if is_one else await due_changes(connection, now, limit)

    def loop(self) -> Loop:
        """Return the loop that decides."""
        return Loop("alerts", self._round, EVERY)

    async def _round(self) -> bool:
        try:
            routed = await to_the_end(self.route_due())
        except Exception as error:
            if passes(error):
                raise
            # Of many, one may be at fault: it is found one by one, and the others don't wait for it.
            if self._at_once > 1:
                self._at_once = 1
                return True
            if not await self._put_aside(error):
                raise
            return False
        self._at_once = min(2 * self._at_once, AT_ONCE)
        return routed > 0

    async def _put_aside(self, why: Exception) -> bool:
        """Have the one that is refused wait; return whether there was one."""
        now = datetime.now(UTC)
        async with self._pool.acquire() as connection, connection.transaction():
            alerts, reminders, changed = await self._due(connection, now)
            await alert_rows.put_off_alerts(connection, {alert.id: now + ASIDE for alert in alerts})
            later = [(reminder.id, now + ASIDE, reminder.reminders) for reminder in reminders]
            await alert_rows.put_off_reminders(connection, later)
            await put_off_changes(connection, {change.id: now + ASIDE for change in changed})
        put_aside: list[DueAlert | DueReminder | DueStateChange] = [*alerts, *reminders, *changed]
        for one in put_aside:
            about = (
                one.channel_id
                if isinstance(one, DueStateChange)
                else one.incident_id or one.gateway_incident_id
            )
            log.error("nothing can be decided of %s, which waits", about, exc_info=why)
        return bool(put_aside)

    async def _open_desk(
        self,
        connection: Connection,
        now: datetime,
        alerts: Iterable[DueAlert],
        reminders: Iterable[DueReminder],
        changed: Iterable[DueStateChange],
    ) -> tuple[DecisionRound, StateChangeDecisions]:
        """Read all that the decisions of a round depend on."""
        due: list[DueAlert | DueReminder | DueStateChange] = [*alerts, *reminders, *changed]
        tenants = {one.tenant_id for one in due if one.tenant_id is not None}
        destinations = await alert_rows.read_destinations(connection, tenants)
        lacking = tenants - {one.tenant_id for one in destinations if one.kind == IN_APP}
        if lacking:
            await alert_rows.add_in_app(connection, [self._in_app(tenant) for tenant in lacking])
            destinations = await alert_rows.read_destinations(connection, tenants)
        ids = [one.id for one in destinations]
        subjects = [alert.subject_id for alert in alerts if alert.resolved]
        members = await alert_rows.tenants_with_members(connection, tenants)
        waiting = await alert_rows.lock_waiting(connection, ids, now)
        newest_due = await alert_rows.read_newest_due(connection, ids, now - self._window)
        told = await alert_rows.read_openings(connection, subjects)
        planner = MessagePlanner(now, self._window, waiting, newest_due)
        places = {one.id: self._place(one, members) for one in destinations}
        decision_round = DecisionRound(now, planner, destinations, places, told, self._grouped)
        return decision_round, StateChangeDecisions(now, planner, destinations, places, self._grouped)

    def _in_app(self, tenant_id: UUID) -> tuple[UUID, UUID, bytes]:
        id = uuid4()
        return id, tenant_id, self._vault.seal(b'{"recipients":"admins"}', f"destination:{id}")

    def _place(self, destination: AlertDestination, members: Mapping[UUID, bool]) -> Recipient:
        return Recipient(
            destination.events,
            destination.disabled,
            destination.kind in self._notifiers,
            destination.kind != IN_APP or self._reaches_members(destination, members),
            destination.reminder_minutes is not None,
            is_for_people=destination.kind in self._notifiers and self._grouped(destination),
        )

    def _reaches_members(self, destination: AlertDestination, members: Mapping[UUID, bool]) -> bool:
        tenant_id = destination.tenant_id
        if tenant_id is None or tenant_id not in members:
            return False
        return members[tenant_id] or tells_everybody(self._config(destination))

    def _config(self, destination: AlertDestination) -> Mapping[str, object]:
        try:
            config = orjson.loads(self._vault.open(destination.config, f"destination:{destination.id}"))
        except (VaultError, orjson.JSONDecodeError):
            # Whoever may be told is told: the default is the narrower choice.
            return {}
        return config if isinstance(config, dict) else {}

    def _grouped(self, destination: AlertDestination) -> bool:
        return self._notifiers[destination.kind].is_grouped

    def _tell(self, one: Decision) -> None:
        level = logging.INFO if one.is_sent or one.why == DecisionReason.NOBODY else logging.DEBUG
        log.log(
            level,
            "%s of %s for destination %s: %s",
            one.event,
            one.incident_id or one.gateway_incident_id or one.channel_id,
            one.destination_id or "(all)",
            one.why,
        )
        self._on_decision(one.why)
