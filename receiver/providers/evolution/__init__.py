"""Evolution API, v1 and v2: its webhooks and `GET /instance/connectionState/{instance}`.

What it sends and answers, with sources: docs/provider-facts.md#evolution. 2.2.1 to 2.3.7 send `close` only
for 401, 402, 403 and 406; older ones for every code (#evolution-close). `date_time` is local time with a
false Z (#evolution-time).
"""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Final

from db.reconcile.qr import SHOWN_FOR, Qr
from db.registry.imports import ListedInstance
from receiver.providers.evolution import bulk_probe, qr, recovery, webhooks
from receiver.providers.evolution.deep_probe import EvolutionDeepProbe
from receiver.providers.evolution.versions import is_at_least
from receiver.providers.evolution.webhook_registration import (
    ADDRESS_FIELD,
    HEADERS_SINCE,
    events_of,
    secret_in,
    set_webhook,
)
from receiver.providers.qr import NoQr
from receiver.providers.report import (
    SECRET_HEADER,
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
    by_status,
    clean,
    document_of,
    instance_of,
    list_of,
    order_failure,
    phone_of,
    segment,
)
from statemachine.model import Reason, Trigger


class Evolution:
    """The provider of Evolution API gateways."""

    name: Final = "evolution_api"
    has_version: Final = True
    has_subscriptions: Final = False
    one_key_for_all: Final = True
    bulk_answer_is_hint: Final = False
    qr_life: Final = SHOWN_FOR
    deep: Final = EvolutionDeepProbe()
    actions: Final = recovery.ACTIONS
    recoverable: Final = recovery.RECOVERABLE

    def parse(self, body: bytes, version: str | None, now: datetime) -> Report:
        """Return what a webhook says; `version` is its gateway's, None while unknown."""
        return webhooks.parse(body, version, now)

    def glimpse(self, head: bytes) -> Report | None:
        """Return what the beginning of an oversized body shows: such a one can only be traffic."""
        return webhooks.read_head(head)

    def ask(self, instance: str, key: str) -> Question:
        """Return the question connectionState (docs/provider-facts.md#evolution-connection-state)."""
        return Question(f"/instance/connectionState/{segment(instance)}", {"apikey": key})

    def read(self, status: int, body: bytes) -> ProbeAnswer:
        """Return what an answer of connectionState says; `status` is the HTTP status."""
        document = document_of(body)
        if status == 200:
            return _read_state(document)
        if status == 404 and document is not None and "does not exist" in _message(document):
            return ProbeAnswer(Trigger.SESSION_MISSING, Reason.SESSION_MISSING, status)
        return by_status(status)

    def read_version(self, body: bytes) -> str | None:
        """Return the version in an answer of `GET /`, or None."""
        return clean((document_of(body) or {}).get("version"))

    def ask_webhooks(self, instance: str, key: str) -> Question:
        """Return the question webhook/find."""
        return Question(f"/webhook/find/{segment(instance)}", {"apikey": key})

    def read_webhooks(self, status: int, body: bytes) -> tuple[str, ...] | None:
        """Return the instance's one address; v2 answers with its row or `null`, v1 with a flat object."""
        if status != 200:
            return None
        if body.strip() == b"null":
            return ()
        document = document_of(body)
        if document is None or "enabled" not in document:
            return None
        url, events = document.get("url"), document.get("events")
        subscribed = not isinstance(events, list) or not events or "CONNECTION_UPDATE" in events
        return (url,) if document["enabled"] is True and subscribed and isinstance(url, str) and url else ()

    def ask_qr(self, instance: str, key: str, number: str | None) -> Question:
        """Return the question connect, which opens a new socket on a closed instance."""
        return qr.ask(instance, key, number)

    def read_qr(self, status: int, body: bytes) -> Qr | NoQr:
        """Return what the answer to connect holds."""
        return qr.read(status, body)

    def address_fields(self, traffic: bool) -> Sequence[str]:
        """Return the one field that an instance has, with traffic or without."""
        return (ADDRESS_FIELD,)

    def read_registered_webhooks(self, status: int, body: bytes) -> RegisteredWebhooks | None:
        """Return the row of webhook/find; one that is not enabled counts as not set."""
        if status != 200:
            return None
        if body.strip() == b"null":
            return RegisteredWebhooks({ADDRESS_FIELD: ""}, {})
        row = document_of(body)
        if row is None or "enabled" not in row:
            return None
        url = row.get("url")
        address = url if row["enabled"] is True and isinstance(url, str) else ""
        return RegisteredWebhooks({ADDRESS_FIELD: address}, row, secret_in(row))

    def sends_secret(self, version: str | None) -> bool:
        """Return whether the version has headers."""
        return is_at_least(version, HEADERS_SINCE)

    def set_address(
        self,
        field: str,
        instance: str,
        key: str,
        address: str,
        version: str | None,
        traffic: bool,
        secret: str | None,
    ) -> Order:
        """Return webhook/set; without headers the row would keep the previous ones."""
        headers = {} if secret is None else {SECRET_HEADER: secret}
        events = events_of(version, traffic)
        row = {"enabled": True, "url": address, "headers": headers, "events": events}
        return set_webhook(row, instance, key, version)

    def restore_webhooks(
        self, row: Mapping[str, object], instance: str, key: str, version: str | None
    ) -> Sequence[Order]:
        """Return webhook/set with the previous row."""
        return (set_webhook(row or {"enabled": False, "url": "", "events": []}, instance, key, version),)

    def plan_recovery(self, condition: Condition) -> RecoveryPlan | NotApplicable:
        """Return the recovery plan for this condition."""
        return recovery.plan_recovery(condition)

    def order(self, action: RecoveryAction, instance: str, key: str, version: str | None) -> Order:
        """Return the restart or the connect."""
        return recovery.order(action, instance, key, version)

    def read_order(self, status: int, body: bytes) -> str | None:
        """Return why the order was refused."""
        return order_failure(status, body)

    def read_subscription(self, status: int, body: bytes) -> None:
        """Return None: channels are not paid for one by one."""

    def ask_instances(self, key: str, page: int) -> Question:
        """Return the question fetchInstances, whose answer is the one page there is."""
        return Question("/instance/fetchInstances", {"apikey": key})

    def read_instances(self, status: int, body: bytes) -> Listing | None:
        """Return the rows of fetchInstances: flat in v2, each within `instance` in v1.

        Its `connectionStatus` is a column that may be days old, so that no state is read from it.
        """
        rows = list_of(body) if status == 200 else None
        return None if rows is None else Listing([it for row in rows if (it := _listed(row)) is not None])

    def ask_all(self, key: str | None, page: int) -> Question:
        """Return the question `/metrics`, which takes no key."""
        return bulk_probe.METRICS

    def read_all(self, status: int, body: bytes) -> BulkAnswer | None:
        """Return the states in `/metrics`: what connectionState would say, from the same memory."""
        return bulk_probe.read(status, body)


