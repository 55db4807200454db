"""What a provider makes of a webhook or of a probe's answer, and what all of them read alike."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from hashlib import blake2b
from typing import Final, NamedTuple
from urllib.parse import quote

import orjson

from db.ingest.entry import OwnerProfile, ParsedEvent
from db.reconcile.qr import Qr
from db.registry.imports import ListedInstance
from statemachine.model import Reason, State, Trigger

NAME_LENGTH: Final = 64
"""Characters kept of a gateway's word for an event; real ones have at most 28."""
INSTANCE_LENGTH: Final = 255
"""Characters kept of an instance's name."""
PHONE_LENGTH: Final = 40
"""Characters of a phone number that are read, in any format."""
PHONES: Final = ("", "s.whatsapp.net", "c.us")
"""What may follow a phone's number in a JID."""
SECRET_HEADER: Final = "X-Zapwatch-Secret"
"""The header in which webhooks carry the secret that was set with their address."""
LIVE_FOR: Final = timedelta(seconds=60)
"""Traffic older than this is history, not life."""
MILLISECONDS_FROM: Final = 100_000_000_000
"""Epoch numbers above this are milliseconds, below seconds (W-API sends both)."""


class Unreadable(Exception):
    """A body that says nothing we understand; its words are safe to store, they quote no value."""


class Report(NamedTuple):
    """The content of one webhook. Neither `said` nor `alive`: it is not about the connection."""

    name: str
    """The gateway's word for the event, shortened and without control characters."""
    instance: str | None = None
    said: ParsedEvent | None = None
    alive: bool = False
    """Live inbound traffic: messages reach the gateway."""
    word: str | None = None
    """The gateway's own word for the state it names."""
    key: bytes | None = None
    """Recognises a redelivery; None when the event carries no time, so that repeats can't be recognised."""
    at: datetime | None = None
    """The gateway's own time of live traffic; None when it gave none."""
    qr: Qr | None = None
    """The QR that it shows."""
    owner: OwnerProfile | None = None
    """The session's owner."""


@dataclass(frozen=True, slots=True)
class Question:
    """How to ask a gateway about one channel: a GET of this path below its address, with these headers."""

    path: str
    headers: Mapping[str, str] = field(repr=False)


@dataclass(frozen=True, slots=True)
class ProbeAnswer:
    """What one probe's answer says."""

    trigger: Trigger
    reason: Reason | None = None
    status: int | None = None
    certain: bool = False
    session_lost: bool = False
    details: Mapping[str, object] = field(default_factory=dict)
    """Additional facts for operators, stored in an incident's details; never a secret."""
    ambiguous: bool = False
    """Possibly gateway-wide: it means the loss of the channel only if others get another answer."""


class Order(NamedTuple):
    """A call that changes something on a gateway; success is confirmed by reading, not by its answer."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: Mapping[str, object] | None = None


class RecoveryAction(StrEnum):
    """An order for a channel that some gateways accept."""

    RESTART = "restart"
    CONNECT = "connect"
    REREGISTER = "reregister_webhook"
    """Set the webhook's address anew, which revives one that W-API no longer sends to."""


class Condition(NamedTuple):
    """A channel's status, how long it has lasted, and the gateway's version."""

    state: State
    reason: Reason | None
    lasted: timedelta
    stuck_after: timedelta
    """How long connecting may last before it is stuck."""
    version: str | None


class RecoveryPlan(NamedTuple):
    """The order that may recover a channel."""

    action: RecoveryAction
    if_seen: Trigger | None
    """The answer that a probe immediately before must give; None: no probe is needed."""


class NotApplicable(NamedTuple):
    """No order helps, and why: a sentence for people."""

    why: str


class DeepProbeResult(StrEnum):
    """What a deep probe shows of a connection that its gateway calls open."""

    ALIVE = "alive"
    """WhatsApp itself answered through it."""
    DEAD = "dead"
    DOUBTFUL = "doubtful"
    """Nothing came back; twice in a row that counts as dead."""
    UNANSWERED = "unanswered"
    """The gateway or the network failed: it shows nothing."""


class RegisteredWebhooks(NamedTuple):
    """The webhook addresses of an instance by field (empty: not set), with the stored row and secret."""

    addresses: Mapping[str, str]
    row: Mapping[str, object]
    secret: str | None = None
    """What is sent in `SECRET_HEADER`."""


class Subscription(NamedTuple):
    """The end of a channel's subscription, and its payment status in the gateway's own words."""

    expires_at: datetime | None
    payment_status: str | None


class Listing(NamedTuple):
    """A page of the instances on a gateway, and how many pages there are."""

    found: Sequence[ListedInstance]
    pages: int = 1


class BulkAnswer(NamedTuple):
    """What one call says of a gateway's instances, and how many pages of it there are.

    Of an instance that it doesn't name it says nothing.
    """

    answers: Mapping[str, ProbeAnswer]
    pages: int = 1


def decode(body: bytes) -> dict[str, object]:
    """Return the JSON object in a webhook's body; lone surrogates, a BOM and stray bytes lose nothing."""
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError:
        document = _decode_leniently(body)
    if not isinstance(document, dict):
        raise Unreadable("not a JSON object")
    return document


def _decode_leniently(body: bytes) -> object:
    if not body.strip():
        raise Unreadable("empty body")
    try:
        return json.loads(body.decode("utf-8-sig", "replace"))
    except (ValueError, RecursionError):
        raise Unreadable("not JSON") from None


