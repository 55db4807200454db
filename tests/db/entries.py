"""Channels on a real database and entries for them, without a gateway."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from hashlib import blake2b
from uuid import UUID

from db.connection.types import Connection
from db.ingest.entry import Entry, ParsedEvent, Source
from db.registry.channels import ChannelSpec, register_channel
from db.vault import Vault
from statemachine.model import Reason, Rules, Trigger
from statemachine.signals import Deadline, Signal

T0 = datetime(2026, 11, 23, 3, 0, tzinfo=UTC)
RULES = Rules(stale_after=timedelta(days=9), probe_wait=None, recovery=False)
VAULT = Vault([bytes(range(32))])


def at(seconds: float) -> datetime:
    """So many seconds after T0."""
    return T0 + timedelta(seconds=seconds)


async def register(connection: Connection, instance: str = "loja-01", api_url: str = "http://evo") -> UUID:
    """Register a channel with an address and a key, and return its id."""
    channel_id, _ = await register_channel(
        connection,
        VAULT,
        ChannelSpec(
            provider="evolution_api",
            instance=instance,
            api_url=api_url,
            api_key="k",
            name=None,
            tenant_id=None,
            metadata={},
        ),
    )
    return channel_id


@dataclass(frozen=True)
class Of:
    """Entries for one channel."""

    channel_id: UUID

    def told(
        self,
        seconds: float,
        trigger: Trigger | None,
        reason: Reason | None = None,
        status: int | None = None,
        received: float | None = None,
        name: str = "connection.update",
    ) -> Entry:
        """A webhook stamped then, and received then unless it was late; the same time makes the same key."""
        key = blake2b(f"{name} {seconds} {trigger} {reason}".encode(), digest_size=16).digest()
        received_at = at(seconds if received is None else received)
        said = ParsedEvent(trigger, reason, status, at(seconds))
        return Entry(self.channel_id, Source.WEBHOOK, name, received_at, said, key)

    def deadline(self, seconds: float) -> Entry:
        """The clock's word."""
        return self.signal(seconds, Source.DEADLINE, Deadline(at(seconds)))

    def signal(self, seconds: float, source: Source, signal: Signal) -> Entry:
        """Any other signal."""
        return Entry(self.channel_id, source, source.value, at(seconds), signal)
