"""Rows of the places on gateways where webhooks are addressed to us; asks no gateway."""

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
    """What became of a place."""

    SET = "set"
    FOREIGN = "foreign"
    FAILED = "failed"
    LOST = "lost"
    """Gone again right after it was mended: somebody or something takes it away."""


class WebhookRegistration(NamedTuple):
    """A channel's place for webhooks on its gateway; keys and what was there before are sealed."""

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
        """Whether there is an address and a key to ask with."""
        return bool(self.base_url) and (self.channel_key or self.gateway_key) is not None


class RegistrationUpdate(NamedTuple):
    """What is to be kept of a place."""

    state: RegistrationState
    traffic: bool
    foreign_host: str | None = None
    before: bytes | None = None
    mended_at: datetime | None = None
    due_at: datetime | None = None


def registration_identity(channel_id: UUID) -> str:
    """Return what the row that we replaced is sealed for."""
    return f"slot:{channel_id}"


class WebhookAddress(NamedTuple):
    """What is set on channels of a gateway: an address by its token, and the secret that goes with it."""

    token: str
    secret: str | None


async def our_address(
    connection: Connection, vault: Vault, gateway_id: UUID, with_secret: bool
) -> WebhookAddress:
    """Return what we set on channels of a gateway; what was revoked or no key opens any more is made anew.

    `with_secret`: the gateway can send one, so that it gets one.
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
    """Return what was sealed; None when there is nothing, or no key opens it: then another is made."""
    try:
        return None if sealed is None else vault.open(sealed, identity).decode()
    except VaultError:
        return None


def _secret_identity(gateway_id: UUID) -> str:
    return f"webhook_secret:{gateway_id}"


async def registrations_of(connection: Connection, gateway_id: UUID) -> list[WebhookRegistration]:
    """Return the places of all channels of a gateway."""
    return [WebhookRegistration(**row) for row in await connection.fetch(sql.slots_of_gateway, gateway_id)]


async def replaced_registrations(
    connection: Connection, gateway_id: UUID | None
) -> list[WebhookRegistration]:
    """Return the places, of one gateway or (None) of all, that held another system's address before us."""
    return [WebhookRegistration(**row) for row in await connection.fetch(sql.replaced_slots, gateway_id)]


async def claim_registrations(
    connection: Connection, now: datetime, again_at: datetime, limit: int
) -> Sequence[WebhookRegistration]:
    """Return places that are to be looked at; unless one is kept the next look is at `again_at`."""
    return [
        WebhookRegistration(**row) for row in await connection.fetch(sql.claim_slots, now, again_at, limit)
    ]


async def keep_registration(
    connection: Connection, channel_id: UUID, found: RegistrationUpdate, now: datetime
) -> None:
    """Keep what was found in a place, or put there."""
    await connection.execute(
        sql.keep_slot,
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
    """Leave a place alone from now on."""
    await connection.execute(sql.forget_slot, channel_id)
