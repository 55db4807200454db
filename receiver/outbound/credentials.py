"""The key that a gateway is asked with about one channel: the channel's own, else its gateway's."""

from db.reconcile.claims import ProbeTarget
from db.reconcile.webhook_registrations import WebhookRegistration
from db.registry.channels import channel_identity
from db.registry.gateways import gateway_identity
from db.vault import Vault, VaultError


class Unaskable(Exception):
    """A channel can't be asked, for a reason of ours and not of the gateway's."""


def key_of(vault: Vault, target: ProbeTarget | WebhookRegistration) -> str:
    """Return the key that a gateway is asked with about a channel; raise `Unaskable`."""
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
