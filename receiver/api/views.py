"""Rows as the JSON that docs/api.md promises; reads no database and changes nothing."""

from collections.abc import Mapping
from typing import Final

from db.alerts.deliveries import Delivery, TestResult
from db.alerts.destinations import Destination
from db.codec.channel import reason_of, state_of
from db.codec.rules import rules_of
from db.connection.json_columns import load
from db.connection.types import Record
from db.reads.channels import ChannelRow
from db.reads.gateways import GatewayRow
from receiver.i18n.reasons import reason_text
from receiver.providers import RECOVERY_SUPPORT
from statemachine.model import Monitoring, Reason, Rules, Status

GATEWAY_VERDICTS: Final = frozenset({Reason.GATEWAY_UNREACHABLE, Reason.GATEWAY_UNAVAILABLE})


def channel(found: ChannelRow) -> dict[str, object]:
    """Return the state object of a channel."""
    row = found.row
    metadata, defaults = load(row["metadata"]), load(row["defaults"])
    return {
        "channel_id": row["channel_id"],
        "tenant_id": row["tenant_id"],
        "provider": row["provider"],
        "instance": row["instance"],
        "name": row["name"],
        "state": state_of(row["state"]).shown,
        "since": row["since"],
        "reason": _reason(row),
        "first_unhealthy_at": row["first_unhealthy_at"],
        "last_event_at": row["last_event_at"],
        "last_health_check": row["probed_at"],
        "next_check_at": row["probe_due_at"],
        "incident": _open_incident(row),
        "evidence_age_seconds": _evidence_age_seconds(found),
        "never_connected": row["never_connected"],
        "gateway": _gateway_of(found),
        "monitoring": {
            "alerts_enabled": _flag("alerts_enabled", metadata, defaults),
            "threshold_minutes": _threshold_minutes(row["metadata"], row["defaults"]),
            "paused": row["paused"],
            "configured": found.configured,
        },
    }


def channel_in_list(found: ChannelRow) -> dict[str, object]:
    """Return the state object of a channel with how often it failed lately."""
    return {**channel(found), "incidents_7d": found.row["incidents_7d"]}


def whole_channel(found: ChannelRow) -> dict[str, object]:
    """Return all that is shown of one channel; never its key."""
    row = found.row
    return {
        **channel_in_list(found),
        "id": row["channel_id"],
        "gateway_id": row["gateway_id"],
        "api_url": found.api_url or None,
        "phone_number": row["phone_number"],
        "profile_name": row["profile_name"],
        "last_connected_at": row["last_connected_at"],
        "error_message": row["error_message"],
        "subscription": _subscription(row),
        "suspected_since": row["suspected_at"],
        "metadata": load(row["metadata"]) or {},
        "created_at": row["created_at"],
    }


def recovery(found: ChannelRow, last: Record | None) -> dict[str, object]:
    """Return the recovery actions of a channel's gateway, and the last order."""
    provider = RECOVERY_SUPPORT.get(found.row["provider"])
    return {
        "remedies": [] if provider is None else sorted(provider.actions),
        "last": None if last is None else dict(last),
    }


def event(row: Record) -> dict[str, object]:
    """Return one stored event."""
    return {**row, "data": load(row["data"])}


def incident(row: Record) -> dict[str, object]:
    """Return one incident, of a channel or a gateway."""
    return {**row, "details": load(row["details"])}


def gateway(found: GatewayRow) -> dict[str, object]:
    """Return one gateway with its own state, which is unknown until it has answered."""
    row = found.row
    return {
        "id": row["id"],
        "provider": row["provider"],
        "base_url": row["base_url"],
        "name": row["name"],
        "version": row["version"],
        "state": row["state"],
        "since": row["since"],
        "incident": _gateway_incident(row),
        "channels": found.channels,
        "never_connected": found.never_connected,
    }


def tenant(row: Record) -> dict[str, object]:
    """Return one tenant."""
    return {**row, "defaults": load(row["defaults"]) or {}}


def destination(found: Destination, config: Mapping[str, object] | None) -> dict[str, object]:
    """Return a destination with what may be seen of its configuration; None: no secret key opens it."""
    return {
        "id": found.id,
        "tenant_id": found.tenant_id,
        "kind": found.kind,
        "name": found.name,
        "config": config,
        "events": found.events,
        "reminder_minutes": found.reminder_minutes,
        "enabled": found.disabled_at is None,
        "disabled_at": found.disabled_at,
        "disabled_why": found.disabled_why,
        "failing_since": found.failing_since,
        "created_at": found.created_at,
        "updated_at": found.updated_at,
    }


