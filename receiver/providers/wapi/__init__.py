"""W-API: its unsigned webhooks and `GET /instance/status-instance`.

What it sends and answers, as far as is known: docs/provider-facts.md#wapi. Event names are matched whole:
acks carry the words status and connected. A disconnect names no reason and may be false, so it asks for a
probe. A 404 has no known wording (#wapi-404).
"""

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Final
from urllib.parse import quote

from db.ingest.entry import OwnerProfile, ParsedEvent
from db.reconcile.qr import Qr
from db.registry.imports import ListedInstance
from receiver.providers.qr import NoQr
from receiver.providers.report import (
    BulkAnswer,
    Condition,
    Listing,
    NotApplicable,
    Order,
    ProbeAnswer,
    Question,
    RecoveryAction,
    RecoveryPlan,
    RegisteredWebhooks,
    Report,
    Subscription,
    Unreadable,
    by_status,
    clean,
    decode,
    document_of,
    event_key,
    from_epoch,
    glimpse,
    instance_of,
    number,
    order_failure,
    owner_of,
    phone_of,
)
from receiver.providers.wapi import bulk_probe, qr, recovery
from statemachine.model import Reason, Trigger

LIVE: Final = frozenset({"webhookReceived", "webhookStatus"})
SILENT: Final = frozenset(
    {"webhookDelivery", "webhookChatPresence", "webhookSent", "webhookError", "webhookRead", "webhookQrCode"}
)
LOSSES: Final = "webhookDisconnectedUrl"
CONNECTIONS: Final = "webhookConnectedUrl"
STATE_FIELDS: Final = {"disconnected": LOSSES, "connected": CONNECTIONS}
TRAFFIC_FIELDS: Final = {"received": "webhookReceivedUrl", "message-status": "webhookStatusUrl"}
"""The address fields by the last word of the calls that set them, and their names in the record."""
PAGE: Final = 100
"""Instances that are asked for at a time."""
KEY_LENGTH: Final = 4096
ACK: Final = "ack"
"""Our name for the ack-like payload that W-API sends without any `event`."""


