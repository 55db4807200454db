"""Routes alerts and changes: decides for each destination whether it gets them, and in which message.

Sends nothing. A round is one transaction, one at a time over all replicas, because the decision on an
incident's end, and the choice of a message, depend on earlier decisions.
"""

import logging
from collections.abc import Callable, Collection, Iterable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Final
from uuid import UUID, uuid4

import orjson

from db.alerts import alerts as alert_rows
from db.alerts.alerts import IN_APP, AlertDestination, Decision, DueAlert, DueReminder, GroupEnd
from db.alerts.state_changes import DueStateChange, due_changes, put_off_changes
from db.connection.retry import passes
from db.connection.types import Connection, Pool
from db.vault import Vault, VaultError
from receiver.alerts.decisions import DecisionRound
from receiver.alerts.grouping.batching import GATHER, WINDOW, MessagePlanner
from receiver.alerts.grouping.causes import DOUBT
from receiver.alerts.message import Notifier
from receiver.alerts.notifiers.in_app import includes_all_members
from receiver.alerts.rules import (
    DecisionReason,
    Recipient,
)
from receiver.alerts.state_changes import StateChangeDecisions
from receiver.jobs.leased_tasks import to_the_end
from receiver.jobs.loop import ItemFailed, Loop

EVERY: Final = timedelta(seconds=0.25)
"""Pause between rounds when nothing is due."""
AT_ONCE: Final = 500
"""Alerts decided in one transaction, and changes."""
SETTLE: Final = timedelta(seconds=60)
STALE_AFTER: Final = timedelta(seconds=120)
OFFLINE_ENDS_WITHIN: Final = timedelta(seconds=60)
"""So long after our own outage incidents of further gateways are taken for a part of it."""
ASIDE: Final = timedelta(minutes=1)
"""Delay of an alert or a change that could not be decided."""

log = logging.getLogger(__name__)


