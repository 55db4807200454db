"""Registers the channels that another application made, with address and key from its `credentials`.

Credentials are read leniently and left as found. A channel whose credentials can't be read is registered all
the same, unconfigured, so that the doctor reports it.
"""

from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple
from uuid import UUID

from db.connection.json_columns import load
from db.connection.types import Connection, Record
from db.queries import sql
from db.registry.address import PROVIDERS, AddressError, normalise
from db.registry.channels import channel_identity
from db.vault import Vault

# Rows of one transaction.
CHUNK: Final = 1000
_ADDRESSES: Final = ("api_url", "apiUrl", "url")
_KEYS: Final = ("api_key", "apikey", "token")
_INSTANCES: Final = ("instance_name", "instance")


class _Found(NamedTuple):
    channel_id: UUID
    tenant_id: UUID
    provider: str
    base_url: str
    instance: str | None
    api_key: bytes | None


async def adopt(connection: Connection, vault: Vault) -> int:
    """Register every channel that we lack and return how many; once more changes nothing.

    Any number may run at once. A second channel with the same address and instance has no instance here.
    """
    adopted, last = 0, UUID(int=0)
    while rows := await connection.fetch(sql.unadopted_channels, last, PROVIDERS, CHUNK):
        adopted += await _register(connection, [_read(row, vault) for row in rows])
        last = rows[-1]["id"]
    return adopted


async def _register(connection: Connection, found: Sequence[_Found]) -> int:
    async with connection.transaction():
        addresses = sorted({(channel.provider, channel.base_url) for channel in found})
        rows = await connection.fetch(sql.adopt_gateways, *zip(*addresses, strict=True))
        gateways = {(row["provider"], row["base_url"]): row["id"] for row in rows}
        registered = await _insert(connection, found, gateways)
        rivals = [
            channel._replace(instance=None) for channel in found if channel.channel_id not in registered
        ]
        if rivals:
            registered |= await _insert(connection, rivals, gateways)
        await connection.execute(sql.adopt_states, [channel.channel_id for channel in found])
        return len(registered)


async def _insert(
    connection: Connection, channels: Sequence[_Found], gateways: Mapping[tuple[str, str], UUID]
) -> set[UUID]:
    rows = await connection.fetch(
        sql.adopt_channels,
        [channel.channel_id for channel in channels],
        [channel.tenant_id for channel in channels],
        [gateways[channel.provider, channel.base_url] for channel in channels],
        [channel.provider for channel in channels],
        [channel.instance for channel in channels],
        [channel.api_key for channel in channels],
    )
    return {row["channel_id"] for row in rows}


def _read(row: Record, vault: Vault) -> _Found:
    credentials = load(row["credentials"])
    if not isinstance(credentials, Mapping):
        credentials = {}
    key = _first(credentials, _KEYS, 4096)
    return _Found(
        row["id"],
        row["tenant_id"],
        row["provider"],
        _address(row["provider"], _first(credentials, _ADDRESSES, 2048)),
        _first(credentials, _INSTANCES, 255),
        None if key is None else vault.seal(key, channel_identity(row["id"])),
    )


def _address(provider: str, text: str | None) -> str:
    try:
        return normalise(provider, text)
    except AddressError:
        return ""


def _first(credentials: Mapping[str, object], names: Sequence[str], longest: int) -> str | None:
    """Return the first of these that is a usable text; numbers are written out, as some forms store them."""
    for name in names:
        value = credentials.get(name)
        if isinstance(value, int) and not isinstance(value, bool):
            value = str(value)
        if isinstance(value, str) and 0 < len(value.strip()) <= longest:
            return value.strip()
    return None
