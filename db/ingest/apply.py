"""Applies a batch of entries in one transaction. THE ONLY writer of channel state, events and incidents."""

import logging
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final, NamedTuple
from uuid import UUID

import asyncpg

from db.codec.channel import details_of, memory_of
from db.codec.rules import IsRecoverable
from db.connection.retry import TRANSIENT
from db.connection.types import Connection
from db.ingest.batch import Batch, ChannelFold
from db.ingest.entry import Entry
from db.ingest.event_rows import EventRow, json_of
from db.ingest.owner_profile import OwnerUpdate, news_of, show_owners
from db.queries import sql
from statemachine.model import Incident, Reason, Rules, State

SHOWN_EVERY: Final = timedelta(minutes=1)
"""How often the applications beside us are shown that a channel was probed: the table is theirs, too."""


Values = tuple[object, ...]
"""What a statement takes for one row, in the order of its parameters."""
Words = Callable[[Reason, str | None], str]
"""What a reason is called in a locale (None: whatever is usual), for people."""

log = logging.getLogger(__name__)


class Locked(Exception):
    """Somebody else has rows of these channels; nothing was applied, and nothing was waited for."""

    def __init__(self, channel_ids: Collection[UUID]) -> None:
        super().__init__(f"{len(channel_ids)} channels are locked by somebody else")
        self.channel_ids: Final = frozenset(channel_ids)


@dataclass(frozen=True, slots=True)
class Applied:
    """What a committed batch amounted to."""

    states: dict[UUID, State]
    """The states of its channels."""
    opened: list[str]
    """The kinds of the incidents that opened."""
    resolved: int
    """How many incidents were resolved."""


class BulkProbeAnswer(NamedTuple):
    """One question about many channels: when it began and was answered, and whom its answer may concern."""

    began_at: datetime
    ended_at: datetime
    reach: datetime
    """Channels whose own probe is due later than this need no word yet."""
    stretch: float = 0.0
    """The largest share by which the gap to their next probe is stretched."""
    held_until: datetime | None = None
    """When the claims of the one who asked end, by which they are known."""


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
    """Apply entries in their order, commit, and return what came of it.

    `words` are those that applications beside us are shown as the reason of a channel's trouble; `curable` is
    what each provider's gateways have orders for, None: what the installation's rules say.

    Entries for channels that are gone are passed over. Applying the same entries again is harmless:
    webhooks are recognised by key, everything else looks at what is there. Locks channels without
    waiting, and raises `Locked` naming those that somebody else has. Raises what asyncpg raises;
    then nothing was written, or, when the connection was lost during COMMIT, everything may have been.
    """
    async with connection.transaction():
        ids = sorted({entry.channel_id for entry in entries})
        locked = {row["channel_id"] for row in await connection.fetch(sql.lock_states, ids)}
        batch = Batch(await connection.fetch(sql.read_channels, ids), installation, recoverable)
        _expect_all(batch.tracks.keys(), locked)
        known = await _redelivered(connection, entries)
        for entry in entries:
            batch.take(entry, (entry.channel_id, entry.key) in known)
        await _save(connection, batch, words)
    tracks = batch.tracks.values()
    return Applied(
        states={channel_id: track.channel.state for channel_id, track in batch.tracks.items()},
        opened=[kind for track in tracks for kind in track.opened],
        resolved=sum(len(track.past) for track in tracks),
    )


async def freshen(connection: Connection, noted: Mapping[UUID, datetime], installation: Rules) -> set[UUID]:
    """Write when live traffic of open channels came, and return those for which that was all there was to do.

    The others (not open, in doubt, locked, ...) are left for `apply`, which knows what `Alive` means to them.
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
    """Write that a gateway said of these channels that they are open, and return those it was written of.

    `versions` are theirs from before the question. The others (in doubt, changed meanwhile, locked, ...) are
    left to a probe of their own.
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


async def note_told(connection: Connection, incident_ids: Sequence[UUID], now: datetime) -> None:
    """Note that somebody was told of incidents; another application's table may refuse it."""
    if not incident_ids:
        return
    try:
        async with connection.transaction():
            await connection.execute(sql.note_told, incident_ids, now)
    except TRANSIENT:
        raise
    except asyncpg.PostgresError as error:
        # Its own words may hold what is in a row.
        log.warning("whatsapp_connection_incidents takes no notified_at: %s", type(error).__name__)


async def _redelivered(connection: Connection, entries: Sequence[Entry]) -> set[tuple[UUID, bytes | None]]:
    keys = [(entry.channel_id, entry.key) for entry in entries if entry.key is not None]
    rows = await connection.fetch(sql.find_redelivered, *_columns(keys, 2)) if keys else []
    if rows:
        await connection.execute(sql.count_redeliveries, [row["id"] for row in rows])
    return {(row["channel_id"], row["key"]) for row in rows}


async def _save(connection: Connection, batch: Batch, words: Words) -> None:
    tracks = list(batch.tracks.values())
    await _save_events(connection, tracks)
    await _save_states(connection, tracks, words)
    await _save_qrs(connection, tracks)
    await _save_incidents(connection, tracks)
    await _run(connection, sql.save_clocks, 3, batch.learnt_clocks())


async def _save_events(connection: Connection, tracks: Iterable[ChannelFold]) -> None:
    new: list[tuple[object, ...]] = []
    longer: list[tuple[object, ...]] = []
    for track in tracks:
        stored = track.stored_event
        if stored is not None and stored.count:
            longer.append((stored.id, stored.count, stored.last_at, stored.last_received_at))
        new.extend(_event(track, event) for event in track.events)
    await _run_rows(connection, sql.insert_events, new)
    await _run(connection, sql.extend_events, 4, longer)


