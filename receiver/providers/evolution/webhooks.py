"""What Evolution API sends to webhooks, in the machine's words: docs/provider-facts.md#evolution-close."""

from datetime import datetime
from typing import Final

import orjson

from db.ingest.entry import OwnerProfile, ParsedEvent
from db.reconcile.qr import Qr
from receiver.providers.evolution import qr
from receiver.providers.evolution.versions import is_at_least
from receiver.providers.report import (
    LIVE_FOR,
    Report,
    Unreadable,
    clean,
    decode,
    event_key,
    from_epoch,
    from_text,
    glimpse,
    instance_of,
    number,
    owner_of,
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
"""Codes after which no version of 2.x reconnects (`codesToNotReconnect` in its source)."""
LOST_IS_FINAL_SINCE: Final = (2, 4)
"""From 2.4.0-rc1 on a 408 wipes the session's credentials."""

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


def parse(body: bytes, version: str | None, now: datetime) -> Report:
    """Return what a webhook says; `version` is its gateway's, None while unknown."""
    document = decode(body)
    event = _event_name(document.get("event"))
    instance = instance_of(document.get("instance"))
    data = document.get("data")
    if event in SILENT:
        return Report(event, instance)
    at = from_text(document.get("date_time"))
    if event in LIVE or event == "messages.upsert":
        # The JID of the session's owner, not of the message's sender; there from a process's first `open` on.
        owner = owner_of(document.get("sender"))
        return Report(event, instance, alive=event in LIVE or _is_live(data, now), at=at, owner=owner)
    said, word = _said(event, data if isinstance(data, dict) else {}, at, version)
    key = None if at is None else event_key(event, document["date_time"], data)
    return Report(event, instance, said, word=word, key=key, qr=_qr(event, data), owner=_owner(said, data))


def read_head(head: bytes) -> Report | None:
    """Return what the beginning of an oversized body shows: such a one can only be traffic."""
    event, instance = glimpse(head, "instance")
    if event is None or (event not in LIVE and event not in SILENT and event != "messages.upsert"):
        return None
    return Report(event, instance, alive=event not in SILENT)


def _event_name(value: object) -> str:
    name = clean(value)
    if name is None:
        raise Unreadable("no event name")
    return name.lower().replace("_", ".").replace("-", ".")


def _said(
    event: str, data: dict[str, object], at: datetime | None, version: str | None
) -> tuple[ParsedEvent, str | None]:
    match event:
        case "connection.update":
            return _connection(data, at, version)
        case "qrcode.updated" if isinstance(data.get("qrcode"), dict):
            return ParsedEvent(Trigger.QR_ISSUED, Reason.QR_SHOWN, None, at), "qr"
        case "qrcode.updated" if "statusCode" in data or "message" in data:
            return ParsedEvent(
                Trigger.UNPAIRED, Reason.QR_LIMIT, number(data.get("statusCode")), at
            ), "qr limit"
        case "qrcode.updated":
            raise Unreadable("qrcode.updated with neither QR nor message")
        case "status.instance":
            return _status(data, at), "closed"
        case "logout.instance":
            return ParsedEvent(Trigger.UNPAIRED, Reason.LOGGED_OUT, None, at), "logout"
        case "remove.instance" | "instance.delete":
            return ParsedEvent(Trigger.UNPAIRED, Reason.INSTANCE_REMOVED, None, at), "removed"
        case _:
            return ParsedEvent(None, at=at), None


def _connection(data: dict[str, object], at: datetime | None, version: str | None) -> tuple[ParsedEvent, str]:
    code = number(data.get("statusReason"))
    match data.get("state"):
        case "open":
            return ParsedEvent(Trigger.OPENED, None, code, at), "open"
        case "connecting":
            return ParsedEvent(Trigger.CONNECTING, Reason.CONNECTING, code, at), "connecting"
        case "refused":
            return ParsedEvent(Trigger.UNPAIRED, Reason.QR_LIMIT, code, at), "refused"
        case "close":
            return ParsedEvent(_close_trigger(code, version), _close_reason(code), code, at), "close"
        case _:
            raise Unreadable("connection.update with an unknown state")


def _close_trigger(code: int | None, version: str | None) -> Trigger:
    if code == 515:
        return Trigger.CONNECTING
    if code in FINAL_CODES or (code == 408 and is_at_least(version, LOST_IS_FINAL_SINCE)):
        return Trigger.UNPAIRED
    return Trigger.DROPPED


def _close_reason(code: int | None) -> Reason:
    return Reason.DISCONNECTED if code is None else CLOSE_REASONS.get(code, Reason.DISCONNECTED)


def _status(data: dict[str, object], at: datetime | None) -> ParsedEvent:
    if data.get("status") != "closed":
        raise Unreadable("status.instance with an unknown status")
    code, reason = disconnection_in(data)
    return ParsedEvent(Trigger.UNPAIRED, reason, code, at)


def disconnection_in(data: dict[str, object]) -> tuple[int | None, Reason]:
    """Return the code and the reason of the end that a status.instance, or a row of fetchInstances, is of."""
    code = number(data.get("disconnectionReasonCode"))
    reason = Reason.LOGGED_OUT if code is None else _close_reason(code)
    if reason is Reason.LOGGED_OUT and _disconnection(data).startswith("Log out instance"):
        reason = Reason.LOGGED_OUT_BY_API
    return code, reason


def _disconnection(data: dict[str, object]) -> str:
    """Return the words inside `disconnectionObject`, a JSON document in a string."""
    words = data.get("disconnectionObject")
    if not isinstance(words, str):
        return ""
    try:
        message = orjson.loads(words)["error"]["output"]["payload"]["message"]
    except (KeyError, TypeError, ValueError):
        return ""
    return message if isinstance(message, str) else ""


def _owner(said: ParsedEvent, data: object) -> OwnerProfile | None:
    """Return the owner of the session that was opened (2.2.1 on, 1.8.3 on)."""
    if said.trigger is not Trigger.OPENED or not isinstance(data, dict):
        return None
    return owner_of(data.get("wuid"), data.get("profileName"))


def _qr(event: str, data: object) -> Qr | None:
    shown = data.get("qrcode") if event == "qrcode.updated" and isinstance(data, dict) else None
    return qr.qr_in(shown) if isinstance(shown, dict) else None


def _is_live(data: object, now: datetime) -> bool:
    messages = data if isinstance(data, list) else [data]
    for message in messages[:100]:
        stamp = message.get("messageTimestamp") if isinstance(message, dict) else None
        at = from_epoch(stamp.get("low") if isinstance(stamp, dict) else stamp)
        if at is not None and abs(now - at) <= LIVE_FOR:
            return True
    return False
