"""Reads the end of channels' subscriptions from gateways that have it: at first contact, and daily after.

An expired subscription is only the reason of a loss that a probe finds. The warning of its end is recorded
with it.
"""

import asyncio
import logging
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Final

from db.connection.types import Pool
from db.reconcile.claims import WARNED_BEFORE, ProbeTarget, claim_subscriptions, settle_subscription
from db.vault import Vault
from receiver.jobs.loop import Loop
from receiver.outbound.client import Client, Unanswered
from receiver.outbound.credentials import Unaskable, key_of
from receiver.providers import MANAGED
from receiver.providers.report import Subscription

EVERY: Final = timedelta(seconds=1)
AGAIN: Final = timedelta(hours=1)
"""Pause after a gateway returned no subscription."""
DAILY: Final = timedelta(days=1)
AT_ONCE: Final = 20
WITH_SUBSCRIPTIONS: Final = [name for name, provider in MANAGED.items() if provider.has_subscriptions]
"""The providers whose gateways return subscriptions."""

log = logging.getLogger(__name__)


async def read_subscriptions(pool: Pool, vault: Vault, client: Client) -> bool:
    """Read the subscriptions that are due, concurrently; return whether more may be due."""
    now = datetime.now(UTC)
    async with pool.acquire() as connection:
        due = await claim_subscriptions(connection, WITH_SUBSCRIPTIONS, now, now + AGAIN, AT_ONCE)
    await asyncio.gather(*(_read(pool, vault, client, target) for target in due))
    return len(due) == AT_ONCE


async def _read(pool: Pool, vault: Vault, client: Client, target: ProbeTarget) -> None:
    try:
        subscription = await _ask(vault, client, target)
    except (Unaskable, Unanswered) as reason:
        log.info("the subscription of channel %s was not returned: %s", target.channel_id, reason)
        return
    except Exception:
        # An unforeseen answer of one gateway must not end the reads of the others.
        log.exception("the subscription of channel %s could not be read", target.channel_id)
        return
    if subscription is not None:
        now = datetime.now(UTC)
        again_at = _next(now, subscription.expires_at)
        async with pool.acquire() as connection:
            await settle_subscription(connection, target.channel_id, *subscription, again_at, now)


def _next(now: datetime, expires_at: datetime | None) -> datetime:
    """Return when to ask again: daily, and at each time of a warning, in case it was renewed."""
    warned = [] if expires_at is None else [timedelta(days=days) for days in WARNED_BEFORE]
    turns = (expires_at - before for before in warned if expires_at and expires_at - now > before)
    return min([now + DAILY, *turns])


async def _ask(vault: Vault, client: Client, target: ProbeTarget) -> Subscription | None:
    if target.instance is None:
        raise Unaskable("it names no instance")
    provider = MANAGED[target.provider]
    question = provider.ask_webhooks(target.instance, key_of(vault, target))
    if question is None:
        return None
    reply = await client.get(target.base_url + question.path, question.headers)
    return provider.read_subscription(reply.status, reply.body)


def loop(pool: Pool, vault: Vault, client: Client) -> Loop:
    """Return the loop that reads subscriptions."""
    return Loop("subscriptions", partial(read_subscriptions, pool, vault, client), EVERY)
