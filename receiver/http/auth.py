"""Authenticates operators by their bearer token, and webhooks by the token in their address.

Tokens are compared as SHA-256 and never stored, logged or put into an error.
"""

import hmac
import logging
import time
from collections import Counter
from collections.abc import Callable, Sequence
from datetime import timedelta
from functools import partial
from typing import Final
from uuid import UUID

from db.connection.dataloader import DataLoader
from db.connection.invalidation import notify
from db.connection.retry import TRANSIENT, persist
from db.connection.types import Connection, Pool
from db.reads.tokens import (
    ChannelRef,
    Operator,
    WebhookOwner,
    find_channels_of_instances,
    find_operators,
    find_webhook_owners,
)
from db.registry.tokens import create_first_operator_token, hash_token
from receiver.http.cache import Cache, Invalidations
from receiver.http.problems import Unauthorized
from receiver.settings import Settings

# How long a process that missed the notice may still accept a revoked token or a moved channel.
KNOWN_FOR: Final = timedelta(seconds=30)
# About 400 bytes each.
KNOWN_AT_MOST: Final = 200_000
log = logging.getLogger(__name__)


async def require_operator(authorization: str, tokens: "Tokens", settings: Settings) -> Operator:
    """Return the operator that the value of an Authorization header names; raises `Unauthorized`."""
    token = _bearer(authorization)
    digest = hash_token(token)
    if settings.operator_token is not None and hmac.compare_digest(
        digest, hash_token(settings.operator_token)
    ):
        return Operator(name="settings")
    operator = await tokens.operator(digest)
    if operator is None:
        raise Unauthorized
    return operator


async def first_token(connection: Connection, settings: Settings) -> str | None:
    """Return the operator's token made on the first start, to be printed once; later None."""
    if settings.operator_token is not None:
        return None
    return await create_first_operator_token(connection)


class Tokens:
    """Finds the owners of webhook tokens, cached for a while; a token without an owner is not cached.

    The cache holds only hashes of tokens.
    """

    def __init__(
        self,
        pool: Pool,
        *,
        known_for: timedelta = KNOWN_FOR,
        known_at_most: int = KNOWN_AT_MOST,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._pool = pool
        self._clock = clock
        self._invalidations = Invalidations(known_for, clock)
        limits = known_for, known_at_most, clock, self._invalidations
        self._owners: Cache[bytes, WebhookOwner] = Cache(
            *limits, lambda _, owner: (owner.gateway_id, owner.channel_id)
        )
        self._channels: Cache[tuple[UUID, str], ChannelRef] = Cache(
            *limits, lambda key, channel: (key[0], channel.channel_id)
        )
        self._owner_lookups = DataLoader(self._find_owners)
        self._channel_lookups = DataLoader(self._find_channels)
        self._operator_lookups = DataLoader(partial(find_operators, pool))
        self._own_notices: Counter[UUID] = Counter()
        """Notices that this process has sent and not received yet."""

    async def resolve(self, provider: str, token: str) -> WebhookOwner | None:
        """Return the token's owner; None if there is none, or only one of another provider.

        Retries while the database is away: the caller sets the timeout.
        """
        owner = self.known(provider, token)
        if owner is None:
            owner = await persist(partial(self._owner_lookups.find, hash_token(token)))
        return owner if owner is not None and owner.provider == provider else None

    def known(self, provider: str, token: str) -> WebhookOwner | None:
        """Return what `resolve` would, from the cache alone."""
        owner = self._owners.get(hash_token(token))
        return owner if owner is not None and owner.provider == provider else None

    async def channel_of(self, gateway_id: UUID, instance: str) -> ChannelRef | None:
        """Return the channel of a gateway's instance, or None; retries as `resolve` does."""
        channel = self.known_channel_of(gateway_id, instance)
        # PostgreSQL can't hold these, so no instance has them.
        if channel is None and "\0" not in instance and _encodable(instance):
            channel = await persist(partial(self._channel_lookups.find, (gateway_id, instance)))
        return channel

    def known_channel_of(self, gateway_id: UUID, instance: str) -> ChannelRef | None:
        """Return what `channel_of` would, from the cache alone."""
        return self._channels.get((gateway_id, instance))

    async def operator(self, digest: bytes) -> Operator | None:
        """Return the operator of a token; never cached, so that a revoked one ends at once."""
        return await self._operator_lookups.find(digest)

    async def _find_owners(self, digests: Sequence[bytes]) -> dict[bytes, WebhookOwner]:
        began_at = self._clock()
        found = await find_webhook_owners(self._pool, digests)
        self._owners.put(found, began_at)
        return found

    async def _find_channels(self, keys: Sequence[tuple[UUID, str]]) -> dict[tuple[UUID, str], ChannelRef]:
        began_at = self._clock()
        found = await find_channels_of_instances(self._pool, keys)
        self._channels.put(found, began_at)
        return found

    async def forget_everywhere(self, identity: UUID) -> None:
        """Forget a channel or a gateway in all processes on the database, once its change is committed."""
        self.forget(identity)
        self._own_notices[identity] += 1
        is_sent = False
        try:
            await notify(self._pool, identity)
            is_sent = True
        except TRANSIENT as error:
            # The change holds; other processes see it when their entries have expired.
            log.warning("other processes were not notified to forget %s: %r", identity, error)
        finally:
            if not is_sent:
                # A notice of another process may have been counted as this one.
                del self._own_notices[identity]
                self.forget(identity)

    def on_notice(self, identity: UUID) -> None:
        """Forget a channel or a gateway that another process has changed.

        A process forgets its own changes when it sends the notice. Of two notices about one identity it
        ignores the first, of any sender, and follows the second.
        """
        outstanding = self._own_notices.pop(identity, 0)
        if not outstanding:
            self.forget(identity)
        elif outstanding > 1:
            self._own_notices[identity] = outstanding - 1

    def forget(self, identity: UUID) -> None:
        """Forget a channel or a gateway in this process, so that a change holds at once."""
        self._invalidations.add(identity)

    def forget_all(self) -> None:
        """Forget everything: notices may have been missed, this process's own included."""
        self._invalidations.add_all()
        self._own_notices.clear()


def _encodable(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _bearer(authorization: str) -> str:
    scheme, _, token = authorization.partition(" ")
    if scheme.lower() != "bearer" or not token.strip():
        raise Unauthorized
    return token.strip()
