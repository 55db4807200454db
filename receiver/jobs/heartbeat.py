"""Calls an external monitor regularly while Zapwatch works; a missing call is the alarm.

A loop that hangs or fails leaves work due, which is what is checked.
"""

import logging
from datetime import UTC, datetime, timedelta
from functools import partial

from db.connection.types import Pool
from db.reconcile.heartbeat import find_late
from receiver.jobs.loop import Loop
from receiver.outbound.client import Client, Unanswered

log = logging.getLogger(__name__)


async def beat(pool: Pool, client: Client, url: str) -> bool:
    """Ask the address once, unless something waits that should not; the next time is after a pause."""
    async with pool.acquire() as connection:
        late = await find_late(connection, datetime.now(UTC))
    if late:
        log.error("no heartbeat is sent; late or failing: %s", ", ".join(late))
        return False
    try:
        reply = await client.get(url)
    except Unanswered as reason:
        log.warning("the heartbeat's address gave no answer: %s", reason)
        return False
    if reply.status >= 300:
        log.warning("the heartbeat's address answered HTTP %d", reply.status)
    return False


def loop(pool: Pool, client: Client, url: str, every: timedelta) -> Loop:
    """Return the loop that beats."""
    return Loop("heartbeat", partial(beat, pool, client, url), every)
