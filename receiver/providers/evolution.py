"""Evolution API, v1 and v2: its webhooks and `GET /instance/connectionState/{instance}`.

Facts are from its source (1.8.2 to 2.4.0-rc2) and from running 2.3.6. 2.2.1 to 2.3.7 send `close` only
for 401, 402, 403 and 406; older ones for every code. `date_time` is local time with a false Z.
"""

import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Final

import orjson

from db.entry import Told
from db.imports import Listed
from receiver.providers.report import (
    LIVE_FOR,
    Answer,
    Listing,
    Order,
    Question,
    Report,
    Slots,
    Unreadable,
    by_status,
    clean,
    decode,
    document_of,
    event_key,
    from_epoch,
    from_text,
    glimpse,
    instance_of,
    list_of,
    number,
    segment,
)
from statemachine.model import Reason, Trigger

CLOSE_REASONS: Final = {
    401: Reason.LOGGED_OUT,
    402: Reason.BANNED_TEMPORARILY,
    403: Reason.BANNED,
    406: Reason.BANNED,
    408: Reason.CONNECTION_LOST,
    428: Reason.CONNECTION_CLOSED,
    440: Reason.CONNECTION_REPLACED,
    500: Reason.BAD_SESSION,
    503: Reason.PROVIDER_UNAVAILABLE,
    515: Reason.RESTART_REQUIRED,
}
FINAL_CODES: Final = (401, 402, 403, 406)
"""Codes after which no version of 2.x reconnects (codesToNotReconnect in whatsapp.baileys.service.ts)."""
LOST_IS_FINAL_SINCE: Final = (2, 4)
"""From 2.4.0-rc1 on a 408 wipes the session's credentials."""

SLOT: Final = "webhook"
STATE_EVENTS: Final = ("CONNECTION_UPDATE", "QRCODE_UPDATED")
EVENTS_SINCE: Final = {
    (2, 0): ("LOGOUT_INSTANCE", "REMOVE_INSTANCE"),
    (2, 3): ("STATUS_INSTANCE", "INSTANCE_DELETE"),
}
"""What later versions tell, too (EventController.events)."""
TRAFFIC_EVENTS: Final = ("MESSAGES_UPSERT", "MESSAGES_UPDATE", "PRESENCE_UPDATE")
HEADERS_SINCE: Final = (2, 2)
"""From 2.1.2 on a row has headers; 2.1 as a whole is left alone."""

LIVE: Final = frozenset({"messages.update", "presence.update"})
SILENT: Final = frozenset(
    {
        "application.startup",
        "call",
        "chats.delete",
        "chats.set",
        "chats.update",
        "chats.upsert",
        "chama.ai.action",
        "contacts.set",
        "contacts.update",
        "contacts.upsert",
        "error",
        "group.participants.update",
        "group.update",
        "groups.update",
        "groups.upsert",
        "instance.create",
        "labels.association",
        "labels.edit",
        "messages.delete",
        "messages.edited",
        "messages.set",
        "messaging.history.set",
        "new.jwt.token",
        "send.message",
        "send.message.update",
        "typebot.change.status",
        "typebot.start",
    }
)
"""Events that say nothing about the connection, written in dots as `_event_name` does."""


