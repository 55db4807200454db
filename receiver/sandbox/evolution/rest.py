"""Evolution's answers, v1 and v2: their bodies, key by key."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final

from receiver.sandbox.evolution.data import PICTURE, iso
from receiver.sandbox.evolution.instance import Instance
from receiver.sandbox.wire import HttpAnswer, json_answer

METRICS: Final = b"text/plain; version=0.0.4; charset=utf-8"
SINCE = datetime(2025, 12, 10, 12, 14, 25, 310000, UTC)


def failure(status: int, error: str, message: Any) -> HttpAnswer:
    """Return an error in Evolution's form; the message is a list nearly everywhere."""
    return json_answer(status, {"status": status, "error": error, "response": {"message": message}})


def root(version: str, url: str, is_v1: bool) -> dict[str, Any]:
    """Return what `GET /` tells."""
    about: dict[str, Any] = {
        "status": 200,
        "message": "Welcome to the Evolution API, it is working!",
        "version": version,
        "clientName": "evolution_exchange",
        "manager": f"{url}/manager",
        "documentation": "https://doc.evolution-api.com",
    }
    return about if is_v1 else about | {"whatsappWebVersion": "2.3000.1030614401"}


def state(name: str, word: str | None) -> dict[str, Any]:
    """Return a connectionState; without a word it has no state (boot)."""
    instance = {"instanceName": name}
    return {"instance": instance if word is None else instance | {"state": word}}


def qr(instance: Instance) -> dict[str, Any]:
    """Return the QR shown last, or only the count when there was none."""
    if not instance.code:
        return {"count": instance.qr_count}
    shown = {"pairingCode": instance.pairing_code, "code": instance.code, "base64": PICTURE}
    return shown | {"count": instance.qr_count}


def found_webhook(instance: Instance, is_v1: bool) -> dict[str, Any] | None:
    """Return what webhook/find tells."""
    is_set = instance.webhook is not None
    events = list(instance.events)
    if is_v1:
        urls = {"enabled": is_set, "url": instance.webhook or "", "events": events}
        return urls | {"webhook_by_events": instance.by_events, "webhook_base64": False}
    if not is_set:
        return None
    return {
        "id": f"cmj0{instance.id.replace('-', '')[:21]}",
        "url": instance.webhook,
        "headers": instance.headers or None,
        "enabled": True,
        "events": events,
        "webhookByEvents": instance.by_events,
        "webhookBase64": False,
        "createdAt": iso(SINCE),
        "updatedAt": iso(SINCE),
        "instanceId": instance.id,
    }


def numbers(wanted: list[str]) -> list[dict[str, Any]]:
    """Return whatsappNumbers' answer about numbers that nobody has registered."""
    return [{"jid": f"{it}@s.whatsapp.net", "exists": False, "number": it} for it in wanted]


def connection_closed(tells_boom: bool) -> HttpAnswer:
    """Return whatsappNumbers' answer of a socket that is dead."""
    if not tells_boom:
        return failure(500, "Internal Server Error", "Connection Closed")
    payload = {"statusCode": 428, "error": "Precondition Required", "message": "Connection Closed"}
    output = {"statusCode": 428, "payload": payload, "headers": {}}
    return json_answer(400, {"data": None, "isBoom": True, "isServer": False, "output": output})


def listed(instance: Instance, url: str, is_v1: bool) -> dict[str, Any]:
    """Return a row of fetchInstances: v1's from memory, v2's from the database."""
    return _listed_v1(instance, url) if is_v1 else _listed_v2(instance)


def metrics(version: str, url: str, states: Mapping[str, str | None]) -> bytes:
    """Return what `/metrics` tells: the state of every instance by its name; None while it boots."""
    about = f'version="{_label(version)}",clientName="evolution_exchange",serverUrl="{_label(url)}"'
    lines = [
        "# HELP evolution_environment_info Environment information",
        "# TYPE evolution_environment_info gauge",
        f"evolution_environment_info{{{about}}} 1",
        "# HELP evolution_instances_total Total number of instances",
        "# TYPE evolution_instances_total gauge",
        f"evolution_instances_total {len(states)}",
        "# HELP evolution_instance_up 1 if instance state is open, else 0",
        "# TYPE evolution_instance_up gauge",
        "# HELP evolution_instance_state Instance state as a labelled metric",
        "# TYPE evolution_instance_state gauge",
    ]
    for name, state in states.items():
        labels = f'instance="{_label(name)}",integration="WHATSAPP-BAILEYS"'
        lines.append(f"evolution_instance_up{{{labels}}} {1 if state == 'open' else 0}")
        lines.append(f'evolution_instance_state{{{labels},state="{state or "unknown"}"}} 1')
    return ("\n".join(lines) + "\n").encode()


def _label(text: str) -> str:
    return text.replace("\\", "\\\\").replace("\n", "\\n").replace('"', '\\"')


def _listed_v1(instance: Instance, url: str) -> dict[str, Any]:
    row: dict[str, Any] = {"instanceName": instance.name, "instanceId": instance.id}
    if instance.state == "open":
        row |= {
            "owner": instance.jid,
            "profileName": instance.owner["profileName"],
            "profilePictureUrl": None,
            "profileStatus": "Hey there! I am using WhatsApp.",
        }
    return {"instance": row | {"status": instance.state, "serverUrl": url, "apikey": instance.key}}


def _listed_v2(instance: Instance) -> dict[str, Any]:
    is_known = instance.is_paired or instance.ended is not None
    code, disconnection, at = instance.ended or (None, None, None)
    stamps = {"createdAt": iso(SINCE), "updatedAt": iso(SINCE)}
    return {
        "id": instance.id,
        "name": instance.name,
        "connectionStatus": instance.recorded,
        "ownerJid": instance.jid if is_known else None,
        "profileName": instance.owner["profileName"] if is_known else None,
        "profilePicUrl": None,
        "integration": "WHATSAPP-BAILEYS",
        "number": None,
        "businessId": None,
        "token": instance.key,
        "clientName": "evolution_exchange",
        "disconnectionReasonCode": code,
        "disconnectionObject": disconnection,
        "disconnectionAt": None if at is None else iso(at),
        **stamps,
        **dict.fromkeys(("Chatwoot", "Proxy", "Rabbitmq", "Nats", "Sqs", "Websocket")),
        "Setting": _setting(instance) | stamps | {"instanceId": instance.id},
        "_count": {"Message": 1294, "Contact": 211, "Chat": 97},
    }


def _setting(instance: Instance) -> dict[str, Any]:
    return {
        "id": f"cmj1{instance.id.replace('-', '')[:21]}",
        "rejectCall": False,
        "msgCall": "",
        "groupsIgnore": True,
        "alwaysOnline": False,
        "readMessages": False,
        "readStatus": False,
        "syncFullHistory": False,
        "wavoipToken": "",
    }
