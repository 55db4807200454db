"""Applies a batch of entries in one transaction. THE ONLY writer of channel state, events and incidents."""

import logging
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final, NamedTuple
from uuid import UUID

import asyncpg

from db.codec.channel import details_of, end_of, memory_of
from db.codec.rules import IsRecoverable
from db.connection.retry import TRANSIENT
from db.connection.types import Connection
from db.ingest.batch import Batch, ChannelFold
from db.ingest.entry import Entry
from db.ingest.event_rows import EventRow, json_of
from db.ingest.owner_profile import OwnerUpdate, owner_update_of, show_owners
from db.queries import sql
from db.reconcile.gateways.causes import Explicable, causes_of
from statemachine.model import Incident, Reason, Rules, State

SHOWN_EVERY: Final = timedelta(minutes=1)
"""How often `last_health_check` of a channel is written: other applications use its table, too."""

Values = tuple[object, ...]
"""A statement's parameters for one row, in their order."""
Words = Callable[[Reason, str | None], str]
"""Returns the text of a reason in a locale (None: the usual one)."""

log = logging.getLogger(__name__)


class Locked(Exception):
    """Another session has locked rows of these channels; nothing was applied, and nothing was waited for."""

    def __init__(self, channel_ids: Collection[UUID]) -> None:
        super().__init__(f"{len(channel_ids)} channels are locked by another session")
        self.channel_ids: Final = frozenset(channel_ids)


@dataclass(frozen=True, slots=True)
class Applied:
    """The results of a committed batch."""

    states: dict[UUID, State]
    """The states of its channels."""
    opened: list[str]
    """The kinds of the incidents that opened."""
    resolved: int
    """How many incidents were resolved."""


class BulkProbeAnswer(NamedTuple):
    """A bulk probe: when it began and was answered, and which channels its answer may concern."""

    began_at: datetime
    ended_at: datetime
    reach: datetime
    """Channels whose own probe is due later than this are left alone."""
    stretch: float = 0.0
    """The largest share by which the gap to their next probe is stretched."""
    held_until: datetime | None = None
    """When the claims of the bulk probe end, which identifies them."""


def code_of(reason: Reason, locale: str | None) -> str:
    """Return the reason's code, which is the same in all locales."""
    return reason.value


async def apply(
    connection: Connection,
    entries: Sequence[Entry],
    installation: Rules,
    words: Words = code_of,
    recoverable: IsRecoverable | None = None,
) -> Applied:
    """Apply entries in their order, commit, and return the results.

    `words` gives the text of a reason that other applications show; `recoverable` the conditions that each
    provider's gateways have recovery actions for, None: those of the installation's rules.

    Entries for channels that are gone are skipped. Applying the same entries again is harmless:
    webhooks are recognised by key, everything else depends on the stored state. Locks channels without
    waiting, and raises `Locked` naming those that another session has locked. Raises what asyncpg raises;
    then nothing was written, or, when the connection was lost during COMMIT, everything may have been.
    """
    async with connection.transaction():
        ids = sorted({entry.channel_id for entry in entries})
        locked = {row["channel_id"] for row in await connection.fetch(sql.lock_states, ids)}
        batch = Batch(await connection.fetch(sql.read_channels, ids), installation, recoverable)
        _expect_all(batch.folds.keys(), locked)
        known = await _redelivered(connection, entries)
        for entry in entries:
            batch.take(entry, (entry.channel_id, entry.key) in known)
        await _save(connection, batch, words, max((entry.received_at for entry in entries), default=None))
    folds = batch.folds.values()
    return Applied(
        states={channel_id: fold.channel.state for channel_id, fold in batch.folds.items()},
        opened=[kind for fold in folds for kind in fold.opened],
        resolved=sum(len(fold.past) for fold in folds),
    )


async def freshen(connection: Connection, noted: Mapping[UUID, datetime], installation: Rules) -> set[UUID]:
    """Write when live traffic of open channels came, and return the channels for which that was enough.

    The others (not open, with a probe streak, locked, ...) are left for `apply` with an `Alive`.
    """
    rows = await connection.fetch(sql.freshen, list(noted), list(noted.values()), installation.stale_after)
    return {row["channel_id"] for row in rows}


async def confirm(
    connection: Connection,
    gateway_id: UUID,
    versions: Mapping[UUID, int],
    asked: BulkProbeAnswer,
    installation: Rules,
) -> set[UUID]:
    """Confirm channels that a bulk probe found open, and return those that were confirmed.

    `versions` are theirs from before the probe. The others (with a probe streak, changed meanwhile, locked,
    ...) are left to a probe of their own.
    """
    rows = await connection.fetch(
        sql.confirm_open, list(versions), list(versions.values()), gateway_id,
        asked.began_at, asked.ended_at, asked.reach, installation.stale_after, asked.stretch,
        asked.held_until, SHOWN_EVERY,
    )  # fmt: skip
    return {row["channel_id"] for row in rows}


