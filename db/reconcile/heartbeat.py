"""Whether the whole chain works: something can be written, and nothing that is due waits for long."""

from datetime import datetime, timedelta
from typing import Final

from db.connection.types import Connection
from db.queries import sql
from db.reads.counts import read_oldest_due
from db.reconcile.failing_loops import read_failing_loops

PATIENCE: Final = timedelta(minutes=1)
"""How long what is due may wait while everything works."""


async def find_late(connection: Connection, now: datetime) -> list[str]:
    """Return what waits too long: `probes`, `deadlines`, `alerts`, `messages`, and the loops that fail.

    Commits a write first, and raises what asyncpg raises where that is not taken.
    """
    await connection.execute(sql.write_nothing)
    before = now - PATIENCE
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