async def _save_states(connection: Connection, tracks: Iterable[ChannelFold], words: Words) -> None:
    saved: list[tuple[object, ...]] = []
    shown: list[tuple[UUID, *tuple[object, ...]]] = []
    probed: list[tuple[object, ...]] = []
    owners: list[OwnerUpdate] = []
    recovering: list[tuple[object, ...]] = []
    changed: list[tuple[object, ...]] = []
    for track in tracks:
        c = track.channel
        if track.owner is not None and (news := news_of(track.owner, track.row)) is not None:
            owners.append(news)
        if c == track.before and not track.must_save:
            continue
        saved.append(_state(track))
        if c.recovery_due_at != track.before.recovery_due_at:
            recovering.append((track.row["channel_id"], c.recovery_due_at))
        if c.version != track.before.version:
            seen_at = c.fresh_at or c.last_event_at
            shown.append((track.row["channel_id"], c.state.shown, _words(track, words), seen_at))
            if c.state.shown != track.before.state.shown:
                changed.append(_change(track))
        elif track.answered and _is_long_ago(track.row["last_health_check"], c.probed_at):
            probed.append((track.row["channel_id"], c.probed_at))
    await _run_rows(connection, sql.save_states, saved)
    await _run(connection, sql.save_recovery_due, 2, recovering)
    if shown or owners:
        ids = list({*(row[0] for row in shown), *(news.channel_id for news in owners)})
        _expect_all(ids, {row["id"] for row in await connection.fetch(sql.lock_shown, ids)})
    await _run_rows(connection, sql.show_states, shown)
    await show_owners(connection, owners)
    await _run(connection, sql.note_changes, 7, changed)
    await _run(connection, sql.show_probes, 2, probed)


async def _save_qrs(connection: Connection, tracks: Iterable[ChannelFold]) -> None:
    """Keep the QRs of channels that wait for a scan; wipe those of channels that do so no more."""
    kept: list[tuple[object, ...]] = []
    wiped: list[UUID] = []
    for track in tracks:
        channel_id, tenant_id = track.row["channel_id"], track.row["tenant_id"]
        if track.channel.state is State.QR_PENDING:
            kept += [(channel_id, tenant_id, *track.qr)] if track.qr is not None else []
        elif track.before.state is State.QR_PENDING:
            wiped.append(channel_id)
    await _run_rows(connection, sql.keep_qrs, kept)
    if wiped:
        await connection.execute(sql.wipe_qrs, wiped)


def _words(track: ChannelFold, words: Words) -> str | None:
    reason = track.channel.status.reason
    return None if reason is None else words(reason, track.row["locale"])


def _is_long_ago(shown_at: datetime | None, probed_at: datetime | None) -> bool:
    return probed_at is not None and (shown_at is None or probed_at - shown_at >= SHOWN_EVERY)


def _expect_all(wanted: Iterable[UUID], locked: Collection[UUID]) -> None:
    missing = set(wanted).difference(locked)
    if missing:
        raise Locked(missing)


async def _save_incidents(connection: Connection, tracks: Iterable[ChannelFold]) -> None:
    changed: list[tuple[object, ...]] = []
    ended: list[tuple[object, ...]] = []
    whole: list[tuple[object, ...]] = []
    opened: list[tuple[object, ...]] = []
    for track in tracks:
        channel_id, now = track.row["channel_id"], track.channel.incident
        if (old := track.old_incident) is not None and old != track.before.incident:
            changed.append(_incident(track, old)[:4])
        for past in track.past:
            if past.stored:
                ended.append((channel_id, past.resolved_at, json_of({"resolved": past.why}), past.tell))
            else:
                whole.append((*_incident(track, past.incident, past.why), past.resolved_at))
        if now is not None and not track.incident_stored:
            opened.append(_incident(track, now))
    await _run(connection, sql.change_incidents, 4, changed)
    await _run(connection, sql.resolve_incidents, 4, ended)
    await _run(connection, sql.record_incidents, 7, whole)
    await _run(connection, sql.open_incidents, 6, opened)


def _event(track: ChannelFold, event: EventRow) -> tuple[object, ...]:
    return (
        track.row["channel_id"],
        track.row["tenant_id"],
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


def _state(track: ChannelFold) -> tuple[object, ...]:
    channel = track.channel
    return (
        track.row["channel_id"],
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
        track.told,
        memory_of(channel, track.details),
        track.answered,
    )


def _change(track: ChannelFold) -> tuple[object, ...]:
    channel = track.channel
    return (
        track.row["channel_id"],
        track.row["tenant_id"],
        track.before.state.shown,
        channel.state.shown,
        channel.status.reason,
        channel.since,
        channel.version,
    )


def _incident(track: ChannelFold, incident: Incident, resolved: str | None = None) -> tuple[object, ...]:
    return (
        track.row["channel_id"],
        incident.kind,
        incident.last_state,
        details_of(incident, track.details, resolved),
        incident.started_at,
        incident.opened_at,
    )


async def _run_rows(connection: Connection, statement: str, rows: Sequence[Values]) -> None:
    """Run a statement that takes its rows whole: with very many columns that is half the work."""
    if rows:
        await connection.execute(statement, rows)


async def _run(connection: Connection, statement: str, width: int, rows: Sequence[Values]) -> None:
    if rows:
        await connection.fetch(statement, *_columns(rows, width))


def _columns(rows: Sequence[Values], width: int) -> list[list[object]]:
    return [[row[i] for row in rows] for i in range(width)]