def _listed(row: dict[str, object]) -> ListedInstance | None:
    """Return an instance; the owner's number is known from its first connection on."""
    about = row.get("instance", row)
    if not isinstance(about, dict):
        return None
    instance = instance_of(about.get("name", about.get("instanceName")))
    owner = clean(about.get("ownerJid", about.get("owner")))
    if instance is None:
        return None
    return ListedInstance(
        instance,
        phone=phone_of(owner),
        profile=clean(about.get("profileName")),
        has_been_open=owner is not None or _was_ended(about),
    )


def _was_ended(about: dict[str, object]) -> bool:
    """Return whether the record is of the end of a session. That by the API needs none."""
    code, reason = webhooks.disconnection_in(about)
    return code in webhooks.FINAL_CODES and reason is not Reason.LOGGED_OUT_BY_API


def _read_state(document: dict[str, object] | None) -> ProbeAnswer:
    if document is None or document.get("error") is True:
        return ProbeAnswer(Trigger.UNREACHABLE, Reason.UNREACHABLE, 200)
    instance = document.get("instance")
    match instance.get("state") if isinstance(instance, dict) else None:
        case "open":
            return ProbeAnswer(Trigger.OPENED, None, 200)
        case "connecting":
            return ProbeAnswer(Trigger.CONNECTING, Reason.CONNECTING, 200)
        case "close" | "refused":
            return ProbeAnswer(Trigger.DROPPED, Reason.DISCONNECTED, 200)
        case _:
            return ProbeAnswer(Trigger.NOT_LOADED, Reason.NOT_LOADED, 200)


def _message(document: dict[str, object]) -> str:
    response = document.get("response")
    message = response.get("message") if isinstance(response, dict) else None
    words = message if isinstance(message, list) else [message]
    return " ".join(word for word in words if isinstance(word, str))
