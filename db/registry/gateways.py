"""Gateways, registered by operators or with their channels; calls none."""

from typing import Final
from uuid import UUID

from db.connection.types import Connection, Record
from db.queries import sql
from db.registry.address import normalise
from db.registry.tokens import create_gateway_token
from db.vault import Vault


class Duplicate(Exception):
    """It is registered already, as `id` of tenant `tenant_id`."""

    def __init__(self, id: UUID, tenant_id: UUID | None = None) -> None:
        super().__init__(str(id))
        self.id: Final = id
        self.tenant_id: Final = tenant_id


def gateway_identity(gateway_id: UUID) -> str:
    """Return the identity that a gateway's key is sealed for."""
    return f"gateway:{gateway_id}"


async def register_gateway(
    connection: Connection, vault: Vault, provider: str, base_url: str, api_key: str, name: str | None
) -> tuple[UUID, str]:
    """Return the gateway's id and its webhook token; one that only channels had made is taken over.

    Raises `Duplicate` when it is registered itself already, and `AddressError`.
    """
    async with connection.transaction():
        gateway = await gateway_at(connection, provider, base_url)
        gateway_id: UUID = gateway["id"]
        if await connection.fetchval(sql.gateway_registered, gateway_id):
            raise Duplicate(gateway_id)
        key = vault.seal(api_key, gateway_identity(gateway_id))
        await connection.execute(sql.update_gateway, gateway_id, name, key)
        await connection.execute(sql.probe_gateway_channels, gateway_id)
        return gateway_id, await create_gateway_token(connection, gateway_id, revoke_others=False)


async def ensure_gateway(
    connection: Connection, vault: Vault, provider: str, base_url: str, api_key: str | None
) -> tuple[UUID, str | None]:
    """Return the gateway at an address, made if need be, with this key kept; and its webhook token if new.

    Without a key it keeps what it has. Raises `AddressError`.
    """
    async with connection.transaction():
        gateway = await gateway_at(connection, provider, base_url)
        gateway_id: UUID = gateway["id"]
        is_new = not await connection.fetchval(sql.gateway_registered, gateway_id)
        if api_key is not None:
            await keep_gateway_key(connection, vault, gateway_id, api_key)
        token = await create_gateway_token(connection, gateway_id, revoke_others=False) if is_new else None
        return gateway_id, token


async def keep_gateway_key(connection: Connection, vault: Vault, gateway_id: UUID, api_key: str) -> None:
    """Replace a gateway's key, and make channels due that became configured by it."""
    async with connection.transaction():
        key = vault.seal(api_key, gateway_identity(gateway_id))
        await connection.execute(sql.update_gateway_key, gateway_id, key)
        await connection.execute(sql.probe_gateway_channels, gateway_id)


async def gateway_to_list(
    connection: Connection, vault: Vault, gateway_id: UUID, given: str | None = None
) -> tuple[str, str, str | None] | None:
    """Return provider, address and key (or the one given for it) of a gateway, None when there is none.

    Raises `VaultError`.
    """
    row = await connection.fetchrow(sql.gateway_to_list, gateway_id)
    if row is None:
        return None
    sealed = row["api_key"]
    key = (
        given
        if given is not None or sealed is None
        else vault.open(sealed, gateway_identity(gateway_id)).decode()
    )
    return row["provider"], row["base_url"], key


async def gateway_at(connection: Connection, provider: str, address: str | None) -> Record:
    """Return the row of the gateway at an address, made if need be; raises `AddressError`."""
    row = await connection.fetchrow(sql.upsert_gateway, provider, normalise(provider, address))
    assert row is not None
    return row