class Evolution:
    """See the module."""

    name: Final = "evolution_api"
    has_version: Final = True
    has_subscriptions: Final = False
    one_key_for_all: Final = True

    def parse(self, body: bytes, version: str | None, now: datetime) -> Report:
        """Return what a webhook says; `version` is its gateway's, None while unknown."""
        document = decode(body)
        event = _event_name(document.get("event"))
        instance = instance_of(document.get("instance"))
        data = document.get("data")
        if event in SILENT:
            return Report(event, instance)
        at = from_text(document.get("date_time"))
        if event in LIVE or event == "messages.upsert":
            return Report(event, instance, alive=event in LIVE or _is_live(data, now), at=at)
        said, word = _said(event, data if isinstance(data, dict) else {}, at, version)
        key = None if at is None else event_key(event, document["date_time"], data)
        return Report(event, instance, said, word=word, key=key)

    def glimpse(self, head: bytes) -> Report | None:
        """Return what the beginning of an oversized body shows: such a one can only be traffic."""
        event, instance = glimpse(head, "instance")
        if event is None or (event not in LIVE and event not in SILENT and event != "messages.upsert"):
            return None
        return Report(event, instance, alive=event not in SILENT)

    def ask(self, instance: str, key: str) -> Question:
        """Return the question connectionState: memory only, without side effects (BS, 1.8.2 to 2.4.0-rc2)."""
        return Question(f"/instance/connectionState/{segment(instance)}", {"apikey": key})

    def read(self, status: int, body: bytes) -> Answer:
        """Return what an answer of connectionState says; `status` is the HTTP status."""
        document = document_of(body)
        if status == 200:
            return _read_state(document)
        if status == 404 and document is not None and "does not exist" in _message(document):
            return Answer(Trigger.SESSION_MISSING, Reason.SESSION_MISSING, status)
        return by_status(status)

    def read_version(self, body: bytes) -> str | None:
        """Return the version in an answer of `GET /`, or None."""
        return clean((document_of(body) or {}).get("version"))

    def ask_webhooks(self, instance: str, key: str) -> Question:
        """Return the question webhook/find."""
        return Question(f"/webhook/find/{segment(instance)}", {"apikey": key})

    def read_webhooks(self, status: int, body: bytes) -> tuple[str, ...] | None:
        """Return the instance's one address; v2 answers with its row or `null`, v1 with a flat object."""
        if status != 200:
            return None
        if body.strip() == b"null":
            return ()
        document = document_of(body)
        if document is None or "enabled" not in document:
            return None
        url, events = document.get("url"), document.get("events")
        told = not isinstance(events, list) or not events or "CONNECTION_UPDATE" in events
        return (url,) if document["enabled"] is True and told and isinstance(url, str) and url else ()

    def slots(self, traffic: bool) -> Sequence[str]:
        """Return the one place that an instance has, whatever it is told."""
        return (SLOT,)

    def read_slots(self, status: int, body: bytes) -> Slots | None:
        """Return the row of webhook/find; one that is not enabled is free, whatever address it has."""
        if status != 200:
            return None
        if body.strip() == b"null":
            return Slots({SLOT: ""}, {})
        row = document_of(body)
        if row is None or "enabled" not in row:
            return None
        url = row.get("url")
        return Slots({SLOT: url if row["enabled"] is True and isinstance(url, str) else ""}, row)

    def fill(
        self, slot: str, instance: str, key: str, address: str, version: str | None, traffic: bool
    ) -> Order:
        """Return webhook/set; without its headers the row would keep those of whoever had it before."""
        row = {"enabled": True, "url": address, "headers": {}, "events": _events(version, traffic)}
        return _set_webhook(row, instance, key, version)

    def put_back(
        self, row: Mapping[str, Any], instance: str, key: str, version: str | None
    ) -> Sequence[Order]:
        """Return webhook/set with what was there."""
        return (_set_webhook(row or {"enabled": False, "url": "", "events": []}, instance, key, version),)

    def read_subscription(self, status: int, body: bytes) -> None:
        """Return None: channels are not paid for one by one."""

    def ask_instances(self, key: str, page: int) -> Question:
        """Return the question fetchInstances, whose answer is the one page there is."""
        return Question("/instance/fetchInstances", {"apikey": key})

    def read_instances(self, status: int, body: bytes) -> Listing | None:
        """Return the rows of fetchInstances: flat in v2, each within `instance` in v1.

        Its `connectionStatus` is a column that may be days old, so that no state is read from it.
        """
        rows = list_of(body) if status == 200 else None
        return None if rows is None else Listing([it for row in rows if (it := _listed(row)) is not None])


def _set_webhook(row: Mapping[str, Any], instance: str, key: str, version: str | None) -> Order:
    """Return webhook/set with a row as webhook/find tells it: flat in v1, nested and renamed in v2."""
    wish = {"enabled": row["enabled"], "url": row.get("url"), "events": row.get("events") or []}
    names = ("webhook_by_events", "webhook_base64") if is_v1(version) else ("byEvents", "base64")
    told = ("webhook_by_events", "webhook_base64") if is_v1(version) else ("webhookByEvents", "webhookBase64")
    wish |= {name: row.get(known, False) for name, known in zip(names, told, strict=True)}
    if _is_at_least(version, HEADERS_SINCE):
        wish["headers"] = row.get("headers") or {}
    body = wish if is_v1(version) else {"webhook": wish}
    return Order("POST", f"/webhook/set/{segment(instance)}", {"apikey": key}, body)


def _events(version: str | None, traffic: bool) -> list[str]:
    """Return the events that we need and the version knows: an unknown name is a 400."""
    events = [*STATE_EVENTS]
    for since, names in EVENTS_SINCE.items():
        events += names if _is_at_least(version, since) else ()
    return events + [*TRAFFIC_EVENTS] * traffic


def is_v1(version: str | None) -> bool:
    """Return whether a version is of the first line: flat bodies, other names."""
    return version is not None and not _is_at_least(version, (2, 0))


def _listed(row: dict[str, Any]) -> Listed | None:
    """Return an instance; the owner's number is known from its first connection on."""
    about = row.get("instance", row)
    if not isinstance(about, dict):
        return None
    instance = instance_of(about.get("name", about.get("instanceName")))
    owner = clean(about.get("ownerJid", about.get("owner")))
    if instance is None:
        return None
    return Listed(
        instance,
        phone=None if owner is None else owner.partition("@")[0].partition(":")[0],
        profile=clean(about.get("profileName")),
        has_been_open=owner is not None,
    )


