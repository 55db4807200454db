"""Checks the background loops of all services on the database."""

from datetime import UTC

from db.connection.types import Connection
from db.diagnosis.finding import Finding, about, problem
from db.reconcile.failing_loops import FailingLoop, read_failing_loops


async def check_loops(connection: Connection) -> list[Finding]:
    """Find background loops that have had no good round for minutes."""
    failing = [_words(one) for one in await read_failing_loops(connection)]
    do = "The service's log there has the traceback of each error. Their work waits until that is mended."
    return about(problem, "failing_loop", "Background loops fail", failing, do)


def _words(one: FailingLoop) -> str:
    since = f"{one.failing_since.astimezone(UTC):%Y-%m-%d %H:%M} UTC"
    return f"{one.loop} on {one.host} since {since} ({one.error})"
