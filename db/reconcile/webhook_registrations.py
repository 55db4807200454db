"""Webhook registrations as rows: our address as set on instances at their gateways; calls no gateway."""

from collections.abc import Sequence
from datetime import datetime
from enum import StrEnum
from secrets import token_urlsafe
from typing import NamedTuple
from uuid import UUID

from db.connection.types import Connection
from db.queries import sql
from db.registry.gateways import gateway_identity
from db.registry.tokens import create_gateway_token, hash_token
from db.vault import Vault, VaultError


class RegistrationState(StrEnum):
    """The state of a webhook registration."""

    SET = "set"
    FOREIGN = "foreign"
    FAILED = "failed"
    LOST = "lost"
    """Gone again right after it was restored: another system removes it."""


class WebhookRegistration(NamedTuple):
    """A channel's webhook registration at its gateway; keys and what was there before are sealed."""

    channel_id: UUID
    gateway_id: UUID
    provider: str
    base_url: str
    instance: str
    channel_key: bytes | None
    gateway_key: bytes | None
    version: str | None
    traffic: bool | None
    before: bytes | None
    mended_at: datetime | None
    checked_at: datetime | None

    @property
    def configured(self) -> bool:
        """Whether there are an address and a key to call the gateway with."""
        return bool(self.base_url) and (self.channel_key or self.gateway_key) is not None


class RegistrationUpdate(NamedTuple):
    """The fields of a webhook registration to write."""

    state: RegistrationState
    traffic: bool
    foreign_host: str | None = None
    before: bytes | None = None
    mended_at: datetime | None = None
    due_at: datetime | None = None


def registration_identity(channel_id: UUID) -> str:
    """Return the identity that the replaced setting is sealed for."""
    return f"slot:{channel_id}"


class WebhookAddress(NamedTuple):
    """The address set on channels of a gateway, by its token; no secret: the gateway sends none."""

    token: str
    secret: str | None


async def our_address(
    connection: Connection, vault: Vault, gateway_id: UUID, with_secret: bool
) -> WebhookAddress:
    """Return our address for channels of a gateway; a revoked or unreadable token or secret is renewed.

    `with_secret`: the gateway can send a secret.
    """
    async with connection.transaction():
        await connection.execute(sql.lock_gateway, gateway_id)
        row = await connection.fetchrow(sql.gateway_webhook_token, gateway_id)
        assert row is not None
        known_token = _opened(vault, row["webhook_token"], gateway_identity(gateway_id))
        known_secret = _opened(vault, row["webhook_secret"], _secret_identity(gateway_id))
        if known_token and not await connection.fetch(sql.webhook_owners, [hash_token(known_token)]):
            known_token = None
        token = known_token or await create_gateway_token(connection, gateway_id, revoke_others=False)
        ours = WebhookAddress(token, known_secret or (token_urlsafe(32) if with_secret else None))
        if ours != (known_token, known_secret):
            await _keep(connection, vault, gateway_id, ours)
        return ours


async def _keep(connection: Connection, vault: Vault, gateway_id: UUID, ours: WebhookAddress) -> None:
    token, secret = vault.seal(ours.token, gateway_identity(gateway_id)), None
    if ours.secret is not None:
        secret = vault.seal(ours.secret, _secret_identity(gateway_id))
        await connection.execute(sql.keep_token_secret, hash_token(ours.token), hash_token(ours.secret))
    await connection.execute(sql.keep_gateway_webhook_token, gateway_id, token, secret)


def _opened(vault: Vault, sealed: bytes | None, identity: str) -> str | None:
    """Return the plaintext; None when there is nothing, or no key opens it."""
    try:
        return None if sealed is None else vault.open(sealed, identity).decode()
    except VaultError:
        return None


def _secret_identity(gateway_id: UUID) -> str:
    return f"webhook_secret:{gateway_id}"


async def registrations_of(connection: Connection, gateway_id: UUID) -> list[WebhookRegistration]:
    """Return the registrations of all channels of a gateway."""
    return [
        WebhookRegistration(**row) for row in await connection.fetch(sql.registrations_of_gateway, gateway_id)
    ]


async def replaced_registrations(
    connection: Connection, gateway_id: UUID | None
) -> list[WebhookRegistration]:
    """Return the registrations, of one gateway or (None) of all, that replaced another system's address."""
    return [
        WebhookRegistration(**row) for row in await connection.fetch(sql.replaced_registrations, gateway_id)
    ]


async def claim_registrations(
    connection: Connection, now: datetime, again_at: datetime, limit: int
) -> Sequence[WebhookRegistration]:
    """Return registrations that are due for a check; unless one is kept the next is at `again_at`."""
    return [
        WebhookRegistration(**row)
        for row in await connection.fetch(sql.claim_registrations, now, again_at, limit)
    ]


async def keep_registration(
    connection: Connection, channel_id: UUID, found: RegistrationUpdate, now: datetime
) -> None:
    """Keep a registration as it was found or set."""
    await connection.execute(
        sql.keep_registration,
        channel_id,
        found.state,
        found.traffic,
        found.foreign_host,
        found.before,
        now,
        found.mended_at,
        found.due_at,
    )


async def forget_registration(connection: Connection, channel_id: UUID) -> None:
    """Forget a registration, so that it is not checked any more."""
    await connection.execute(sql.forget_registration, channel_id)
