"""Tells somebody outside, once in a while, that Zapwatch works; its silence is what gives alarm.

A loop that ends takes its process with it. One that hangs leaves something due, which is what is looked at.
"""

import logging
from datetime import UTC, datetime, timedelta

from db.connections import Pool
from db.heartbeat import find_late
from receiver.client import Client, Unanswered
from receiver.rounds import go_round

log = logging.getLogger(__name__)


async def beat(pool: Pool, client: Client, url: str) -> None:
    """Ask the address once, unless something waits that should not."""
    async with pool.acquire() as connection:
        late = await find_late(connection, datetime.now(UTC))
    if late:
        log.error("no heartbeat is sent: %s wait for over a minute", ", ".join(late))
        return
    try:
        reply = await client.get(url)
    except Unanswered as reason:
        log.warning("the heartbeat's address gave no answer: %s", reason)
        return
    if reply.status >= 300:
        log.warning("the heartbeat's address answered HTTP %d", reply.status)


async def run(pool: Pool, client: Client, url: str, every: timedelta) -> None:
    """Beat for ever."""

    async def once() -> bool:
        await beat(pool, client, url)
        return False

    await go_round("heartbeats", once, every)
