"""Twilio: `GET /v2/Channels/Senders/{sid}` only. It pushes no state of a sender, so its webhooks say nothing.

The words of a sender's status, with their source: docs/provider-facts.md#twilio.
"""

from base64 import b64encode
from datetime import datetime
from typing import Final

from receiver.providers.report import ProbeAnswer, Question, Report, by_status, clean, document_of, segment
from statemachine.model import Reason, Trigger

OPEN: Final = frozenset({"ONLINE", "ONLINE:UPDATING"})
CONNECTING: Final = frozenset({"CREATING", "VERIFYING", "TWILIO_REVIEW", "DRAFT", "PENDING_VERIFICATION"})


REASONS: Final = 5
REASON_LENGTH: Final = 300


class Twilio:
    """The provider of Twilio senders."""

    name: Final = "twilio"
    has_version: Final = False
    deep: Final = None

    def parse(self, body: bytes, version: str | None, now: datetime) -> Report:
        """Return that a webhook says nothing, unread: callbacks are forms about messages."""
        return Report("callback")

    def glimpse(self, head: bytes) -> Report | None:
        """Return the same."""
        return Report("callback")

    def ask(self, instance: str, key: str) -> Question:
        """Return the question for a sender; the key is `AccountSid:AuthToken`, or an API key with secret."""
        basic = b64encode(key.encode()).decode()
        return Question(f"/v2/Channels/Senders/{segment(instance)}", {"Authorization": f"Basic {basic}"})

    def read(self, status: int, body: bytes) -> ProbeAnswer:
        """Return what a fetched sender says; `status` is the HTTP status."""
        if status == 404:
            return ProbeAnswer(Trigger.SESSION_MISSING, Reason.SESSION_MISSING, status)
        document = document_of(body)
        if status != 200 or document is None:
            return by_status(status)
        match document.get("status"):
            case str(word) if word in OPEN:
                return ProbeAnswer(Trigger.OPENED, None, status)
            case str(word) if word in CONNECTING:
                return ProbeAnswer(Trigger.CONNECTING, Reason.CONNECTING, status)
            case "OFFLINE":
                return ProbeAnswer(Trigger.DROPPED, Reason.DISCONNECTED, status, details=_why(document))
            case str():  # STUBBED, and words that are new to us
                return ProbeAnswer(Trigger.NOT_LOADED, Reason.UNKNOWN, status, certain=True)
            case _:
                return ProbeAnswer(Trigger.NOT_LOADED, Reason.NOT_LOADED, status)

    def read_version(self, body: bytes) -> str | None:
        """Return None: a hosted service without versions."""
        return None

    def ask_webhooks(self, instance: str, key: str) -> None:
        """Return None: a sender's state is sent nowhere."""

    def read_webhooks(self, status: int, body: bytes) -> None:
        """Return None, as nothing was asked."""


def _why(document: dict[str, object]) -> dict[str, object]:
    """Return the reasons that a sender's record gives, as many and as long as people read."""
    given = document.get("offline_reasons")
    reasons = [
        {name: clean(reason.get(name), REASON_LENGTH) for name in ("code", "message", "more_info")}
        for reason in (given if isinstance(given, list) else [])[:REASONS]
        if isinstance(reason, dict)
    ]
    return {"offline_reasons": reasons} if reasons else {}
