"""Where Evolution API sends webhooks: one address for each instance, set as its version knows it.

docs/provider-facts.md#evolution-webhook-row
"""

from collections.abc import Mapping
from typing import Final

from receiver.providers.evolution.versions import is_at_least, is_v1
from receiver.providers.report import SECRET_HEADER, Order, segment

ADDRESS_FIELD: Final = "webhook"
STATE_EVENTS: Final = ("CONNECTION_UPDATE", "QRCODE_UPDATED")
EVENTS_SINCE: Final = {
    (2, 0): ("LOGOUT_INSTANCE", "REMOVE_INSTANCE"),
    (2, 3): ("STATUS_INSTANCE", "INSTANCE_DELETE"),
}
"""Events that later versions add (EventController.events)."""
TRAFFIC_EVENTS: Final = ("MESSAGES_UPSERT", "MESSAGES_UPDATE", "PRESENCE_UPDATE")
HEADERS_SINCE: Final = (2, 2)
"""From 2.1.2 on a row has headers; 2.1 as a whole is left alone."""


def set_webhook(row: Mapping[str, object], instance: str, key: str, version: str | None) -> Order:
    """Return webhook/set with a row as webhook/find returns it: flat in v1, nested and renamed in v2."""
    body: dict[str, object] = {
        "enabled": row["enabled"],
        "url": row.get("url"),
        "events": row.get("events") or [],
    }
    names = ("webhook_by_events", "webhook_base64") if is_v1(version) else ("byEvents", "base64")
    stored = (
        ("webhook_by_events", "webhook_base64") if is_v1(version) else ("webhookByEvents", "webhookBase64")
    )
    body |= {name: row.get(known, False) for name, known in zip(names, stored, strict=True)}
    if is_at_least(version, HEADERS_SINCE):
        body["headers"] = row.get("headers") or {}
    if not is_v1(version):
        body = {"webhook": body}
    return Order("POST", f"/webhook/set/{segment(instance)}", {"apikey": key}, body)


def events_of(version: str | None, traffic: bool) -> list[str]:
    """Return the events that we need and the version knows: an unknown name is a 400."""
    events = [*STATE_EVENTS]
    for since, names in EVENTS_SINCE.items():
        events += names if is_at_least(version, since) else ()
    return events + [*TRAFFIC_EVENTS] * traffic


def secret_in(row: Mapping[str, object]) -> str | None:
    """Return the secret in the headers of a row."""
    headers = row.get("headers")
    secret = headers.get(SECRET_HEADER) if isinstance(headers, Mapping) else None
    return secret if isinstance(secret, str) else None