class Routing:
    """Decides alerts in one process; `loop` runs in one task."""

    def __init__(
        self,
        pool: Pool,
        vault: Vault,
        notifiers: Mapping[str, Notifier],
        on_decision: Callable[[str], None] = lambda why: None,
        window: timedelta = WINDOW,
        gather: timedelta = GATHER,
        doubt: timedelta = DOUBT,
        settle: timedelta = SETTLE,
        stale_after: timedelta = STALE_AFTER,
    ) -> None:
        """`settle`: how long a gateway's channels have to return after it; `stale_after`: as of evidence."""
        self._pool = pool
        self._vault = vault
        self._notifiers = notifiers
        self._on_decision = on_decision
        self._window = window
        self._gather = gather
        self._doubt = doubt
        self._settle = settle
        self._stale_after = stale_after
        self._at_once = AT_ONCE

    async def route_due(self) -> int:
        """Decide what is due and return how many that were; 0 while another replica decides."""
        now = datetime.now(UTC)
        async with self._pool.acquire() as connection, connection.transaction():
            if not await alert_rows.lock_routing(connection):
                return 0
            alerts, reminders, changed = await self._due(connection, now)
            ends = await alert_rows.due_group_ends(connection, now, self._settle, self._at_once)
            if not alerts and not reminders and not changed and not ends:
                return 0
            causes = {alert.caused_by.id for alert in alerts if alert.caused_by is not None}
            pending = await alert_rows.pending_openings(connection, now, self._stale_after, causes)
            decision_round, changes = await self._begin_round(
                connection, now, [*alerts, *pending], reminders, changed, ends
            )
            for alert in alerts:
                decision_round.decide(alert)
            for end in ends:
                decision_round.end(end)
            for reminder in reminders:
                decision_round.remind(reminder)
            changes.decide(changed)
            await decision_round.keep(connection, changes.decided)
            await changes.keep(connection)
        for one in (*decision_round.all_decided, *changes.decided):
            self._report(one)
        return len(alerts) + len(reminders) + len(changed) + len(ends)

    async def _due(
        self, connection: Connection, now: datetime
    ) -> tuple[list[DueAlert], list[DueReminder], list[DueStateChange]]:
        """Return what is due; with a limit of one only one item of one kind, to find the failing one."""
        limit = self._at_once
        alerts = await alert_rows.due_alerts(connection, now, limit, self._stale_after)
        is_one = limit == 1 and bool(alerts)
        reminders = [] if is_one else await alert_rows.due_reminders(connection, now, limit)
        is_one = is_one or (limit == 1 and bool(reminders))
        return alerts, reminders, [] if is_one else await due_changes(connection, now, limit)

    def loop(self) -> Loop:
        """Return the loop that routes alerts."""
        return Loop("alerts", self._round, EVERY)

    async def _round(self) -> bool | None:
        try:
            routed = await to_the_end(self.route_due())
        except Exception as error:
            if passes(error):
                raise
            # One of many may cause the error: one at a time finds it, and the others don't wait for it.
            if self._at_once == 1 and await self._put_aside():
                raise ItemFailed from error
            self._at_once = 1
            raise
        self._at_once = min(2 * self._at_once, AT_ONCE)
        return True if routed else None

    async def _put_aside(self) -> bool:
        """Delay the item that fails; return whether there was one."""
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
            log.error("the decision about %s failed and is delayed", about)
        return bool(put_aside)

    async def _begin_round(
        self,
        connection: Connection,
        now: datetime,
        alerts: Collection[DueAlert],
        reminders: Iterable[DueReminder],
        changed: Iterable[DueStateChange],
        ends: Iterable[GroupEnd],
    ) -> tuple[DecisionRound, StateChangeDecisions]:
        """Read everything that the decisions of a round depend on."""
        due: list[DueAlert | DueReminder | DueStateChange | GroupEnd] = [*alerts, *reminders, *changed, *ends]
        tenants = {one.tenant_id for one in due if one.tenant_id is not None}
        destinations = await alert_rows.read_destinations(connection, tenants)
        lacking = tenants - {one.tenant_id for one in destinations if one.kind == IN_APP}
        if lacking:
            await alert_rows.add_in_app(connection, [self._in_app(tenant) for tenant in lacking])
            destinations = await alert_rows.read_destinations(connection, tenants)
        ids = [one.id for one in destinations]
        subjects = {alert.subject_id for alert in alerts}
        subjects |= {alert.gateway.id for alert in alerts if alert.gateway is not None}
        members = await alert_rows.tenants_with_members(connection, tenants)
        waiting = await alert_rows.lock_waiting(connection, ids, now)
        newest_due = await alert_rows.read_newest_due(connection, ids, now - self._window)
        openings = await alert_rows.read_openings(connection, subjects)
        is_offline = any(alert.gateway is not None and alert.gateway.perhaps_offline for alert in alerts)
        since = now - OFFLINE_ENDS_WITHIN
        offline = await alert_rows.read_offline_openings(connection, since) if is_offline else {}
        pending = {alert.subject_id: alert for alert in alerts if not alert.is_due}
        planner = MessagePlanner(now, self._window, waiting, newest_due, self._gather)
        recipients = {one.id: self._recipient(one, members) for one in destinations}
        decision_round = DecisionRound(
            now, planner, destinations, recipients, openings, self._grouped, pending, offline, self._doubt
        )
        return decision_round, StateChangeDecisions(now, planner, destinations, recipients, self._grouped)

    def _in_app(self, tenant_id: UUID) -> tuple[UUID, UUID, bytes]:
        id = uuid4()
        return id, tenant_id, self._vault.seal(b'{"recipients":"admins"}', f"destination:{id}")

    def _recipient(self, destination: AlertDestination, members: Mapping[UUID, bool]) -> Recipient:
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
        return members[tenant_id] or includes_all_members(self._config(destination))

    def _config(self, destination: AlertDestination) -> Mapping[str, object]:
        try:
            config = orjson.loads(self._vault.open(destination.config, f"destination:{destination.id}"))
        except (VaultError, orjson.JSONDecodeError):
            # The default recipients apply: administrators alone.
            return {}
        return config if isinstance(config, dict) else {}

    def _grouped(self, destination: AlertDestination) -> bool:
        return self._notifiers[destination.kind].is_grouped

    def _report(self, one: Decision) -> None:
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
