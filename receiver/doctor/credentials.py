"""Whether the keys that gateways are asked with can be unseal, are taken, and can be sent."""

from db.diagnosis import Finding, about, problem
from db.registry.gateways import gateway_identity
from receiver.doctor.installation import Installation, is_carried, key_of, unseal
from receiver.settings import variable
from statemachine.model import Reason


async def check_credentials(seen: Installation) -> list[Finding]:
    """Find keys that gateways refuse, that nothing opens, or that no header can carry."""
    refused = [channel for channel in seen.channels if channel.reason == Reason.UNAUTHORIZED]
    closed: list[object] = [
        f"the gateway {gateway.base_url}"
        for gateway in seen.gateways
        if gateway.api_key is not None
        and unseal(seen.vault, gateway.api_key, gateway_identity(gateway.id)) is None
    ]
    odd = []
    for channel in seen.channels:
        key = key_of(seen.vault, channel)
        if key is None and channel.channel_key is not None:
            closed.append(channel)
        elif key is not None and not is_carried(channel, key):
            odd.append(channel)
    give = "Give the right one: PATCH /channels/{id} with api_key."
    keys = f"Add the key that sealed them to {variable('secret_keys')}, or give the credentials again."
    return [
        *about(problem, "wrong_key", "The gateway refuses the key", refused, give),
        *about(problem, "sealed_key", "No secret key opens the credentials", closed, keys),
        *about(problem, "odd_key", "The key can't be sent: no header carries such characters", odd, give),
    ]
