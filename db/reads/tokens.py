"""Finds the owners of tokens by their hashes, and channels by gateway and instance; reads only."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal, NamedTuple
from uuid import UUID

from db.codec.channel import clock_of
from db.connection.types import Pool
from db.queries import sql
from statemachine.clock import Clock

LOOKUP_SECONDS: Final = 2.0
"""How long a lookup may take: a connection whose server is silently gone must leave time for another."""


@dataclass(frozen=True, slots=True)
class Operator:
    """A caller of the ops API, with access to one tenant or (None) to all."""

    tenant_id: UUID | None = None
    name: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class WebhookOwner:
    """The owner of a webhook token; with a gateway's the body names the instance, and so the channel."""

    kind: Literal["channel", "gateway"]
    token_hash: bytes
    tenant_id: UUID | None
    channel_id: UUID | None
    gateway_id: UUID
    provider: str
    instance: str | None
    version: str | None
    clock: Clock
    secret_hash: bytes | None = None
    """Of the secret that webhooks to this token carry in a header; None: they carry none."""


class ChannelRef(NamedTuple):
    """A channel and its tenant."""

    channel_id: UUID
    tenant_id: UUID


async def find_operators(pool: Pool, digests: Sequence[bytes]) -> dict[bytes, Operator]:
    """Return the operators by the hashes of their tokens; unknown and revoked ones are left out."""
    rows = await pool.fetch(sql.find_operators, digests)
    return {row["hash"]: Operator(row["tenant_id"], row["name"]) for row in rows}


async def find_webhook_owners(pool: Pool, digests: Sequence[bytes]) -> dict[bytes, WebhookOwner]:
    """Return the owners of webhook tokens, by their hashes; unknown and revoked ones are left out."""
    rows = await pool.fetch(sql.find_webhook_targets, digests, timeout=LOOKUP_SECONDS)
    return {row["token_hash"]: WebhookOwner(**{**row, "clock": clock_of(row["clock"])}) for row in rows}


async def find_channels_of_instances(
    pool: Pool, keys: Sequence[tuple[UUID, str]]
) -> dict[tuple[UUID, str], ChannelRef]:
    """Return the channels by gateway and instance; unregistered ones are left out."""
    gateways, instances = zip(*keys, strict=True)
    rows = await pool.fetch(sql.find_channels_of_instances, gateways, instances, timeout=LOOKUP_SECONDS)
    return {
        (row["gateway_id"], row["instance"]): ChannelRef(row["channel_id"], row["tenant_id"]) for row in rows
    }
