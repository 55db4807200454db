"""Rows as the JSON that the contract promises; reads no database and changes nothing."""

from collections.abc import Mapping
from typing import Any

from db.connections import Record
from db.documents import load
from db.reads import ChannelRow, GatewayRow
from db.rules import rules_of
from receiver.providers import HEALING
from receiver.texts import reason_text
from statemachine.model import Monitoring, Reason, Rules, Standing, State


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
        "state": State(row["state"]).shown,
        "since": row["since"],
        "reason": _reason(row),
        "first_unhealthy_at": row["first_unhealthy_at"],
        "last_event_at": row["last_event_at"],
        "last_health_check": row["probed_at"],
        "next_check_at": row["probe_due_at"],
        "incident": _open_incident(row),
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
    """Return what a channel's gateway can be told to do for it, and what it was told last."""
    provider = HEALING.get(found.row["provider"])
    return {
        "remedies": [] if provider is None else sorted(provider.remedies),
        "last": None if last is None else dict(last),
    }


def event(row: Record) -> dict[str, object]:
    """Return one stored event."""
    return {**row, "data": load(row["data"])}


def incident(row: Record) -> dict[str, object]:
    """Return one incident."""
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
    }


def tenant(row: Record) -> dict[str, object]:
    """Return one tenant."""
    return {**row, "defaults": load(row["defaults"]) or {}}


def _threshold_minutes(metadata: str | None, defaults: str | None) -> float:
    rules = rules_of(Rules(), metadata, defaults, Monitoring.WATCHED, configured=True)
    minutes = rules.threshold.total_seconds() / 60
    return int(minutes) if minutes.is_integer() else minutes


def _flag(name: str, metadata: object, defaults: object) -> bool:
    for settings in (metadata, defaults):
        if isinstance(settings, Mapping) and isinstance(settings.get(name), bool):
            return bool(settings[name])
    return True


def _reason(row: Record) -> dict[str, Any] | None:
    if row["reason"] is None:
        return None
    reason = Reason(row["reason"])
    terminal = Standing(State(row["state"]), reason).terminal
    text = reason_text(reason, row["locale"])
    return {"code": reason.value, "terminal": terminal, "text": text, "status": row["status"]}


def _subscription(row: Record) -> dict[str, object] | None:
    if row["expires_at"] is None and row["payment_status"] is None:
        return None
    return {"expires_at": row["expires_at"], "payment_status": row["payment_status"]}


def _gateway_incident(row: Record) -> dict[str, object] | None:
    if row["incident_id"] is None:
        return None
    names = ("id", "started_at", "affected", "cause")
    return {name: row[f"incident_{name}"] for name in names}


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
