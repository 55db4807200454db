"""Tokens of operators, channels and gateways: made here, shown once, kept only as SHA-256."""

import secrets
from hashlib import sha256
from typing import Final
from uuid import UUID

from db.connection.types import Connection
from db.queries import sql

PREFIX: Final = "zw_"


def make_token() -> str:
    """Return a new token of 256 random bits."""
    return PREFIX + secrets.token_urlsafe(32)


def hash_token(token: str) -> bytes:
    """Return what is kept of a token; a plain digest suffices because tokens are random, not chosen."""
    return sha256(token.encode("utf-8", "surrogatepass")).digest()


async def create_operator_token(
    connection: Connection, name: str | None = None, tenant_id: UUID | None = None
) -> str:
    """Return a new operator's token, for one tenant or (None) for all."""
    token = make_token()
    await connection.execute(sql.insert_token, hash_token(token), "operator", tenant_id, None, None, name)
    return token


async def create_first_operator_token(connection: Connection) -> str | None:
    """Return a new operator's token if there never was one; replicas that start at once agree."""
    async with connection.transaction():
        await connection.execute(sql.lock_first_token)
        if await connection.fetchval(sql.operator_token_exists):
            return None
        return await create_operator_token(connection, "first")


async def create_channel_token(connection: Connection, channel_id: UUID, *, revoke_others: bool) -> str:
    """Return a new webhook token of a channel; the old ones go on working unless they are revoked."""
    return await _create_webhook_token(connection, "channel", channel_id, None, revoke_others)


async def create_gateway_token(connection: Connection, gateway_id: UUID, *, revoke_others: bool) -> str:
    """Return a new webhook token of a gateway; the old ones go on working unless they are revoked."""
    return await _create_webhook_token(connection, "gateway", None, gateway_id, revoke_others)


async def _create_webhook_token(
    connection: Connection, kind: str, channel_id: UUID | None, gateway_id: UUID | None, revoke_others: bool
) -> str:
    token = make_token()
    async with connection.transaction():
        if revoke_others:
            await connection.execute(sql.revoke_webhook_tokens, channel_id, gateway_id)
        await connection.execute(
            sql.insert_token, hash_token(token), kind, None, channel_id, gateway_id, None
        )
    return token


async def provider_of(connection: Connection, channel_id: UUID | None, gateway_id: UUID | None) -> str | None:
    """Return the provider of a channel or a gateway, None when there is none."""
    provider: str | None = await connection.fetchval(sql.provider_of, channel_id, gateway_id)
    return provider
