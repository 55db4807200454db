"""Who is asking: operators by their bearer token, gateways and channels by the token in a webhook's address.

Tokens are compared as SHA-256 and never kept, logged or put into an error.
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

# How long a revoked token or a moved channel may still be known to a process that missed the notice of it.
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
    """Return the operator's token made on the very first start, to be printed once; None ever after."""
    if settings.operator_token is not None:
        return None
    return await create_first_operator_token(connection)


class Tokens:
    """Finds what webhook tokens belong to, remembering what it found for a while and never what it did not.

    Only the hash of a token is remembered.
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
        self._targets: Cache[bytes, WebhookOwner] = Cache(
            *limits, lambda _, target: (target.gateway_id, target.channel_id)
        )
        self._channels: Cache[tuple[UUID, str], ChannelRef] = Cache(
            *limits, lambda key, channel: (key[0], channel.channel_id)
        )
        self._target_lookups = DataLoader(self._find_owners)
        self._channel_lookups = DataLoader(self._find_channels)
        self._operator_lookups = DataLoader(partial(find_operators, pool))
        self._own_notices: Counter[UUID] = Counter()
        """Notices that this process has sent and not received yet."""

    async def resolve(self, provider: str, token: str) -> WebhookOwner | None:
        """Return what the token belongs to; None when nobody has it, or a channel of another provider has.

        Asks again as long as the database is away: it is for the caller to give up.
        """
        target = self.known(provider, token)
        if target is None:
            target = await persist(partial(self._target_lookups.find, hash_token(token)))
        return target if target is not None and target.provider == provider else None

    def known(self, provider: str, token: str) -> WebhookOwner | None:
        """Return what `resolve` would, as far as it is remembered."""
        target = self._targets.get(hash_token(token))
        return target if target is not None and target.provider == provider else None

    async def channel_of(self, gateway_id: UUID, instance: str) -> ChannelRef | None:
        """Return the channel that an instance of a gateway is, or None; asks again as `resolve` does."""
        channel = self.known_channel_of(gateway_id, instance)
        # PostgreSQL can't hold these, so no instance has them.
        if channel is None and "\0" not in instance and _encodable(instance):
            channel = await persist(partial(self._channel_lookups.find, (gateway_id, instance)))
        return channel

    def known_channel_of(self, gateway_id: UUID, instance: str) -> ChannelRef | None:
        """Return what `channel_of` would, as far as it is remembered."""
        return self._channels.get((gateway_id, instance))

    async def operator(self, digest: bytes) -> Operator | None:
        """Return whose token this is; never remembered, so that a revoked one ends at once."""
        return await self._operator_lookups.find(digest)

    async def _find_owners(self, digests: Sequence[bytes]) -> dict[bytes, WebhookOwner]:
        began_at = self._clock()
        found = await find_webhook_owners(self._pool, digests)
        self._targets.put(found, began_at)
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
            # The change holds; the others hear of it when they have forgotten by themselves.
            log.warning("other processes were not told to forget %s: %r", identity, error)
        finally:
            if not is_sent:
                # A notice of another process may have been taken for this one.
                del self._own_notices[identity]
                self.forget(identity)

    def on_notice(self, identity: UUID) -> None:
        """Forget a channel or a gateway that another process has changed.

        What this process has changed it forgot when it sent the notice. Of two notices about one identity it
        passes over the first, whoever sent it, and obeys the second.
        """
        outstanding = self._own_notices.pop(identity, 0)
        if not outstanding:
            self.forget(identity)
        elif outstanding > 1:
            self._own_notices[identity] = outstanding - 1

    def forget(self, identity: UUID) -> None:
        """Forget all that was found of a channel or of a gateway, so that a change holds at once here."""
        self._invalidations.add(identity)

    def forget_all(self) -> None:
        """Forget all that was found; notices may have been missed, this process's own included."""
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