async def acknowledge(connection: Connection, incident_id: UUID) -> None:
    """Note that an operator has seen an incident; the first time counts. An unknown id changes nothing."""
    await connection.execute(sql.acknowledge_incident, incident_id)


async def note_notified(connection: Connection, incident_ids: Sequence[UUID], now: datetime) -> None:
    """Note that messages about incidents were delivered; another application's table may refuse it."""
    if not incident_ids:
        return
    try:
        async with connection.transaction():
            await connection.execute(sql.note_notified, incident_ids, now)
    except TRANSIENT:
        raise
    except asyncpg.PostgresError as error:
        # The error's message may contain a row's values.
        log.warning("whatsapp_connection_incidents takes no notified_at: %s", type(error).__name__)


async def _redelivered(connection: Connection, entries: Sequence[Entry]) -> set[tuple[UUID, bytes | None]]:
    keys = [(entry.channel_id, entry.key) for entry in entries if entry.key is not None]
    rows = await connection.fetch(sql.find_redelivered, *_columns(keys, 2)) if keys else []
    if rows:
        await connection.execute(sql.count_redeliveries, [row["id"] for row in rows])
    return {(row["channel_id"], row["key"]) for row in rows}


async def _save(connection: Connection, batch: Batch, words: Words, now: datetime | None) -> None:
    folds = list(batch.folds.values())
    await _save_events(connection, folds)
    await _save_states(connection, folds, words)
    await _save_qrs(connection, folds)
    if now is not None:
        await _save_incidents(connection, folds, now)
    await _run(connection, sql.save_clocks, 3, batch.learnt_clocks())


async def _save_events(connection: Connection, folds: Iterable[ChannelFold]) -> None:
    new: list[tuple[object, ...]] = []
    longer: list[tuple[object, ...]] = []
    for fold in folds:
        stored = fold.stored_event
        if stored is not None and stored.count:
            longer.append((stored.id, stored.count, stored.last_at, stored.last_received_at))
        new.extend(_event(fold, event) for event in fold.events)
    await _run_rows(connection, sql.insert_events, new)
    await _run(connection, sql.extend_events, 4, longer)


async def _save_states(connection: Connection, folds: Iterable[ChannelFold], words: Words) -> None:
    saved: list[tuple[object, ...]] = []
    shown: list[tuple[UUID, *tuple[object, ...]]] = []
    probed: list[tuple[object, ...]] = []
    owners: list[OwnerUpdate] = []
    recovering: list[tuple[object, ...]] = []
    changed: list[tuple[object, ...]] = []
    for fold in folds:
        c = fold.channel
        if fold.owner is not None and (update := owner_update_of(fold.owner, fold.row)) is not None:
            owners.append(update)
        if c == fold.before and not fold.must_save:
            continue
        saved.append(_state(fold))
        if c.recovery_due_at != fold.before.recovery_due_at:
            recovering.append((fold.row["channel_id"], c.recovery_due_at))
        if c.version != fold.before.version:
            seen_at = c.fresh_at or c.last_event_at
            shown.append((fold.row["channel_id"], c.state.shown, _words(fold, words), seen_at))
            if c.state.shown != fold.before.state.shown:
                changed.append(_change(fold))
        elif fold.answered and _is_long_ago(fold.row["last_health_check"], c.probed_at):
            probed.append((fold.row["channel_id"], c.probed_at))
    await _run_rows(connection, sql.save_states, saved)
    await _run(connection, sql.save_recovery_due, 2, recovering)
    if shown or owners:
        ids = list({*(row[0] for row in shown), *(update.channel_id for update in owners)})
        _expect_all(ids, {row["id"] for row in await connection.fetch(sql.lock_shown, ids)})
    await _run_rows(connection, sql.show_states, shown)
    await show_owners(connection, owners)
    await _run(connection, sql.note_changes, 7, changed)
    await _run(connection, sql.show_probes, 2, probed)


async def _save_qrs(connection: Connection, folds: Iterable[ChannelFold]) -> None:
    """Keep the QRs of channels that wait for a scan; wipe those of channels that no longer do."""
    kept: list[tuple[object, ...]] = []
    wiped: list[UUID] = []
    for fold in folds:
        channel_id, tenant_id = fold.row["channel_id"], fold.row["tenant_id"]
        if fold.channel.state is State.QR_PENDING:
            kept += [(channel_id, tenant_id, *fold.qr)] if fold.qr is not None else []
        elif fold.before.state is State.QR_PENDING:
            wiped.append(channel_id)
    await _run_rows(connection, sql.keep_qrs, kept)
    if wiped:
        await connection.execute(sql.wipe_qrs, wiped)


