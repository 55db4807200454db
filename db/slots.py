"""Rows of the places on gateways where webhooks are addressed to us; asks no gateway."""

from collections.abc import Sequence
from contextlib import suppress
from datetime import datetime
from enum import StrEnum
from typing import NamedTuple
from uuid import UUID

from db.connections import Connection
from db.queries import sql
from db.registry import gateway_identity
from db.tokens import create_gateway_token, hash_token
from db.vault import Vault, VaultError


class SlotState(StrEnum):
    """What became of a place."""

    SET = "set"
    FOREIGN = "foreign"
    FAILED = "failed"
    LOST = "lost"
    """Gone again right after it was mended: somebody or something takes it away."""


class Place(NamedTuple):
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


class Found(NamedTuple):
    """What is to be kept of a place."""

    state: SlotState
    traffic: bool
    foreign_host: str | None = None
    before: bytes | None = None
    mended_at: datetime | None = None
    due_at: datetime | None = None


def slot_identity(channel_id: UUID) -> str:
    """Return what the row that we replaced is sealed for."""
    return f"slot:{channel_id}"


async def webhook_token(connection: Connection, vault: Vault, gateway_id: UUID) -> str:
    """Return the token of the address that we set on channels of a gateway; made anew when it was revoked."""
    async with connection.transaction():
        await connection.execute(sql.lock_gateway, gateway_id)
        sealed = await connection.fetchval(sql.gateway_webhook_token, gateway_id)
        if sealed is not None:
            # A key that is gone costs the token, too: the address is set anew with another one.
            with suppress(VaultError):
                token = vault.open(sealed, gateway_identity(gateway_id)).decode()
                if await connection.fetch(sql.webhook_owners, [hash_token(token)]):
                    return token
        token = await create_gateway_token(connection, gateway_id, revoke_others=False)
        sealed = vault.seal(token, gateway_identity(gateway_id))
        await connection.execute(sql.keep_gateway_webhook_token, gateway_id, sealed)
        return token


async def places_of(connection: Connection, gateway_id: UUID) -> list[Place]:
    """Return the places of all channels of a gateway."""
    return [Place(**row) for row in await connection.fetch(sql.slots_of_gateway, gateway_id)]


async def replaced_places(connection: Connection, gateway_id: UUID | None) -> list[Place]:
    """Return the places, of one gateway or (None) of all, that held another system's address before us."""
    return [Place(**row) for row in await connection.fetch(sql.replaced_slots, gateway_id)]


async def claim_places(
    connection: Connection, now: datetime, again_at: datetime, limit: int
) -> Sequence[Place]:
    """Return places that are to be looked at; unless one is kept the next look is at `again_at`."""
    return [Place(**row) for row in await connection.fetch(sql.claim_slots, now, again_at, limit)]


async def keep_place(connection: Connection, channel_id: UUID, found: Found, now: datetime) -> None:
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


async def forget_place(connection: Connection, channel_id: UUID) -> None:
    """Leave a place alone from now on."""
    await connection.execute(sql.forget_slot, channel_id)
