"""Webhooks as gateways send them, with the times and names a test wants."""

from datetime import UTC, datetime, timedelta
from typing import Any

SAO_PAULO = timedelta(hours=-3)


def stamp(at: datetime) -> str:
    """Return a time as Evolution writes it: local wall clock, called Z."""
    return (at + SAO_PAULO).strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3] + "Z"


class Evolution:
    """One instance on an Evolution gateway; each event is a millisecond after the one before.

    `ahead` is how far its clock is from where it was when the test began.
    """

    def __init__(self, instance: str = "loja-01") -> None:
        self.instance = instance
        self.ahead = timedelta(0)
        self._last = datetime.now(UTC)

    def event(self, event: str, data: object, **more: object) -> dict[str, Any]:
        """Return a whole body."""
        self._last = max(self._last + timedelta(milliseconds=1), datetime.now(UTC))
        return {
            "event": event,
            "instance": self.instance,
            "data": data,
            "destination": "http://zapwatch/webhooks/evolution_api/SECRET",
            "date_time": stamp(self._last + self.ahead),
            "server_url": "http://evolution",
            "apikey": "B0000000-0000-4000-8000-00000000SECRET",
            **more,
        }

    def update(self, state: str, status: int = 200, **data: object) -> dict[str, Any]:
        """Return a connection.update."""
        return self.event(
            "connection.update", {"instance": self.instance, "state": state, "statusReason": status, **data}
        )

    def qr(self) -> dict[str, Any]:
        """Return a qrcode.updated that shows a QR."""
        qrcode = {"instance": self.instance, "pairingCode": None, "code": "2@SECRET", "base64": "data:SECRET"}
        return self.event("qrcode.updated", {"qrcode": qrcode})

    def qr_limit(self) -> dict[str, Any]:
        """Return the qrcode.updated that ends the showing of QRs."""
        message = "QR code limit reached, please login again"
        return self.event("qrcode.updated", {"message": message, "statusCode": 500})

    def closed(self, code: int = 401, message: str = "Stream Errored (conflict)") -> dict[str, Any]:
        """Return a status.instance."""
        quoted = message.replace('"', '\\"')
        return self.event(
            "status.instance",
            {
                "instance": self.instance,
                "status": "closed",
                "disconnectionAt": datetime.now(UTC).isoformat(),
                "disconnectionReasonCode": code,
                "disconnectionObject": f'{{"error":{{"output":{{"payload":{{"message":"{quoted}"}}}}}}}}',
            },
        )

    def logout(self) -> dict[str, Any]:
        """Return a logout.instance."""
        return self.event("logout.instance", None)

    def message(self, age: timedelta = timedelta(0)) -> dict[str, Any]:
        """Return a messages.upsert."""
        at = int((datetime.now(UTC) - age).timestamp())
        return self.event("messages.upsert", {"message": {"conversation": "SECRET"}, "messageTimestamp": at})
