"""W-API's QRs and pairing codes. No probe: it calls working sessions disconnected at times.

The answer of `qr-code` names its picture `qrcode`, in some users' code `base64` or `image`; that of
`pairing-code` names it `pairingCode` or `code`. docs/provider-facts.md#wapi-qr
"""

from datetime import timedelta
from typing import Final
from urllib.parse import quote

from db.reconcile.qr import Qr
from receiver.providers.qr import NoQr, by_status, qr_of
from receiver.providers.report import Question, document_of

LIFE: Final = timedelta(seconds=20)
"""How long WhatsApp accepts a QR; W-API doesn't return the age of the one it shows."""
PICTURES: Final = ("qrcode", "qrCode", "base64", "image")
PAIRING_CODES: Final = ("pairingCode", "pairing_code", "code")


def ask(instance: str, key: str, number: str | None) -> Question:
    """Return the question for a QR, or with a number for a pairing code."""
    asked = "qr-code?image=disable" if number is None else f"pairing-code?phoneNumber={number}"
    path = f"/instance/{asked}&instanceId={quote(instance, safe='')}"
    return Question(path, {"Authorization": f"Bearer {key}"})


def read(status: int, body: bytes) -> Qr | NoQr:
    """Return what the answer holds; `connected` is believed only as a reason to ask for no scan."""
    document = document_of(body)
    if status == 404 and document is not None:
        return NoQr.MISSING
    if status != 200:
        return by_status(status)
    if document is None or document.get("error") is True:
        return NoQr.FAILED
    if document.get("connected") is True:
        return NoQr.CONNECTED
    image = next((document[name] for name in PICTURES if document.get(name)), None)
    code = next((document[name] for name in PAIRING_CODES if document.get(name)), None)
    return qr_of(image=image, pairing_code=code) or NoQr.NOT_YET
