"""Programs that are told, for stories from outside: destinations at one sink, and what they verified."""

from ipaddress import ip_network
from typing import Any, Final

from standardwebhooks import Webhook

from tests.receiver.alerts.sink import Got, Sink
from tests.support.service import Zapwatch

LOOPBACK: Final[dict[str, Any]] = {"outgoing_allow": (ip_network("127.0.0.0/8"),)}
"""The setting with which tenants' destinations may be here."""


class Programs:
    """Destinations of the kind webhook, by the last part of their addresses."""

    def __init__(self, z: Zapwatch, sink: Sink) -> None:
        self._z = z
        self._sink = sink
        self._secrets: dict[str, str] = {}

    async def add(self, name: str, tenant: str | None, *events: str) -> str:
        """Make a destination; without events what it is told by default. Return its id."""
        body = {"kind": "webhook", "config": {"url": f"{self._sink.url}/{name}"}, "tenant_id": tenant}
        more = {"events": list(events)} if events else {}
        answer = await self._z.client.post("/destinations", json={**body, **more})
        assert answer.status_code == 201, answer.text
        self._secrets[name] = answer.json()["secret"]
        return str(answer.json()["id"])

    def told(self, name: str) -> list[dict[str, Any]]:
        """Return what a destination was told, in order, each signed by its secret."""
        return [self._verified(got) for got in self._sink.got if got.path == f"/{name}"]

    async def until(self, name: str, count: int) -> list[dict[str, Any]]:
        """Return what a destination was told once it was told so often."""

        async def ask() -> list[dict[str, Any]]:
            return self.told(name)

        return await self._z.until(ask, lambda told: len(told) >= count)

    def _verified(self, got: Got) -> dict[str, Any]:
        secret = self._secrets[got.path.removeprefix("/")]
        body: dict[str, Any] = Webhook(secret).verify(got.body, dict(got.headers))
        return body


async def tenant(z: Zapwatch, name: str = "Loja", **more: str) -> str:
    """Make a tenant and return its id."""
    answer = await z.client.post("/tenants", json={"name": name, **more})
    assert answer.status_code == 201, answer.text
    return str(answer.json()["id"])