class Wapi:
    """The provider of W-API instances."""

    name: Final = "wapi"
    has_version: Final = False
    deep: Final = None
    has_subscriptions: Final = True
    one_key_for_all: Final = False
    bulk_answer_is_hint: Final = True
    qr_life: Final = qr.LIFE
    actions: Final = recovery.ACTIONS
    recoverable: Final = recovery.RECOVERABLE

    def parse(self, body: bytes, version: str | None, now: datetime) -> Report:
        """Return what a webhook says; W-API has no versions."""
        document = decode(body)
        instance = instance_of(document.get("instanceId"))
        event = clean(document.get("event")) or (ACK if "event" not in document and instance else None)
        if event is None:
            raise Unreadable("no event name")
        if event in LIVE:
            owner = owner_of(document.get("connectedPhone"))
            return Report(event, instance, alive=True, at=_moment(document.get("moment"), now), owner=owner)
        if event in SILENT or event == ACK:
            return Report(event, instance)
        at = _moment(document.get("moment"), now)
        said, word = _said(event, document, at)
        key = None if at is None else event_key(event, document["moment"], document)
        return Report(event, instance, said, word=word, key=key, owner=_owner(said, document))

    def glimpse(self, head: bytes) -> Report | None:
        """Return what the beginning of an oversized body shows: such a one can only be traffic."""
        event, instance = glimpse(head, "instanceId")
        if event is None or (event not in LIVE and event not in SILENT):
            return None
        return Report(event, instance, alive=event in LIVE)

    def ask(self, instance: str, key: str) -> Question:
        """Return the question status-instance, the one path that is known to exist on every plan."""
        path = f"/instance/status-instance?instanceId={quote(instance, safe='')}"
        return Question(path, {"Authorization": f"Bearer {key}"})

    def read(self, status: int, body: bytes) -> ProbeAnswer:
        """Return what an answer of status-instance says; `status` is the HTTP status."""
        if status == 404:
            return ProbeAnswer(Trigger.SESSION_MISSING, Reason.SESSION_MISSING, status, ambiguous=True)
        if status != 200:
            return by_status(status)
        document = document_of(body)
        if document is None or document.get("error") is True:
            return ProbeAnswer(Trigger.UNREACHABLE, Reason.UNREACHABLE, status)
        match document.get("connected"):
            case True:
                return ProbeAnswer(Trigger.OPENED, None, status)
            case False:
                return ProbeAnswer(Trigger.DROPPED, Reason.DISCONNECTED, status, session_lost=True)
            case _:
                return ProbeAnswer(Trigger.NOT_LOADED, Reason.NOT_LOADED, status)

    def read_version(self, body: bytes) -> str | None:
        """Return None: W-API is a hosted service without versions."""
        return None

    def ask_webhooks(self, instance: str, key: str) -> Question:
        """Return the question fetch-instance, whose answer names an address for each event."""
        path = f"/instance/fetch-instance?instanceId={quote(instance, safe='')}"
        return Question(path, {"Authorization": f"Bearer {key}"})

    def read_webhooks(self, status: int, body: bytes) -> tuple[str, ...] | None:
        """Return the addresses for losses and connections; those for messages may be another system's."""
        document = document_of(body)
        if status != 200 or document is None or LOSSES not in document:
            return None
        lost, connected = document[LOSSES], document.get(CONNECTIONS)
        if not isinstance(lost, str) or not lost:
            return ()
        return (lost, connected) if isinstance(connected, str) and connected else (lost,)

    def ask_qr(self, instance: str, key: str, number: str | None) -> Question:
        """Return the question qr-code, or with a number pairing-code."""
        return qr.ask(instance, key, number)

    def read_qr(self, status: int, body: bytes) -> Qr | NoQr:
        """Return what the answer holds."""
        return qr.read(status, body)

    def address_fields(self, traffic: bool) -> Sequence[str]:
        """Return the address fields by the last word of the calls that set them."""
        return (*STATE_FIELDS, *TRAFFIC_FIELDS) if traffic else tuple(STATE_FIELDS)

    def read_registered_webhooks(self, status: int, body: bytes) -> RegisteredWebhooks | None:
        """Return the addresses in the record of fetch-instance."""
        row = document_of(body)
        if status != 200 or row is None or LOSSES not in row:
            return None
        addresses = {field: row.get(name) for field, name in (STATE_FIELDS | TRAFFIC_FIELDS).items()}
        row = {name: row.get(name) or "" for name in (STATE_FIELDS | TRAFFIC_FIELDS).values()}
        return RegisteredWebhooks(
            {field: url if isinstance(url, str) else "" for field, url in addresses.items()}, row
        )

    def sends_secret(self, version: str | None) -> bool:
        """Return False: it sends no headers of ours."""
        return False

    def set_address(
        self,
        field: str,
        instance: str,
        key: str,
        address: str,
        version: str | None,
        traffic: bool,
        secret: str | None = None,
    ) -> Order:
        """Return the call for one event; other bodies than `value` are answered "updated" and not saved."""
        return _set_webhook(field, instance, key, address)

    def restore_webhooks(
        self, row: Mapping[str, object], instance: str, key: str, version: str | None
    ) -> Sequence[Order]:
        """Return a call for each field."""
        fields = (STATE_FIELDS | TRAFFIC_FIELDS).items()
        return [_set_webhook(field, instance, key, row.get(name, "")) for field, name in fields]

    def read_subscription(self, status: int, body: bytes) -> Subscription | None:
        """Return the subscription in fetch-instance: `expires` in epoch milliseconds, and `paymentStatus`."""
        document = document_of(body)
        if status != 200 or document is None or not ("expires" in document or "paymentStatus" in document):
            return None
        return Subscription(from_epoch(document.get("expires")), clean(document.get("paymentStatus")))

    def plan_recovery(self, condition: Condition) -> RecoveryPlan | NotApplicable:
        """Return the recovery plan for this condition."""
        return recovery.plan_recovery(condition)

    def order(self, action: RecoveryAction, instance: str, key: str, version: str | None) -> Order:
        """Return the restart."""
        return recovery.restart(instance, key)

    def read_order(self, status: int, body: bytes) -> str | None:
        """Return why the order was refused."""
        return order_failure(status, body)

    def ask_instances(self, key: str, page: int) -> Question:
        """Return the question for the integrator's list; the key is the account's, no instance's."""
        path = f"/integrator/instances?pageSize={PAGE}&page={page}"
        return Question(path, {"Authorization": f"Bearer {key}"})

    def read_instances(self, status: int, body: bytes) -> Listing | None:
        """Return the rows of the list: with each instance's own token, and a phone once it was connected.

        Its `connected` is what the panel shows, which can lie, so that no state is read from it.
        """
        document = document_of(body)
        rows = None if document is None else document.get("instances")
        if status != 200 or document is None or not isinstance(rows, list):
            return None
        found = [it for row in rows if isinstance(row, dict) and (it := _listed(row)) is not None]
        return Listing(found, number(document.get("totalPage")) or 1)

    def ask_all(self, key: str | None, page: int) -> Question | None:
        """Return the question for the integrator's list, which only an account's token may read."""
        return None if key is None else bulk_probe.ask(key, page)

    def read_all(self, status: int, body: bytes) -> BulkAnswer | None:
        """Return what the list shows of each instance: a hint, for it is the panel's view."""
        return bulk_probe.read(status, body)


