"""What a message says, kept from its first try on, so that each try of one id says the same.

Links aren't kept, for each lets anybody in who has it: every try makes them anew of the same facts.
"""

from collections.abc import Callable, Iterable
from datetime import datetime, timedelta
from typing import Final
from uuid import UUID

import orjson
from pydantic import AwareDatetime, BaseModel, ConfigDict

from db.alerts.messages import ClaimedMessage
from db.connection.json_columns import load
from db.connection.types import Record
from receiver.alerts.message import Event, Message, MessageItem
from receiver.i18n.reasons import DEFAULT_LOCALE
from statemachine.model import Reason, State, Status

TIME_ZONE: Final = "America/Sao_Paulo"
"""Of operators, who have no tenant's."""
LINKS_KEPT: Final = timedelta(hours=48)
"""After how long a message that wasn't delivered gets new links: the old ones work for another day then.

Tries end within a day, so only a stop of the service makes one so late.
"""
REASONS: Final = frozenset(reason.value for reason in Reason)
STATES: Final = frozenset(state.value for state in State)

MakeLink = Callable[[UUID, UUID, datetime], str]
"""Makes the link by which a channel comes back, of channel, incident and the time from which it works."""


class ItemFacts(BaseModel):
    """What is kept of one piece of news; more is ignored, for a newer version may have kept it."""

    model_config = ConfigDict(frozen=True, hide_input_in_errors=True)

    event: Event
    subject_id: UUID | None
    """The incident, or the destination that was switched off."""
    name: str
    kind: str
    reason: Reason | None
    state: State | None
    """The channel's."""
    started_at: AwareDatetime
    resolved_at: AwareDatetime | None
    channel_id: UUID | None
    tenant_id: UUID | None
    affected: int | None
    provider: str | None
    changed_to: str | None
    changed_from: str | None
    sequence: int | None
    expires_at: AwareDatetime | None

    @property
    def needs_scan(self) -> bool:
        """Whether people are asked for a scan, and get a link for it."""
        # The kind of an incident that another application has opened is all that is known of it.
        state = State.QR_PENDING if self.kind == State.QR_PENDING.shown else self.state or State.UNKNOWN
        return self.event is Event.INCIDENT_OPENED and Status(state, self.reason).scan_helps


class MessageFacts(BaseModel):
    """What is kept of a message."""

    model_config = ConfigDict(frozen=True, hide_input_in_errors=True)

    made_at: AwareDatetime
    """When it was first tried."""
    locale: str
    time_zone: str
    items: tuple[ItemFacts, ...]


def freeze(claim: ClaimedMessage, news: Iterable[Record], now: datetime) -> str:
    """Return what is to be kept of a message before its first try, as JSON; raises nothing."""
    facts = {
        "made_at": now,
        "locale": claim.locale or DEFAULT_LOCALE,
        "time_zone": claim.time_zone or TIME_ZONE,
        "items": [_kept(row, claim.created_at) for row in news],
    }
    # asyncpg's UUID is a subclass, which orjson doesn't take for one.
    return orjson.dumps(facts, default=str).decode()


def message_of(claim: ClaimedMessage, facts: str, link: MakeLink | None, now: datetime) -> Message:
    """Return what leaves in one try: the same in each, but for links once the old ones would soon expire.

    Raises `ValidationError` when the facts are of a version that knows more than this one.
    """
    kept = MessageFacts.model_validate_json(facts)
    links_from = kept.made_at + max(0, (now - kept.made_at) // LINKS_KEPT) * LINKS_KEPT
    return Message(
        id=claim.id,
        at=claim.created_at,
        locale=kept.locale,
        time_zone=kept.time_zone,
        items=tuple(_item(one, link, links_from) for one in kept.items),
        is_test=claim.purpose == "test",
        is_reminder=claim.purpose == "reminder",
        tenant_id=claim.tenant_id,
    )


def _kept(row: Record, at: datetime) -> dict[str, object]:
    kept = {name: row[name] for name in ItemFacts.model_fields if name != "reason"}
    # Other applications may have written anything there, and a newer version a word that is unknown here.
    details = load(row["details"])
    reason = details.get("reason") if isinstance(details, dict) else None
    return kept | {
        "reason": reason if isinstance(reason, str) and reason in REASONS else None,
        "state": row["state"] if row["state"] in STATES else None,
        "started_at": row["started_at"] or at,
    }


def _item(facts: ItemFacts, link: MakeLink | None, links_from: datetime) -> MessageItem:
    is_over = facts.event in (Event.INCIDENT_RESOLVED, Event.GATEWAY_RESOLVED)
    return MessageItem(
        event=facts.event,
        incident_id=facts.subject_id,
        name=facts.name,
        kind=facts.kind,
        reason=facts.reason,
        started_at=facts.started_at,
        resolved_at=facts.resolved_at if is_over else None,
        channel_id=facts.channel_id,
        tenant_id=facts.tenant_id,
        link=_link_of(facts, link, links_from),
        affected=facts.affected,
        provider=facts.provider,
        needs_scan=facts.needs_scan,
        state=facts.changed_to,
        previous_state=facts.changed_from,
        sequence=facts.sequence,
        expires_at=facts.expires_at,
    )


def _link_of(facts: ItemFacts, link: MakeLink | None, links_from: datetime) -> str | None:
    if link is None or not facts.needs_scan or facts.channel_id is None or facts.subject_id is None:
        return None
    return link(facts.channel_id, facts.subject_id, links_from)
