"""What the checks of channels and gateways share: what was registered, and the keys that open it."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

from db import diagnosis
from db.connection.types import Connection
from db.diagnosis import Finding, WatchedChannel, WatchedGateway, about, problem
from db.registry.channels import channel_identity
from db.registry.gateways import gateway_identity
from db.vault import Vault, VaultError, kept_keys
from receiver.outbound.client import Client
from receiver.providers import PROVIDERS
from receiver.settings import Settings


@dataclass(slots=True)
class Installation:
    """What the checks of channels and gateways need, as far as it could be read."""

    settings: Settings
    connection: Connection
    client: Client
    name: str = ""
    channels: list[WatchedChannel] = field(default_factory=list)
    gateways: list[WatchedGateway] = field(default_factory=list)
    vault: Vault | None = None

    async def read(self) -> Sequence[Finding]:
        """Read what was registered; find nothing."""
        self.name = await self.connection.fetchval("select current_database()")
        self.channels = await diagnosis.read_channels(self.connection)
        self.gateways = await diagnosis.read_gateways(self.connection)
        return ()

    async def read_keys(self) -> Sequence[Finding]:
        """Read the keys that open credentials; find nothing."""
        kept = self.settings.data_dir / "secret_keys"
        if self.settings.secret_keys:
            self.vault = Vault(self.settings.secret_keys)
        elif kept.exists():
            self.vault = Vault(kept_keys(kept))
        return ()

    async def check_listeners(self) -> Sequence[Finding]:
        """Find incidents whose alerts would reach no destination."""
        return await diagnosis.check_listeners(self.connection, self.vault)

    async def judge(self) -> Sequence[Finding]:
        """Find what is wrong with what was registered."""
        versioned = {name for name, provider in PROVIDERS.items() if provider.has_version}
        used = {channel.gateway_id for channel in self.channels}
        gateways = [gateway for gateway in self.gateways if gateway.id in used]
        unknown = [gateway for gateway in gateways if gateway.provider not in PROVIDERS]
        return [
            *_unknown_providers(unknown),
            *diagnosis.judge_channels(self.channels, datetime.now(UTC)),
            *diagnosis.judge_gateways(gateways),
            *diagnosis.judge_clocks(gateways),
            *diagnosis.judge_versions([gateway for gateway in gateways if gateway.provider in versioned]),
        ]


def _unknown_providers(gateways: Sequence[WatchedGateway]) -> list[Finding]:
    named = [f"{gateway.base_url} ({gateway.provider})" for gateway in gateways]
    what = "Gateways of a provider that this version doesn't know"
    do = "Run the version that registered them. Until then nobody asks them, and their webhooks get 503."
    return about(problem, "unknown_provider", what, named, do)


def unseal(vault: Vault | None, sealed: bytes, identity: str) -> str | None:
    """Return the decrypted value of this identity; None when no key opens it."""
    try:
        return None if vault is None else vault.open(sealed, identity).decode()
    except VaultError:
        return None


def key_of(vault: Vault | None, channel: WatchedChannel) -> str | None:
    """Return what the channel's gateway is asked with; None when there is no key or nothing opens it."""
    if channel.channel_key is not None:
        return unseal(vault, channel.channel_key, channel_identity(channel.channel_id))
    if channel.gateway_key is None or channel.gateway_id is None:
        return None
    return unseal(vault, channel.gateway_key, gateway_identity(channel.gateway_id))


def is_carried(channel: WatchedChannel, key: str) -> bool:
    """Return whether the headers of a question can carry the key, as far as they are known."""
    provider = PROVIDERS.get(channel.provider)
    headers = [] if provider is None else provider.ask(channel.instance or "", key).headers.values()
    return all(value.isascii() and value.isprintable() for value in headers)
