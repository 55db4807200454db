"""An Evolution instance's webhooks: where they go, their envelope and their headers. Knows no behaviour."""

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import Any, Final, Protocol
from uuid import UUID

import orjson

from receiver.sandbox.channel import SandboxChannel
from receiver.sandbox.delivery import Courier, QueuedPost
from receiver.sandbox.evolution.data import iso
from receiver.sandbox.evolution.version import Version
from receiver.sandbox.fault import Fault

MILLISECOND: Final = timedelta(milliseconds=1)
AXIOS: Final = {
    "Content-Type": "application/json",
    "Accept": "application/json, text/plain, */*",
    "User-Agent": "axios/1.12.2",
    "Accept-Encoding": "gzip, compress, deflate, br",
}


class SpeakerHost(Protocol):
    """What an instance has to know of its server."""

    url: str
    key: str
    webhook: str | None
    version: Version
    utc_offset: timedelta
    exposes_key: bool


class WebhookSender(SandboxChannel):
    """An instance as far as it sends webhooks."""

    def __init__(self, courier: Courier, server: SpeakerHost, name: str, key: str, state: str) -> None:
        super().__init__(courier, name, key, state)
        self.headers: dict[str, str] = {}
        """Custom headers of its webhook (v2)."""
        self.events: Iterable[str] = ()
        """What its webhook subscribes to, in the words of webhook/set; nothing means everything."""
        self.by_events = False
        """Whether the event is appended to the webhook's address."""
        self.id = str(UUID(int=self._stage.random.getrandbits(128), version=4))
        self.jid = f"55119{self._stage.random.randrange(10**8):08}@s.whatsapp.net"
        self.server = server
        self.is_mute = False
        """Open in memory over a dead socket: nothing comes any more."""
        self.looked_up: list[float] = []
        """Monotonic times at which it was asked who has WhatsApp."""
        self.lookup_fault: Fault | None = None
        """What becomes of that question."""
        self.has_opened = state == "open"
        """Whether this process has seen it open, and so knows whose it is."""
        self._last = datetime.min.replace(tzinfo=UTC)

    def _emit(
        self, event: str, data: dict[str, Any] | None, at: datetime | None = None, after: float = 0.0
    ) -> None:
        """Send a webhook to the instance's address, then to the global one, where the event goes there."""
        if self.is_mute:
            return
        version = self.server.version
        subscription = event.replace(".", "_").replace("-", "_").upper()
        stamp = iso((self._now() if at is None else at) + self.server.utc_offset)
        posts = []
        if self.webhook is not None and self._is_subscribed(subscription):
            url = self._suffixed(self.webhook, event) if self.by_events else self.webhook
            body = self._body(event, data, stamp, self.webhook, self.key)
            posts.append(QueuedPost(url, self._local_headers(event), body))
        if self.server.webhook is not None and subscription in version.global_events:
            destination = self.webhook or self._suffixed(self.server.webhook, event)
            body = self._body(event, data, stamp, destination, self.server.key)
            if self.webhook is not None or not version.global_needs_local:
                posts.append(QueuedPost(self.server.webhook, AXIOS, body))
        self._send(event, posts, version.retry, after)

    def _now(self) -> datetime:
        """Return the time, later than the one before by at least the millisecond that stamps resolve."""
        self._last = max(datetime.now(UTC), self._last + MILLISECOND)
        return self._last

    def _is_subscribed(self, subscription: str) -> bool:
        if subscription not in self.server.version.local_events:
            return False
        return not self.events or subscription in self.events

    @staticmethod
    def _suffixed(url: str, event: str) -> str:
        return f"{url}/{event.replace('.', '-').replace('_', '-')}"

    def _local_headers(self, event: str) -> dict[str, str]:
        if self.server.version.is_v1:
            return AXIOS
        if self.server.version.number < (2, 4):
            return AXIOS | self.headers
        about = {
            "User-Agent": "EvolutionAPI-Webhook/2.3.7",
            "X-Instance-ID": self.id,
            "X-Instance-Name": self.name,
            "X-Event-Type": event,
            "X-Timestamp": str(int(datetime.now(UTC).timestamp() * 1000)),
        }
        return AXIOS | about | self.headers

    def _body(self, event: str, data: dict[str, Any] | None, stamp: str, destination: str, key: str) -> bytes:
        body: dict[str, Any] = {
            "event": event,
            "instance": self.name,
            "data": data,
            "destination": destination,
            "date_time": stamp,
        }
        if self.has_opened:
            body["sender"] = self.jid
        body["server_url"] = self.server.url
        if self.server.exposes_key:
            body["apikey"] = key
        elif not self.server.version.is_v1:
            body["apikey"] = None
        return orjson.dumps(body)
