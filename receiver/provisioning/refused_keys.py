"""Finds channels whose stored key their gateway refuses, and replaces it by one that works. Sets no state."""

import asyncio
from collections.abc import Sequence
from typing import Final, NamedTuple
from uuid import UUID

from db.connection.types import Pool
from db.registry.channels import channel_identity
from db.registry.imports import KeyReplacement, ListedInstance, OwnKey, own_keys, replace_keys
from db.vault import Vault, VaultError
from receiver.outbound.client import Client, Unanswered
from receiver.providers import MANAGED, Managed
from statemachine.model import Trigger

AT_ONCE: Final = 20
"""Questions to one gateway at the same time."""
ACCEPTED: Final = frozenset(Trigger) - {Trigger.UNAUTHORIZED, Trigger.UNREACHABLE, Trigger.NOT_LOADED}
"""Answers about the session: the gateway took the key."""
CURE: Final = "Import again with replace_keys: true to replace the refused keys by the one that works."


class KeyCheck(NamedTuple):
    """How many channels of a gateway have an own key that it refuses now, and of how many it was replaced."""

    refused: int = 0
    replaced: int = 0


class ListedGateway(NamedTuple):
    """A gateway and the key that has just listed its instances."""

    id: UUID
    provider: str
    base_url: str
    key: str


async def check_keys(
    pool: Pool,
    vault: Vault,
    client: Client,
    gateway: ListedGateway,
    listed: Sequence[ListedInstance],
    replace: bool,
) -> KeyCheck:
    """Ask with each channel's own key, and replace those that are refused if wanted.

    A key is refused only by an answer that says so; it is replaced only by one that the gateway accepts for
    the same instance. Keys that tenants gave are theirs to correct.
    """
    dialect = MANAGED[gateway.provider]
    working = {it.instance: it.api_key for it in listed if it.api_key is not None}
    async with pool.acquire() as connection:
        keys = await own_keys(connection, gateway.id)
    slots = asyncio.Semaphore(AT_ONCE)

    async def refused(own: OwnKey) -> KeyReplacement | None:
        key = gateway.key if dialect.one_key_for_all else working.get(own.instance)
        async with slots:
            return await _replacement(vault, client, dialect, gateway.base_url, own, key)

    found = [it for it in await asyncio.gather(*map(refused, keys)) if it is not None]
    if not found or not replace:
        return KeyCheck(len(found))
    async with pool.acquire() as connection:
        return KeyCheck(len(found), await replace_keys(connection, found))


async def _replacement(
    vault: Vault, client: Client, dialect: Managed, base_url: str, own: OwnKey, key: str | None
) -> KeyReplacement | None:
    """Return the replacement of a key that is refused now; None: it isn't, or no other is accepted."""
    try:
        present = vault.open(own.sealed, channel_identity(own.channel_id)).decode()
    except VaultError:
        return None  # unreadable: it may work
    if key is None or key == present:
        return None
    if await _answer(client, dialect, base_url, own.instance, present) is not Trigger.UNAUTHORIZED:
        return None
    if await _answer(client, dialect, base_url, own.instance, key) not in ACCEPTED:
        return None
    # Where one key serves all, the gateway has it: the channel needs none of its own.
    sealed = None if dialect.one_key_for_all else vault.seal(key, channel_identity(own.channel_id))
    return KeyReplacement(own, sealed, None if sealed is None else key)


async def _answer(client: Client, dialect: Managed, base_url: str, instance: str, key: str) -> Trigger | None:
    question = dialect.ask(instance, key)
    try:
        reply = await client.get(base_url + question.path, question.headers)
    except Unanswered:
        return None
    return dialect.read(reply.status, reply.body).trigger
