"""The facts of a message, frozen before its first try, so that each try of one id says the same.

Reconnect links aren't stored, because they need no login: every try makes them anew from the same facts.
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
"""The time zone of operators' messages."""
LINKS_KEPT: Final = timedelta(hours=48)
"""After this time an undelivered message gets new links; the old ones work for another day then.

Tries end within a day, so only a stop of the service makes one that late.
"""
REASONS: Final = frozenset(reason.value for reason in Reason)
STATES: Final = frozenset(state.value for state in State)

MakeLink = Callable[[UUID, UUID, datetime], str]
"""Makes a reconnect link from a channel's id, an incident's id and the time from which it works."""


class ItemFacts(BaseModel):
    """The stored facts of one alert; unknown fields are ignored, because a newer version may add them."""

    model_config = ConfigDict(frozen=True, hide_input_in_errors=True)

    event: Event
    subject_id: UUID | None
    """The id of the incident, or of the destination that was switched off."""
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
        """Whether the message asks for a scan, and has a link for it."""
        # Of an incident that another application opened only the kind is known.
        state = State.QR_PENDING if self.kind == State.QR_PENDING.shown else self.state or State.UNKNOWN
        return self.event is Event.INCIDENT_OPENED and Status(state, self.reason).scan_helps


class MessageFacts(BaseModel):
    """The stored facts of a message."""

    model_config = ConfigDict(frozen=True, hide_input_in_errors=True)

    made_at: AwareDatetime
    """When it was first tried."""
    locale: str
    time_zone: str
    items: tuple[ItemFacts, ...]


def freeze(claim: ClaimedMessage, rows: Iterable[Record], now: datetime) -> str:
    """Return the facts of a message before its first try, as JSON; raises nothing."""
    facts = {
        "made_at": now,
        "locale": claim.locale or DEFAULT_LOCALE,
        "time_zone": claim.time_zone or TIME_ZONE,
        "items": [_kept(row, claim.created_at) for row in rows],
    }
    # asyncpg's UUID is a subclass, which orjson doesn't take for one.
    return orjson.dumps(facts, default=str).decode()


def message_of(claim: ClaimedMessage, facts: str, link: MakeLink | None, now: datetime) -> Message:
    """Return the message of one try: the same in each, except for links that would soon expire.

    Raises `ValidationError` if a newer version froze the facts in a form unknown to this one.
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
    # Other applications may write any value there, and a newer version an unknown one.
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
