"""Notifies members inside their own application: rows of `notifications`, one for each recipient and message.

The table may be another application's, with constraints of its own: a refused row is a failed try like any
other, and affects nothing else, because it is written in a transaction of its own.
"""

from collections.abc import Collection, Mapping
from datetime import UTC, datetime
from typing import Final, Literal
from uuid import UUID, uuid5

import asyncpg
import orjson

from db.alerts.alerts import IN_APP
from db.alerts.messages import find_members, notify_members
from db.connection.retry import TRANSIENT
from db.connection.types import Pool
from receiver.alerts.message import DeliveryResult, Group, Message, MessageItem
from receiver.alerts.notifiers.config import Config, read
from receiver.alerts.notifiers.texts import text_of
from receiver.outbound.egress import EgressPolicy


class Audience(Config):
    """Which active members are notified."""

    recipients: Literal["admins", "all"] = "admins"


def includes_all_members(config: Mapping[str, object]) -> bool:
    """Return whether all active members are notified, not only administrators."""
    return config.get("recipients") == "all"


class InApp:
    """The notifier of every tenant's own destination."""

    kind: Final = IN_APP
    is_grouped: Final = True
    credentials: Final[Mapping[str, Collection[str]]] = {}

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    def check(self, config: Mapping[str, object]) -> Mapping[str, object]:
        """Return the recipients, by default `admins`."""
        return read(Audience, config).stored()

    def shown(self, config: Mapping[str, object]) -> Mapping[str, object]:
        """Return everything: nothing of it is secret."""
        return config

    async def send(
        self, config: Mapping[str, object], message: Message, outgoing: EgressPolicy
    ) -> DeliveryResult:
        """Write one notification for each recipient, once over all tries."""
        tenant_id = message.tenant_id
        if tenant_id is None:
            return DeliveryResult(False, permanent=True, answer="it belongs to no tenant")
        kind, ref_id = _kind(message), _reference(message)
        payload = orjson.dumps(self._payload(message), default=str).decode()  # asyncpg's UUID is a subclass
        try:
            async with self._pool.acquire() as connection, connection.transaction():
                owners = await find_members(connection, tenant_id, includes_all_members(config))
                ids = [(uuid5(message.id, str(owner)), owner) for owner in owners]
                await notify_members(connection, tenant_id, ids, kind, ref_id, payload)
        except (*TRANSIENT, asyncpg.PostgresError) as error:
            # The error text may hold values of a row.
            return DeliveryResult(False, answer=f"notifications refuses it: {type(error).__name__}")
        if not owners:
            return DeliveryResult(False, permanent=True, answer="no active member to tell")
        return DeliveryResult(True, answer=f"shown to {len(owners)}")

    def _payload(self, message: Message) -> dict[str, object]:
        text = text_of(message)
        shared = {"message_id": message.id, "title": text.subject, "body": text.body}
        items = [_shown(item) for item in message.items]
        return {**shared, **(items[0] if len(items) == 1 else {"items": items})}


def _shown(item: MessageItem) -> dict[str, object]:
    lasted = None if item.resolved_at is None else int((item.resolved_at - item.started_at).total_seconds())
    return {
        "event": item.event,
        "incident_id": item.incident_id,
        "channel_id": item.channel_id,
        "kind": item.kind or None,
        "reason": item.reason,
        "started_at": _utc(item.started_at),
        "resolved_at": None if item.resolved_at is None else _utc(item.resolved_at),
        "duration_seconds": lasted,
        "link": item.link,
        **({} if item.state is None else {"state": item.state, "previous_state": item.previous_state}),
        **({} if item.cause is None else {"cause": item.cause}),
        **({} if item.group is None else {"channels": _channels(item.group)}),
        **({} if item.expires_at is None else {"expires_at": _utc(item.expires_at)}),
    }


def _channels(group: Group) -> list[dict[str, object]]:
    return [{"name": it.name, "reason": it.reason, "link": it.link} for it in group.channels]


def _utc(at: datetime) -> str:
    return at.astimezone(UTC).isoformat().replace("+00:00", "Z")


def _kind(message: Message) -> str:
    return "instance_disconnected" if any(item.needs_scan for item in message.items) else "system_alert"


def _reference(message: Message) -> UUID | None:
    """Return the incident's id if the message is about one only."""
    incidents = {item.incident_id for item in message.items}
    return incidents.pop() if len(incidents) == 1 else None