def _event_name(value: object) -> str:
    name = clean(value)
    if name is None:
        raise Unreadable("no event name")
    return name.lower().replace("_", ".").replace("-", ".")


def _said(
    event: str, data: dict[str, Any], at: datetime | None, version: str | None
) -> tuple[Told, str | None]:
    match event:
        case "connection.update":
            return _connection(data, at, version)
        case "qrcode.updated" if isinstance(data.get("qrcode"), dict):
            return Told(Trigger.QR_ISSUED, Reason.QR_SHOWN, None, at), "qr"
        case "qrcode.updated" if "statusCode" in data or "message" in data:
            return Told(Trigger.UNPAIRED, Reason.QR_LIMIT, number(data.get("statusCode")), at), "qr limit"
        case "qrcode.updated":
            raise Unreadable("qrcode.updated with neither QR nor message")
        case "status.instance":
            return _status(data, at), "closed"
        case "logout.instance":
            return Told(Trigger.UNPAIRED, Reason.LOGGED_OUT, None, at), "logout"
        case "remove.instance" | "instance.delete":
            return Told(Trigger.UNPAIRED, Reason.INSTANCE_REMOVED, None, at), "removed"
        case _:
            return Told(None, at=at), None


def _connection(data: dict[str, Any], at: datetime | None, version: str | None) -> tuple[Told, str]:
    code = number(data.get("statusReason"))
    match data.get("state"):
        case "open":
            return Told(Trigger.OPENED, None, code, at), "open"
        case "connecting":
            return Told(Trigger.CONNECTING, Reason.CONNECTING, code, at), "connecting"
        case "refused":
            return Told(Trigger.UNPAIRED, Reason.QR_LIMIT, code, at), "refused"
        case "close":
            return Told(_close_trigger(code, version), _close_reason(code), code, at), "close"
        case _:
            raise Unreadable("connection.update with an unknown state")


def _close_trigger(code: int | None, version: str | None) -> Trigger:
    if code == 515:
        return Trigger.CONNECTING
    if code in FINAL_CODES or (code == 408 and _is_at_least(version, LOST_IS_FINAL_SINCE)):
        return Trigger.UNPAIRED
    return Trigger.DROPPED


def _close_reason(code: int | None) -> Reason:
    return Reason.DISCONNECTED if code is None else CLOSE_REASONS.get(code, Reason.DISCONNECTED)


def _status(data: dict[str, Any], at: datetime | None) -> Told:
    if data.get("status") != "closed":
        raise Unreadable("status.instance with an unknown status")
    code = number(data.get("disconnectionReasonCode"))
    reason = Reason.LOGGED_OUT if code is None else _close_reason(code)
    if reason is Reason.LOGGED_OUT and _disconnection(data).startswith("Log out instance"):
        reason = Reason.LOGGED_OUT_BY_API
    return Told(Trigger.UNPAIRED, reason, code, at)


def _disconnection(data: dict[str, Any]) -> str:
    """Return the words inside `disconnectionObject`, a JSON document in a string."""
    try:
        message = orjson.loads(data["disconnectionObject"])["error"]["output"]["payload"]["message"]
    except (KeyError, TypeError, ValueError):
        return ""
    return message if isinstance(message, str) else ""


def _is_at_least(version: str | None, least: tuple[int, int]) -> bool:
    found = re.match(r"v?(\d{1,4})\.(\d{1,4})", version or "")
    return found is not None and (int(found[1]), int(found[2])) >= least


def _is_live(data: object, now: datetime) -> bool:
    messages = data if isinstance(data, list) else [data]
    for message in messages[:100]:
        stamp = message.get("messageTimestamp") if isinstance(message, dict) else None
        at = from_epoch(stamp.get("low") if isinstance(stamp, dict) else stamp)
        if at is not None and abs(now - at) <= LIVE_FOR:
            return True
    return False


def _read_state(document: dict[str, Any] | None) -> Answer:
    if document is None or document.get("error") is True:
        return Answer(Trigger.UNREACHABLE, Reason.UNREACHABLE, 200)
    instance = document.get("instance")
    match instance.get("state") if isinstance(instance, dict) else None:
        case "open":
            return Answer(Trigger.OPENED, None, 200)
        case "connecting":
            return Answer(Trigger.CONNECTING, Reason.CONNECTING, 200)
        case "close" | "refused":
            return Answer(Trigger.DROPPED, Reason.DISCONNECTED, 200)
        case _:
            return Answer(Trigger.NOT_LOADED, Reason.NOT_LOADED, 200)


def _message(document: dict[str, Any]) -> str:
    response = document.get("response")
    message = response.get("message") if isinstance(response, dict) else None
    words = message if isinstance(message, list) else [message]
    return " ".join(word for word in words if isinstance(word, str))
