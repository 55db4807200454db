"""The `data` of Evolution's webhooks, key by key in its order."""

from datetime import UTC, datetime
from typing import Any, Final

import orjson

PICTURE: Final = (
    "data:image/png;base64,"
    "iVBORw0KGgoAAAANSUhEUgAAALQAAAC0AQAAAAAVtjufAAABtklEQVR42tWYMa4DQQhDUS7A/W/pG/B5ZlNESvMlN9mNImUK"
    "hrGNYVLz9VH9zHpVdUmt6Z6eaRb0qu/Pf9fLIXenJoXq3g8/gvE34mbfnEWaZyEbf0Ea7VulO0I6vjaqzEjH8wduGfb9tSSH"
    "8UcuH09YPwbF6lwaRPboNpj/xWyyhuA4Psvuxl8BoR5ToGT+GxmSYVrW6W6YjC/iriqRKFW8YsrGv9gY0BzNmFEyPuW1GK07"
    "aI0OHqL6lE2U4NSZ2DBcv6vRK2MsSEYrGB9DAx40ZA4U1WcZfvHYiCqtf5lkkL+VnrQ/kzfNkTZJEdRE+cX7rwU3XRLIoviQ"
    "fcEt/kMXiOKD7j1CkLyZpuCy+vcB7PwcIus/zwABq3sK3on6T0EpIN13T7g/1gGOAR08tukg/nINgwzip96y9QW5yMfzCV0+"
    "6z9Pzvg+W7naov42j/5hQGWio/zil/NWP+6crS+XWNnXmN3kcS48vx1M4H5tZsLzp9sKJNedZOLz892g2jZUYX16JGduuBqo"
    "cP7m0wKSr0jMEun7F13GHYAmWZXG/z0berYK9y/ffz0enkt0GP/f/n/gD1nnV+ibhwS6AAAAAElFTkSuQmCC"
)
"""A QR as gateways draw them, the same each time; what it says links no phone."""
CUSTOMER: Final = "5521988880000@s.whatsapp.net"
QR_LIMIT: Final[dict[str, Any]] = {
    "message": "QR code limit reached, please login again",
    "statusCode": 500,
}
ERRORS: Final = {
    401: "Unauthorized",
    402: "Payment Required",
    403: "Forbidden",
    406: "Not Acceptable",
    408: "Request Time-out",
}


def update(instance: str, state: str, reason: int) -> dict[str, Any]:
    """Return that of a connection.update."""
    return {"instance": instance, "state": state, "statusReason": reason}


def opened(instance: str, owner: dict[str, Any]) -> dict[str, Any]:
    """Return that of an open which names its owner (2.2.1 on, 1.8.3 on)."""
    return {"instance": instance, **owner, "state": "open", "statusReason": 200}


def qr(instance: str, code: str, pairing_code: str | None) -> dict[str, Any]:
    """Return that of a qrcode.updated."""
    return {"qrcode": {"instance": instance, "pairingCode": pairing_code, "code": code, "base64": PICTURE}}


def closed(instance: str, code: int, disconnection: str, at: datetime) -> dict[str, Any]:
    """Return that of a status.instance; its time is true UTC."""
    return {
        "instance": instance,
        "status": "closed",
        "disconnectionAt": iso(at),
        "disconnectionReasonCode": code,
        "disconnectionObject": disconnection,
    }


def disconnection(code: int, message: str, cause: dict[str, Any] | None, at: datetime) -> str:
    """Return a disconnectionObject: a JSON document in a string."""
    payload = {"statusCode": code, "error": ERRORS.get(code, "Error"), "message": message}
    output = {"statusCode": code, "payload": payload, "headers": {}}
    error = {"data": cause, "isBoom": True, "isServer": False, "output": output}
    return orjson.dumps({"error": error, "date": iso(at)}).decode()


def message(number: str, instance_id: str, at: datetime) -> dict[str, Any]:
    """Return that of a messages.upsert: a customer's message."""
    return {
        "key": {
            "remoteJid": CUSTOMER,
            "fromMe": False,
            "id": number,
            "participant": "",
            "remoteJidAlt": "000000000000001@lid",
            "addressingMode": "pn",
        },
        "pushName": "Maria Cliente",
        "status": "DELIVERY_ACK",
        "message": {
            "conversation": "Oi, tudo bem?",
            "messageContextInfo": {"deviceListMetadataVersion": 2},
        },
        "contextInfo": None,
        "messageType": "conversation",
        "messageTimestamp": int(at.timestamp()),
        "instanceId": instance_id,
        "source": "android",
    }


def presence() -> dict[str, Any]:
    """Return that of a presence.update; its shape is not among the captured ones."""
    return {"id": CUSTOMER, "presences": {CUSTOMER: {"lastKnownPresence": "composing"}}}


def receipt(number: str, instance_id: str) -> dict[str, Any]:
    """Return that of a messages.update; its shape is not among the captured ones."""
    return {
        "keyId": number,
        "remoteJid": CUSTOMER,
        "fromMe": True,
        "participant": CUSTOMER,
        "status": "READ",
        "instanceId": instance_id,
    }


def iso(at: datetime) -> str:
    """Return a time as JavaScript writes it."""
    return at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3] + "Z"
