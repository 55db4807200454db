"""Detects, and proves, a dead connection that Evolution API reports as open.

Memory (connectionState) and the database's column (fetchInstances, v2) are kept apart. That the column says
more than memory is everyday: it stays `open` for days over a lost connection, and `connecting` after a QR.
That it says `close` while memory says `open` is not: only the end of a session writes that, and every `open`
overwrites it. A logout that failed leaves it so. Reason fields outlive the session that they are of.
docs/provider-facts.md#evolution-records, #evolution-look-up
"""

from typing import Final

import orjson

from receiver.providers.evolution.versions import is_at_least
from receiver.providers.report import (
    DeepProbeResult,
    Order,
    Question,
    clean,
    document_of,
    instance_of,
    list_of,
    number,
    segment,
)

NUMBER: Final = "447700900617"
"""The one number that is ever looked up. Ofcom keeps its range for drama: it has no owner, and can't be
registered. A number that exists could be answered from Evolution's cache, and many numbers would look like
scraping. No country's rule about a ninth digit touches it."""
CLOSED: Final = 428
"""Baileys' `connectionClosed`."""
TIMED_OUT: Final = 408
BAILEYS: Final = "WHATSAPP-BAILEYS"
"""The one integration that has a socket; the others always say open."""


class EvolutionDeepProbe:
    """The deep probe of Evolution API gateways, and their records."""

    def has_records(self, version: str) -> bool:
        """Return whether the list is another view than memory; v1 lists from memory, at WhatsApp's cost."""
        return is_at_least(version, (2, 0))

    def ask_records(self, key: str) -> Question:
        """Return the question fetchInstances."""
        return Question("/instance/fetchInstances", {"apikey": key})

    def read_records(self, status: int, body: bytes) -> dict[str, str | None] | None:
        """Return for each instance the sign that it has ended, or None; None alone: this is no answer."""
        rows = list_of(body) if status == 200 else None
        if rows is None:
            return None
        named = ((instance_of(row.get("name")), row) for row in rows)
        return {name: _sign(row) for name, row in named if name and row.get("integration") in (None, BAILEYS)}

    def ask(self, instance: str, key: str) -> Order:
        """Return the question whatsappNumbers: WhatsApp itself must answer it, and no person notices."""
        path = f"/chat/whatsappNumbers/{segment(instance)}"
        return Order("POST", path, {"apikey": key}, {"numbers": [NUMBER]})

    def read(self, status: int, body: bytes) -> DeepProbeResult:
        """Return what an answer of whatsappNumbers proves."""
        match status:
            case 200:
                return _of_list(list_of(body))
            case 400:
                return _of_error(document_of(body))
            case 500 if "Connection Closed" in _words(document_of(body)):
                return DeepProbeResult.DEAD
            case _:
                return DeepProbeResult.UNANSWERED


def _sign(row: dict[str, object]) -> str | None:
    """Return the end that is on record: with its code and time, so that another end is another sign."""
    if row.get("connectionStatus") != "close":
        return None
    code, at = number(row.get("disconnectionReasonCode")), clean(row.get("disconnectionAt"))
    return " ".join(["close", *(str(it) for it in (code, at) if it is not None)])


def _of_list(rows: list[dict[str, object]] | None) -> DeepProbeResult:
    """A number that exists may have been answered from the cache of seven days, without WhatsApp."""
    if rows is None or any(row.get("exists") is True for row in rows):
        return DeepProbeResult.UNANSWERED
    return DeepProbeResult.ALIVE


def _of_error(document: dict[str, object] | None) -> DeepProbeResult:
    """From 2.3.0 on it is the error itself as JSON; of one that isn't Baileys' own only `{}` is left."""
    if document == {}:
        return DeepProbeResult.DOUBTFUL
    output = (document or {}).get("output")
    code = output.get("statusCode") if isinstance(output, dict) else None
    if document is None or document.get("isBoom") is not True:
        return DeepProbeResult.UNANSWERED
    return {CLOSED: DeepProbeResult.DEAD, TIMED_OUT: DeepProbeResult.DOUBTFUL}.get(
        number(code) or 0, DeepProbeResult.UNANSWERED
    )


def _words(document: dict[str, object] | None) -> str:
    response = (document or {}).get("response")
    return orjson.dumps(response).decode() if isinstance(response, dict) else ""
