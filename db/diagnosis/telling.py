"""Checks alerting: recipients, late alerts and messages, failing destinations, and running maintenance."""

from datetime import UTC, datetime, timedelta
from typing import Final

from db.alerts.destinations import open_config
from db.connection.types import Connection, Record
from db.diagnosis.finding import Finding, about, note, problem
from db.queries import sql
from db.vault import Vault, VaultError

LATE_AFTER: Final = timedelta(minutes=2)
"""Alerts are decided, and messages sent, within seconds; after this long no process does it."""


async def check_recipients(connection: Connection, vault: Vault | None) -> list[Finding]:
    """Find tenants without recipients, which is a problem where operators lack a destination, too."""
    rows = await connection.fetch(sql.tenants_without_destination)
    quiet = [row["name"] or row["id"] for row in rows if not _reads(row, vault)]
    add = "Add a destination: POST /destinations"
    admin = f"{add} with its tenant_id, or add an active tenant_admin to tenant_members."
    what = "Alerts of these tenants have no recipient of theirs"
    if await connection.fetchval(sql.operators_have_destination):
        return about(note, "tenant_not_told", what, quiet, admin)
    operators = note(
        "operators_not_told",
        "No destination of operators is enabled: alerts of gateways that are down are not sent.",
        f"{add} without tenant_id, or set ZAPWATCH_ALERT_URL.",
    )
    unsent = "Alerts of these tenants would not be sent"
    return [*about(problem, "nobody_told", unsent, quiet, admin), operators]


async def check_alerts(connection: Connection) -> list[Finding]:
    """Find alerts that are not decided and messages that are not sent in time."""
    before = datetime.now(UTC) - LATE_AFTER
    alerts = await connection.fetchrow(sql.late_alerts, before)
    messages = await connection.fetchrow(sql.late_messages, before)
    assert alerts is not None
    assert messages is not None
    do = "Is `zapwatch serve` running, on this database? If it is, its log says why they wait."
    found = []
    if alerts["alerts"]:
        what = f"Alerts that are not decided ({alerts['alerts']:,}), one since {_minute(alerts['due_at'])}."
        found.append(problem("late_alerts", what, do))
    if messages["messages"]:
        since = _minute(messages["due_at"])
        what = f"Messages that are not sent ({messages['messages']:,}), one since {since}."
        found.append(problem("late_messages", what, do))
    return found


async def check_destinations(connection: Connection) -> list[Finding]:
    """Find destinations that are disabled, and those that fail."""
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
        *about(problem, "destination_ended", "Destinations that were disabled after failures", ended, again),
        *about(problem, "destination_failing", "Destinations that fail", failing, look),
        *about(note, "destination_off", "Destinations that operators disabled", meant, "Nothing."),
    ]


async def check_maintenance(connection: Connection) -> list[Finding]:
    """Find maintenance windows that run, in which alerts are held."""
    rows = await connection.fetch(sql.running_maintenance)
    windows = [f"{_subject(row)} until {_minute(row['ends_at'])}" for row in rows]
    do = "Nothing, if it is meant; DELETE /maintenance/{id} ends one."
    return about(note, "maintenance", "Maintenance, in which no alerts are sent", windows, do)


def _reads(row: Record, vault: Vault | None) -> bool:
    """Whether the tenant's `in_app` destination reaches a member."""
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
    owner = row["tenant"] or "operators"
    return f"{row['kind']} {row['name'] or row['id']} of {owner}"


def _subject(row: Record) -> str:
    if row["channel_id"] is not None:
        return f"the channel {row['channel'] or row['channel_id']}"
    if row["gateway_id"] is not None:
        return f"the gateway {row['gateway']}"
    return "everything" if row["tenant_id"] is None else f"the tenant {row['tenant'] or row['tenant_id']}"


def _minute(at: datetime) -> str:
    return f"{at.astimezone(UTC):%Y-%m-%d %H:%M} UTC"
