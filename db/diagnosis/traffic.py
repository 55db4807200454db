"""Checks overdue work, unwatched channels and instances, quarantine, deep probes, and disk space."""

from datetime import UTC, datetime, timedelta
from typing import Final

from db.connection.types import Connection, Record
from db.diagnosis.finding import SLOW, Finding, about, note, problem, size
from db.queries import sql
from db.registry.address import PROVIDERS

RECENT: Final = timedelta(days=7)
"""For how long after its last event an unknown instance is reported."""
LATELY: Final = timedelta(days=7)
"""The days that the size of a day is estimated from: a week includes its quiet ones."""
LATE: Final = timedelta(days=1)
"""Retention that is overdue for longer is a problem."""
FEW_EVENTS: Final = 1000
"""With fewer, half-empty pages make the size of an event meaningless."""


async def check_overdue(connection: Connection, late_after: timedelta) -> list[Finding]:
    """Find probes and deadlines that are overdue by more than `late_after`."""
    now = datetime.now(UTC)
    row = await connection.fetchrow(sql.overdue, now - late_after)
    assert row is not None
    found = []
    if row["probes"]:
        late = f"{row['probes']:,} channels wait to be probed, one for {_span(now - row['probe_due_at'])}"
        found.append(_late("probes", late, "probes", has_worker=row["probing"]))
    if row["deadlines"]:
        late = f"{row['deadlines']:,} channels wait for a decision, one for {_span(now - row['due_at'])}"
        found.append(_late("deadlines", late, "decides", has_worker=row["deciding"]))
    return found


def _late(code: str, late: str, verb: str, *, has_worker: bool) -> Finding:
    if has_worker:
        do = "Look in the service's log for a gateway that hangs or a database that is slow."
        return problem(f"slow_{code}", f"{late}, though a process {verb}.", do)
    do = "Is `zapwatch serve` running, on this database? If it is, its log says why it waits."
    return problem(f"no_{code}", f"{late}: no process {verb}.", do)


def _span(length: timedelta) -> str:
    seconds = int(length.total_seconds())
    return f"{seconds} s" if seconds < 600 else f"{seconds // 60:,} min"


async def check_quarantine(connection: Connection) -> list[Finding]:
    """Find channels and instances that are not watched, and webhooks that could not be read."""
    found = []
    for row in await connection.fetch(sql.unwatched_channels, PROVIDERS):
        found.append(_unwatched(row))
    rows = await connection.fetch(sql.unknown_instances, datetime.now(UTC) - RECENT)
    unknown = [f"{row['instance']} at {row['base_url']}" for row in rows]
    what = f"Unregistered instances, with events within {RECENT.days} days"
    found += about(
        note, "unknown_instances", what, unknown, "Register those that should be watched: POST /channels."
    )
    kept = await connection.fetchrow(sql.quarantined)
    if kept is not None and kept["bodies"]:
        what = f"Webhooks that could not be read ({kept['bodies']:,}); the newest: {kept['problem']}."
        found.append(
            note("quarantine", what, "If a gateway was upgraded just now, look for a newer Zapwatch.")
        )
    return found


async def check_deep_probes(connection: Connection) -> list[Finding]:
    """Find channels that their gateway calls open, and that are dead or candidates for deep probes."""
    rows = await connection.fetch(sql.diagnosed_deep_probes)
    names = {
        found: [f"{row['instance']} at {row['base_url']}" for row in rows if row["found"] is found]
        for found in (True, False)
    }
    restart = "Restart the gateway's process; restarting the instance does nothing."
    wait = "Nothing: the next deep probe, within ten minutes or so, decides."
    return [
        *about(
            problem,
            "open_but_dead",
            "The gateway says open, and the connection is dead",
            names[True],
            restart,
        ),
        *about(note, "suspected", "The gateway says open, and its records say closed", names[False], wait),
    ]


def _unwatched(row: Record) -> Finding:
    first = ", ".join(row["first"])
    what = (
        f"Channels of {row['provider']} in notification_channels that are not watched ({row['channels']:,})"
    )
    if row["known"]:
        do = "A running `zapwatch serve` takes them in within 30 s, if they have a tenant; else see its log."
        return problem("unwatched_channels", f"{what}: {first}.", do)
    return note(
        "foreign_channels", f"{what}: {first}.", "Nothing, unless they should be: it's another provider."
    )


async def check_disk(connection: Connection, keep_days: int) -> list[Finding]:
    """Report the size of the database and the events, and that of the events of `keep_days` days."""
    now = datetime.now(UTC)
    database = await connection.fetchrow(sql.diagnosed_database)
    row = await connection.fetchrow(sql.events_size, now - LATELY, timeout=SLOW)
    assert database is not None
    assert row is not None
    events = f"{size(row['bytes'])} of it for {row['events']:,} events"
    what = f"The database takes {size(database['bytes'])}, {events}"
    if row["events"] < FEW_EVENTS:
        return [note("disk", f"{what}: too few to estimate the size of a day.", "Nothing.")]
    span = max(min(now - row["oldest_at"], LATELY), timedelta(minutes=1))
    daily = row["lately"] * (timedelta(days=1) / span) * row["bytes"] / row["events"]
    what += f", at present {size(daily)} a day: {size(daily * keep_days)} in {keep_days} days."
    return [
        note("disk", what, "Have that much disk, or keep events for fewer days (ZAPWATCH_EVENTS_KEEP_DAYS).")
    ]


async def check_retention(connection: Connection) -> list[Finding]:
    """Find that old events are not deleted, so that the disk fills."""
    now = datetime.now(UTC)
    row = await connection.fetchrow(sql.late_retention, now - LATE)
    assert row is not None
    if not row["channels"]:
        return []
    what = f"Old events of {row['channels']:,} channels are not deleted, for {_span(now - row['due_at'])}."
    do = "Is `zapwatch serve` running, on this database? If it is, its log says why they stay."
    return [problem("no_retention", what, do)]
