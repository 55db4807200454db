"""Sends alerts to programs: one signed POST for each, as in Standard Webhooks (standardwebhooks.com).

The id stays the same over all tries, so that receivers recognise repeats. The time is each try's own, because
receivers refuse old ones. After a rotation of the secret both secrets sign until the old one expires.
"""

import hashlib
import hmac
from base64 import b64decode, b64encode
from collections.abc import Collection, Mapping
from datetime import UTC, datetime, timedelta
from secrets import token_bytes
from typing import Annotated, Final

import orjson
from pydantic import AfterValidator, AwareDatetime
from pydantic_core import PydanticCustomError

from receiver.alerts.message import DeliveryResult, Event, Message, MessageItem
from receiver.alerts.notifiers.config import Config, Url, bare, read
from receiver.alerts.notifiers.http_answer import judge, links, unanswered
from receiver.outbound.client import Unanswered
from receiver.outbound.egress import EgressPolicy

PREFIX: Final = "whsec_"
KEY_BYTES: Final = 32
"""Length of generated secrets."""
KEY_SIZES: Final = range(24, 65)
"""Lengths in bytes that Standard Webhooks allows for a secret."""
OLD_SECRET_KEPT: Final = timedelta(hours=24)
"""How long both secrets sign after a rotation."""
TEST: Final = "test"
"""The type of a test message."""


def _secret(text: str) -> str:
    try:
        key = b64decode(text.removeprefix(PREFIX), validate=True)
    except ValueError:
        key = b""
    if not text.startswith(PREFIX) or len(key) not in KEY_SIZES:
        raise PydanticCustomError("secret", "Must be whsec_ and 24 to 64 bytes in base64")
    return text


Secret = Annotated[str, AfterValidator(_secret)]


class WebhookConfig(Config):
    """The address, and the secrets that sign."""

    url: Url
    secret: Secret
    old_secret: Secret | None = None
    old_secret_until: AwareDatetime | None = None

    def secrets(self, now: datetime) -> list[str]:
        """Return the secrets that sign now, the new one first."""
        is_old_good = self.old_secret and self.old_secret_until and now < self.old_secret_until
        return [self.secret, self.old_secret] if is_old_good and self.old_secret else [self.secret]


class WebhookNotifier:
    """The notifier of programs."""

    kind: Final = "webhook"
    is_grouped: Final = False
    # The secret signs and is never sent, so it may stay where the address changes.
    credentials: Final[Mapping[str, Collection[str]]] = {}

    def check(self, config: Mapping[str, object]) -> Mapping[str, object]:
        """Return the normal form; a missing secret is made, and `rotate_secret: true` makes another."""
        fields = dict(config)
        if fields.pop("rotate_secret", False) is True and "secret" in fields:
            until = datetime.now(UTC) + OLD_SECRET_KEPT
            fields |= {"old_secret": fields.pop("secret"), "old_secret_until": until}
        fields.setdefault("secret", PREFIX + b64encode(token_bytes(KEY_BYTES)).decode())
        return read(WebhookConfig, fields).stored()

    def shown(self, config: Mapping[str, object]) -> Mapping[str, object]:
        """Return the address, and until when an old secret signs."""
        webhook = WebhookConfig.model_validate(config)
        until = webhook.old_secret_until
        return {"url": bare(webhook.url)} | ({"old_secret_until": until.isoformat()} if until else {})

    async def send(
        self, config: Mapping[str, object], message: Message, outgoing: EgressPolicy
    ) -> DeliveryResult:
        """Post the message once."""
        webhook = WebhookConfig.model_validate(config)
        now = datetime.now(UTC)
        secrets = webhook.secrets(now)
        # asyncpg's UUID is a subclass, which orjson doesn't take for one.
        body = orjson.dumps(document(message), default=str)
        headers = {"Content-Type": "application/json", **signed(str(message.id), now, body, secrets)}
        try:
            reply = await outgoing.post(webhook.url, body, headers)
        except Unanswered as error:
            return unanswered(error)
        return judge(reply, [*secrets, *links(message)])


def signed(message_id: str, at: datetime, body: bytes, secrets: list[str]) -> Mapping[str, str]:
    """Return the headers that prove sender and time of a body, signed with each of the secrets."""
    seconds = str(int(at.timestamp()))
    content = b".".join((message_id.encode(), seconds.encode(), body))
    return {
        "webhook-id": message_id,
        "webhook-timestamp": seconds,
        "webhook-signature": " ".join(f"v1,{_signature(secret, content)}" for secret in secrets),
    }


def _signature(secret: str, content: bytes) -> str:
    key = b64decode(secret.removeprefix(PREFIX))
    return b64encode(hmac.digest(key, content, hashlib.sha256)).decode()


def document(message: Message) -> Mapping[str, object]:
    """Return the body for a message's one alert; a test may have none."""
    (item,) = message.items or (None,)
    name = TEST if message.is_test or item is None else item.event.value
    return {"type": name, "timestamp": _time(message.at), "data": _data(item)}


def _data(item: MessageItem | None) -> Mapping[str, object]:
    if item is None:
        return dict.fromkeys(FIELDS)
    values = (
        item.incident_id, item.channel_id, item.tenant_id, item.name, item.kind or None, item.reason,
        _time(item.started_at), _time(item.resolved_at), _seconds(item), item.link,
    )  # fmt: skip
    more: dict[str, object] = {} if item.affected is None else {"affected": item.affected}
    if item.cause is not None:
        more |= {"cause": item.cause, "gateway_incident_id": item.gateway_incident_id}
    if item.event is Event.STATE_CHANGED:
        states = {"state": item.state, "previous_state": item.previous_state}
        more |= {**states, "sequence": item.sequence}
    elif item.event is Event.EXPIRING:
        more |= {"expires_at": _time(item.expires_at)}
    return dict(zip(FIELDS, values, strict=True)) | more


FIELDS: Final = (
    "incident_id", "channel_id", "tenant_id", "name", "kind", "reason",
    "started_at", "resolved_at", "duration_seconds", "link",
)  # fmt: skip
"""Fields of `data` in every type; gateways, states and subscriptions add more."""


def _seconds(item: MessageItem) -> int | None:
    return None if item.resolved_at is None else int((item.resolved_at - item.started_at).total_seconds())


def _time(at: datetime | None) -> str | None:
    return None if at is None else at.astimezone(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
