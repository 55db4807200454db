"""Whether the service works as a whole: writes succeed, and nothing is overdue."""

from datetime import datetime, timedelta
from typing import Final

from db.connection.types import Connection
from db.queries import sql
from db.reads.counts import read_oldest_due
from db.reconcile.failing_loops import read_failing_loops

LATE_AFTER: Final = timedelta(minutes=1)
"""How long probes, deadlines, alerts and messages may be due before they are late."""


async def find_late(connection: Connection, now: datetime) -> list[str]:
    """Return what waits too long: `probes`, `deadlines`, `alerts`, `messages`, and the loops that fail.

    Commits a write first, and raises what asyncpg raises when that fails.
    """
    await connection.execute(sql.write_nothing)
    before = now - LATE_AFTER
    due = await read_oldest_due(connection, now)
    alerts = await connection.fetchrow(sql.late_alerts, before)
    messages = await connection.fetchrow(sql.late_messages, before)
    assert alerts is not None
    assert messages is not None
    late = {
        "probes": due.probe is not None and due.probe < before,
        "deadlines": due.deadline is not None and due.deadline < before,
        "alerts": alerts["alerts"] > 0,
        "messages": messages["messages"] > 0,
    }
    failing = sorted({f"loop {one.loop}" for one in await read_failing_loops(connection)})
    return [what for what, is_late in late.items() if is_late] + failing
