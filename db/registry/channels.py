"""What is watched: gateways and channels, made, changed and removed by operators.

Writes registrations only. A channel's state, its events and its incidents are written by `db/ingest/apply.py`
alone: here a change that affects them makes the channel due, and the caller has it applied at once.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Self
from uuid import UUID, uuid4

from db.connection.json_columns import dump, load, merge_patch
from db.connection.types import Connection, Record
from db.queries import sql
from db.registry.gateways import Duplicate, gateway_at
from db.registry.tenants import tenant_for
from db.registry.tokens import create_channel_token
from db.vault import Vault


class PutBy(StrEnum):
    """Whose token registered a channel, or gave its address or key; stored and public."""

    OPERATOR = "operator"
    TENANT = "tenant"

    @classmethod
    def of(cls, reader: UUID | None) -> Self:
        """Return it for the tenant that a token is limited to; None: an operator of all tenants."""
        return cls("operator" if reader is None else "tenant")


class UnknownChannel(Exception):
    """There is no such channel, or not for this tenant."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ChannelSpec:
    """A channel to register; the address None is the provider's own, the key None none."""

    provider: str
    instance: str
    api_url: str | None = None
    api_key: str | None = field(default=None, repr=False)
    name: str | None = None
    tenant_id: UUID | None = None
    metadata: Mapping[str, object] = field(default_factory=dict)
    put_by: PutBy = PutBy.OPERATOR


@dataclass(frozen=True, slots=True, kw_only=True)
class ChannelUpdate:
    """What to change of a channel; a field not named in `given` stays as it is."""

    given: frozenset[str]
    name: str | None = None
    api_url: str | None = None
    api_key: str | None = field(default=None, repr=False)
    metadata: Mapping[str, object] = field(default_factory=dict)


def channel_identity(channel_id: UUID) -> str:
    """Return the identity that a channel's key is sealed for."""
    return f"channel:{channel_id}"


async def register_channel(connection: Connection, vault: Vault, new: ChannelSpec) -> tuple[UUID, str]:
    """Return the new channel's id and its webhook token, making tenant and gateway when they are needed.

    Raises `Duplicate`, `UnknownTenant`, `AddressError`. Holds the gateway's row until it is done.
    """
    async with connection.transaction():
        tenant_id = await tenant_for(connection, new.tenant_id)
        gateway = await gateway_at(connection, new.provider, new.api_url)
        await _expect_free(connection, gateway["id"], new.instance)
        channel_id = uuid4()
        key = _sealed(vault, new.api_key, channel_identity(channel_id))
        metadata = dump(merge_patch({}, new.metadata))
        await connection.execute(
            sql.insert_notification_channel, channel_id, tenant_id, new.provider, metadata
        )
        await connection.execute(
            sql.insert_channel,
            channel_id,
            tenant_id,
            gateway["id"],
            new.provider,
            new.instance,
            new.name,
            key,
            new.put_by,
        )
        configured = gateway["base_url"] != "" and (key is not None or gateway["keyed"])
        await connection.execute(sql.insert_state, channel_id, tenant_id, configured)
        return channel_id, await create_channel_token(connection, channel_id, revoke_others=False)


async def change_channel(
    connection: Connection, vault: Vault, channel_id: UUID, change: ChannelUpdate, tenant_id: UUID | None
) -> bool:
    """Change name, address, key and metadata (an RFC 7396 merge patch) of a channel and make it due.

    Returns whether it is on another gateway now. `tenant_id` is the tenant that the token is limited to: the
    address or the key of a tenant makes the channel one that a tenant put there. Raises `UnknownChannel`,
    `Duplicate`, `AddressError`.
    """
    async with connection.transaction():
        channel = await _lock(connection, channel_id, tenant_id)
        gateway_id: UUID = channel["gateway_id"]
        if "api_url" in change.given:
            gateway_id = await _move(connection, channel, change.api_url)
        name = change.name if "name" in change.given else channel["name"]
        await connection.execute(sql.update_channel, channel_id, name, gateway_id)
        keyed: bool = channel["keyed"]
        if "api_key" in change.given:
            keyed = change.api_key is not None
            key = _sealed(vault, change.api_key, channel_identity(channel_id))
            await connection.execute(sql.update_channel_key, channel_id, key)
        if tenant_id is not None and (gateway_id != channel["gateway_id"] or "api_key" in change.given):
            await connection.execute(sql.put_by_tenant, channel_id)
        if change.metadata:
            await _merge_metadata(connection, channel_id, change.metadata)
        if change.given & {"api_url", "api_key"}:
            await _make_due(connection, channel, gateway_id, keyed=keyed, paused=bool(channel["paused_at"]))
        return bool(gateway_id != channel["gateway_id"])