def _words(fold: ChannelFold, words: Words) -> str | None:
    reason = fold.channel.status.reason
    return None if reason is None else words(reason, fold.row["locale"])


def _is_long_ago(shown_at: datetime | None, probed_at: datetime | None) -> bool:
    return probed_at is not None and (shown_at is None or probed_at - shown_at >= SHOWN_EVERY)


def _expect_all(wanted: Iterable[UUID], locked: Collection[UUID]) -> None:
    missing = set(wanted).difference(locked)
    if missing:
        raise Locked(missing)


async def _save_incidents(connection: Connection, folds: Iterable[ChannelFold], now: datetime) -> None:
    changed: list[_IncidentRow] = []
    ended: list[tuple[object, ...]] = []
    whole: list[_IncidentRow] = []
    opened: list[_IncidentRow] = []
    for fold in folds:
        channel_id, present = fold.row["channel_id"], fold.channel.incident
        if (old := fold.old_incident) is not None and old != fold.before.incident:
            changed.append(_IncidentRow(fold, old))
        for past in fold.past:
            if past.stored:
                ended.append((channel_id, past.resolved_at, json_of(end_of(past.why)), past.alert))
            else:
                whole.append(_IncidentRow(fold, past.incident, past.why, past.resolved_at))
        if present is not None and not fold.incident_stored:
            opened.append(_IncidentRow(fold, present))
    rows = [*changed, *whole, *opened]
    causes = await causes_of(connection, [row.explicable for row in rows], now)
    values = [row.values(causes.get(place, {})) for place, row in enumerate(rows)]
    first_whole, first_opened = len(changed), len(changed) + len(whole)
    await _run(connection, sql.change_incidents, 4, [row[:4] for row in values[:first_whole]])
    await _run(connection, sql.resolve_incidents, 4, ended)
    await _run(connection, sql.record_incidents, 7, values[first_whole:first_opened])
    await _run(connection, sql.open_incidents, 6, [row[:6] for row in values[first_opened:]])


def _event(fold: ChannelFold, event: EventRow) -> tuple[object, ...]:
    return (
        fold.row["channel_id"],
        fold.row["tenant_id"],
        event.source,
        event.name,
        event.trigger,
        event.reason,
        event.status,
        event.at,
        event.last_at,
        event.received_at,
        event.last_received_at,
        event.count,
        event.deliveries,
        event.key,
        event.state,
        json_of(event.data),
    )


def _state(fold: ChannelFold) -> tuple[object, ...]:
    channel = fold.channel
    return (
        fold.row["channel_id"],
        channel.version,
        channel.state,
        channel.status.reason,
        channel.status.code,
        channel.since,
        channel.first_unhealthy_at,
        channel.last_event_at,
        channel.fresh_at,
        channel.probed_at,
        channel.due_at,
        channel.probe_due_at,
        fold.recorded_rules_json,
        memory_of(channel, fold.details),
        fold.answered,
    )


def _change(fold: ChannelFold) -> tuple[object, ...]:
    channel = fold.channel
    return (
        fold.row["channel_id"],
        fold.row["tenant_id"],
        fold.before.state.shown,
        channel.state.shown,
        channel.status.reason,
        channel.since,
        channel.version,
    )


class _IncidentRow(NamedTuple):
    """An incident as it is to be stored."""

    fold: ChannelFold
    incident: Incident
    resolved: str | None = None
    resolved_at: datetime | None = None

    @property
    def explicable(self) -> Explicable:
        incident = self.incident
        return Explicable(
            self.fold.row["channel_id"], incident.opened_at, incident.last_state, incident.reason
        )

    def values(self, cause: Mapping[str, str]) -> Values:
        incident = self.incident
        return (
            self.fold.row["channel_id"],
            incident.kind,
            incident.last_state,
            details_of(incident, {**self.fold.details, **cause}, self.resolved),
            incident.started_at,
            incident.opened_at,
            self.resolved_at,
        )


async def _run_rows(connection: Connection, statement: str, rows: Sequence[Values]) -> None:
    """Run a statement that takes an array of rows: with very many columns that costs half as much."""
    if rows:
        await connection.execute(statement, rows)


async def _run(connection: Connection, statement: str, width: int, rows: Sequence[Values]) -> None:
    if rows:
        await connection.fetch(statement, *_columns(rows, width))


def _columns(rows: Sequence[Values], width: int) -> list[list[object]]:
    return [[row[i] for row in rows] for i in range(width)]
