"""Whether somebody would hear of an incident: who is told, what waits, what fails, and what is held back."""

from datetime import UTC, datetime, timedelta
from typing import Final

from db.alerts.destinations import open_config
from db.connection.types import Connection, Record
from db.diagnosis.finding import Finding, about, note, problem
from db.queries import sql
from db.vault import Vault, VaultError

PATIENCE: Final = timedelta(minutes=2)
"""Alerts are decided, and messages leave, within seconds; what waits for longer has nobody who does it."""


async def check_listeners(connection: Connection, vault: Vault | None) -> list[Finding]:
    """Find tenants whose people are not told, and that operators are not; without both, nobody is."""
    rows = await connection.fetch(sql.quiet_tenants)
    quiet = [row["name"] or row["id"] for row in rows if not _reads(row, vault)]
    add = "Name a destination: POST /destinations"
    admin = f"{add} with its tenant_id, or make somebody an active tenant_admin in tenant_members."
    what = "No person of these tenants is told of their incidents"
    if await connection.fetchval(sql.operators_are_told):
        return about(note, "tenant_not_told", what, quiet, admin)
    operators = note(
        "operators_not_told",
        "No destination of operators is in use: nobody is told of gateways that are down.",
        f"{add} without tenant_id, or set ZAPWATCH_ALERT_URL.",
    )
    nobody = "Nobody would be told of an incident of these tenants"
    return [*about(problem, "nobody_told", nobody, quiet, admin), operators]


async def check_alerts(connection: Connection) -> list[Finding]:
    """Find alerts that nobody decides and messages that nobody sends."""
    before = datetime.now(UTC) - PATIENCE
    alerts = await connection.fetchrow(sql.late_alerts, before)
    messages = await connection.fetchrow(sql.late_messages, before)
    assert alerts is not None
    assert messages is not None
    do = "Is `zapwatch serve` running, on this database? If it is, its log says why they wait."
    found = []
    if alerts["alerts"]:
        what = f"Alerts that nobody decides ({alerts['alerts']:,}), one since {_minute(alerts['due_at'])}."
        found.append(problem("late_alerts", what, do))
    if messages["messages"]:
        since = _minute(messages["due_at"])
        what = f"Messages that nobody sends ({messages['messages']:,}), one since {since}."
        found.append(problem("late_messages", what, do))
    return found


async def check_destinations(connection: Connection) -> list[Finding]:
    """Find destinations that are switched off, and those where nothing gets through."""
    rows = await connection.fetch(sql.poor_destinations)
    meant = [_destination(row) for row in rows if row["disabled_why"] == "operator"]
    ended = [
        f"{_destination(row)}: {row['disabled_why']}"
        for row in rows
        if row["disabled_at"] is not None and row["disabled_why"] != "operator"
    ]
    failing = [
        f"{_destination(row)} since {_minute(row['failing_since'])}"
        for row in rows
        if row["disabled_at"] is None
    ]
    again = (
        "Put right what they answer (GET /deliveries?destination_id=), then PATCH them with enabled: true."
    )
    look = "GET /deliveries?destination_id= has their answers; POST /destinations/{id}/test tries one."
    return [
        *about(problem, "destination_ended", "Destinations that were given up", ended, again),
        *about(problem, "destination_failing", "Destinations where nothing gets through", failing, look),
        *about(note, "destination_off", "Destinations that operators switched off", meant, "Nothing."),
    ]


async def check_maintenance(connection: Connection) -> list[Finding]:
    """Find what nobody is told of just now, because somebody wanted it so."""
    rows = await connection.fetch(sql.running_maintenance)
    windows = [f"{_subject(row)} until {_minute(row['ends_at'])}" for row in rows]
    do = "Nothing, if it is meant; DELETE /maintenance/{id} ends one."
    return about(note, "maintenance", "Nobody is told during maintenance", windows, do)


def _reads(row: Record, vault: Vault | None) -> bool:
    """Whether somebody is told inside the tenant's application."""
    if row["is_off"] or not row["members"]:
        return False
    return row["admins"] > 0 or _is_for_all(row, vault)


def _is_for_all(row: Record, vault: Vault | None) -> bool:
    if row["in_app"] is None or vault is None:
        return False
    try:
        return open_config(vault, row["in_app"], row["config"]).get("recipients") == "all"
    except VaultError:
        return False


def _destination(row: Record) -> str:
    whose = row["tenant"] or "operators"
    return f"{row['kind']} {row['name'] or row['id']} of {whose}"


def _subject(row: Record) -> str:
    if row["channel_id"] is not None:
        return f"the channel {row['channel'] or row['channel_id']}"
    if row["gateway_id"] is not None:
        return f"the gateway {row['gateway']}"
    return "everything" if row["tenant_id"] is None else f"the tenant {row['tenant'] or row['tenant_id']}"


def _minute(at: datetime) -> str:
    return f"{at.astimezone(UTC):%Y-%m-%d %H:%M} UTC"