def delivery(found: Delivery) -> dict[str, object]:
    """Return a decision with its tries, the last answer at the top level."""
    row = found.decision
    attempts = [_attempt(attempt) for attempt in found.attempts]
    last = attempts[0] if attempts else {"status": None, "answer": None}
    return {
        "id": row["id"],
        "at": row["at"],
        "event": row["event"],
        "incident_id": row["incident_id"] or row["gateway_incident_id"],
        "channel_id": row["channel_id"],
        "tenant_id": row["tenant_id"],
        "destination_id": row["destination_id"],
        "destination": _destination(row),
        "decision": "send" if row["is_sent"] else "skip",
        "reason": row["why"],
        "outcome": row["outcome"],
        "status": last["status"],
        "answer": last["answer"],
        "message": _message(row),
        "attempts": attempts,
    }


def tested(found: TestResult) -> dict[str, object]:
    """Return a destination's answer to a test message."""
    return {
        "id": found.message_id,
        "destination_id": found.destination_id,
        "at": found.at,
        "ok": found.ok,
        "status": found.status,
        "answer": found.answer,
        "took_ms": round(found.took.total_seconds() * 1000),
    }


def window(row: Record) -> dict[str, object]:
    """Return one maintenance window; `now` of its row says whether it runs."""
    names = ("id", "tenant_id", "channel_id", "gateway_id", "starts_at", "ends_at", "why", "created_at")
    shown = {name: row[name] for name in names}
    state = "running" if row["starts_at"] <= row["now"] < row["ends_at"] else "over"
    return {**shown, "state": "planned" if row["now"] < row["starts_at"] else state}


def notification(row: Record) -> dict[str, object]:
    """Return one notification."""
    return {**row, "payload": load(row["payload"])}


def _attempt(row: Record) -> dict[str, object]:
    names = {"at": "at", "ok": "is_ok", "status": "status", "answer": "answer", "took_ms": "took_ms"}
    return {name: row[column] for name, column in names.items()}


def _destination(row: Record) -> dict[str, object] | None:
    if row["destination_id"] is None:
        return None
    return {
        "id": row["destination_id"],
        "kind": row["destination_kind"],
        "name": row["destination_name"],
    }


def _message(row: Record) -> dict[str, object] | None:
    """Return the message that a decision led to; it is due again only while it has no outcome."""
    if row["message_id"] is None:
        return None
    due_at = row["due_at"] if row["settled_at"] is None else None
    return {
        "id": row["message_id"],
        "purpose": row["purpose"],
        "tries": row["tries"],
        "next_try_at": due_at,
        "settled_at": row["settled_at"],
    }


def _threshold_minutes(metadata: str | None, defaults: str | None) -> float:
    rules = rules_of(Rules(), metadata, defaults, Monitoring.WATCHED, configured=True)
    minutes = rules.threshold.total_seconds() / 60
    return int(minutes) if minutes.is_integer() else minutes


def _flag(name: str, metadata: object, defaults: object) -> bool:
    for settings in (metadata, defaults):
        if isinstance(settings, Mapping) and isinstance(settings.get(name), bool):
            return bool(settings[name])
    return True


def _reason(row: Record) -> dict[str, object] | None:
    reason = reason_of(row["reason"])
    if reason is None:
        return None
    terminal = Status(state_of(row["state"]), reason).terminal
    text = reason_text(reason, row["locale"])
    return {"code": reason.value, "terminal": terminal, "text": text, "status": row["status"]}


def _subscription(row: Record) -> dict[str, object] | None:
    if row["expires_at"] is None and row["payment_status"] is None:
        return None
    return {"expires_at": row["expires_at"], "payment_status": row["payment_status"]}


def _gateway_incident(row: Record) -> dict[str, object] | None:
    if row["incident_id"] is None:
        return None
    names = ("id", "started_at", "affected", "cause", "acknowledged_at")
    return {name: row[f"incident_{name}"] for name in names}


def _gateway_of(found: ChannelRow) -> dict[str, object] | None:
    gateway = found.gateway
    if gateway is None:
        return None
    return {name: gateway[name] for name in ("id", "name", "state", "incident_id", "since")}


def _evidence_age_seconds(found: ChannelRow) -> int | None:
    """Return the age of what a channel's state rests on; None: there is no evidence yet.

    What is said of a whole gateway is as old as the gateway's newest failed trial.
    """
    row, newest = found.row, found.row["fresh_at"]
    if found.gateway is not None and row["reason"] in GATEWAY_VERDICTS:
        newest = max(filter(None, (newest, found.gateway["failed_at"])), default=None)
    return None if newest is None else max(0, int((row["now"] - newest).total_seconds()))


def _open_incident(row: Record) -> dict[str, object] | None:
    if row["incident_id"] is None:
        return None
    lasted = row["now"] - row["incident_started_at"]
    return {
        "id": row["incident_id"],
        "kind": row["incident_kind"],
        "started_at": row["incident_started_at"],
        "duration_seconds": max(0, int(lasted.total_seconds())),
        "notified_at": row["incident_notified_at"],
    }