def _set_webhook(field: str, instance: str, key: str, address: object) -> Order:
    """Return the call for one event; a previous address is restored unchanged, whatever it was."""
    path = f"/webhook/update-webhook-{field}?instanceId={quote(instance, safe='')}"
    return Order("PUT", path, {"Authorization": f"Bearer {key}"}, {"value": address})


def _listed(row: dict[str, object]) -> ListedInstance | None:
    instance = instance_of(row.get("instanceId"))
    if instance is None:
        return None
    phone = row.get("connectedPhone")
    return ListedInstance(
        instance,
        name=clean(row.get("instanceName")),
        api_key=clean(row.get("token"), KEY_LENGTH),
        phone=phone_of(phone),
        has_been_open=bool(phone),
    )


def _moment(value: object, now: datetime) -> datetime | None:
    """Return when an event was emitted; of a whole second its end, or now when that is not over yet.

    `webhookConnected` may come without a moment and counts as emitted when it arrived: a disconnect
    later in the same second must not seem older for having been cut to seconds.
    """
    at = from_epoch(value)
    if at is None or at.microsecond or at > now:
        return at
    return min(at + timedelta(milliseconds=999), now)


def _said(event: str, body: dict[str, object], at: datetime | None) -> tuple[ParsedEvent, str | None]:
    data = body.get("data")
    match event:
        case "webhookConnected" if body.get("connected") is not False:
            return _connected(body.get("connectedPhone"), at), "connected"
        case "connection" if isinstance(data, dict) and data.get("connected") is True:
            return _connected(data.get("phone"), at), "connected"
        case "webhookDisconnected" | "disconnection" | "webhookConnected" | "connection":
            dropped = ParsedEvent(Trigger.DROPPED, Reason.DISCONNECTED, None, at, needs_probe=True)
            return dropped, "disconnected"
        case _:
            return ParsedEvent(None, at=at), None


def _owner(said: ParsedEvent, body: dict[str, object]) -> OwnerProfile | None:
    """Return the owner of the session that was opened."""
    data = body.get("data")
    phone = body.get("connectedPhone", data.get("phone") if isinstance(data, dict) else None)
    return owner_of(phone) if said.trigger is Trigger.OPENED else None


def _connected(phone: object, at: datetime | None) -> ParsedEvent:
    """Connected without a phone is an incomplete session: recipients wait for its messages in vain."""
    if phone:
        return ParsedEvent(Trigger.OPENED, None, None, at)
    return ParsedEvent(Trigger.CONNECTING, Reason.INCOMPLETE_SESSION, None, at)
