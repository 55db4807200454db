"""Whether the database is as the migrations left it: grants, row security, triggers, indexes, functions."""

import re
from collections import defaultdict
from collections.abc import Sequence
from typing import Final

from db.connection.types import Connection, Record
from db.diagnosis.finding import NAMED, Finding, about, listed, note, problem
from db.migrate import MIGRATIONS, MigrationError, pending
from db.queries import sql


async def check_migrations(connection: Connection) -> list[Finding]:
    """Find migrations that are still to be applied, or were changed since they were."""
    try:
        names = await pending(connection)
    except MigrationError as error:
        return [problem("changed_migration", str(error), "Install the version that made this database.")]
    do = "Run `zapwatch migrate`, then `zapwatch doctor` again."
    return about(problem, "pending_migrations", "Migrations to be applied", names, do)


async def check_schema(connection: Connection) -> list[Finding]:
    """Find grants, row security, triggers and indexes that are not as the migrations left them."""
    faults: dict[str, list[Record]] = defaultdict(list)
    for row in await connection.fetch(sql.schema_faults):
        faults[row["kind"]].append(row)
    return [_schema_finding(kind, rows) for kind, rows in faults.items()]


_SCHEMA: Final = {
    "missing_role": "A role that applications use is missing",
    "missing_grant": "A grant is missing",
    "surplus_grant": "More is granted than Zapwatch grants",
    "row_security": "Tenants are not kept apart",
    "owner": "The service's role does not see all rows",
    "missing_object": "Something that Zapwatch relies on is missing or off",
    "shut_out_members": "Members of tenants may not read incidents, since row security is off in the table",
}


def _schema_finding(kind: str, rows: Sequence[Record]) -> Finding:
    actions = " ".join(row["action"] for row in rows[:NAMED])
    more = " Then run `zapwatch doctor` again for the others." if len(rows) > NAMED else ""
    report = note if kind == "shut_out_members" else problem
    what = listed(_SCHEMA[kind], [row["what"] for row in rows])
    return report(kind, what, f"As the owner, in the database: {actions}{more}")


async def check_functions(connection: Connection) -> list[Finding]:
    """Find functions of ours that another application replaced, or that are missing."""
    applied = {row["name"] for row in await connection.fetch(sql.applied_migrations)}
    texts = {file.name: file.read_text(encoding="utf-8") for file in MIGRATIONS.iterdir()}
    if newer := sorted(applied - texts.keys()):
        do = "Install that version; its functions can't be compared with ours."
        return about(note, "newer_database", "Applied by a newer version", newer, do)
    ours = _functions_of("".join(texts[name] for name in sorted(applied)))
    rows = await connection.fetch(sql.our_functions)
    replaced = [
        row["signature"] for row in rows if row["source"] not in ours.get(row["name"], [row["source"]])
    ]
    missing = sorted(ours.keys() - {row["name"] for row in rows})
    do = "Find its author. To restore ours, run its statement from db/migrations again, and what follows it."
    return [
        *about(problem, "replaced_function", "Functions replaced by another application", replaced, do),
        *about(problem, "missing_function", "Functions that are missing", missing, do),
    ]


def _functions_of(migrations: str) -> dict[str, list[str]]:
    """Return the sources that migrations have given to each function of ours."""
    created = re.compile(
        r"\bcreate (?:or replace )?function (?:public\.)?((?:zapwatch|whatsapp_heartbeat)_\w+)\("
        r".*?\bas (\$\w*\$)(.*?)\2",
        re.DOTALL,
    )
    sources: dict[str, list[str]] = defaultdict(list)
    for name, _, source in created.findall(migrations):
        sources[name].append(source)
    return sources
