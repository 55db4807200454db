"""Evolution's QRs: sent with `qrcode.updated`, or requested with `GET /instance/connect/{instance}`.

On a closed instance each such call opens a new socket, waits 2 s, and makes a QR that counts against
QRCODE_LIMIT; on a connecting one it shows the QR that there is. So it is requested only
for channels that need a scan.
docs/provider-facts.md#evolution-qr
"""

from collections.abc import Mapping

from db.reconcile.qr import Qr
from receiver.providers.qr import NoQr, by_status, qr_of
from receiver.providers.report import Question, document_of, segment


def ask(instance: str, key: str, number: str | None) -> Question:
    """Return the question; with a number it makes a pairing code, too, unless a QR is shown already."""
    asked = "" if number is None else f"?number={number}"
    return Question(f"/instance/connect/{segment(instance)}{asked}", {"apikey": key})


def read(status: int, body: bytes) -> Qr | NoQr:
    """Return what the answer holds; a 200 may also be a failure, or the state of an open instance."""
    document = document_of(body)
    if status == 404 and document is not None and b"does not exist" in body:
        return NoQr.MISSING
    if status != 200:
        return by_status(status)
    if document is None or document.get("error") is True:
        return NoQr.FAILED
    instance = document.get("instance")
    if isinstance(instance, dict) and instance.get("state") == "open":
        return NoQr.CONNECTED
    return qr_in(document) or NoQr.NOT_YET


def qr_in(document: Mapping[str, object]) -> Qr | None:
    """Return the QR as an answer or a webhook gives it."""
    return qr_of(document.get("code"), document.get("base64"), document.get("pairingCode"))
