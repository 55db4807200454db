"""Reads each gateway's version from `GET /` at first contact, and daily after; never in a webhook's path.

Evolution asks web.whatsapp.com on each such request (2.3.0 and later), so it is no liveness check:
docs/provider-facts.md#evolution-version.
"""

import asyncio
import logging
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Final

from db.connection.retry import passes
from db.connection.types import Pool
from db.reconcile.claims import DueGateway, claim_versions, settle_version
from receiver.http.auth import Tokens
from receiver.jobs.loop import Loop
from receiver.outbound.client import Client, Unanswered
from receiver.providers import PROVIDERS

EVERY: Final = timedelta(seconds=1)
AGAIN: Final = timedelta(minutes=1)
"""Pause after a gateway returned no version."""
DAILY: Final = timedelta(days=1)
"""Gateways are upgraded, and 2.4.0 gives 408 another meaning."""
AT_ONCE: Final = 20

log = logging.getLogger(__name__)


async def read_versions(pool: Pool, client: Client, tokens: Tokens) -> bool:
    """Read the versions that are due, concurrently; return whether more may be due."""
    now = datetime.now(UTC)
    async with pool.acquire() as connection:
        due = await claim_versions(connection, list(PROVIDERS), now, now + AGAIN, AT_ONCE)
    await asyncio.gather(*(_try_version(pool, client, tokens, gateway) for gateway in due))
    return len(due) == AT_ONCE


async def _try_version(pool: Pool, client: Client, tokens: Tokens, gateway: DueGateway) -> None:
    try:
        await _read_version(pool, client, tokens, gateway)
    except Exception as error:
        if passes(error):
            raise
        # An unforeseen answer of one gateway must not end the reads of the others.
        log.exception("the version of gateway %s could not be read", gateway.id)


async def _read_version(pool: Pool, client: Client, tokens: Tokens, gateway: DueGateway) -> None:
    provider = PROVIDERS[gateway.provider]
    version, again_at = None, None
    if provider.has_version:
        version = await _ask(client, gateway)
        if version is None:
            return
        again_at = datetime.now(UTC) + DAILY
    async with pool.acquire() as connection:
        is_another = await settle_version(connection, gateway.id, version, again_at)
    if is_another:
        await tokens.forget_everywhere(gateway.id)


async def _ask(client: Client, gateway: DueGateway) -> str | None:
    try:
        reply = await client.get(f"{gateway.base_url}/")
    except Unanswered as reason:
        log.info("gateway %s returned no version: %s", gateway.id, reason)
        return None
    return PROVIDERS[gateway.provider].read_version(reply.body) if reply.status == 200 else None


def loop(pool: Pool, client: Client, tokens: Tokens) -> Loop:
    """Return the loop that reads versions."""
    return Loop("gateway_versions", partial(read_versions, pool, client, tokens), EVERY)
