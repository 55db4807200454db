"""The examination: every check in turn. One that fails is a finding and hides no other."""

import asyncio
import shutil
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, replace
from datetime import timedelta
from functools import partial
from typing import Final

import asyncpg
from rich.console import Console
from rich.text import Text

from db import diagnosis
from db.connection.pool import connect
from db.connection.retry import TRANSIENT
from db.diagnosis import Finding, Severity, note, problem, size
from db.embedded.server import EmbeddedError
from db.ingest.queue import COMMIT_TIMEOUT
from db.vault import VaultError
from receiver.doctor.address import ANSWER_WITHIN, check_base_url, check_public_url
from receiver.doctor.credentials import check_credentials
from receiver.doctor.installation import Installation
from receiver.doctor.webhooks import check_webhooks
from receiver.outbound.client import Client, open_client
from receiver.outbound.container import localhost
from receiver.settings import Settings, variable
from receiver.telemetry.logs import redact
from receiver.telemetry.tracebacks import location_of

OVERDUE: Final = timedelta(seconds=60)
"""Due work that waits longer than this is not being done, unless its lease is longer still."""
LEAST_FREE: Final = 1_000_000_000
LEAST_FREE_SHARE: Final = 0.1
OpenDatabase = Callable[[Settings], AbstractAsyncContextManager[str]]
Check = Callable[[], Awaitable[Sequence[Finding]]]
MISSING: Final = (
    asyncpg.UndefinedTableError,
    asyncpg.UndefinedColumnError,
    asyncpg.UndefinedFunctionError,
    asyncpg.UndefinedObjectError,
)
"""How a check fails on a database that lacks migrations."""


@dataclass(frozen=True, slots=True)
class Examination:
    """The subject of the examination, in a sentence, and the findings, problems first."""

    summary: str
    findings: tuple[Finding, ...]

    @property
    def healthy(self) -> bool:
        """Whether there is no problem; there may be notes."""
        return not any(finding.severity is Severity.PROBLEM for finding in self.findings)

    def print(self, console: Console) -> None:
        """Print the findings as text: one line for the problem, one for what to do."""
        console.print(_line(self.summary), soft_wrap=True)
        for finding in self.findings:
            style = "bold red" if finding.severity is Severity.PROBLEM else "bold"
            console.print(
                Text.assemble((f"{finding.severity.value:8} ", style), _line(finding.what)), soft_wrap=True
            )
            console.print(_line(f"         {finding.do}"), soft_wrap=True)
        if self.healthy:
            console.print("No problem was found.")


def _line(text: str) -> Text:
    # Names come from outside: control characters must not reach a terminal.
    return Text("".join(char if char.isprintable() else "?" for char in text))


async def examine(settings: Settings, open_database: OpenDatabase) -> Examination:
    """Return what is wrong; the database is only read, whether or not the service runs."""
    summary = "Looked at no database."
    findings = [note("unknown_setting", f"{words}.", "Correct or remove it.") for words in settings.warnings]
    async with open_client(ANSWER_WITHIN, localhost()) as client:
        try:
            if settings.embedded and not (settings.data_dir / "postgres" / "PG_VERSION").exists():
                raise EmbeddedError(f"there is none yet in {settings.data_dir}")
            async with open_database(settings) as dsn:
                summary, found = await _examine_database(settings, dsn, client)
                findings += found
        except (EmbeddedError, asyncpg.PostgresError, *TRANSIENT) as error:
            do = f"Start `zapwatch serve`, or correct {variable('data_dir')} and {variable('database_url')}."
            findings.append(problem("no_database", f"The database can't be used: {error}.", do))
        if settings.public_url is not None:
            findings += await _guarded("PUBLIC_URL", partial(check_public_url, settings.public_url, client))
    findings = [replace(f, what=redact(f.what), do=redact(f.do)) for f in findings]
    return Examination(summary, tuple(sorted(findings, key=lambda f: f.severity is Severity.NOTE)))


async def _examine_database(settings: Settings, dsn: str, client: Client) -> tuple[str, list[Finding]]:
    connection = await connect(dsn, "zapwatch doctor", settings={"default_transaction_read_only": "on"})
    try:
        seen = Installation(settings, connection, client)
        found = list(await _guarded("migrations", partial(diagnosis.check_migrations, connection)))
        incomplete = any(finding.code == "pending_migrations" for finding in found)
        if not incomplete:
            found += await _guarded("grants", partial(diagnosis.check_schema, connection))
        for name, check in _checks(seen):
            found += await _guarded(name, check, incomplete=incomplete)
    finally:
        await connection.close()
    where = f"the embedded database in {settings.data_dir}" if settings.embedded else f"database {seen.name}"
    return f"Looked at {where}: gateways {len(seen.gateways):,}, channels {len(seen.channels):,}.", found


def _checks(seen: Installation) -> Iterator[tuple[str, Check]]:
    connection, settings = seen.connection, seen.settings
    overdue_after = max(OVERDUE, 2 * settings.probe_timeout + 2 * COMMIT_TIMEOUT)
    yield "channels and gateways", seen.read
    yield "the secret keys", seen.read_keys
    yield "functions", partial(diagnosis.check_functions, connection)
    yield "background loops", partial(diagnosis.check_loops, connection)
    yield "due probes", partial(diagnosis.check_overdue, connection, overdue_after)
    yield "credentials", partial(check_credentials, seen)
    yield "registrations", seen.judge
    yield "webhooks", partial(check_webhooks, seen)
    yield "webhook addresses", partial(check_base_url, seen)
    yield "recipients", seen.check_recipients
    yield "alerts", partial(diagnosis.check_alerts, connection)
    yield "destinations", partial(diagnosis.check_destinations, connection)
    yield "maintenance", partial(diagnosis.check_maintenance, connection)
    yield "deep probes", partial(diagnosis.check_deep_probes, connection)
    yield "what comes in", partial(diagnosis.check_quarantine, connection)
    yield "disk", partial(diagnosis.check_disk, connection, settings.events_keep_days)
    yield "old events", partial(diagnosis.check_retention, connection)
    yield "free disk", partial(check_free_disk, settings)


async def _guarded(name: str, check: Check, *, incomplete: bool = False) -> Sequence[Finding]:
    """Return what the check finds; its own failure is a finding, unless missing migrations explain it."""
    try:
        return await check()
    except Exception as error:
        if incomplete and isinstance(error, MISSING):
            return ()
        has_safe_text = isinstance(error, asyncpg.PostgresError | VaultError | OSError)
        kind = type(error).__name__
        words = f"{kind}: {error}" if has_safe_text else f"{kind} in {location_of(error)}"
        return [problem("unchecked", f"Could not be checked: {name} ({words}).", "Run it again.")]


async def check_free_disk(settings: Settings, least: int = LEAST_FREE) -> list[Finding]:
    """Find an embedded database whose disk is nearly full; `least` is in bytes."""
    if not settings.embedded:
        return []
    disk = await asyncio.to_thread(shutil.disk_usage, settings.data_dir)
    if disk.free >= max(least, LEAST_FREE_SHARE * disk.total):
        return []
    what = f"Only {size(disk.free)} of {size(disk.total)} are free where {settings.data_dir} is."
    return [problem("disk_full", what, "Make room: PostgreSQL stops when there is none.")]