async def pause_channel(connection: Connection, channel_id: UUID, tenant_id: UUID | None) -> None:
    """Stop a channel's probes and incidents until it is resumed; raises `UnknownChannel`."""
    async with connection.transaction():
        channel = await _lock(connection, channel_id, tenant_id)
        await connection.execute(sql.pause_channel, channel_id)
        await _make_due(connection, channel, channel["gateway_id"], keyed=channel["keyed"], paused=True)


async def resume_channel(connection: Connection, channel_id: UUID, tenant_id: UUID | None) -> None:
    """End a channel's pause; raises `UnknownChannel`."""
    async with connection.transaction():
        channel = await _lock(connection, channel_id, tenant_id)
        await connection.execute(sql.resume_channel, channel_id)
        await _make_due(connection, channel, channel["gateway_id"], keyed=channel["keyed"], paused=False)


async def remove_channel(connection: Connection, channel_id: UUID, tenant_id: UUID | None) -> None:
    """Delete a channel softly: its history stays, its instance is free, its webhook tokens end."""
    async with connection.transaction():
        await _lock(connection, channel_id, tenant_id)
        await connection.execute(sql.delete_notification_channel, channel_id)
        await connection.execute(sql.remove_channel, channel_id)
        await connection.execute(sql.revoke_webhook_tokens, channel_id, None)


def _sealed(vault: Vault, key: str | None, identity: str) -> bytes | None:
    return None if key is None else vault.seal(key, identity)


async def _expect_free(connection: Connection, gateway_id: UUID, instance: str) -> None:
    await connection.execute(sql.release_instances, gateway_id, [instance])
    taken = await connection.fetchrow(sql.find_channels_of_instances, [gateway_id], [instance])
    if taken is not None:
        raise Duplicate(taken["channel_id"], taken["tenant_id"])


async def _lock(connection: Connection, channel_id: UUID, tenant_id: UUID | None) -> Record:
    channel = await connection.fetchrow(sql.lock_channel, channel_id, tenant_id)
    if channel is None:
        raise UnknownChannel
    return channel


async def _move(connection: Connection, channel: Record, address: str | None) -> UUID:
    gateway = await gateway_at(connection, channel["provider"], address)
    gateway_id: UUID = gateway["id"]
    if gateway_id != channel["gateway_id"] and channel["instance"] is not None:
        await _expect_free(connection, gateway_id, channel["instance"])
    return gateway_id


async def _make_due(
    connection: Connection, channel: Record, gateway_id: UUID | None, *, keyed: bool, paused: bool
) -> None:
    gateway = await connection.fetchrow(sql.gateway_facts, gateway_id)
    reachable = gateway is not None and gateway["base_url"] != "" and (keyed or gateway["keyed"])
    probed = reachable and channel["instance"] is not None and not paused
    await connection.execute(sql.make_channel_due, channel["channel_id"], probed)


async def _merge_metadata(connection: Connection, channel_id: UUID, patch: Mapping[str, object]) -> None:
    before = load(await connection.fetchval(sql.lock_metadata, channel_id))
    merged = merge_patch(before, patch)
    # Only the patched keys travel: numbers that applications keep beside them don't lose digits on the way.
    changed = {name: merged[name] for name in patch if name in merged}
    removed = [name for name in patch if name not in merged]
    await connection.execute(sql.merge_metadata, channel_id, dump(changed), removed)
