"""The facts of a message, frozen before its first try, so that each try of one id says the same.

Reconnect links aren't stored, because they need no login: every try makes them anew from the same facts.
"""

from collections.abc import Callable, Iterable, Mapping
from datetime import datetime, timedelta
from typing import Final
from uuid import UUID

import orjson
from pydantic import AwareDatetime, BaseModel, ConfigDict

from db.alerts.messages import ClaimedMessage
from db.connection.json_columns import load
from db.connection.types import Record
from receiver.alerts.message import Event, Group, GroupedChannel, Message, MessageItem
from receiver.i18n.reasons import DEFAULT_LOCALE
from statemachine.model import Reason, State, Status
from statemachine.policy.flapping import BLINK_WINDOW, BLINKS, FLAP_WINDOW

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


class ChannelFacts(BaseModel):
    """The stored facts of a channel for which a message stands with others."""

    model_config = ConfigDict(frozen=True, hide_input_in_errors=True)

    name: str
    channel_id: UUID
    incident_id: UUID | None
    state: str
    reason: str | None

    @property
    def known_reason(self) -> Reason | None:
        return Reason(self.reason) if self.reason in REASONS else None

    @property
    def needs_scan(self) -> bool:
        status = Status(State(self.state) if self.state in STATES else State.UNKNOWN, self.known_reason)
        return status.terminal and status.scan_helps


class GroupFacts(BaseModel):
    """The stored facts of the channels for which a message stands."""

    model_config = ConfigDict(frozen=True, hide_input_in_errors=True)

    total: int
    down: int
    back: int
    need_scan: int
    tenants: int
    gateways: int
    channels: tuple[ChannelFacts, ...]


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
    # Facts that an earlier version froze have none of these.
    cause: str | None = None
    gateway_incident_id: UUID | None = None
    group: GroupFacts | None = None
    perhaps_offline: bool = False
    flaps: int = 0
    flapped_seconds: float | None = None
    still_down: bool = False
    was_removed: bool = False
    was_never_connected: bool = False

    @property
    def needs_scan(self) -> bool:
        """Whether the message asks for a scan, and has a link for it."""
        # Of an incident that another application opened only the kind is known.
        state = State.QR_PENDING if self.kind == State.QR_PENDING.shown else self.state or State.UNKNOWN
        is_down = self.event in (Event.INCIDENT_OPENED, Event.INCIDENT_CHANGED) and self.group is None
        return is_down and Status(state, self.reason).scan_helps


class MessageFacts(BaseModel):
    """The stored facts of a message."""

    model_config = ConfigDict(frozen=True, hide_input_in_errors=True)

    made_at: AwareDatetime
    """When it was first tried."""
    locale: str
    time_zone: str
    items: tuple[ItemFacts, ...]


def freeze(
    claim: ClaimedMessage, rows: Iterable[Record], groups: Mapping[int, Record], now: datetime
) -> str | None:
    """Return the facts of a message before its first try, as JSON; None: nothing is left to tell.

    `groups`: by decision, of those about a gateway's incident. Raises nothing.
    """
    kept = [_kept(row, groups.get(row["decision_id"]), claim.created_at) for row in rows]
    items = [item for item in kept if not _is_empty(item)]
    if not items:
        return None
    facts = {
        "made_at": now,
        "locale": claim.locale or DEFAULT_LOCALE,
        "time_zone": claim.time_zone or TIME_ZONE,
        "items": items,
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


def _kept(row: Record, group: Record | None, at: datetime) -> dict[str, object]:
    kept = {name: row[name] for name in ItemFacts.model_fields if name in row and name != "reason"}
    details, gateway = _document(row["details"]), _document(row["gateway_details"])
    reason = details.get("reason")
    caused = details.get("cause") == "gateway"
    return kept | {
        "reason": reason if isinstance(reason, str) and reason in REASONS else None,
        "state": row["state"] if row["state"] in STATES else None,
        "started_at": row["started_at"] or at,
        "resolved_at": (group and group["is_end"] and group["ended_at"]) or row["resolved_at"],
        "cause": "gateway" if caused else None,
        "gateway_incident_id": _id(details.get("gateway_incident_id")) if caused else None,
        "group": None if group is None else _group_facts(group),
        "perhaps_offline": gateway.get("perhaps_offline") is True,
        "was_removed": gateway.get("resolved_by") == "removed",
        "was_never_connected": details.get("resolved_by") == "never_connected",
        **_flaps(row, gateway),
    }


def _is_empty(item: Mapping[str, object]) -> bool:
    """Return whether nothing is left to tell of many channels: they are back before that, or gone."""
    group = item["group"]
    if not isinstance(group, dict) or item["tenant_id"] is None:
        return False
    return not (group["down"] or (item["event"] == Event.INCIDENT_RESOLVED and group["back"]))


def _document(text: str | None) -> Mapping[str, object]:
    """Return a JSON object that other applications may write, or a newer version; empty where it is none."""
    details = load(text)
    return details if isinstance(details, dict) else {}


def _id(value: object) -> UUID | None:
    try:
        return UUID(value) if isinstance(value, str) else None
    except ValueError:
        return None


def _flaps(row: Record, gateway: Mapping[str, object]) -> dict[str, object]:
    if gateway.get("flapping") is True:
        return {"flaps": 1}
    if not row["flapping"]:
        return {}
    departures = _document(row["details"]).get("departures")
    flaps = departures if isinstance(departures, int) and departures > 0 else 1
    window = BLINK_WINDOW if flaps >= BLINKS else FLAP_WINDOW
    return {"flaps": flaps, "flapped_seconds": window.total_seconds() if flaps > 1 else None}


def _group_facts(group: Record) -> dict[str, object]:
    counts = ("total", "down", "back", "need_scan", "tenants", "gateways")
    return {name: group[name] for name in counts} | {
        "channels": [orjson.loads(it) for it in group["channels"]]
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
        cause=facts.cause,
        gateway_incident_id=facts.gateway_incident_id,
        group=None if facts.group is None else _group(facts, facts.group, link, links_from),
        perhaps_offline=facts.perhaps_offline,
        flaps=facts.flaps,
        flapped_for=None if facts.flapped_seconds is None else timedelta(seconds=facts.flapped_seconds),
        is_open=facts.state is State.OPEN,
        still_down=facts.still_down,
        was_removed=facts.was_removed,
        was_never_connected=facts.was_never_connected,
    )


def _group(facts: ItemFacts, group: GroupFacts, link: MakeLink | None, links_from: datetime) -> Group:
    def link_of(channel: ChannelFacts) -> str | None:
        if link is None or channel.incident_id is None or not channel.needs_scan:
            return None
        return link(channel.channel_id, channel.incident_id, links_from)

    is_tenants = facts.event in (Event.INCIDENT_OPENED, Event.INCIDENT_RESOLVED)
    named = group.channels if is_tenants else ()
    channels = tuple(GroupedChannel(it.name, it.known_reason, link_of(it)) for it in named)
    counts = group.total, group.down, group.back, group.need_scan, group.tenants, group.gateways
    return Group(*counts, is_tenants, channels)


def _link_of(facts: ItemFacts, link: MakeLink | None, links_from: datetime) -> str | None:
    if link is None or not facts.needs_scan or facts.channel_id is None or facts.subject_id is None:
        return None
    return link(facts.channel_id, facts.subject_id, links_from)
