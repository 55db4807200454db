"""The key for questions about one channel: the channel's own, else its gateway's."""

from db.reconcile.claims import ProbeTarget
from db.reconcile.webhook_registrations import WebhookRegistration
from db.registry.channels import channel_identity
from db.registry.gateways import gateway_identity
from db.vault import Vault, VaultError


class Unaskable(Exception):
    """A channel can't be asked because of its registration, not because of the gateway."""


def key_of(vault: Vault, target: ProbeTarget | WebhookRegistration) -> str:
    """Return the decrypted key for questions about a channel; raises `Unaskable`."""
    if not target.configured:
        raise Unaskable("it has no address or no key")
    if target.channel_key is not None:
        sealed, identity = target.channel_key, channel_identity(target.channel_id)
    else:
        assert target.gateway_key is not None
        assert target.gateway_id is not None
        sealed, identity = target.gateway_key, gateway_identity(target.gateway_id)
    try:
        return vault.open(sealed, identity).decode()
    except VaultError as error:
        raise Unaskable(f"its key can't be opened ({error})") from None
