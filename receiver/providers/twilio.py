"""Twilio: `GET /v2/Channels/Senders/{sid}` only. It pushes no state of a sender, so its webhooks say nothing.

Source: twilio-oai twilio_messaging_v2.json (commit 218b7821).
"""

from datetime import datetime
from typing import Final

from receiver.providers.report import Answer, Report, by_status, document_of
from statemachine.model import Reason, Trigger

OPEN: Final = frozenset({"ONLINE", "ONLINE:UPDATING"})
CONNECTING: Final = frozenset({"CREATING", "VERIFYING", "TWILIO_REVIEW", "DRAFT", "PENDING_VERIFICATION"})


class Twilio:
    """See the module."""

    name: Final = "twilio"
    has_version: Final = False

    def parse(self, body: bytes, version: str | None, now: datetime) -> Report:
        """Return that a webhook says nothing, unread: callbacks are forms about messages."""
        return Report("callback")

    def glimpse(self, head: bytes) -> Report | None:
        """Return the same."""
        return Report("callback")

    def read(self, status: int, body: bytes) -> Answer:
        """Return what a fetched sender says; `status` is the HTTP status."""
        if status == 404:
            return Answer(Trigger.SESSION_MISSING, Reason.SESSION_MISSING, status)
        document = document_of(body)
        if status != 200 or document is None:
            return by_status(status)
        match document.get("status"):
            case str(word) if word in OPEN:
                return Answer(Trigger.OPENED, None, status)
            case str(word) if word in CONNECTING:
                return Answer(Trigger.CONNECTING, Reason.CONNECTING, status)
            case "OFFLINE":
                return Answer(Trigger.DROPPED, Reason.DISCONNECTED, status)
            case str():  # STUBBED, and words that are new to us
                return Answer(Trigger.NOT_LOADED, Reason.UNKNOWN, status, certain=True)
            case _:
                return Answer(Trigger.NOT_LOADED, Reason.NOT_LOADED, status)

    def read_version(self, body: bytes) -> str | None:
        """Return None: a hosted service without versions."""
        return None
