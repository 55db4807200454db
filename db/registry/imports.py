"""Registers the instances that a gateway lists, a set at a time; calls no gateway."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple
from uuid import UUID, uuid4

from db.connection.types import Connection, Record
from db.queries import sql
from db.registry.channels import channel_identity
from db.registry.tenants import tenant_for
from db.registry.tokens import hash_token
from db.vault import Vault, VaultError

CHUNK: Final = 500
"""Instances that are registered together: other registrations on that gateway wait meanwhile."""


@dataclass(frozen=True, slots=True)
class ListedInstance:
    """An instance as its gateway lists it."""

    instance: str
    name: str | None = None
    """Its display name, if that is not the instance's own name."""
    api_key: str | None = field(default=None, repr=False)
    """Its own key, where the gateway's doesn't serve for it."""
    phone: str | None = None
    profile: str | None = None
    has_been_open: bool = False


async def register_instances(
    connection: Connection,
    vault: Vault,
    provider: str,
    gateway_id: UUID,
    tenant_id: UUID | None,
    listed: Sequence[ListedInstance],
) -> int:
    """Register those that are not registered yet and return how many; once more changes nothing.

    A channel of an instance that is known stays as it is, of any tenant, but for a key that came from this
    list and is another one there now. At most `CHUNK` or so at a time. Raises `UnknownTenant`.
    """
    async with connection.transaction():
        tenant = await tenant_for(connection, tenant_id)
        await connection.execute(sql.lock_gateway, gateway_id)
        new = await _unknown(connection, gateway_id, list({it.instance: it for it in listed}.values()))
        await _insert(connection, vault, provider, gateway_id, tenant, new)
    await _renew_keys(connection, vault, gateway_id, listed)
    return len(new)


async def _unknown(
    connection: Connection, gateway_id: UUID, listed: Sequence[ListedInstance]
) -> list[ListedInstance]:
    names = [it.instance for it in listed]
    await connection.execute(sql.release_instances, gateway_id, names)
    rows = await connection.fetch(sql.find_channels_of_instances, [gateway_id] * len(names), names)
    known = {row["instance"] for row in rows}
    return [it for it in listed if it.instance not in known]


async def _insert(
    connection: Connection,
    vault: Vault,
    provider: str,
    gateway_id: UUID,
    tenant_id: UUID,
    listed: Sequence[ListedInstance],
) -> None:
    ids = [uuid4() for _ in listed]
    keys = [
        None if it.api_key is None else vault.seal(it.api_key, channel_identity(channel_id))
        for it, channel_id in zip(listed, ids, strict=True)
    ]
    shared = tenant_id, gateway_id, provider
    await connection.execute(
        sql.import_notification_channels,
        tenant_id,
        provider,
        ids,
        [it.phone for it in listed],
        [it.profile for it in listed],
    )
    names = [it.name for it in listed]
    hashes = [None if it.api_key is None else hash_token(it.api_key) for it in listed]
    instances = [it.instance for it in listed]
    await connection.execute(sql.import_channels, *shared, ids, instances, names, keys, hashes)
    await connection.execute(sql.import_states, tenant_id, ids, [it.has_been_open for it in listed])


@dataclass(frozen=True, slots=True)
class _KeyRenewal:
    channel_id: UUID
    read: bytes
    """The sealed key as it was read: a key that was changed since is kept."""
    key: bytes | None
    """The new one; None: the list only confirms what is there."""
    hash: bytes


async def _renew_keys(
    connection: Connection, vault: Vault, gateway_id: UUID, listed: Sequence[ListedInstance]
) -> None:
    """Replace the keys of known channels by those listed now, where the present one was listed before."""
    keys = {it.instance: it.api_key for it in listed if it.api_key is not None}
    if not keys:
        return
    rows = await connection.fetch(sql.listed_keys, gateway_id, list(keys))
    found = [it for row in rows if (it := _renewal(vault, row, keys[row["instance"]])) is not None]
    if not found:
        return
    columns = [[it.channel_id for it in found], [it.read for it in found], [it.key for it in found]]
    async with connection.transaction():
        await connection.execute(sql.note_listed_keys, *columns, [it.hash for it in found])
        await connection.execute(sql.probe_channels, [it.channel_id for it in found if it.key is not None])


def _renewal(vault: Vault, row: Record, listed: str) -> _KeyRenewal | None:
    digest, identity = hash_token(listed), channel_identity(row["channel_id"])
    if row["api_key"] is None or row["listed_key_hash"] == digest:
        return None
    try:
        known = hash_token(vault.open(row["api_key"], identity).decode())
    except VaultError:
        return None  # unreadable: it may be an operator's
    if known == digest:
        return _KeyRenewal(row["channel_id"], row["api_key"], None, digest)
    if known != row["listed_key_hash"]:
        return None  # an operator gave it
    return _KeyRenewal(row["channel_id"], row["api_key"], vault.seal(listed, identity), digest)


class OwnKey(NamedTuple):
    """A channel's own key, sealed."""

    channel_id: UUID
    instance: str
    sealed: bytes


class KeyReplacement(NamedTuple):
    """What takes the place of a channel's own key; None: the gateway's key serves."""

    own: OwnKey
    sealed: bytes | None = None
    listed: str | None = None
    """The new key, where the gateway's list has it."""


async def own_keys(connection: Connection, gateway_id: UUID) -> list[OwnKey]:
    """Return the keys that channels of a gateway have of their own, without those that tenants gave."""
    return [OwnKey(**row) for row in await connection.fetch(sql.own_keys, gateway_id)]


async def replace_keys(connection: Connection, replacements: Sequence[KeyReplacement]) -> int:
    """Replace keys that are still as they were read and make these channels due; return how many."""
    ids = [it.own.channel_id for it in replacements]
    hashes = [None if it.listed is None else hash_token(it.listed) for it in replacements]
    async with connection.transaction():
        rows = await connection.fetch(
            sql.replace_keys,
            ids,
            [it.own.sealed for it in replacements],
            [it.sealed for it in replacements],
            hashes,
        )
        replaced = [row["channel_id"] for row in rows]
        await connection.execute(sql.probe_channels, replaced)
    return len(replaced)
