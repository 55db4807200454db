"""WAHA: its `session.status` webhooks and `GET /api/sessions/{session}`.

What they hold, with sources: docs/provider-facts.md#waha. The passkey states are of 2026.
"""

from collections.abc import Mapping
from datetime import datetime
from typing import Final

from db.ingest.entry import OwnerProfile, ParsedEvent
from receiver.providers.report import (
    Condition,
    NotApplicable,
    Order,
    ProbeAnswer,
    Question,
    RecoveryAction,
    RecoveryPlan,
    Report,
    Unreadable,
    by_status,
    clean,
    decode,
    document_of,
    event_key,
    from_epoch,
    glimpse,
    hopeless,
    instance_of,
    order_failure,
    owner_of,
    segment,
)
from statemachine.model import Reason, RecoverableCondition, State, Trigger

WORDS: Final[dict[str, tuple[Trigger, Reason | None]]] = {
    "WORKING": (Trigger.OPENED, None),
    "STARTING": (Trigger.CONNECTING, Reason.CONNECTING),
    "SCAN_QR_CODE": (Trigger.QR_ISSUED, Reason.QR_SHOWN),
    "PASSKEY_REQUIRED": (Trigger.QR_ISSUED, Reason.QR_SHOWN),
    "PASSKEY_CONFIRMATION_REQUIRED": (Trigger.QR_ISSUED, Reason.QR_SHOWN),
    "STOPPED": (Trigger.DROPPED, Reason.DISCONNECTED),
    "FAILED": (Trigger.DROPPED, Reason.BAD_SESSION),
}
LIVE: Final = frozenset({"message", "message.ack", "message.reaction", "presence.update"})


class Waha:
    """The provider of WAHA gateways."""

    name: Final = "waha"
    has_version: Final = False
    deep: Final = None
    actions: Final = frozenset({RecoveryAction.RESTART})
    recoverable: Final = (RecoverableCondition.DROPPED,)

    def parse(self, body: bytes, version: str | None, now: datetime) -> Report:
        """Return what a webhook says."""
        document = decode(body)
        event = clean(document.get("event"))
        if event is None:
            raise Unreadable("no event name")
        instance = instance_of(document.get("session"))
        if event in LIVE:
            at = from_epoch(document.get("timestamp"))
            return Report(event, instance, alive=True, at=at, owner=_owner(document))
        if event != "session.status":
            return Report(event, instance)
        payload = document.get("payload")
        word = payload.get("status") if isinstance(payload, dict) else None
        if not isinstance(word, str) or word not in WORDS:
            raise Unreadable("session.status with an unknown status")
        trigger, reason = WORDS[word]
        at = from_epoch(document.get("timestamp"))
        key = None if at is None else event_key(event, document["timestamp"], payload)
        owner = _owner(document) if trigger is Trigger.OPENED else None
        return Report(
            event, instance, ParsedEvent(trigger, reason, None, at), word=word, key=key, owner=owner
        )

    def glimpse(self, head: bytes) -> Report | None:
        """Return what the beginning of an oversized body shows: such a one can only be traffic."""
        event, instance = glimpse(head, "session")
        if event is None or event == "session.status":
            return None
        return Report(event, instance, alive=event in LIVE)

    def ask(self, instance: str, key: str) -> Question:
        """Return the question for a session."""
        return Question(f"/api/sessions/{segment(instance)}", {"X-Api-Key": key})

    def read(self, status: int, body: bytes) -> ProbeAnswer:
        """Return what a fetched session says; `status` is the HTTP status."""
        if status == 404:
            return ProbeAnswer(Trigger.SESSION_MISSING, Reason.SESSION_MISSING, status)
        document = document_of(body)
        if status != 200 or document is None:
            return by_status(status)
        word = document.get("status")
        if not isinstance(word, str) or word not in WORDS:
            return ProbeAnswer(Trigger.NOT_LOADED, Reason.NOT_LOADED, status)
        return ProbeAnswer(*WORDS[word], status)

    def plan_recovery(self, condition: Condition) -> RecoveryPlan | NotApplicable:
        """Return a restart for a session that FAILED, as its docs advise; STOPPED was intended."""
        match condition.state, condition.reason:
            case State.DROPPED, Reason.BAD_SESSION:
                return RecoveryPlan(RecoveryAction.RESTART, if_seen=Trigger.DROPPED)
            case State.DROPPED, _:
                return NotApplicable("Its session was stopped at the gateway, and is to be started there.")
            case _:
                return hopeless(condition)

    def order(self, action: RecoveryAction, instance: str, key: str, version: str | None) -> Order:
        """Return the restart."""
        return Order("POST", f"/api/sessions/{segment(instance)}/restart", {"X-Api-Key": key})

    def read_order(self, status: int, body: bytes) -> str | None:
        """Return what the answer says against the order."""
        return order_failure(status, body)

    def read_version(self, body: bytes) -> str | None:
        """Return None: nothing in WAHA's dialect depends on its version."""
        return None

    def ask_webhooks(self, instance: str, key: str) -> None:
        """Return None: a session may have many webhooks, and global ones are set in WAHA's environment."""

    def read_webhooks(self, status: int, body: bytes) -> None:
        """Return None, as nothing was asked."""


def _owner(document: Mapping[str, object]) -> OwnerProfile | None:
    """Return the session's owner in a webhook; the name is `~` until WAHA knows it."""
    me = document.get("me")
    if not isinstance(me, dict):
        return None
    name = me.get("pushName")
    return owner_of(me.get("id"), None if name == "~" else name)