def document_of(body: bytes) -> dict[str, object] | None:
    """Return the JSON object in a probe's answer, or None when it isn't one (HTML, a proxy's page)."""
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError:
        return None
    return document if isinstance(document, dict) else None


def list_of(body: bytes) -> list[dict[str, object]] | None:
    """Return the objects of the JSON list in an answer, or None when it isn't one."""
    try:
        rows = orjson.loads(body)
    except orjson.JSONDecodeError:
        return None
    return [row for row in rows if isinstance(row, dict)] if isinstance(rows, list) else None


def by_status(status: int) -> ProbeAnswer:
    """Return what an HTTP status alone says about the gateway; nothing about the session."""
    match status:
        case 401 | 403:
            return ProbeAnswer(Trigger.UNAUTHORIZED, Reason.UNAUTHORIZED, status)
        case 503:
            return ProbeAnswer(Trigger.UNREACHABLE, Reason.PROVIDER_UNAVAILABLE, status)
        case _:
            return ProbeAnswer(Trigger.UNREACHABLE, Reason.UNREACHABLE, status)


def hopeless(condition: Condition) -> NotApplicable:
    """Return why no gateway has an order for a channel in this status."""
    match condition.state:
        case State.OPEN:
            return NotApplicable("It is open.")
        case State.UNPAIRED | State.QR_PENDING:
            return NotApplicable("Its session is lost: only a new scan brings it back.")
        case State.ERROR:
            return NotApplicable("Its gateway doesn't answer about it, which says nothing about its session.")
        case State.UNKNOWN:
            return NotApplicable("Nothing is known of it yet.")
        case _:
            return NotApplicable("Its gateway has no order that would help now.")


def order_failure(status: int, body: bytes) -> str | None:
    """Return what a gateway's answer to an order says against it, or None when it was taken.

    `{"error": true}` comes with 200, too (Evolution, W-API). Nothing of the gateway's own words is kept: they
    may hold a QR.
    """
    if not 200 <= status < 300:
        return f"HTTP {status}"
    document = document_of(body)
    return "an error inside of a 200" if document is not None and document.get("error") is True else None


def segment(name: str) -> str:
    """Return a name as one segment of a path; `.` and `..`, which a client would resolve, are escaped too."""
    return quote(name, safe="") if name.strip(".") else name.replace(".", "%2E")


def event_key(name: str, time: object, data: object) -> bytes:
    """Return what recognises a redelivery: event, the gateway's time of it, and a digest of the data.

    Copies of one event differ in the rest: the global webhook carries another key than the local one.
    """
    try:
        text = orjson.dumps([name, time, data], option=orjson.OPT_SORT_KEYS)
    except TypeError:  # lone surrogates, huge numbers
        text = json.dumps([name, time, data], sort_keys=True).encode()
    return blake2b(text, digest_size=16).digest()


def clean(text: object, length: int = NAME_LENGTH) -> str | None:
    """Return a string that every store takes (no NUL, no lone surrogates), shortened; None for no string."""
    if not isinstance(text, str) or not text:
        return None
    return text[:length].encode("utf-8", "replace").decode().replace("\0", "?")


def owner_of(phone: object, profile: object = None) -> OwnerProfile | None:
    """Return the owner of a session from a gateway's value for it."""
    owner = OwnerProfile(phone_of(phone), clean(profile))
    return None if owner == (None, None) else owner


def phone_of(value: object) -> str | None:
    """Return the digits of a phone's number, or of a JID that has one; a `@lid` has none."""
    number, _, kind = str(value).partition("@") if isinstance(value, str | int) else ("", "", "")
    digits = re.sub(r"[+() .-]", "", number.partition(":")[0][:PHONE_LENGTH])
    is_one = re.fullmatch(r"[0-9]{5,15}", digits, re.ASCII) and kind in PHONES
    return digits if is_one else None


def instance_of(value: object) -> str | None:
    """Return the name of an instance as a body gives it, or None."""
    return clean(value, INSTANCE_LENGTH)


def number(value: object) -> int | None:
    """Return a code as the gateway gave it, when it is one that a column can hold."""
    if isinstance(value, bool) or not isinstance(value, int):
        return None
    return value if abs(value) < 2**31 else None


def from_epoch(value: object) -> datetime | None:
    """Return the time of an epoch number in seconds or milliseconds, or None."""
    if isinstance(value, str) and value.isascii() and value.isdigit():
        value = int(value[:18])
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        return datetime.fromtimestamp(value / 1000 if value > MILLISECONDS_FROM else value, UTC)
    except (ValueError, OverflowError, OSError):
        return None


def from_text(value: object) -> datetime | None:
    """Return the time in an RFC 3339 text, taken as UTC where it names no zone, or None."""
    if not isinstance(value, str):
        return None
    try:
        moment = datetime.fromisoformat(value)
        return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    except (ValueError, OverflowError):
        return None


def glimpse(head: bytes, instance_field: str) -> tuple[str | None, str | None]:
    """Return the names of event and instance that the beginning of a body shows."""
    return clean(_first(head, "event")), instance_of(_first(head, instance_field))


def _first(head: bytes, field: str) -> str | None:
    found = re.search(rb'"%s"\s*:\s*"([^"\\]{1,1000})"' % field.encode(), head)
    return None if found is None else found[1].decode("utf-8", "replace")
